//! The kernel's own tracer as a second witness of an event, independent of every BPF program.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount, umount},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::cgroup::hierarchy;

/// Counts one event of some processes, in a trace buffer of its own.
#[derive(Debug)]
pub struct Witness {
    instance: PathBuf,
    /// Where tracefs is mounted, if this had to do it.
    mounted: Option<TempDir>,
}

impl Witness {
    /// Begins to count `event` (`vmscan/mm_vmscan_memcg_reclaim_begin`) of `pids`.
    pub fn new(event: &str, pids: &[Pid]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (root, mounted) = match hierarchy("tracefs", "") {
            Ok(root) => (root, None),
            Err(_) => {
                let directory = TempDir::with_prefix("fathom-test-tracefs-")?;
                let none = None::<&str>;
                mount(none, directory.path(), Some("tracefs"), MsFlags::empty(), none)
                    .context("mount tracefs")?;
                (directory.path().to_owned(), Some(directory))
            }
        };
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let instance = root.join(format!("instances/fathom-test-{}-{next}", process::id()));
        let witness = Self { instance, mounted };
        fs::create_dir(&witness.instance).context("a tracefs instance")?;
        let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
        fs::write(witness.instance.join("set_event_pid"), pids.join(" "))?;
        fs::write(witness.instance.join("events").join(event).join("enable"), "1")
            .with_context(|| format!("trace {event}"))?;
        Ok(witness)
    }

    /// What the tracer has written of each event, a line each.
    pub fn lines(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.instance.join("trace"))?;
        Ok(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
    }

    /// Events so far; an error if the buffer has lost any.
    pub fn count(&self) -> Result<u64> {
        let mut entries = 0;
        for cpu in self.instance.join("per_cpu").read_dir()? {
            let stats = fs::read_to_string(cpu?.path().join("stats"))?;
            for line in stats.lines() {
                let Some((name, value)) = line.split_once(": ") else { continue };
                match name {
                    "entries" => entries += value.parse::<u64>()?,
                    "overrun" | "commit overrun" | "dropped events" => {
                        ensure!(value == "0", "the trace buffer is too small: {stats}");
                    }
                    _ => {}
                }
            }
        }
        Ok(entries)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let removed = |path: &Path| fs::remove_dir(path);
        if let Err(error) = removed(&self.instance) {
            eprintln!("{} is left behind: {error}", self.instance.display());
        }
        if let Some(directory) = &self.mounted
            && let Err(error) = umount(directory.path())
        {
            eprintln!("{} stays mounted: {error}", directory.path().display());
        }
    }
}
