//! The arithmetic of folding: what a point adds to the overflow series.

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint,
    number_data_point::Value,
};

use crate::processors::exponential;

/// The value of a point that can be added to others, without attributes.
#[derive(Clone)]
pub(super) enum Piece {
    Number(NumberDataPoint),
    Histogram(HistogramDataPoint),
    Exponential(ExponentialHistogramDataPoint),
}

/// How the points of a metric add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Each point is what came since the last.
    Delta,
    /// Each point is all since the start, and grows.
    Growing,
    /// Each point is all since the start, and may fall.
    Varying,
}

impl Mode {
    /// `None` if there is no adding up such points.
    pub(super) fn new(temporality: i32, monotonic: bool) -> Option<Self> {
        match AggregationTemporality::try_from(temporality) {
            Ok(AggregationTemporality::Delta) => Some(Self::Delta),
            Ok(AggregationTemporality::Cumulative) if monotonic => Some(Self::Growing),
            Ok(AggregationTemporality::Cumulative) => Some(Self::Varying),
            _ => None,
        }
    }
}

impl Piece {
    /// `None` if the point has no value.
    pub(super) fn number(p: &NumberDataPoint) -> Option<Self> {
        let finite = match p.value? {
            Value::AsInt(_) => true,
            // One NaN would make every later sum NaN.
            Value::AsDouble(value) => value.is_finite(),
        };
        finite.then(|| {
            Self::Number(NumberDataPoint {
                start_time_unix_nano: p.start_time_unix_nano,
                time_unix_nano: p.time_unix_nano,
                value: p.value,
                ..Default::default()
            })
        })
    }

    /// `None` if bounds and buckets do not fit.
    pub(super) fn histogram(p: &HistogramDataPoint) -> Option<Self> {
        let mut bucket_counts = p.bucket_counts.clone();
        if bucket_counts.is_empty() && p.explicit_bounds.is_empty() {
            // No buckets mean the same as one.
            bucket_counts.push(p.count);
        }
        (bucket_counts.len() == p.explicit_bounds.len() + 1).then(|| {
            Self::Histogram(HistogramDataPoint {
                start_time_unix_nano: p.start_time_unix_nano,
                time_unix_nano: p.time_unix_nano,
                count: p.count,
                sum: p.sum,
                bucket_counts,
                explicit_bounds: p.explicit_bounds.clone(),
                // Those of a part say nothing of what the part grows by.
                ..Default::default()
            })
        })
    }

    /// The value of an exponential histogram.
    pub(super) fn exponential(p: &ExponentialHistogramDataPoint) -> Self {
        Self::Exponential(ExponentialHistogramDataPoint {
            attributes: Vec::new(),
            exemplars: Vec::new(),
            min: None,
            max: None,
            ..p.clone()
        })
    }

    /// Start and time.
    pub(super) const fn times(&self) -> (u64, u64) {
        match self {
            Self::Number(p) => (p.start_time_unix_nano, p.time_unix_nano),
            Self::Histogram(p) => (p.start_time_unix_nano, p.time_unix_nano),
            Self::Exponential(p) => (p.start_time_unix_nano, p.time_unix_nano),
        }
    }

    /// What came since `last`: all of it, if the stream began anew.
    pub(super) fn since(&self, last: &Self, mode: Mode) -> Self {
        let ((start, _), (last_start, last_time)) = (self.times(), last.times());
        // A start may equal its first point's time, and is the same in the next point.
        let anew = mode == Mode::Growing && start > last_start && start >= last_time;
        let mut rest = self.clone();
        let known = !anew
            && match (&mut rest, last) {
                (Self::Number(now), Self::Number(last)) => subtract_number(now, last, mode),
                (Self::Histogram(now), Self::Histogram(last)) => subtract_histogram(now, last),
                (Self::Exponential(now), Self::Exponential(last)) => {
                    exponential::subtract(last, now)
                }
                _ => false,
            };
        if known { rest } else { self.clone() }
    }

    /// Adds `other`.
    pub(super) fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Number(total), Self::Number(p)) => {
                total.value = match (total.value, p.value) {
                    (Some(Value::AsInt(a)), Some(Value::AsInt(b))) => {
                        Some(Value::AsInt(a.saturating_add(b)))
                    }
                    (Some(a), Some(b)) => Some(Value::AsDouble(float(a) + float(b))),
                    (a, b) => a.or(b),
                };
            }
            (Self::Histogram(total), Self::Histogram(p)) => {
                let mut p = p.clone();
                align(total, &mut p);
                total.count = total.count.saturating_add(p.count);
                total.sum = exponential::sum(total.sum, p.sum);
                for (count, more) in total.bucket_counts.iter_mut().zip(&p.bucket_counts) {
                    *count = count.saturating_add(*more);
                }
            }
            (Self::Exponential(total), Self::Exponential(p)) => {
                let (start, time) = (total.start_time_unix_nano, total.time_unix_nano);
                let mut sum = p.clone();
                exponential::add(total, &mut sum);
                *total = sum;
                (total.start_time_unix_nano, total.time_unix_nano) = (start, time);
            }
            // A metric has points of one kind.
            _ => {}
        }
    }

    /// The number that takes this one away from a sum.
    pub(super) fn negative(&self) -> Option<Self> {
        let Self::Number(p) = self else { return None };
        let value = match p.value? {
            Value::AsInt(value) => Value::AsInt(value.saturating_neg()),
            Value::AsDouble(value) => Value::AsDouble(-value),
        };
        Some(Self::Number(NumberDataPoint { value: Some(value), ..p.clone() }))
    }
}

const fn float(value: Value) -> f64 {
    match value {
        Value::AsInt(value) => value as f64,
        Value::AsDouble(value) => value,
    }
}

fn subtract_number(now: &mut NumberDataPoint, last: &NumberDataPoint, mode: Mode) -> bool {
    let (Some(value), Some(before)) = (now.value, last.value) else { return false };
    if mode == Mode::Growing && float(value) < float(before) {
        return false;
    }
    now.value = Some(match (value, before) {
        (Value::AsInt(a), Value::AsInt(b)) => Value::AsInt(a.saturating_sub(b)),
        (a, b) => Value::AsDouble(float(a) - float(b)),
    });
    true
}

fn subtract_histogram(now: &mut HistogramDataPoint, last: &HistogramDataPoint) -> bool {
    let mut last = last.clone();
    let mut rest = now.clone();
    align(&mut rest, &mut last);
    for (count, before) in rest.bucket_counts.iter_mut().zip(&last.bucket_counts) {
        let Some(less) = count.checked_sub(*before) else { return false };
        *count = less;
    }
    let Some(count) = now.count.checked_sub(last.count) else { return false };
    let sum = now.sum.zip(last.sum).map(|(now, before)| now - before);
    *now = HistogramDataPoint { count, sum, ..rest };
    true
}

/// Brings both to the bounds that both have: joining buckets loses resolution, but no observation.
fn align(a: &mut HistogramDataPoint, b: &mut HistogramDataPoint) {
    if a.explicit_bounds == b.explicit_bounds {
        return;
    }
    let common: Vec<f64> =
        a.explicit_bounds.iter().filter(|x| b.explicit_bounds.contains(x)).copied().collect();
    for point in [a, b] {
        let mut counts = vec![0_u64];
        let ends = point.explicit_bounds.iter().map(Some).chain([None]);
        for (count, end) in point.bucket_counts.iter().zip(ends) {
            let bucket = counts.last_mut().expect("it begins with one");
            *bucket = bucket.saturating_add(*count);
            if end.is_some_and(|end| common.contains(end)) {
                counts.push(0);
            }
        }
        point.bucket_counts = counts;
        point.explicit_bounds.clone_from(&common);
    }
}
