//! Durations that were counted by octave, in the form that OTLP carries.

use abi::exponential;

use crate::metric::Exponential;

/// What all octaves' cells come to.
pub struct Durations {
    /// Sum in ns.
    pub nanos: u64,
    /// Durations of zero.
    pub zeros: u64,
    /// By [`exponential::bucket`].
    buckets: Vec<u64>,
}

impl Default for Durations {
    fn default() -> Self {
        Self { nanos: 0, zeros: 0, buckets: vec![0; OCTAVES * OCTAVE] }
    }
}

/// Buckets of an octave.
const OCTAVE: usize = 1 << exponential::SCALE;
/// Octaves that cover every duration, rounded up.
const OCTAVES: usize = exponential::BUCKETS.div_ceil(OCTAVE);

impl Durations {
    /// Adds the cell of an octave: its sum, its zeros and its buckets.
    pub fn add(&mut self, octave: usize, nanos: u64, zeros: u64, buckets: &[u64]) {
        self.nanos += nanos;
        self.zeros += zeros;
        let all = &mut self.buckets[octave * OCTAVE..];
        all.iter_mut().zip(buckets).for_each(|(sum, count)| *sum += count);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.zeros == 0 && self.buckets.iter().all(|n| *n == 0)
    }

    /// The range of buckets that are not empty.
    pub fn histogram(&self) -> Exponential {
        let first = self.buckets.iter().position(|n| *n > 0).unwrap_or(0);
        let end = self.buckets.iter().rposition(|n| *n > 0).map_or(first, |last| last + 1);
        Exponential {
            scale: exponential::SCALE,
            sum: self.nanos as f64 / 1e9,
            zero_count: self.zeros,
            offset: exponential::OFFSET + first as i32,
            buckets: self.buckets[first..end].to_vec(),
        }
    }
}

/// The durations of each of `kinds` kinds, from cells of [`abi::duration`].
pub fn by_kind(cells: &[(u32, Vec<u64>)], kinds: usize, octaves: usize) -> Vec<Durations> {
    let mut all: Vec<_> = (0..kinds).map(|_| Durations::default()).collect();
    for (entry, cell) in cells {
        let entry = *entry as usize;
        let (Some(durations), [nanos, zeros, buckets @ ..]) =
            (all.get_mut(entry / octaves), cell.as_slice())
        else {
            continue;
        };
        durations.add(entry % octaves, *nanos, *zeros, buckets);
    }
    all
}
