//! Signals that are read together.

use std::time::SystemTime;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tracing::error;

use super::{groups::Groups, own::Scraped, signal::AnySignal};
use crate::{ebpf::load::Loaded, metric::Points};

/// A signal that is read.
pub(super) struct Read {
    pub(super) signal: Box<dyn AnySignal>,
    pub(super) loaded: Loaded,
    /// When every counter was zero.
    pub(super) start: SystemTime,
    /// The share of its events that is counted, if not all are.
    pub(super) rate: Option<f64>,
}

/// Signals with one interval. They know together who lives: an ended group moves into `other` in all of them at
/// once.
pub(super) struct Tier {
    pub(super) signals: Vec<Read>,
    pub(super) groups: Groups,
}

impl Tier {
    pub(super) fn new(groups: Groups) -> Self {
        Self { signals: Vec::new(), groups }
    }

    /// Reads the maps of each.
    pub(super) fn read(&mut self, points: &mut Points<'_>, scraped: &Scraped) {
        self.groups.begin();
        for Read { signal, loaded, start, rate } in &mut self.signals {
            points.count_from(*start);
            points.sampled(*rate);
            self.groups.notes(rate.is_none());
            if let Err(error) = signal.read(loaded, &mut self.groups, points) {
                error!(signal = signal.name(), "cannot read its maps: {error:#}");
                scraped.errors.add(1, &scraped.attributes);
            }
        }
        points.sampled(None);
    }

    /// Takes what has happened out of the kernel.
    pub(super) fn events(&mut self, records: &mut Vec<LogRecord>, scraped: &Scraped) {
        for Read { signal, loaded, .. } in &mut self.signals {
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
