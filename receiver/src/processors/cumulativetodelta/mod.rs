//! `cumulativetodelta`: what came since the last point, stream by stream.
//!
//! A point that starts anew is the first of its stream again. Non-monotonic sums, gauges and deltas pass.

mod filter;

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    KeyValue as Label,
    metrics::{Counter, Gauge},
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, DataPointFlags, ExponentialHistogramDataPoint, HistogramDataPoint,
        Metric, NumberDataPoint, metric::Data, number_data_point::Value,
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{exponential, identity::Identities};
use crate::{
    batch::{Batch, Signal, points},
    channel::{Input, Output},
    component::{Component, Context, Processor},
    config::{Mistakes, Signed, duration_text},
    metric::nanos,
};
use filter::Filter;

/// The configuration of `cumulativetodelta`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A stream without a point for this long is forgotten; 0 is never.
    pub max_staleness: Signed,
    /// Streams that are known at most; points of further ones are dropped.
    pub max_streams: u64,
    /// What becomes of a stream's first point.
    pub initial_value: InitialValue,
    /// The metrics that are converted; without it, all.
    pub include: filter::Config,
    /// The metrics that are not, even if they are included.
    pub exclude: filter::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_staleness: Duration::from_secs(3600).into(),
            max_streams: 1_000_000,
            initial_value: InitialValue::default(),
            include: filter::Config::default(),
            exclude: filter::Config::default(),
        }
    }
}

/// What becomes of a stream's first point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InitialValue {
    /// It is sent if it counts from a time after the agent's start.
    #[default]
    Auto,
    /// It is sent.
    Keep,
    /// It is dropped.
    Drop,
}

impl<'de> Deserialize<'de> for InitialValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(Self::Auto),
            "keep" => Ok(Self::Keep),
            "drop" => Ok(Self::Drop),
            other => Err(serde::de::Error::custom(format!("unknown initial_value: {other}"))),
        }
    }
}

/// The processor.
pub struct CumulativeToDelta {
    config: Config,
    include: Filter,
    exclude: Filter,
    /// When it was made. Receivers start after that, but before it runs: what they count from is later than this,
    /// and what others that a reload has left alone have counted for a predecessor is not.
    made: u64,
}

impl Component for CumulativeToDelta {
    const NAME: &'static str = "cumulativetodelta";
    const ALIASES: &'static [&'static str] = &["cumulative_to_delta"];
    const DESCRIPTION: &'static str = "Turns cumulative sums and histograms into deltas.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let include = Filter::new("include", &config.include, &mut wrong);
        let exclude = Filter::new("exclude", &config.exclude, &mut wrong);
        let max = config.max_staleness.or_zero();
        let given = duration_text(max);
        match max.as_nanos() {
            0 | 1_000_000.. => {}
            // As many seconds would be sensible: the unit was forgotten.
            seconds @ ..=86_400 => {
                let meant = duration_text(Duration::from_secs(seconds as u64));
                let message = format!(
                    "max_staleness ({given}) appears to be missing a unit suffix; did you mean \
                     '{seconds}s' or '{meant}'? Use '0' for infinite retention"
                );
                wrong.add("max_staleness", message);
            }
            _ => {
                let message = format!(
                    "max_staleness ({given}) is unreasonably small; duration values require a unit \
                     suffix (e.g., '300s', '5m', '1h') or use '0' for infinite retention"
                );
                wrong.add("max_staleness", message);
            }
        }
        wrong.require(config.max_streams > 0, "max_streams", "must be a positive number");
        wrong.or(Self { config, include, exclude, made: nanos(SystemTime::now()) })
    }
}

impl Processor for CumulativeToDelta {
    async fn run(self, cx: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        let name = |what| format!("otelcol_cumulativetodelta_{what}");
        let converted: Counter<u64> = cx.meter.u64_counter(name("datapoints")).build();
        let dropped: Counter<u64> = cx.meter.u64_counter(name("datapoints_dropped")).build();
        let tracked: Gauge<u64> = cx.meter.u64_gauge(name("streams_tracked")).build();
        let made = self.made;
        let mut streams = Streams::new(self, made);
        while let Some(mut batch) = input.recv().await {
            if let Batch::Metrics(request) = &mut batch {
                streams.request(request);
                let kind = |kind: Kind| Label::new("metric_type", kind.name());
                for (of, points) in streams.converted.drain() {
                    converted.add(points, &[kind(of)]);
                }
                for ((of, reason), points) in streams.dropped.drain() {
                    dropped.add(points, &[kind(of), Label::new("reason", reason.name())]);
                }
                tracked.record(streams.known.len() as u64, &[]);
                if request.resource_metrics.is_empty() {
                    continue;
                }
            }
            out.send(batch).await?;
        }
        Ok(())
    }
}

/// A kind of metrics that can be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Histogram,
    Exponential,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::Exponential => "exponential_histogram",
        }
    }
}

/// Why a point was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Dropped {
    /// It is the first of its stream.
    Initial,
    /// It is less than the one before.
    Reset,
    /// Its buckets are not those of the one before.
    BucketMismatch,
    /// It is older than the one before.
    OutOfOrder,
    /// It says that there is no value.
    NoValue,
    /// No more streams may be known.
    Limit,
}

impl Dropped {
    const fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Reset => "reset",
            Self::BucketMismatch => "bucket_mismatch",
            Self::OutOfOrder => "out_of_order",
            Self::NoValue => "no_recorded_value",
            Self::Limit => "limit",
        }
    }
}

/// What is known of the streams.
struct Streams {
    processor: CumulativeToDelta,
    /// From when on all that was counted is in the points.
    start: u64,
    identities: Identities,
    known: HashMap<u128, Stream>,
    swept: Instant,
    converted: HashMap<Kind, u64>,
    dropped: HashMap<(Kind, Dropped), u64>,
}

struct Stream {
    last: Last,
    seen: Instant,
}

/// The last point of a stream.
enum Last {
    Number(NumberDataPoint),
    Histogram(HistogramDataPoint),
    Exponential(ExponentialHistogramDataPoint),
}

/// A kind of points that can be converted.
trait Point: Sized {
    const KIND: Kind;
    /// Start, time, flags and attributes.
    fn head(&mut self) -> (&mut u64, u64, u32, &[KeyValue]);
    /// The value alone, to be kept after `last`.
    fn keep(&self, last: Option<&Self>) -> Last;
    /// The last point, if it was of the same kind.
    fn last(last: &mut Last) -> Option<&mut Self>;
    /// Leaves what came since `last`.
    fn subtract(&mut self, last: &Self) -> Result<(), Dropped>;
    /// Takes away what is only known of all observations together.
    fn strip(&mut self);
}

impl Point for NumberDataPoint {
    const KIND: Kind = Kind::Sum;

    fn head(&mut self) -> (&mut u64, u64, u32, &[KeyValue]) {
        (&mut self.start_time_unix_nano, self.time_unix_nano, self.flags, &self.attributes)
    }

    fn keep(&self, _: Option<&Self>) -> Last {
        Last::Number(Self { attributes: Vec::new(), exemplars: Vec::new(), ..*self })
    }

    fn last(last: &mut Last) -> Option<&mut Self> {
        if let Last::Number(last) = last { Some(last) } else { None }
    }

    fn subtract(&mut self, last: &Self) -> Result<(), Dropped> {
        let float = |value| match value {
            Value::AsInt(value) => value as f64,
            Value::AsDouble(value) => value,
        };
        let rest = match (self.value, last.value) {
            (Some(Value::AsInt(now)), Some(Value::AsInt(before))) if now >= before => {
                Value::AsInt(now.saturating_sub(before))
            }
            (Some(Value::AsInt(_)), Some(Value::AsInt(_))) => return Err(Dropped::Reset),
            (Some(now), Some(before)) if float(now) >= float(before) => {
                Value::AsDouble(float(now) - float(before))
            }
            _ => return Err(Dropped::Reset),
        };
        self.value = Some(rest);
        Ok(())
    }

    fn strip(&mut self) {}
}

impl Point for HistogramDataPoint {
    const KIND: Kind = Kind::Histogram;

    fn head(&mut self) -> (&mut u64, u64, u32, &[KeyValue]) {
        (&mut self.start_time_unix_nano, self.time_unix_nano, self.flags, &self.attributes)
    }

    fn keep(&self, last: Option<&Self>) -> Last {
        let sum = known(self.sum, last.and_then(|last| last.sum));
        Last::Histogram(Self { sum, attributes: Vec::new(), exemplars: Vec::new(), ..self.clone() })
    }

    fn last(last: &mut Last) -> Option<&mut Self> {
        if let Last::Histogram(last) = last { Some(last) } else { None }
    }

    fn subtract(&mut self, last: &Self) -> Result<(), Dropped> {
        if self.explicit_bounds != last.explicit_bounds
            || self.bucket_counts.len() != last.bucket_counts.len()
        {
            return Err(Dropped::BucketMismatch);
        }
        let both = self.bucket_counts.iter().zip(&last.bucket_counts);
        let rest: Option<Vec<u64>> = both.map(|(now, before)| now.checked_sub(*before)).collect();
        let (Some(count), Some(bucket_counts)) = (self.count.checked_sub(last.count), rest) else {
            // A histogram that fell began anew: all that it has is new.
            return Ok(());
        };
        (self.count, self.bucket_counts) = (count, bucket_counts);
        self.sum = self.sum.zip(last.sum).map(|(now, before)| now - before);
        Ok(())
    }

    fn strip(&mut self) {
        (self.min, self.max) = (None, None);
    }
}

impl Point for ExponentialHistogramDataPoint {
    const KIND: Kind = Kind::Exponential;

    fn head(&mut self) -> (&mut u64, u64, u32, &[KeyValue]) {
        (&mut self.start_time_unix_nano, self.time_unix_nano, self.flags, &self.attributes)
    }

    fn keep(&self, last: Option<&Self>) -> Last {
        let sum = known(self.sum, last.and_then(|last| last.sum));
        Last::Exponential(Self {
            sum,
            attributes: Vec::new(),
            exemplars: Vec::new(),
            ..self.clone()
        })
    }

    fn last(last: &mut Last) -> Option<&mut Self> {
        if let Last::Exponential(last) = last { Some(last) } else { None }
    }

    fn subtract(&mut self, last: &Self) -> Result<(), Dropped> {
        exponential::subtract(last, self).then_some(()).ok_or(Dropped::Reset)
    }

    fn strip(&mut self) {
        (self.min, self.max) = (None, None);
    }
}

/// The sum to go on from: a sum that is no number says nothing, so that the one before holds.
fn known(sum: Option<f64>, last: Option<f64>) -> Option<f64> {
    if sum.is_some_and(f64::is_nan) { last } else { sum }
}

impl Streams {
    fn new(processor: CumulativeToDelta, start: u64) -> Self {
        Self {
            processor,
            start,
            identities: Identities::default(),
            known: HashMap::new(),
            swept: Instant::now(),
            converted: HashMap::new(),
            dropped: HashMap::new(),
        }
    }

    fn request(&mut self, request: &mut ExportMetricsServiceRequest) {
        self.sweep();
        request.resource_metrics.retain_mut(|block| {
            let resource = self.identities.resource(block.resource.as_ref());
            block.scope_metrics.retain_mut(|block| {
                let scope = self.identities.scope(resource, block);
                block.metrics.retain_mut(|metric| self.metric(metric, scope));
                !block.metrics.is_empty()
            });
            !block.scope_metrics.is_empty()
        });
    }

    /// Forgets what has been silent for too long.
    fn sweep(&mut self) {
        let (now, max) = (Instant::now(), self.processor.config.max_staleness.or_zero());
        // Looking more often than this would not find much more.
        if !max.is_zero() && now - self.swept >= max.min(Duration::from_secs(10)) {
            self.swept = now;
            self.known.retain(|_, stream| now - stream.seen < max);
        }
    }

    /// Converts a metric. False if nothing is left of it.
    fn metric(&mut self, metric: &mut Metric, scope: u128) -> bool {
        const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
        let CumulativeToDelta { include, exclude, .. } = &self.processor;
        if !include.includes(metric) || exclude.excludes(metric) {
            return true;
        }
        let id = self.identities.metric(scope, metric);
        let delta = AggregationTemporality::Delta.into();
        match &mut metric.data {
            Some(Data::Sum(d)) if d.aggregation_temporality == CUMULATIVE && d.is_monotonic => {
                d.aggregation_temporality = delta;
                // Nothing can be subtracted from what is no number.
                let nan =
                    |p: &NumberDataPoint| matches!(p.value, Some(Value::AsDouble(v)) if v.is_nan());
                d.data_points.retain_mut(|point| nan(point) || self.point(point, id));
            }
            // The Collector lets them pass.
            Some(Data::Histogram(d)) if d.data_points.is_empty() => return true,
            Some(Data::ExponentialHistogram(d)) if d.data_points.is_empty() => return true,
            Some(Data::Histogram(d)) if d.aggregation_temporality == CUMULATIVE => {
                d.aggregation_temporality = delta;
                d.data_points.retain_mut(|point| self.point(point, id));
            }
            Some(Data::ExponentialHistogram(d)) if d.aggregation_temporality == CUMULATIVE => {
                d.aggregation_temporality = delta;
                d.data_points.retain_mut(|point| self.point(point, id));
            }
            _ => return true,
        }
        points(metric) > 0
    }

    fn point<P: Point>(&mut self, point: &mut P, metric: u128) -> bool {
        match self.convert(point, metric) {
            Ok(()) => {
                point.strip();
                *self.converted.entry(P::KIND).or_default() += 1;
                true
            }
            Err(reason) => {
                *self.dropped.entry((P::KIND, reason)).or_default() += 1;
                false
            }
        }
    }

    fn convert<P: Point>(&mut self, point: &mut P, metric: u128) -> Result<(), Dropped> {
        let seen = Instant::now();
        let config = &self.processor.config;
        let (start, time, flags, attributes) = point.head();
        if flags & DataPointFlags::NoRecordedValueMask as u32 != 0 {
            return Err(Dropped::NoValue);
        }
        let since = *start;
        let first = || first(config.initial_value, since, time, self.start);
        let key = self.identities.attributes(metric, attributes);
        let full = self.known.len() as u64 >= config.max_streams;
        let known = match self.known.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => return Err(Dropped::Limit),
            Entry::Vacant(entry) => {
                entry.insert(Stream { last: point.keep(None), seen });
                return first();
            }
        };
        // The identity has the kind in it.
        let last = P::last(&mut known.last).ok_or(Dropped::Reset)?;
        let (last_start, last_time, ..) = last.head();
        let last_start = *last_start;
        if time < last_time {
            return Err(Dropped::OutOfOrder);
        }
        let kept = point.keep(Some(last));
        let result = if since == last_start {
            *point.head().0 = last_time;
            point.subtract(last)
        } else {
            first()
        };
        *known = Stream { last: kept, seen };
        result
    }
}

/// Whether the first point of a stream goes on as it is: `auto` sends it if all of it was observed since
/// the agent's start, so that no delta is as large as all that was before.
fn first(config: InitialValue, start: u64, time: u64, agent: u64) -> Result<(), Dropped> {
    match config {
        InitialValue::Keep => Ok(()),
        InitialValue::Auto if start >= agent && start != time => Ok(()),
        InitialValue::Auto | InitialValue::Drop => Err(Dropped::Initial),
    }
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;
