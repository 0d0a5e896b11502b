//! One point of OTLP as the samples that it becomes.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        DataPointFlags, Exemplar as OtlpExemplar, ExponentialHistogramDataPoint,
        HistogramDataPoint, NumberDataPoint, SummaryDataPoint, exemplar,
    },
};

use super::{
    proto::{BucketSpan, Exemplar, Histogram, Label, STALE, Sample},
    translate::Reason,
};
use crate::{
    exporters::{
        native::{Native, Refused, Side, ZERO_THRESHOLD},
        prometheus::value::{Exponential, Histogram as Classic, Malformed, Summary, Value},
    },
    prometheus_names::Names,
};

/// The most characters that the labels of an exemplar may have, by OpenMetrics.
const MAX_EXEMPLAR: usize = 128;

/// A point, whatever its type is.
pub struct Point<'a> {
    pub attributes: &'a [KeyValue],
    /// In ms since the epoch.
    pub time: i64,
    /// The same; 0 if it is not known.
    pub start: i64,
    /// It says no more than that the series has ended.
    ended: bool,
    exemplars: &'a [OtlpExemplar],
    value: Result<Value, Malformed>,
}

/// A sample of one of the series that a point becomes.
pub struct Part {
    /// What the name of the series has beside that of the metric.
    pub ending: &'static str,
    /// The label that tells it from the others.
    pub own: Option<(&'static str, String)>,
    pub datum: Datum,
    pub exemplars: Vec<Exemplar>,
}

/// What is in a sample.
pub enum Datum {
    Float(Sample),
    Native(Histogram),
}

const fn millis(nanos: u64) -> i64 {
    (nanos / 1_000_000) as i64
}

const fn ended(flags: u32) -> bool {
    flags & DataPointFlags::NoRecordedValueMask as u32 != 0
}

impl<'a> Point<'a> {
    /// Of a gauge or a sum. Only what is `monotonic` has a start, and exemplars.
    pub fn number(point: &'a NumberDataPoint, monotonic: bool) -> Self {
        let ended = ended(point.flags);
        let value = if ended {
            Ok(Value::Int(0))
        } else {
            let (start_time_unix_nano, value) = (point.start_time_unix_nano, point.value);
            NumberDataPoint { start_time_unix_nano, value, ..Default::default() }.try_into()
        };
        Self {
            attributes: &point.attributes,
            time: millis(point.time_unix_nano),
            start: if monotonic { millis(point.start_time_unix_nano) } else { 0 },
            ended,
            exemplars: if monotonic { &point.exemplars } else { &[] },
            value,
        }
    }

    /// Of a histogram with bounds of its own.
    pub fn classic(point: &'a HistogramDataPoint) -> Self {
        let ended = ended(point.flags);
        let bounds = point.explicit_bounds.clone();
        let value = if ended {
            let counts = vec![0; bounds.len()];
            Ok(Value::Histogram(Box::new(Classic { count: 0, sum: Some(0.0), bounds, counts })))
        } else {
            HistogramDataPoint {
                count: point.count,
                sum: point.sum,
                bucket_counts: point.bucket_counts.clone(),
                explicit_bounds: bounds,
                ..Default::default()
            }
            .try_into()
        };
        Self {
            attributes: &point.attributes,
            time: millis(point.time_unix_nano),
            start: millis(point.start_time_unix_nano),
            ended,
            exemplars: &point.exemplars,
            value,
        }
    }

    /// Of an exponential histogram.
    pub fn native(point: &'a ExponentialHistogramDataPoint) -> Self {
        let ended = ended(point.flags);
        let value = if ended {
            Ok(Value::Exponential(Box::default()))
        } else {
            ExponentialHistogramDataPoint {
                count: point.count,
                sum: point.sum,
                scale: point.scale,
                zero_count: point.zero_count,
                positive: point.positive.clone(),
                negative: point.negative.clone(),
                zero_threshold: point.zero_threshold,
                ..Default::default()
            }
            .try_into()
        };
        Self {
            attributes: &point.attributes,
            time: millis(point.time_unix_nano),
            start: millis(point.start_time_unix_nano),
            ended,
            exemplars: &point.exemplars,
            value,
        }
    }

    /// Of quantiles that the source has computed.
    pub fn summary(point: &'a SummaryDataPoint) -> Self {
        let (count, sum) = (point.count, point.sum);
        let quantile_values = point.quantile_values.clone();
        Self {
            attributes: &point.attributes,
            time: millis(point.time_unix_nano),
            start: millis(point.start_time_unix_nano),
            ended: ended(point.flags),
            exemplars: &[],
            value: SummaryDataPoint { count, sum, quantile_values, ..Default::default() }
                .try_into(),
        }
    }

    /// The samples. The first is one that every point of the metric has.
    pub fn parts(self) -> Result<Vec<Part>, Reason> {
        let value = self.value.map_err(|Malformed| Reason::Malformed)?;
        if self.time <= 0 {
            return Err(Reason::Malformed);
        }
        let timestamp = self.time;
        // What begins after it has been read says nothing of when it began.
        let start_timestamp = if self.start <= timestamp { self.start } else { 0 };
        let part = |ending, own: Option<(&'static str, f64)>, value: f64| {
            let value = if self.ended { f64::from_bits(STALE) } else { value };
            Part {
                ending,
                own: own.map(|(label, bound)| (label, written(bound))),
                datum: Datum::Float(Sample { value, timestamp, start_timestamp }),
                exemplars: Vec::new(),
            }
        };
        let mut exemplars: Vec<_> = self.exemplars.iter().filter_map(exemplar).collect();
        Ok(match value {
            Value::Int(value) => vec![Part { exemplars, ..part("", None, value as f64) }],
            Value::Float(value) => vec![Part { exemplars, ..part("", None, value) }],
            Value::Exponential(histogram) => {
                let datum = Datum::Native(match self.ended {
                    true => stale(timestamp),
                    false => native(&histogram, timestamp, start_timestamp)?,
                });
                vec![Part { ending: "", own: None, datum, exemplars }]
            }
            Value::Histogram(histogram) => {
                let Classic { count, sum, bounds, counts } = *histogram;
                let mut parts = vec![part("_count", None, count as f64)];
                parts.extend(sum.map(|sum| part("_sum", None, sum)));
                let mut below = 0_u64;
                let buckets = bounds.into_iter().zip(counts).map(|(bound, count)| {
                    below = below.saturating_add(count);
                    (bound, below)
                });
                for (bound, below) in buckets.chain([(f64::INFINITY, count)]) {
                    let (inside, above) =
                        exemplars.into_iter().partition(|exemplar| exemplar.value <= bound);
                    let bucket = part("_bucket", Some(("le", bound)), below as f64);
                    parts.push(Part { exemplars: inside, ..bucket });
                    exemplars = above;
                }
                parts
            }
            Value::Summary(summary) => {
                let Summary { count, sum, quantiles } = *summary;
                let mut parts = vec![part("_count", None, count as f64), part("_sum", None, sum)];
                let quantiles = quantiles.into_iter();
                parts.extend(
                    quantiles
                        .map(|(quantile, value)| part("", Some(("quantile", quantile)), value)),
                );
                parts
            }
        })
    }
}

/// The native histogram of a point. A sum that was not recorded is 0, as in the Collector.
fn native(histogram: &Exponential, timestamp: i64, start: i64) -> Result<Histogram, Reason> {
    let native = Native::of(histogram).map_err(|refused| match refused {
        Refused::TooCoarse => Reason::Scale,
        Refused::Malformed => Reason::Malformed,
    })?;
    let spans = |side: Side| {
        let spans = side.spans.into_iter();
        let spans = spans.map(|(offset, length)| BucketSpan { offset, length }).collect();
        (spans, side.deltas)
    };
    let (positive_spans, positive_deltas) = spans(native.positive);
    let (negative_spans, negative_deltas) = spans(native.negative);
    Ok(Histogram {
        count_int: Some(histogram.count),
        sum: histogram.sum.unwrap_or_default(),
        schema: native.schema,
        zero_threshold: native.zero_threshold,
        zero_count_int: Some(histogram.zero_count),
        negative_spans,
        negative_deltas,
        positive_spans,
        positive_deltas,
        timestamp,
        start_timestamp: start,
    })
}

/// The one that says that the series has ended.
fn stale(timestamp: i64) -> Histogram {
    Histogram {
        count_int: Some(STALE),
        sum: f64::from_bits(STALE),
        zero_threshold: ZERO_THRESHOLD,
        zero_count_int: Some(0),
        timestamp,
        ..Default::default()
    }
}

/// A bound as a label has it: as the Collector writes it, and Prometheus what it gets as OTLP.
fn written(bound: f64) -> String {
    match bound {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        bound => bound.to_string(),
    }
}

/// An exemplar in Prometheus' form. Its attributes are left out if they are too long.
fn exemplar(exemplar: &OtlpExemplar) -> Option<Exemplar> {
    let value = match exemplar.value? {
        exemplar::Value::AsDouble(value) => value,
        exemplar::Value::AsInt(value) => value as f64,
    };
    let mut own = BTreeMap::new();
    for (name, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
        if id.iter().any(|byte| *byte != 0) {
            own.insert(name.to_owned(), id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    let mut all = Names::default().labels(&exemplar.filtered_attributes);
    all.retain(|name, value| !name.is_empty() && !value.is_empty());
    all.extend(own.clone());
    let length = |labels: &BTreeMap<String, String>| -> usize {
        labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum()
    };
    let shown = if length(&all) <= MAX_EXEMPLAR { all } else { own };
    let labels = shown.into_iter().map(|(name, value)| Label { name, value }).collect();
    Some(Exemplar { labels, value, timestamp: millis(exemplar.time_unix_nano) })
}
