//! Signals that are read together.

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tracing::error;

use super::{groups::Groups, own::Scraped, signal::AnySignal};
use crate::{ebpf::load::Loaded, metric::Points};

/// Signals with one interval. They know together who lives: an ended group moves into `other` in all of them at
/// once.
pub(super) struct Tier {
    pub(super) signals: Vec<(Box<dyn AnySignal>, Loaded)>,
    pub(super) groups: Groups,
}

impl Tier {
    pub(super) fn new(groups: Groups) -> Self {
        Self { signals: Vec::new(), groups }
    }

    /// Reads the maps of each.
    pub(super) fn read(&mut self, points: &mut Points<'_>, scraped: &Scraped) {
        self.groups.begin();
        for (signal, loaded) in &mut self.signals {
            if let Err(error) = signal.read(loaded, &mut self.groups, points) {
                error!(signal = signal.name(), "cannot read its maps: {error:#}");
                scraped.errors.add(1, &scraped.attributes);
            }
        }
    }

    /// Takes what has happened out of the kernel.
    pub(super) fn events(&mut self, records: &mut Vec<LogRecord>, scraped: &Scraped) {
        for (signal, loaded) in &mut self.signals {
            match signal.events(loaded, &self.groups) {
                Ok(events) => records.extend(events),
                Err(error) => {
                    error!(signal = signal.name(), "cannot read its events: {error:#}");
                    scraped.errors.add(1, &scraped.attributes);
                }
            }
        }
    }
}
