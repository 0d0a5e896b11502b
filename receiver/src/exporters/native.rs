//! Exponential histograms as Prometheus' native ones, for whoever writes them.

use std::collections::BTreeMap;

use super::prometheus::value::{Exponential, coarser};

/// The coarsest and the finest resolution that native histograms have.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// What counts as zero if the source does not say; more than 0, by which Prometheus tells a native
/// histogram without observations from a classic one.
pub const ZERO_THRESHOLD: f64 = 1e-128;

/// Gaps up to this many buckets are filled with empty ones, as in Prometheus' own client: that takes
/// fewer bytes than another span.
const GAP: i32 = 2;

/// A native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    pub schema: i32,
    pub zero_threshold: f64,
    pub positive: Side,
    pub negative: Side,
}

/// The buckets on one side of zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// Runs of buckets: the gap before each, and its length.
    pub spans: Vec<(i32, u32)>,
    /// The difference of each bucket's count to that of the one before.
    pub deltas: Vec<i64>,
}

/// Why a histogram cannot be said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its buckets are wider than the widest there are.
    TooCoarse,
    /// Prometheus would refuse it, and all that comes with it: it contradicts itself, or does not fit.
    Malformed,
}

impl Native {
    /// The same in Prometheus' form.
    pub fn of(histogram: &Exponential) -> Result<Self, Refused> {
        if histogram.scale < *SCHEMAS.start() {
            return Err(Refused::TooCoarse);
        }
        let schema = histogram.scale.min(*SCHEMAS.end());
        let counts = histogram.positive.values().chain(histogram.negative.values());
        let total: u128 = counts.chain([&histogram.zero_count]).map(|c| u128::from(*c)).sum();
        // What is not a number is in no bucket, and then the sum is none either.
        let odd = u128::from(histogram.count).checked_sub(total);
        let complete =
            odd == Some(0) || odd.is_some() && histogram.sum.is_some_and(|sum| sum.is_nan());
        if !complete || histogram.count > i64::MAX as u64 {
            return Err(Refused::Malformed);
        }
        let threshold = histogram.zero_threshold;
        let side =
            |buckets| side(&coarser(buckets, histogram.scale, schema)).ok_or(Refused::Malformed);
        Ok(Self {
            schema,
            zero_threshold: if threshold > 0.0 { threshold } else { ZERO_THRESHOLD },
            positive: side(&histogram.positive)?,
            negative: side(&histogram.negative)?,
        })
    }
}

/// `None` if an index or a count is out of range.
fn side(buckets: &BTreeMap<i64, u64>) -> Option<Side> {
    let mut side = Side::default();
    // Where the next span would begin without a gap.
    let mut next = 0_i32;
    let mut before = 0_i64;
    for (index, count) in buckets {
        // OTLP's bucket 0 begins at 1, that of Prometheus ends there.
        let index = i32::try_from(index + 1).ok()?;
        let gap = index.checked_sub(next)?;
        match side.spans.last_mut() {
            Some((_, length)) if gap <= GAP => {
                for _ in 0..gap {
                    side.deltas.push(-before);
                    before = 0;
                }
                *length += gap.unsigned_abs() + 1;
            }
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
        Exponential { scale, count, positive, negative, sum: Some(1.5), ..Default::default() }
    }

    #[test]
    fn buckets_become_spans_and_deltas() {
        type Case<'a> = (&'a [(i64, u64)], &'a [(i32, u32)], &'a [i64]);
        let cases: [Case<'_>; 8] = [
            (&[], &[], &[]),
            (&[(0, 4), (1, 3), (2, 2), (3, 1)], &[(1, 4)], &[4, -1, -1, -1]),
            (&[(1, 4), (2, 3)], &[(2, 2)], &[4, -1]),
            (&[(-3, 2), (-2, 5)], &[(-2, 2)], &[2, 3]),
            // Gaps of one and of two are filled.
            (&[(0, 3), (2, 4)], &[(1, 3)], &[3, -3, 4]),
            (&[(0, 3), (3, 4)], &[(1, 4)], &[3, -3, 0, 4]),
            // A larger one is a span.
            (&[(0, 3), (4, 4)], &[(1, 1), (3, 1)], &[3, 1]),
            (&[(-7, 3), (-3, 5), (4, 2)], &[(-6, 1), (3, 1), (6, 1)], &[3, 2, -3]),
        ];
        for (buckets, spans, deltas) in cases {
            let side = Side { spans: spans.to_vec(), deltas: deltas.to_vec() };
            let native = Native::of(&histogram(3, buckets, &[])).unwrap();
            assert_eq!((native.schema, native.zero_threshold), (3, 1e-128));
            assert_eq!((native.positive, native.negative), (side.clone(), Side::default()));
            let native = Native::of(&histogram(3, &[], buckets)).unwrap();
            assert_eq!((native.positive, native.negative), (Side::default(), side));
        }
    }

    #[test]
    fn finer_scales_are_merged_and_coarser_ones_refused() {
        // At scale 10 four buckets are one of scale 8.
        let given = histogram(10, &[(-1, 1), (0, 2), (3, 4), (4, 8)], &[]);
        let native = Native::of(&given).unwrap();
        assert_eq!(native.schema, 8);
        assert_eq!(native.positive, Side { spans: vec![(0, 3)], deltas: vec![1, 5, 2] });
        let schema = |scale| Native::of(&histogram(scale, &[(0, 1)], &[])).map(|n| n.schema);
        assert_eq!([schema(-4), schema(8), schema(20)], [Ok(-4), Ok(8), Ok(8)]);
        assert_eq!(schema(-5), Err(Refused::TooCoarse));
    }

    #[test]
    fn what_prometheus_would_refuse_is_not_shown_to_it() {
        let sound = histogram(0, &[(0, 1)], &[]);
        let more = Exponential { count: 2, ..sound.clone() };
        assert_eq!(Native::of(&more), Err(Refused::Malformed));
        // One that was observed is not a number.
        assert!(Native::of(&Exponential { sum: Some(f64::NAN), ..more.clone() }).is_ok());
        assert_eq!(Native::of(&Exponential { sum: None, ..more }), Err(Refused::Malformed));
        let fewer = Exponential { count: 0, sum: Some(f64::NAN), ..sound.clone() };
        assert_eq!(Native::of(&fewer), Err(Refused::Malformed));
        for buckets in [[(i64::from(i32::MAX), 1)], [(0, u64::MAX)]] {
            assert_eq!(Native::of(&histogram(0, &buckets, &[])), Err(Refused::Malformed));
        }
        let threshold = Exponential { zero_threshold: 0.5, zero_count: 2, count: 3, ..sound };
        assert_eq!(Native::of(&threshold).map(|n| n.zero_threshold), Ok(0.5));
    }
}
