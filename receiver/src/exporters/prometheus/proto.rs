//! The protobuf format: `io.prometheus.client.MetricFamily`, each with its length before it.
//!
//! The messages are those of `prometheus/client_model`, of which no library here knows native
//! histograms. Fields that are never written are left out.

use prost::{Message, encoding};

use super::{
    buckets::{Window, cumulative},
    exemplar::{self, newest},
    family::{Family, Kind, Series},
    labels::pairs,
    store::Store,
    value::{self, Value},
    view::{Rendered, view},
};
use crate::exporters::native::{Native, Side};

/// The whole exposition.
pub(super) fn render(store: &Store, utf8: bool) -> Rendered {
    let (mut bytes, mut body) = (Vec::new(), Vec::new());
    let timestamps = store.sends_timestamps();
    let hidden = view(store, utf8, |name, family, series| {
        body.clear();
        let head = MetricFamily {
            name: Some(name.to_owned()),
            help: Some(family.help.clone()).filter(|help| !help.is_empty()),
            kind: Some(kind(family.kind)),
        };
        // A `Vec` takes all that is written.
        head.encode(&mut body).expect("a Vec grows");
        for (labels, series) in series {
            // The field `metric` of the family: one at a time, so that they are never all there.
            encoding::message::encode(4, &metric(labels, series, family, timestamps), &mut body);
        }
        encoding::encode_varint(body.len() as u64, &mut bytes);
        bytes.extend_from_slice(&body);
    });
    Rendered { bytes, hidden }
}

fn kind(kind: Kind) -> i32 {
    match kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
        Kind::Summary => 2,
        Kind::Histogram => 4,
    }
}

fn metric(labels: &str, series: &Series, family: &Family, timestamps: bool) -> Metric {
    let mut metric = Metric {
        label: label_pairs(labels),
        timestamp_ms: (timestamps && series.time > 0).then_some((series.time / 1_000_000) as i64),
        ..Default::default()
    };
    let created = || timestamp(series.start);
    let number = |value: f64, metric: &mut Metric| match family.kind {
        Kind::Counter => {
            let (exemplar, created_timestamp) =
                (series.exemplars.first().map(Exemplar::from), created());
            metric.counter = Some(Counter { value: Some(value), exemplar, created_timestamp });
        }
        _ => metric.gauge = Some(Gauge { value: Some(value) }),
    };
    match &series.value {
        Value::Int(value) => number(*value as f64, &mut metric),
        Value::Float(value) => number(*value, &mut metric),
        Value::Histogram(histogram) => {
            let bucket = buckets(histogram.cumulative(), series, histogram.count);
            metric.histogram = Some(Histogram {
                bucket,
                created_timestamp: created(),
                ..counted(histogram.count, histogram.sum)
            });
        }
        Value::Exponential(histogram) => {
            metric.histogram = Some(exponential(histogram, series, family.window));
        }
        Value::Summary(summary) => {
            let quantile = |(quantile, value): &(f64, f64)| Quantile {
                quantile: Some(*quantile),
                value: Some(*value),
            };
            metric.summary = Some(Summary {
                sample_count: Some(summary.count),
                sample_sum: Some(summary.sum),
                quantile: summary.quantiles.iter().map(quantile).collect(),
                created_timestamp: created(),
            });
        }
    }
    metric
}

/// Both forms of it: Prometheus takes the native one, or both if it is told to, and readers that
/// know no native ones find the classic one.
fn exponential(histogram: &value::Exponential, series: &Series, window: Window) -> Histogram {
    let mut shown = Histogram {
        bucket: buckets(cumulative(histogram, window), series, histogram.count),
        created_timestamp: timestamp(series.start),
        ..counted(histogram.count, histogram.sum)
    };
    if let Ok(native) = Native::of(histogram) {
        shown.schema = Some(native.schema);
        shown.zero_threshold = Some(native.zero_threshold);
        shown.zero_count = Some(histogram.zero_count);
        (shown.negative_span, shown.negative_delta) = spans(native.negative);
        (shown.positive_span, shown.positive_delta) = spans(native.positive);
        // Prometheus wants to know when.
        let dated = series.exemplars.iter().filter(|exemplar| exemplar.time > 0);
        shown.exemplars = dated.map(Exemplar::from).collect();
    }
    shown
}

fn counted(count: u64, sum: Option<f64>) -> Histogram {
    // A sum that was not recorded is not zero, and absent would be read as that.
    let sample_sum = Some(sum.unwrap_or(f64::NAN));
    Histogram { sample_count: Some(count), sample_sum, ..Default::default() }
}

fn buckets(bounds: Vec<(f64, u64)>, series: &Series, count: u64) -> Vec<Bucket> {
    let mut above = f64::NEG_INFINITY;
    let all = bounds.into_iter().chain([(f64::INFINITY, count)]);
    all.map(|(bound, below)| {
        let exemplar = newest(&series.exemplars, above, bound).map(Exemplar::from);
        above = bound;
        Bucket { cumulative_count: Some(below), upper_bound: Some(bound), exemplar }
    })
    .collect()
}

fn spans(side: Side) -> (Vec<BucketSpan>, Vec<i64>) {
    let span = |(offset, length)| BucketSpan { offset: Some(offset), length: Some(length) };
    (side.spans.into_iter().map(span).collect(), side.deltas)
}

fn label_pairs(labels: &str) -> Vec<LabelPair> {
    let owned = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| LabelPair {
        name: Some(name.into_owned()),
        value: Some(value.into_owned()),
    };
    pairs(labels).map(owned).collect()
}

fn timestamp(nanos: u64) -> Option<Timestamp> {
    (nanos > 0).then_some(Timestamp {
        seconds: (nanos / 1_000_000_000) as i64,
        nanos: (nanos % 1_000_000_000) as i32,
    })
}

impl From<&exemplar::Exemplar> for Exemplar {
    fn from(exemplar: &exemplar::Exemplar) -> Self {
        Self {
            label: label_pairs(&exemplar.labels),
            value: Some(exemplar.value),
            timestamp: timestamp(exemplar.time),
        }
    }
}

macro_rules! messages {
    ($($name:ident { $($field:ident: $type:ty = $($proto:ident),+ $tag:literal;)+ })+) => {$(
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct $name {
            $(#[prost($($proto),+, tag = $tag)] pub(super) $field: $type,)+
        }
    )+};
}

messages! {
    MetricFamily {
        name: Option<String> = string, optional "1";
        help: Option<String> = string, optional "2";
        kind: Option<i32> = int32, optional "3";
    }
    Metric {
        label: Vec<LabelPair> = message, repeated "1";
        gauge: Option<Gauge> = message, optional "2";
        counter: Option<Counter> = message, optional "3";
        summary: Option<Summary> = message, optional "4";
        timestamp_ms: Option<i64> = int64, optional "6";
        histogram: Option<Histogram> = message, optional "7";
    }
    LabelPair {
        name: Option<String> = string, optional "1";
        value: Option<String> = string, optional "2";
    }
    Gauge { value: Option<f64> = double, optional "1"; }
    Counter {
        value: Option<f64> = double, optional "1";
        exemplar: Option<Exemplar> = message, optional "2";
        created_timestamp: Option<Timestamp> = message, optional "3";
    }
    Quantile {
        quantile: Option<f64> = double, optional "1";
        value: Option<f64> = double, optional "2";
    }
    Summary {
        sample_count: Option<u64> = uint64, optional "1";
        sample_sum: Option<f64> = double, optional "2";
        quantile: Vec<Quantile> = message, repeated "3";
        created_timestamp: Option<Timestamp> = message, optional "4";
    }
    Histogram {
        sample_count: Option<u64> = uint64, optional "1";
        sample_sum: Option<f64> = double, optional "2";
        bucket: Vec<Bucket> = message, repeated "3";
        schema: Option<i32> = sint32, optional "5";
        zero_threshold: Option<f64> = double, optional "6";
        zero_count: Option<u64> = uint64, optional "7";
        negative_span: Vec<BucketSpan> = message, repeated "9";
        negative_delta: Vec<i64> = sint64, repeated "10";
        positive_span: Vec<BucketSpan> = message, repeated "12";
        positive_delta: Vec<i64> = sint64, repeated "13";
        created_timestamp: Option<Timestamp> = message, optional "15";
        exemplars: Vec<Exemplar> = message, repeated "16";
    }
    Bucket {
        cumulative_count: Option<u64> = uint64, optional "1";
        upper_bound: Option<f64> = double, optional "2";
        exemplar: Option<Exemplar> = message, optional "3";
    }
    BucketSpan {
        offset: Option<i32> = sint32, optional "1";
        length: Option<u32> = uint32, optional "2";
    }
    Exemplar {
        label: Vec<LabelPair> = message, repeated "1";
        value: Option<f64> = double, optional "2";
        timestamp: Option<Timestamp> = message, optional "3";
    }
    Timestamp {
        seconds: i64 = int64 "1";
        nanos: i32 = int32 "2";
    }
}
