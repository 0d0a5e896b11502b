//! What was in files when they were last read, and when they are read again: the same on both sides.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;

/// A configuration that names files.
pub trait Files: Clone {
    /// What is made of the files.
    type Read;
    /// The age at which they are read again; zero is never.
    fn interval(&self) -> Duration;
    /// When a file was last written that is read again as soon as it changes.
    fn written(&self) -> Option<SystemTime> {
        None
    }
    /// Reads them. `protocols` are offered to the peer, the preferred one first.
    fn read(&self, protocols: &[Vec<u8>]) -> Result<Self::Read>;
}

/// TLS as configured, with what was in the files when they were last read.
pub struct Reloaded<F: Files> {
    pub(super) config: F,
    protocols: Vec<Vec<u8>>,
    held: Mutex<Held<F::Read>>,
}

struct Held<R> {
    read: Arc<R>,
    at: Instant,
    written: Option<SystemTime>,
}

impl<F: Files> Reloaded<F> {
    /// Reads the files. `protocols` are offered to the peer, the preferred one first.
    pub fn load(config: &F, protocols: &[&str]) -> Result<Self> {
        let protocols: Vec<_> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let written = config.written();
        let read = Arc::new(config.read(&protocols)?);
        let held = Mutex::new(Held { read, at: Instant::now(), written });
        Ok(Self { config: config.clone(), protocols, held })
    }

    /// What the next connection uses. Files that cannot be used, such as a certificate whose key is
    /// yet to be written, change nothing.
    pub fn current(&self) -> Arc<F::Read> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = self.config.interval();
        let due = !interval.is_zero() && held.at.elapsed() >= interval;
        let written = self.config.written();
        if due || written != held.written {
            match self.config.read(&self.protocols) {
                Ok(read) => *held = Held { read: Arc::new(read), at: Instant::now(), written },
                Err(error) => tracing::error!(
                    "failed to load TLS cert and key: {error:#}; those read before stay in use"
                ),
            }
        }
        Arc::clone(&held.read)
    }
}
