//! Points with the same attributes and time become one.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    iter::once,
};

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint,
        metric::Data, number_data_point::Value,
    },
};

use crate::processors::{exponential, identity::Identities};

/// How values become one. Histograms are always added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregation {
    Sum,
    Mean,
    Min,
    Max,
    Median,
    Count,
}

impl Aggregation {
    pub(super) const NAMES: [&'static str; 6] = ["sum", "mean", "min", "max", "median", "count"];

    /// Without a name it is the sum: the Collector has none then, and loses all points but the first.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name.is_empty() {
            return Some(Self::Sum);
        }
        let all = [Self::Sum, Self::Mean, Self::Min, Self::Max, Self::Median, Self::Count];
        Self::NAMES.iter().position(|known| *known == name).map(|at| all[at])
    }

    fn doubles(self, mut values: Vec<f64>) -> f64 {
        let sum = || values.iter().sum::<f64>();
        match self {
            Self::Sum => sum(),
            Self::Mean => sum() / values.len() as f64,
            Self::Min => values.into_iter().fold(f64::INFINITY, f64::min),
            Self::Max => values.into_iter().fold(f64::NEG_INFINITY, f64::max),
            Self::Median => {
                values.sort_by(f64::total_cmp);
                let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
                (low + high) / 2.0
            }
            Self::Count => values.len() as f64,
        }
    }

    fn integers(self, mut values: Vec<i64>) -> i64 {
        // No sum of integers that fit in memory is too large for this.
        let sum = || values.iter().copied().map(i128::from).sum::<i128>();
        let wide = match self {
            Self::Sum => sum(),
            Self::Mean => sum() / values.len() as i128,
            Self::Min => i128::from(values.iter().copied().min().unwrap_or_default()),
            Self::Max => i128::from(values.iter().copied().max().unwrap_or_default()),
            Self::Median => {
                values.sort_unstable();
                let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
                (i128::from(low) + i128::from(high)) / 2
            }
            Self::Count => values.len() as i128,
        };
        wide.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

/// Makes one of data of the same type. Summaries cannot be added: all their points stay.
pub(super) fn aggregate(all: impl IntoIterator<Item = Data>, how: Aggregation) -> Option<Data> {
    let mut all = all.into_iter();
    let mut data = all.next()?;
    for other in all {
        match (&mut data, other) {
            (Data::Gauge(data), Data::Gauge(other)) => data.data_points.extend(other.data_points),
            (Data::Sum(data), Data::Sum(other)) => data.data_points.extend(other.data_points),
            (Data::Histogram(data), Data::Histogram(other)) => {
                data.data_points.extend(other.data_points);
            }
            (Data::ExponentialHistogram(data), Data::ExponentialHistogram(other)) => {
                data.data_points.extend(other.data_points);
            }
            // Others are not combined.
            _ => {}
        }
    }
    let delta = |temporality| temporality == AggregationTemporality::Delta as i32;
    match &mut data {
        Data::Gauge(d) => group(&mut d.data_points, false, how),
        Data::Sum(d) => group(&mut d.data_points, delta(d.aggregation_temporality), how),
        Data::Histogram(d) => group(&mut d.data_points, delta(d.aggregation_temporality), how),
        Data::ExponentialHistogram(d) => {
            group(&mut d.data_points, delta(d.aggregation_temporality), how);
        }
        Data::Summary(_) => {}
    }
    Some(data)
}

/// Points that can become one.
trait Point: Sized {
    fn head(&mut self) -> (&mut u64, u64, &[KeyValue]);
    /// What must be the same besides attributes and time.
    fn layout(&self) -> impl Hash;
    /// Takes the others in.
    fn merge(&mut self, others: Vec<Self>, how: Aggregation);
}

fn group<P: Point>(points: &mut Vec<P>, delta: bool, how: Aggregation) {
    let mut identities = Identities::default();
    let mut groups: Vec<(P, Vec<P>)> = Vec::new();
    let mut known: HashMap<u128, usize> = HashMap::new();
    for mut point in std::mem::take(points) {
        let (start, time, attributes) = point.head();
        // Deltas of different intervals are not the same thing.
        let start = if delta { *start } else { 0 };
        let owner = identities.of((start, time));
        let attributes = identities.attributes(owner, attributes);
        match known.entry(identities.of((attributes, point.layout()))) {
            Entry::Occupied(at) => groups[*at.get()].1.push(point),
            Entry::Vacant(entry) => {
                entry.insert(groups.len());
                groups.push((point, Vec::new()));
            }
        }
    }
    points.extend(groups.into_iter().map(|(mut first, others)| {
        first.merge(others, how);
        first
    }));
}

fn double(value: Option<Value>) -> f64 {
    match value {
        Some(Value::AsInt(value)) => value as f64,
        Some(Value::AsDouble(value)) => value,
        None => 0.0,
    }
}

fn integer(value: Option<Value>) -> i64 {
    match value {
        Some(Value::AsInt(value)) => value,
        Some(Value::AsDouble(value)) => value as i64,
        None => 0,
    }
}

impl Point for NumberDataPoint {
    fn head(&mut self) -> (&mut u64, u64, &[KeyValue]) {
        (&mut self.start_time_unix_nano, self.time_unix_nano, &self.attributes)
    }

    fn layout(&self) -> impl Hash {}

    fn merge(&mut self, others: Vec<Self>, how: Aggregation) {
        let starts = others.iter().map(|p| p.start_time_unix_nano);
        self.start_time_unix_nano =
            starts.chain(once(self.start_time_unix_nano)).min().unwrap_or_default();
        let others = others.iter().map(|p| p.value);
        self.value = match self.value {
            None => None,
            Some(Value::AsDouble(first)) => {
                let values = once(first).chain(others.map(double)).collect();
                Some(Value::AsDouble(how.doubles(values)))
            }
            Some(Value::AsInt(first)) => {
                let values = once(first).chain(others.map(integer)).collect();
                Some(Value::AsInt(how.integers(values)))
            }
        };
    }
}

/// The sum of two of which one may be unknown.
fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    either(a, b, |a, b| a + b)
}

fn either(a: Option<f64>, b: Option<f64>, both: impl Fn(f64, f64) -> f64) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(both(a, b)),
        (one, other) => one.or(other),
    }
}

fn add(counts: &mut Vec<u64>, others: &[u64]) {
    if counts.len() < others.len() {
        counts.resize(others.len(), 0);
    }
    for (count, other) in counts.iter_mut().zip(others) {
        *count = count.saturating_add(*other);
    }
}

impl Point for HistogramDataPoint {
    fn head(&mut self) -> (&mut u64, u64, &[KeyValue]) {
        (&mut self.start_time_unix_nano, self.time_unix_nano, &self.attributes)
    }

    fn layout(&self) -> impl Hash {
        let bounds: Vec<u64> = self.explicit_bounds.iter().map(|bound| bound.to_bits()).collect();
        (bounds, self.min.is_some(), self.max.is_some(), self.flags)
    }

    fn merge(&mut self, others: Vec<Self>, _: Aggregation) {
        for mut other in others.into_iter().filter(|other| other.count > 0) {
            self.count = self.count.saturating_add(other.count);
            self.sum = sum(self.sum, other.sum);
            self.min = either(self.min, other.min, f64::min);
            self.max = either(self.max, other.max, f64::max);
            add(&mut self.bucket_counts, &other.bucket_counts);
            self.exemplars.append(&mut other.exemplars);
            self.start_time_unix_nano = self.start_time_unix_nano.min(other.start_time_unix_nano);
        }
    }
}

impl Point for ExponentialHistogramDataPoint {
    fn head(&mut self) -> (&mut u64, u64, &[KeyValue]) {
        (&mut self.start_time_unix_nano, self.time_unix_nano, &self.attributes)
    }

    // Neither scale nor offsets: points of differing ones can be added.
    fn layout(&self) -> impl Hash {
        (self.min.is_some(), self.max.is_some(), self.flags)
    }

    fn merge(&mut self, others: Vec<Self>, _: Aggregation) {
        for mut other in others.into_iter().filter(|other| other.count > 0) {
            let sum = sum(self.sum, other.sum);
            exponential::add(&other, self);
            self.sum = sum;
            self.exemplars.append(&mut other.exemplars);
            self.start_time_unix_nano = self.start_time_unix_nano.min(other.start_time_unix_nano);
        }
    }
}
