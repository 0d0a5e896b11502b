//! Of records that say the same, the first ones are written, and then a part.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::Sampling;
use crate::telemetry::recent::Owner;

/// Messages that are counted on their own; more than that share, as in zap.
const BUCKETS: usize = 4096;

/// Counts records by level, component and message.
pub(super) struct Sampler {
    config: Sampling,
    start: Instant,
    /// For each bucket the tick that is counted, and the records in it.
    buckets: Mutex<Vec<(u128, u64)>>,
}

impl Sampler {
    pub(super) fn new(config: &Sampling) -> Self {
        let buckets = Mutex::new(vec![(0, 0); BUCKETS]);
        Self { config: config.clone(), start: Instant::now(), buckets }
    }

    /// Whether the next record of this level, component and message is written. What one component says again and
    /// again must not silence another that says the same.
    pub(super) fn takes(&self, level: &str, owner: Option<&Owner>, message: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (level, owner, message).hash(&mut hasher);
        let at = (hasher.finish() % BUCKETS as u64) as usize;
        let Sampling { tick, initial, thereafter, .. } = self.config;
        let now = self.start.elapsed().as_nanos().checked_div(tick.as_nanos());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (tick, count) = &mut buckets[at];
        match now {
            // Without a length, each record has a tick of its own.
            None => return true,
            Some(now) if now != *tick => (*tick, *count) = (now, 0),
            Some(_) => {}
        }
        *count += 1;
        *count <= initial || (*count - initial).checked_rem(thereafter) == Some(0)
    }
}
