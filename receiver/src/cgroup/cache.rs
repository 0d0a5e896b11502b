//! A memory of bounded size that forgets what nobody has asked for in a while.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Values by key, each with the time of its last use.
pub struct Cache<K, V> {
    capacity: usize,
    stale_after: Duration,
    entries: HashMap<K, (V, Instant)>,
    evicted: u64,
}

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    /// Of at most `capacity` values, each forgotten `stale_after` its last use.
    pub fn new(capacity: usize, stale_after: Duration) -> Self {
        Self { capacity, stale_after, entries: HashMap::new(), evicted: 0 }
    }

    /// The value, which is used by this.
    pub fn get(&mut self, key: K, now: Instant) -> Option<&mut V> {
        let (value, used) = self.entries.get_mut(&key)?;
        *used = now;
        Some(value)
    }

    /// Keeps a value. If there is no room, the one that was not used for longest has to go.
    pub fn insert(&mut self, key: K, value: V, now: Instant) {
        // Looking through all of them is cheaper than it seems, and happens only to a cache that was
        // configured too small.
        if self.is_full()
            && !self.entries.contains_key(&key)
            && let Some(oldest) = self.entries.iter().min_by_key(|(_, e)| e.1).map(|(key, _)| *key)
        {
            self.entries.remove(&oldest);
            self.evicted += 1;
        }
        self.entries.insert(key, (value, now));
    }

    /// Forgets what was not used for too long.
    pub fn expire(&mut self, now: Instant) {
        let stale_after = self.stale_after;
        self.entries.retain(|_, (_, used)| now.saturating_duration_since(*used) < stale_after);
    }

    /// Whether the next new value pushes one out.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity
    }

    /// How many were pushed out so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut cache = Cache::new(2, Duration::from_secs(10));
        cache.insert('a', 1, at(0));
        cache.insert('b', 2, at(1));
        assert_eq!(cache.get('a', at(2)), Some(&mut 1));
        cache.insert('a', 3, at(3));
        assert_eq!(cache.evicted(), 0, "a known key needs no room");
        cache.insert('c', 4, at(4));
        assert_eq!(cache.get('b', at(4)), None);
        assert_eq!(cache.evicted(), 1);
        assert_eq!(cache.get('a', at(5)), Some(&mut 3));
        cache.expire(at(14));
        assert_eq!(cache.get('c', at(14)), None);
        assert_eq!(cache.get('a', at(14)), Some(&mut 3));
        assert_eq!(cache.evicted(), 1, "what is stale is not evicted");
    }
}
