//! Durations that were counted by octave, in the form that OTLP carries.

use abi::exponential;

use super::groups::Owned;
use crate::metric::Exponential;

/// What all octaves' cells come to.
#[derive(Default)]
pub struct Durations {
    /// Sum in ns.
    pub nanos: u64,
    /// Durations of zero.
    pub zeros: u64,
    /// The first bucket of the first octave in `buckets`.
    first: usize,
    /// By [`exponential::bucket`], the octaves between the first and the last of those that were added: few of them
    /// ever occur.
    buckets: Vec<u64>,
}

/// Buckets of an octave.
const OCTAVE: usize = 1 << exponential::SCALE;

impl Durations {
    /// Adds the cell of an octave: its sum, its zeros and its buckets.
    pub fn add(&mut self, octave: usize, nanos: u64, zeros: u64, buckets: &[u64]) {
        self.nanos += nanos;
        self.zeros += zeros;
        if buckets.iter().all(|count| *count == 0) {
            return;
        }
        let begin = octave * OCTAVE;
        if self.buckets.is_empty() {
            self.first = begin;
        } else if begin < self.first {
            self.buckets.splice(0..0, std::iter::repeat_n(0, self.first - begin));
            self.first = begin;
        }
        let place = begin - self.first;
        self.buckets.resize(self.buckets.len().max(place + OCTAVE), 0);
        self.buckets[place..].iter_mut().zip(buckets).for_each(|(sum, count)| *sum += count);
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
            offset: exponential::OFFSET + (self.first + first) as i32,
            buckets: self.buckets[first..end].to_vec(),
        }
    }
}

/// The durations of each of `kinds` kinds, from cells of [`abi::duration`].
pub fn by_kind(cells: Owned<'_>, kinds: usize, octaves: usize) -> Vec<Durations> {
    let mut all: Vec<_> = (0..kinds).map(|_| Durations::default()).collect();
    for (entry, cell) in cells.iter() {
        let entry = entry as usize;
        let (Some(durations), [nanos, zeros, buckets @ ..]) = (all.get_mut(entry / octaves), cell)
        else {
            continue;
        };
        durations.add(entry % octaves, *nanos, *zeros, buckets);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octaves_may_come_in_any_order() {
        let mut durations = Durations::default();
        assert!(durations.is_empty());
        durations.add(0, 0, 0, &[0; OCTAVE]);
        assert!(durations.is_empty(), "nothing was added");
        for (octave, count) in [(12, 1), (10, 2), (14, 3), (12, 4)] {
            durations.add(octave, 5, 0, &[0, 0, count, 0, 0, 0, 0, 0]);
        }
        let histogram = durations.histogram();
        assert_eq!(histogram.offset, exponential::OFFSET + 82);
        let mut expected = [0; 33];
        (expected[0], expected[16], expected[32]) = (2, 5, 3);
        assert_eq!(histogram.buckets, expected);
        assert_eq!((histogram.sum, histogram.zero_count), (20e-9, 0));
    }

    #[test]
    fn zeros_alone_are_a_histogram() {
        let mut durations = Durations::default();
        durations.add(0, 0, 7, &[0; OCTAVE]);
        assert!(!durations.is_empty());
        let histogram = durations.histogram();
        assert_eq!((histogram.zero_count, histogram.buckets.len()), (7, 0));
    }
}
