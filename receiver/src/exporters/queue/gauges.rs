//! How full the queues are. The SDK never forgets a callback, and a reload opens queues anew: one callback for each gauge
//! shows those that there are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use opentelemetry::{KeyValue, metrics::Meter};
use tokio::sync::Semaphore;

/// The sending queues of all exporters; by default nobody looks.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<Vec<Shown>>>);

/// What is shown of a queue until it is gone.
struct Shown {
    attributes: [KeyValue; 2],
    capacity: usize,
    room: Weak<Semaphore>,
}

impl Queues {
    /// None yet.
    pub fn new(meter: &Meter) -> Self {
        let queues = Self::default();
        queues.observe(
            meter,
            "otelcol_exporter_queue_size",
            "Current size of the sending queue",
            |capacity, free| capacity - free,
        );
        queues.observe(
            meter,
            "otelcol_exporter_queue_capacity",
            "Fixed capacity of the sending queue",
            |capacity, _| capacity,
        );
        queues
    }

    fn observe(
        &self,
        meter: &Meter,
        name: &'static str,
        description: &'static str,
        value: fn(usize, usize) -> usize,
    ) {
        let queues = self.clone();
        meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |gauge| {
                for Shown { attributes, capacity, room } in queues.all().iter() {
                    if let Some(room) = room.upgrade() {
                        gauge
                            .observe(value(*capacity, room.available_permits()) as u64, attributes);
                    }
                }
            })
            .build();
    }

    /// Shows one more, and forgets those that are gone.
    pub(super) fn add(&self, attributes: [KeyValue; 2], capacity: usize, room: &Arc<Semaphore>) {
        let mut all = self.all();
        all.retain(|shown| shown.room.strong_count() > 0);
        all.push(Shown { attributes, capacity, room: Arc::downgrade(room) });
    }

    fn all(&self) -> MutexGuard<'_, Vec<Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{named, testing::context},
        *,
    };
    use crate::batch::Signal;

    #[test]
    fn queues_that_are_gone_are_forgotten() {
        let (cx, metered) = context("x");
        let mut room = Arc::new(Semaphore::new(9));
        for capacity in [7, 8, 9] {
            room = Arc::new(Semaphore::new(capacity));
            cx.queues.add(named(&cx, Signal::Metrics), capacity, &room);
        }
        let taken = Arc::clone(&room).try_acquire_many_owned(4);
        assert_eq!(cx.queues.all().len(), 1, "two are gone");
        assert_eq!(metered.gauge("otelcol_exporter_queue_capacity"), 9);
        assert_eq!(metered.gauge("otelcol_exporter_queue_size"), 4);
        drop((taken, room));
        assert_eq!(metered.gauge("otelcol_exporter_queue_capacity"), 0);
    }
}
