//! `deltatocumulative`: adds delta sums and histograms up, stream by stream.
//!
//! A stream is what resource, scope, metric and attributes identify. Its cumulative value starts where
//! its first delta starts. Cumulative points and gauges pass.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use opentelemetry::{
    KeyValue as Label,
    metrics::{Counter, Gauge},
};
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point::Value,
    },
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::exponential::{self, sum};
use crate::{
    batch::{Batch, Signal, points},
    channel::{Input, Output},
    component::{Component, Context, Processor},
    config::{Mistakes, Signed},
};

/// The configuration of `deltatocumulative`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A stream without a point for this long is forgotten; its next point starts it anew.
    pub max_stale: Signed,
    /// Streams that are kept at most; points of further ones are dropped.
    pub max_streams: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_stale: Duration::from_secs(300).into(), max_streams: i64::MAX }
    }
}

/// The processor.
pub struct DeltaToCumulative(Config);

impl Component for DeltaToCumulative {
    const NAME: &'static str = "deltatocumulative";
    const DESCRIPTION: &'static str = "Turns delta sums and histograms into cumulative ones.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let Config { max_stale, max_streams } = config;
        if max_stale.or_zero().is_zero() {
            let message = format!("max_stale must be a positive duration (got {max_stale})");
            wrong.add("max_stale", message);
        }
        // With 0, as in the Collector, there is no stream: every delta is dropped, and counted.
        if max_streams < 0 {
            let message = format!("max_streams must be a positive number (got {max_streams})");
            wrong.add("max_streams", message);
        }
        wrong.or(Self(config))
    }
}

impl Processor for DeltaToCumulative {
    async fn run(self, cx: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        let counts = Counts {
            points: cx.meter.u64_counter("otelcol_deltatocumulative_datapoints").build(),
            streams: cx.meter.u64_gauge("otelcol_deltatocumulative_streams_tracked").build(),
        };
        let mut streams = Streams { config: self.0, known: HashMap::new(), swept: Instant::now() };
        while let Some(mut batch) = input.recv().await {
            if let Batch::Metrics(request) = &mut batch {
                streams.sweep();
                request.resource_metrics.retain_mut(|r| streams.resource(r, &counts));
                counts.streams.record(streams.known.len() as u64, &[]);
            }
            if batch.items() > 0 {
                out.send(batch).await?;
            }
        }
        Ok(())
    }
}

/// The processor's own metrics, as the Collector names them.
struct Counts {
    points: Counter<u64>,
    streams: Gauge<u64>,
}

/// Why a point was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    /// It starts before its stream.
    OlderStart,
    /// It ends before its stream's last point, or with it.
    OutOfOrder,
    /// There are as many streams as there may be.
    Limit,
}

impl Dropped {
    const fn name(self) -> &'static str {
        match self {
            Self::OlderStart => "delta.ErrOlderStart",
            Self::OutOfOrder => "delta.ErrOutOfOrder",
            Self::Limit => "limit",
        }
    }
}

/// What is known of the streams.
struct Streams {
    config: Config,
    known: HashMap<Vec<u8>, Stream>,
    swept: Instant,
}

struct Stream {
    total: Total,
    seen: Instant,
}

/// The last point that was sent, which is the sum of all.
#[derive(Clone)]
enum Total {
    Number(NumberDataPoint),
    Histogram(HistogramDataPoint),
    Exponential(ExponentialHistogramDataPoint),
}

impl Streams {
    /// Forgets what has been silent for too long.
    fn sweep(&mut self) {
        let (now, max) = (Instant::now(), self.config.max_stale.or_zero());
        // Looking more often than this would not find much more.
        if now - self.swept >= max.min(Duration::from_secs(10)) {
            self.swept = now;
            self.known.retain(|_, stream| now - stream.seen < max);
        }
    }

    /// False if nothing is left.
    fn resource(&mut self, resource: &mut ResourceMetrics, counts: &Counts) -> bool {
        let mut identity = Vec::new();
        let attributes = resource.resource.as_ref().map(|r| r.attributes.as_slice());
        write_attributes(attributes.unwrap_or_default(), &mut identity);
        let ResourceMetrics { scope_metrics, .. } = resource;
        scope_metrics.retain_mut(|scope| self.scope(scope, &identity, counts));
        !scope_metrics.is_empty()
    }

    fn scope(&mut self, scope: &mut ScopeMetrics, resource: &[u8], counts: &Counts) -> bool {
        let mut identity = resource.to_vec();
        if let Some(scope) = &scope.scope {
            write(scope.name.as_bytes(), &mut identity);
            write(scope.version.as_bytes(), &mut identity);
            write_attributes(&scope.attributes, &mut identity);
        }
        scope.metrics.retain_mut(|metric| self.metric(metric, &identity, counts));
        !scope.metrics.is_empty()
    }

    fn metric(&mut self, metric: &mut Metric, scope: &[u8], counts: &Counts) -> bool {
        const DELTA: i32 = AggregationTemporality::Delta as i32;
        const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
        let mut identity = scope.to_vec();
        write(metric.name.as_bytes(), &mut identity);
        write(metric.unit.as_bytes(), &mut identity);
        let mut dropped = Vec::new();
        match &mut metric.data {
            Some(Data::Sum(sum)) if sum.aggregation_temporality == DELTA => {
                sum.aggregation_temporality = CUMULATIVE;
                identity.extend([b's', sum.is_monotonic.into()]);
                sum.data_points.retain_mut(|point| {
                    let key = stream(&identity, &point.attributes);
                    self.point(key, point, Total::Number, number, &mut dropped)
                });
            }
            Some(Data::Histogram(histogram)) if histogram.aggregation_temporality == DELTA => {
                histogram.aggregation_temporality = CUMULATIVE;
                identity.push(b'h');
                histogram.data_points.retain_mut(|point| {
                    let key = stream(&identity, &point.attributes);
                    self.point(key, point, Total::Histogram, explicit, &mut dropped)
                });
            }
            Some(Data::ExponentialHistogram(histogram))
                if histogram.aggregation_temporality == DELTA =>
            {
                histogram.aggregation_temporality = CUMULATIVE;
                identity.push(b'e');
                histogram.data_points.retain_mut(|point| {
                    let key = stream(&identity, &point.attributes);
                    self.point(key, point, Total::Exponential, exponential_total, &mut dropped)
                });
            }
            _ => return true,
        }
        let left = points(metric);
        counts.points.add(left as u64, &[]);
        for reason in dropped {
            counts.points.add(1, &[Label::new("error", reason.name())]);
        }
        left > 0
    }

    /// Turns `point` into the total with it. False if it must be dropped.
    fn point<P: Point>(
        &mut self,
        key: Vec<u8>,
        point: &mut P,
        wrap: fn(P) -> Total,
        add: fn(&Total, &mut P),
        dropped: &mut Vec<Dropped>,
    ) -> bool {
        let full = self.known.len() as i64 >= self.config.max_streams;
        let seen = Instant::now();
        match self.known.entry(key) {
            Entry::Vacant(_) if full => {
                dropped.push(Dropped::Limit);
                return false;
            }
            Entry::Vacant(entry) => {
                entry.insert(Stream { total: wrap(point.clone()), seen });
            }
            Entry::Occupied(mut entry) => {
                let stream = entry.get_mut();
                let (start, last) = stream.total.times();
                let (new_start, time) = point.times();
                let older = *new_start < start;
                if older || time <= last {
                    dropped.push(if older { Dropped::OlderStart } else { Dropped::OutOfOrder });
                    return false;
                }
                add(&stream.total, point);
                *stream = Stream { total: wrap(point.clone()), seen };
            }
        }
        true
    }
}

/// What all kinds of points have.
trait Point: Clone {
    /// The start, to be changed, and the time.
    fn times(&mut self) -> (&mut u64, u64);
}

macro_rules! point {
    ($($type:ty)*) => {$(
        impl Point for $type {
            fn times(&mut self) -> (&mut u64, u64) {
                (&mut self.start_time_unix_nano, self.time_unix_nano)
            }
        }
    )*};
}
point! { NumberDataPoint HistogramDataPoint ExponentialHistogramDataPoint }

impl Total {
    const fn times(&self) -> (u64, u64) {
        match self {
            Self::Number(p) => (p.start_time_unix_nano, p.time_unix_nano),
            Self::Histogram(p) => (p.start_time_unix_nano, p.time_unix_nano),
            Self::Exponential(p) => (p.start_time_unix_nano, p.time_unix_nano),
        }
    }
}

fn number(total: &Total, point: &mut NumberDataPoint) {
    let Total::Number(total) = total else { return };
    point.start_time_unix_nano = total.start_time_unix_nano;
    // A point that says that it has no value does not take the total away.
    point.flags = total.flags;
    let float = |value| match value {
        Value::AsInt(value) => value as f64,
        Value::AsDouble(value) => value,
    };
    point.value = match (total.value, point.value) {
        (Some(Value::AsInt(a)), Some(Value::AsInt(b))) => Some(Value::AsInt(a.saturating_add(b))),
        (Some(a), Some(b)) => Some(Value::AsDouble(float(a) + float(b))),
        (a, b) => b.or(a),
    };
}

fn explicit(total: &Total, point: &mut HistogramDataPoint) {
    let Total::Histogram(total) = total else { return };
    if total.explicit_bounds != point.explicit_bounds
        || total.bucket_counts.len() != point.bucket_counts.len()
    {
        // Histograms with other bounds cannot be added: the stream begins anew with this point.
        return;
    }
    point.start_time_unix_nano = total.start_time_unix_nano;
    point.flags = total.flags;
    point.count = point.count.saturating_add(total.count);
    point.sum = sum(total.sum, point.sum);
    point.min = total.min.zip(point.min).map(|(a, b)| a.min(b));
    point.max = total.max.zip(point.max).map(|(a, b)| a.max(b));
    for (count, before) in point.bucket_counts.iter_mut().zip(&total.bucket_counts) {
        *count = count.saturating_add(*before);
    }
}

fn exponential_total(total: &Total, point: &mut ExponentialHistogramDataPoint) {
    let Total::Exponential(total) = total else { return };
    point.start_time_unix_nano = total.start_time_unix_nano;
    point.flags = total.flags;
    exponential::add(total, point);
}

fn stream(metric: &[u8], attributes: &[KeyValue]) -> Vec<u8> {
    let mut key = metric.to_vec();
    write_attributes(attributes, &mut key);
    key
}

/// Attributes in an order that does not depend on the sender's.
fn write_attributes(attributes: &[KeyValue], key: &mut Vec<u8>) {
    let mut encoded: Vec<_> = attributes.iter().map(KeyValue::encode_to_vec).collect();
    encoded.sort_unstable();
    key.extend((encoded.len() as u32).to_le_bytes());
    encoded.iter().for_each(|attribute| write(attribute, key));
}

/// Bytes with their length, so that two different lists never look the same.
fn write(bytes: &[u8], key: &mut Vec<u8>) {
    key.extend((bytes.len() as u32).to_le_bytes());
    key.extend(bytes);
}

#[cfg(test)]
mod tests;
