//! Adding and subtracting exponential histograms of differing scales, offsets and zero thresholds.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint as Point, exponential_histogram_data_point::Buckets,
};

/// Buckets of one sign that a sum may have; beyond, its scale is lowered. Enough for every duration
/// from a nanosecond to 500 years at scale 3.
const MAX_BUCKETS: i64 = 640;

/// Adds `total` to `point`.
pub(super) fn add(total: &Point, point: &mut Point) {
    // Wider than the field, so that a sender's lowest scale cannot wrap around.
    let mut scale = i64::from(total.scale.min(point.scale));
    let signs = [(&total.positive, &point.positive), (&total.negative, &point.negative)];
    while signs.iter().any(|(a, b)| width(a, total.scale, b, point.scale, scale) > MAX_BUCKETS) {
        scale -= 1;
    }
    point.positive = joined(&total.positive, total.scale, &point.positive, point.scale, scale);
    point.negative = joined(&total.negative, total.scale, &point.negative, point.scale, scale);
    point.scale = i32::try_from(scale).unwrap_or(i32::MIN);
    point.count = point.count.saturating_add(total.count);
    point.zero_count = point.zero_count.saturating_add(total.zero_count);
    point.sum = sum(total.sum, point.sum);
    point.min = total.min.zip(point.min).map(|(a, b)| a.min(b));
    point.max = total.max.zip(point.max).map(|(a, b)| a.max(b));
    // Last: a bucket that is joined later could reach across the threshold again.
    widen_zero(point, total.zero_threshold.max(point.zero_threshold));
}

/// Leaves in `point` what was observed since `last`. False, and then `point` is as it was, if `last` is
/// not part of it: the stream was reset.
pub(super) fn subtract(last: &Point, point: &mut Point) -> bool {
    // Only observations are added: the count grows, the resolution falls, the zero bucket widens.
    if point.count < last.count
        || point.scale > last.scale
        || point.zero_threshold < last.zero_threshold
    {
        return false;
    }
    let to = i64::from(point.scale);
    let mut last = Point {
        scale: point.scale,
        positive: joined(&last.positive, last.scale, &None, point.scale, to),
        negative: joined(&last.negative, last.scale, &None, point.scale, to),
        ..last.clone()
    };
    widen_zero(&mut last, point.zero_threshold);
    let rest = |now: &Option<Buckets>, before: &Option<Buckets>| {
        let mut rest = now.clone().unwrap_or_default();
        let before = before.iter().flat_map(|b| (i64::from(b.offset)..).zip(&b.bucket_counts));
        for (index, count) in before.filter(|(_, n)| **n > 0) {
            let at = usize::try_from(index - i64::from(rest.offset)).ok()?;
            let bucket = rest.bucket_counts.get_mut(at)?;
            *bucket = bucket.checked_sub(*count)?;
        }
        trim(&mut rest);
        Some(rest)
    };
    let zero_count = point.zero_count.checked_sub(last.zero_count);
    let positive = rest(&point.positive, &last.positive);
    let negative = rest(&point.negative, &last.negative);
    let (Some(zero_count), Some(positive), Some(negative)) = (zero_count, positive, negative)
    else {
        return false;
    };
    point.count -= last.count;
    point.zero_count = zero_count;
    point.positive = Some(positive);
    point.negative = Some(negative);
    point.sum = point.sum.zip(last.sum).map(|(now, before)| now - before);
    // Those of all observations say nothing of the new ones.
    (point.min, point.max) = (None, None);
    true
}

/// Leaves out the empty buckets at the ends: they say nothing.
fn trim(buckets: &mut Buckets) {
    let counts = &mut buckets.bucket_counts;
    counts.truncate(counts.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1));
    let empty = counts.iter().take_while(|n| **n == 0).count();
    counts.drain(..empty);
    // No bucket is so far out that its index does not fit.
    let first = buckets.offset.saturating_add(i32::try_from(empty).unwrap_or(i32::MAX));
    buckets.offset = if counts.is_empty() { 0 } else { first };
}

/// A sum that one side does not know is unknown.
pub(super) fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).map(|(a, b)| a + b)
}

/// The first and the last index of buckets that are not empty, at a coarser scale: halving the
/// resolution joins the buckets `2i` and `2i + 1` into `i` (OTLP data model).
fn range(buckets: &Option<Buckets>, from: i32, to: i64) -> Option<(i64, i64)> {
    let buckets = buckets.as_ref()?;
    let first = buckets.bucket_counts.iter().position(|n| *n > 0)? as i64;
    let last = buckets.bucket_counts.iter().rposition(|n| *n > 0)? as i64;
    let shift = shift(from, to);
    Some((
        (i64::from(buckets.offset) + first) >> shift,
        (i64::from(buckets.offset) + last) >> shift,
    ))
}

/// More than 63 steps leave one bucket for all that is below 1 and one for all above, as 63 do.
fn shift(from: i32, to: i64) -> u32 {
    (i64::from(from) - to).clamp(0, 63) as u32
}

/// How many buckets the sum of both would have.
fn width(a: &Option<Buckets>, a_scale: i32, b: &Option<Buckets>, b_scale: i32, scale: i64) -> i64 {
    match (range(a, a_scale, scale), range(b, b_scale, scale)) {
        (Some(a), Some(b)) => a.1.max(b.1) - a.0.min(b.0) + 1,
        (Some((first, last)), None) | (None, Some((first, last))) => last - first + 1,
        (None, None) => 0,
    }
}

/// The sum of both, at `scale`.
fn joined(
    a: &Option<Buckets>,
    a_scale: i32,
    b: &Option<Buckets>,
    b_scale: i32,
    scale: i64,
) -> Option<Buckets> {
    let ranges = [range(a, a_scale, scale), range(b, b_scale, scale)];
    let Some(offset) = ranges.iter().flatten().map(|(first, _)| *first).min() else {
        return b.as_ref().map(|_| Buckets::default());
    };
    let width = width(a, a_scale, b, b_scale, scale);
    let mut bucket_counts = vec![0; usize::try_from(width).unwrap_or_default()];
    for (buckets, from) in [(a, a_scale), (b, b_scale)] {
        let Some(buckets) = buckets else { continue };
        let indices = i64::from(buckets.offset)..;
        for (index, count) in indices.zip(&buckets.bucket_counts).filter(|(_, n)| **n > 0) {
            let bucket = &mut bucket_counts[((index >> shift(from, scale)) - offset) as usize];
            *bucket = u64::saturating_add(*bucket, *count);
        }
    }
    // An index fits 32 bits at its own scale, and is smaller at a coarser one.
    Some(Buckets { offset: offset as i32, bucket_counts })
}

/// Counts what is closer to zero than `threshold` as zero. A bucket that the threshold cuts goes
/// with it, whole: then the threshold is that bucket's end.
fn widen_zero(point: &mut Point, threshold: f64) {
    point.zero_threshold = threshold;
    let scale = point.scale;
    for buckets in [&mut point.positive, &mut point.negative].into_iter().flatten() {
        let offset = i64::from(buckets.offset);
        let inside = (offset..)
            .zip(&buckets.bucket_counts)
            .take_while(|(index, _)| bound(*index, scale) < threshold)
            .count();
        for (index, count) in (offset..).zip(buckets.bucket_counts.drain(..inside)) {
            if count > 0 {
                point.zero_count = point.zero_count.saturating_add(count);
                point.zero_threshold = point.zero_threshold.max(bound(index + 1, scale));
            }
        }
        buckets.offset = i32::try_from(offset + inside as i64).unwrap_or_default();
    }
}

/// The lower bound of a bucket: `2^(index * 2^-scale)`.
fn bound(index: i64, scale: i32) -> f64 {
    (index as f64 * (-f64::from(scale)).exp2()).exp2()
}
