//! What a series holds: the last value of each kind of point, deltas added up.
//!
//! Exponential histograms keep their full resolution here; each format decides what it shows.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, SummaryDataPoint,
    exponential_histogram_data_point::Buckets, number_data_point,
};

/// The value of one series. Most are numbers: what is larger lies elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::exporters) enum Value {
    Int(i64),
    Float(f64),
    Histogram(Box<Histogram>),
    Exponential(Box<Exponential>),
    Summary(Box<Summary>),
}

/// A histogram with bounds of its own.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::exporters) struct Histogram {
    pub(in crate::exporters) count: u64,
    pub(in crate::exporters) sum: Option<f64>,
    /// Finite upper bounds, ascending.
    pub(in crate::exporters) bounds: Vec<f64>,
    /// One count per bound, not cumulative; what lies above the last is only in `count`.
    pub(in crate::exporters) counts: Vec<u64>,
}

impl Histogram {
    /// The bounds in ascending order, each with the count of observations at or below it; `+Inf`,
    /// which is the histogram's count, is left out.
    pub(super) fn cumulative(&self) -> Vec<(f64, u64)> {
        let mut below = 0_u64;
        let counts = self.counts.iter().map(|count| {
            below = below.saturating_add(*count);
            below
        });
        self.bounds.iter().copied().zip(counts).collect()
    }
}

/// A base-2 exponential histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::exporters) struct Exponential {
    pub(in crate::exporters) scale: i32,
    pub(in crate::exporters) count: u64,
    pub(in crate::exporters) sum: Option<f64>,
    pub(in crate::exporters) zero_count: u64,
    pub(in crate::exporters) zero_threshold: f64,
    /// Non-empty buckets by index: `(base^i, base^(i+1)]`. A map, because two indexes of one
    /// histogram may lie four billion apart.
    pub(in crate::exporters) positive: BTreeMap<i64, u64>,
    /// The same of the absolute values of what is below zero.
    pub(in crate::exporters) negative: BTreeMap<i64, u64>,
}

/// Quantiles that the source has computed.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::exporters) struct Summary {
    pub(in crate::exporters) count: u64,
    pub(in crate::exporters) sum: f64,
    /// Quantile and value.
    pub(in crate::exporters) quantiles: Vec<(f64, f64)>,
}

/// A point that contradicts itself.
#[derive(Debug)]
pub(in crate::exporters) struct Malformed;

impl TryFrom<NumberDataPoint> for Value {
    type Error = Malformed;
    fn try_from(point: NumberDataPoint) -> Result<Self, Malformed> {
        match point.value.ok_or(Malformed)? {
            number_data_point::Value::AsInt(value) => Ok(Self::Int(value)),
            number_data_point::Value::AsDouble(value) => Ok(Self::Float(value)),
        }
    }
}

impl TryFrom<HistogramDataPoint> for Value {
    type Error = Malformed;
    fn try_from(point: HistogramDataPoint) -> Result<Self, Malformed> {
        let (mut bounds, mut counts) = (point.explicit_bounds, point.bucket_counts);
        // Both empty: a histogram of count and sum only.
        let complete = counts.len() == bounds.len() + 1 || (counts.is_empty() && bounds.is_empty());
        let ascending = bounds.is_sorted_by(|a, b| a < b) && !bounds.iter().any(|b| b.is_nan());
        if !complete || !ascending || total(&counts) > u128::from(point.count) {
            return Err(Malformed);
        }
        if bounds.last() == Some(&f64::INFINITY) {
            bounds.pop();
        }
        counts.truncate(bounds.len());
        let (count, sum) = (point.count, point.sum);
        Ok(Self::Histogram(Box::new(Histogram { count, sum, bounds, counts })))
    }
}

impl TryFrom<ExponentialHistogramDataPoint> for Value {
    type Error = Malformed;
    fn try_from(point: ExponentialHistogramDataPoint) -> Result<Self, Malformed> {
        let (positive, negative) = (indexed(point.positive), indexed(point.negative));
        let counts = positive.values().chain(negative.values()).chain([&point.zero_count]);
        // Above 20 an index no longer fits what OTLP allows for it.
        if total(counts) > u128::from(point.count)
            || point.scale > 20
            || point.zero_threshold.is_nan()
            || point.zero_threshold < 0.0
        {
            return Err(Malformed);
        }
        Ok(Self::Exponential(Box::new(Exponential {
            scale: point.scale,
            count: point.count,
            sum: point.sum,
            zero_count: point.zero_count,
            zero_threshold: point.zero_threshold,
            positive,
            negative,
        })))
    }
}

impl TryFrom<SummaryDataPoint> for Value {
    type Error = Malformed;
    fn try_from(point: SummaryDataPoint) -> Result<Self, Malformed> {
        let mut quantiles: Vec<_> =
            point.quantile_values.iter().map(|q| (q.quantile, q.value)).collect();
        quantiles.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Two equal quantiles would be two samples of one series.
        quantiles.dedup_by(|a, b| a.0 == b.0);
        let (count, sum) = (point.count, point.sum);
        Ok(Self::Summary(Box::new(Summary { count, sum, quantiles })))
    }
}

impl Value {
    /// Adds a delta. What does not fit (other bounds, another kind of number) starts anew.
    pub(super) fn add(&mut self, delta: Self) {
        *self = match (std::mem::replace(self, Self::Int(0)), delta) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.saturating_add(b)),
            (Self::Float(a), Self::Float(b)) => Self::Float(a + b),
            (Self::Histogram(a), Self::Histogram(b)) if a.bounds == b.bounds => {
                let sums = a.counts.iter().zip(&b.counts).map(|(a, b)| a.saturating_add(*b));
                Self::Histogram(Box::new(Histogram {
                    count: a.count.saturating_add(b.count),
                    sum: plus(a.sum, b.sum),
                    counts: sums.collect(),
                    bounds: a.bounds,
                }))
            }
            (Self::Exponential(a), Self::Exponential(b)) => Self::Exponential(Box::new(a.plus(*b))),
            (_, delta) => delta,
        };
    }
}

impl Exponential {
    /// Both, at the coarser of the two scales.
    fn plus(self, other: Self) -> Self {
        let scale = self.scale.min(other.scale);
        let zero_threshold = self.zero_threshold.max(other.zero_threshold);
        let merge = |a: &BTreeMap<i64, u64>, a_scale, b: &BTreeMap<i64, u64>, b_scale| {
            let mut sum = coarser(a, a_scale, scale);
            for (index, count) in coarser(b, b_scale, scale) {
                let at = sum.entry(index).or_default();
                *at = at.saturating_add(count);
            }
            sum
        };
        Self {
            scale,
            count: self.count.saturating_add(other.count),
            sum: plus(self.sum, other.sum),
            zero_count: self.zero_count.saturating_add(other.zero_count),
            zero_threshold,
            positive: merge(&self.positive, self.scale, &other.positive, other.scale),
            negative: merge(&self.negative, self.scale, &other.negative, other.scale),
        }
    }
}

/// Buckets of scale `from` merged into those of the coarser scale `to`: `2^(from - to)`
/// neighbours become one, and every bound of `to` is one of `from`, so nothing moves.
pub(in crate::exporters) fn coarser(
    buckets: &BTreeMap<i64, u64>,
    from: i32,
    to: i32,
) -> BTreeMap<i64, u64> {
    let shift = from.saturating_sub(to).clamp(0, 63);
    let mut merged = BTreeMap::<_, u64>::new();
    for (index, count) in buckets {
        let at = merged.entry(index >> shift).or_default();
        *at = at.saturating_add(*count);
    }
    merged
}

fn indexed(buckets: Option<Buckets>) -> BTreeMap<i64, u64> {
    let Some(buckets) = buckets else { return BTreeMap::new() };
    let first = i64::from(buckets.offset);
    (first..).zip(buckets.bucket_counts).filter(|(_, count)| *count > 0).collect()
}

fn total<'a>(counts: impl IntoIterator<Item = &'a u64>) -> u128 {
    counts.into_iter().map(|count| u128::from(*count)).sum()
}

fn plus(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? + b?)
}
