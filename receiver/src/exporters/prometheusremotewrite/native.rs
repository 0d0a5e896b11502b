//! Exponential histograms as Prometheus' native ones.

use std::collections::BTreeMap;

use super::{
    proto::{BucketSpan, Histogram, STALE},
    translate::Reason,
};
use crate::exporters::prometheus::value::{Exponential, coarser};

/// The finest and the coarsest resolution that Prometheus has.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// The width of the zero bucket where none is given, as in the Collector and in Prometheus itself.
const ZERO_THRESHOLD: f64 = 1e-128;

/// Gaps up to this many buckets are filled with empty ones, as in Prometheus' own client: that takes
/// fewer bytes than another span.
const GAP: i64 = 2;

/// The native histogram of a point.
pub fn native(histogram: &Exponential, time: i64, start: i64) -> Result<Histogram, Reason> {
    if histogram.scale < *SCHEMAS.start() {
        return Err(Reason::Scale);
    }
    let schema = histogram.scale.min(*SCHEMAS.end());
    let buckets = histogram.positive.values().chain(histogram.negative.values());
    let total: u128 = buckets.chain([&histogram.zero_count]).map(|c| u128::from(*c)).sum();
    // Prometheus refuses the whole request for one that contradicts itself. What is not a number is in
    // no bucket, and then the sum is none either.
    if total != u128::from(histogram.count) && !histogram.sum.is_some_and(f64::is_nan) {
        return Err(Reason::Malformed);
    }
    let side = |buckets| spans(&coarser(buckets, histogram.scale, schema));
    let (positive_spans, positive_deltas) = side(&histogram.positive).ok_or(Reason::Malformed)?;
    let (negative_spans, negative_deltas) = side(&histogram.negative).ok_or(Reason::Malformed)?;
    let given = histogram.zero_threshold;
    Ok(Histogram {
        count_int: Some(histogram.count),
        sum: histogram.sum.unwrap_or_default(),
        schema,
        zero_threshold: if given > 0.0 { given } else { ZERO_THRESHOLD },
        zero_count_int: Some(histogram.zero_count),
        negative_spans,
        negative_deltas,
        positive_spans,
        positive_deltas,
        timestamp: time,
        start_timestamp: start,
    })
}

/// The one that says that the series has ended.
pub fn stale(time: i64) -> Histogram {
    Histogram {
        count_int: Some(STALE),
        sum: f64::from_bits(STALE),
        zero_threshold: ZERO_THRESHOLD,
        zero_count_int: Some(0),
        timestamp: time,
        ..Default::default()
    }
}

/// Buckets as runs of neighbours, each count as its difference from the one before; `None` if one
/// cannot be said so.
fn spans(buckets: &BTreeMap<i64, u64>) -> Option<(Vec<BucketSpan>, Vec<i64>)> {
    let (mut spans, mut deltas) = (Vec::<BucketSpan>::new(), Vec::new());
    let (mut next, mut before) = (0_i64, 0_i64);
    for (index, count) in buckets {
        // OTLP's bucket 0 begins at 1, that of Prometheus ends there.
        let index = index + 1;
        let gap = index - next;
        match spans.last_mut() {
            Some(span) if gap <= GAP => {
                for _ in 0..gap {
                    deltas.push(-before);
                    before = 0;
                }
                span.length += u32::try_from(gap).ok()? + 1;
            }
            _ => spans.push(BucketSpan { offset: i32::try_from(gap).ok()?, length: 1 }),
        }
        let count = i64::try_from(*count).ok()?;
        deltas.push(count - before);
        before = count;
        next = index + 1;
    }
    Some((spans, deltas))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Indexes of Prometheus' buckets with their counts.
    fn read(spans: &[BucketSpan], deltas: &[i64]) -> Vec<(i64, i64)> {
        let (mut index, mut count, mut read) = (0, 0, Vec::new());
        let mut deltas = deltas.iter();
        for span in spans {
            index += i64::from(span.offset);
            for _ in 0..span.length {
                count += deltas.next().expect("a delta for each bucket");
                read.push((index, count));
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        read
    }

    fn histogram(scale: i32, positive: &[(i64, u64)]) -> Exponential {
        let positive: BTreeMap<_, _> = positive.iter().copied().collect();
        let count = positive.values().sum();
        Exponential { scale, count, positive, sum: Some(1.5), ..Default::default() }
    }

    #[test]
    fn buckets_are_one_further_and_small_gaps_are_filled() {
        let given = [(-7, 3), (-6, 1), (-3, 5), (4, 2)];
        let native = native(&histogram(3, &given), 7, 6).unwrap();
        assert_eq!(
            read(&native.positive_spans, &native.positive_deltas),
            [(-6, 3), (-5, 1), (-4, 0), (-3, 0), (-2, 5), (5, 2)]
        );
        let offsets: Vec<_> = native.positive_spans.iter().map(|s| (s.offset, s.length)).collect();
        assert_eq!(offsets, [(-6, 5), (6, 1)]);
        assert_eq!((native.schema, native.count_int, native.sum), (3, Some(11), 1.5));
        assert_eq!((native.timestamp, native.start_timestamp), (7, 6));
        assert_eq!((native.zero_threshold, native.zero_count_int), (1e-128, Some(0)));
        assert!(native.negative_spans.is_empty());
    }

    #[test]
    fn what_is_too_fine_is_merged_and_what_is_too_coarse_refused() {
        let native = super::native(&histogram(10, &[(-1, 1), (0, 2), (3, 4), (4, 8)]), 0, 0);
        let native = native.unwrap();
        assert_eq!(native.schema, 8);
        // Four buckets of scale 10 are one of scale 8.
        assert_eq!(read(&native.positive_spans, &native.positive_deltas), [(0, 1), (1, 6), (2, 8)]);
        assert!(super::native(&histogram(-4, &[(0, 1)]), 0, 0).is_ok());
        assert_eq!(super::native(&histogram(-5, &[(0, 1)]), 0, 0), Err(Reason::Scale));
    }

    #[test]
    fn what_contradicts_itself_or_does_not_fit_is_refused() {
        let contradicts = Exponential { count: 2, ..histogram(0, &[(0, 1)]) };
        assert_eq!(native(&contradicts, 0, 0), Err(Reason::Malformed));
        let not_a_number = Exponential { sum: Some(f64::NAN), ..contradicts };
        assert!(native(&not_a_number, 0, 0).is_ok());
        let far = i64::from(i32::MAX) + 1;
        assert_eq!(native(&histogram(0, &[(far, 1)]), 0, 0), Err(Reason::Malformed));
        assert_eq!(native(&histogram(0, &[(0, u64::MAX)]), 0, 0), Err(Reason::Malformed));
    }

    #[test]
    fn zeros_and_what_is_below() {
        let given = Exponential {
            zero_count: 3,
            zero_threshold: 0.25,
            negative: BTreeMap::from([(0, 2)]),
            count: 6,
            ..histogram(0, &[(1, 1)])
        };
        let native = native(&given, 0, 0).unwrap();
        assert_eq!((native.zero_threshold, native.zero_count_int), (0.25, Some(3)));
        assert_eq!(read(&native.negative_spans, &native.negative_deltas), [(1, 2)]);
        assert_eq!(read(&native.positive_spans, &native.positive_deltas), [(2, 1)]);
    }
}
