//! Exponential histograms as Prometheus' native ones.

use std::collections::BTreeMap;

use super::value::{Exponential, coarser};

/// The resolutions that native histograms have.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;
/// What counts as zero if the source does not say; more than 0, by which Prometheus tells a native
/// histogram without observations from a classic one.
const ZERO_THRESHOLD: f64 = 1e-128;

/// A native histogram.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Native {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) positive: Side,
    pub(super) negative: Side,
}

/// The buckets on one side of zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Side {
    /// Runs of buckets: the gap before each, and its length.
    pub(super) spans: Vec<(i32, u32)>,
    /// The difference of each bucket's count to that of the one before.
    pub(super) deltas: Vec<i64>,
}

impl Native {
    /// `None` if native histograms cannot say it: buckets too wide, or counts that Prometheus
    /// would refuse, and the whole scrape with them.
    pub(super) fn of(histogram: &Exponential) -> Option<Self> {
        let schema = histogram.scale.min(*SCHEMAS.end());
        if schema < *SCHEMAS.start() {
            return None;
        }
        let counts = histogram.positive.values().chain(histogram.negative.values());
        let total: u128 = counts.chain([&histogram.zero_count]).map(|c| u128::from(*c)).sum();
        if total != u128::from(histogram.count) || total > i64::MAX as u128 {
            return None;
        }
        let threshold = histogram.zero_threshold;
        Some(Self {
            schema,
            zero_threshold: if threshold > 0.0 { threshold } else { ZERO_THRESHOLD },
            positive: side(&coarser(&histogram.positive, histogram.scale, schema))?,
            negative: side(&coarser(&histogram.negative, histogram.scale, schema))?,
        })
    }
}

/// `None` if an index is out of range.
fn side(buckets: &BTreeMap<i64, u64>) -> Option<Side> {
    let mut side = Side::default();
    // Where the next span would begin without a gap.
    let mut next = 0;
    let mut before = 0;
    for (index, count) in buckets {
        // The same bucket has its upper bound's index here and its lower bound's in OTLP.
        let index = i32::try_from(index + 1).ok()?;
        let gap = index.checked_sub(next)?;
        match side.spans.last_mut() {
            Some((_, length)) if gap == 0 => *length += 1,
            _ => side.spans.push((gap, 1)),
        }
        next = index.checked_add(1)?;
        let count = i64::try_from(*count).ok()?;
        side.deltas.push(count - before);
        before = count;
    }
    Some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(scale: i32, positive: &[(i64, u64)], negative: &[(i64, u64)]) -> Exponential {
        let positive: BTreeMap<_, _> = positive.iter().copied().collect();
        let negative: BTreeMap<_, _> = negative.iter().copied().collect();
        let count = positive.values().chain(negative.values()).sum();
        Exponential { scale, count, positive, negative, ..Default::default() }
    }

    #[test]
    fn buckets_become_spans_and_deltas() {
        let given = histogram(3, &[(-3, 2), (-2, 5), (1, 1), (2, 1)], &[(0, 7)]);
        let native = Native::of(&given).expect("expressible");
        assert_eq!((native.schema, native.zero_threshold), (3, 1e-128));
        let positive = Side { spans: vec![(-2, 2), (2, 2)], deltas: vec![2, 3, -4, 0] };
        assert_eq!(native.positive, positive);
        assert_eq!(native.negative, Side { spans: vec![(1, 1)], deltas: vec![7] });
    }

    #[test]
    fn finer_scales_are_merged_and_coarser_ones_refused() {
        // At scale 10 four buckets are one of scale 8.
        let native = Native::of(&histogram(10, &[(0, 1), (3, 1), (4, 1)], &[])).expect("merged");
        assert_eq!(native.schema, 8);
        assert_eq!(native.positive, Side { spans: vec![(1, 2)], deltas: vec![2, -1] });
        assert_eq!(Native::of(&histogram(-4, &[(0, 1)], &[])).map(|n| n.schema), Some(-4));
        assert_eq!(Native::of(&histogram(-5, &[(0, 1)], &[])), None);
    }

    #[test]
    fn what_prometheus_would_refuse_is_not_shown_to_it() {
        let sound = histogram(0, &[(0, 1)], &[]);
        assert_eq!(Native::of(&Exponential { count: 2, ..sound.clone() }), None);
        assert_eq!(Native::of(&histogram(0, &[(i64::from(i32::MAX), 1)], &[])), None);
        assert_eq!(Native::of(&histogram(0, &[(0, u64::MAX)], &[])), None);
        let threshold = Exponential { zero_threshold: 0.5, ..sound };
        assert_eq!(Native::of(&threshold).map(|n| n.zero_threshold), Some(0.5));
    }
}
