//! What a metric is, said once: the constant beside the code that emits it, and the only code
//! that builds OTLP points. Reference pages and dashboards are generated from the constants.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, DataPointFlags, ExponentialHistogram,
        ExponentialHistogramDataPoint, Gauge, Metric as Proto, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, exponential_histogram_data_point::Buckets, metric::Data,
        number_data_point,
    },
    resource::v1::Resource,
};

use crate::batch::Batch;

/// How a metric's points add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A cumulative, monotonic sum.
    Counter,
    /// A cumulative sum that goes up and down.
    UpDownCounter,
    /// A value that stands for itself.
    Gauge,
    /// A cumulative base-2 exponential histogram.
    ExponentialHistogram,
}

/// One metric: emitting it takes this constant, never a string.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The OpenTelemetry name; the standard translation turns it into the Prometheus name.
    pub name: &'static str,
    /// The UCUM unit.
    pub unit: &'static str,
    /// How its points add up.
    pub kind: Kind,
    /// One sentence for `# HELP` and the reference.
    pub description: &'static str,
    /// What the number does not mean; for the reference.
    pub caveat: &'static str,
    /// The attributes that its points carry.
    pub attributes: &'static [Attribute],
}

/// One attribute of a metric's points.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its key.
    pub name: &'static str,
    /// What its values are, for the reference.
    pub description: &'static str,
}

/// A cumulative exponential histogram in the form that OTLP carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    /// Resolution: `2^scale` buckets per power of two.
    pub scale: i32,
    /// Sum of all observations, in the metric's unit.
    pub sum: f64,
    /// Observations of exactly zero.
    pub zero_count: u64,
    /// Index of the first bucket in `buckets`.
    pub offset: i32,
    /// Counts of buckets `(base^i, base^(i+1)]`, from `offset` on.
    pub buckets: Vec<u64>,
}

/// An attribute of a point.
pub type Pair<'a> = (&'a str, &'a str);

/// Whom the following points are about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// Attributes that come before the points' own.
    pub attributes: Vec<KeyValue>,
    /// Since when they count, if that is later than the start of the collection; ns since the epoch.
    pub start: u64,
    /// Whether what they are about has ended, so that they say no more than that
    /// (`NO_RECORDED_VALUE` of the OTLP data model).
    pub ended: bool,
}

/// Collects the points of one collection, all read at the same time.
pub struct Points<'a> {
    start: u64,
    time: u64,
    about: About,
    sampled: Option<KeyValue>,
    disabled: &'a BTreeSet<&'static str>,
    metrics: Vec<Proto>,
}

impl<'a> Points<'a> {
    /// Points that count from `start` on and are read at `time`; those of the metrics named in
    /// `disabled` are left out.
    pub fn new(start: SystemTime, time: SystemTime, disabled: &'a BTreeSet<&'static str>) -> Self {
        Self {
            start: nanos(start),
            time: nanos(time),
            about: About::default(),
            sampled: None,
            disabled,
            metrics: Vec::new(),
        }
    }

    /// The following points count from this moment on.
    pub fn count_from(&mut self, start: SystemTime) {
        self.start = nanos(start);
    }

    /// The following points are about something in particular.
    pub fn about(&mut self, about: About) {
        self.about = about;
    }

    /// The points that `emit` adds say that their series have ended.
    pub fn ended(&mut self, emit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.about.ended, true);
        emit(self);
        self.about.ended = before;
    }

    /// Of the events of the following points, this share was counted.
    pub fn sampled(&mut self, rate: Option<f64>) {
        self.sampled = rate.map(|rate| key_value(SAMPLING_RATE, Value::DoubleValue(rate)));
    }

    /// A counter's value since the start.
    pub fn counter(&mut self, metric: &'static Metric, attributes: &[Pair<'_>], value: u64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        let point = self.number(attributes, value);
        if let Some(Data::Sum(data)) = self.data(metric) {
            data.data_points.push(point);
        }
    }

    /// A counter's value since the start, of a metric in seconds.
    pub fn seconds(&mut self, metric: &'static Metric, attributes: &[Pair<'_>], value: Duration) {
        debug_assert_eq!((metric.kind, metric.unit), (Kind::Counter, "s"), "{}", metric.name);
        let seconds = number_data_point::Value::AsDouble(value.as_secs_f64());
        let point = self.number(attributes, 0);
        let point = NumberDataPoint { value: point.value.and(Some(seconds)), ..point };
        if let Some(Data::Sum(data)) = self.data(metric) {
            data.data_points.push(point);
        }
    }

    /// The value now of a sum that goes up and down.
    pub fn up_down_counter(
        &mut self,
        metric: &'static Metric,
        attributes: &[Pair<'_>],
        value: u64,
    ) {
        debug_assert_eq!(metric.kind, Kind::UpDownCounter, "{}", metric.name);
        let point = self.number(attributes, value);
        if let Some(Data::Sum(data)) = self.data(metric) {
            data.data_points.push(point);
        }
    }

    /// A gauge's value now.
    pub fn gauge(&mut self, metric: &'static Metric, attributes: &[Pair<'_>], value: u64) {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        // A gauge stands for the moment: it has no start.
        let point = NumberDataPoint { start_time_unix_nano: 0, ..self.number(attributes, value) };
        if let Some(Data::Gauge(data)) = self.data(metric) {
            data.data_points.push(point);
        }
    }

    /// A gauge's value now, of a metric that is a share of something.
    pub fn ratio(&mut self, metric: &'static Metric, attributes: &[Pair<'_>], value: f64) {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        let value = number_data_point::Value::AsDouble(value);
        let point = self.number(attributes, 0);
        let value = point.value.and(Some(value));
        let point = NumberDataPoint { start_time_unix_nano: 0, value, ..point };
        if let Some(Data::Gauge(data)) = self.data(metric) {
            data.data_points.push(point);
        }
    }

    /// A histogram since the start.
    pub fn histogram(
        &mut self,
        metric: &'static Metric,
        attributes: &[Pair<'_>],
        histogram: Exponential,
    ) {
        debug_assert_eq!(metric.kind, Kind::ExponentialHistogram, "{}", metric.name);
        let point = if self.about.ended {
            ExponentialHistogramDataPoint {
                attributes: self.attributes(attributes),
                start_time_unix_nano: self.since(),
                time_unix_nano: self.time,
                flags: NO_RECORDED_VALUE,
                ..Default::default()
            }
        } else {
            self.exponential(attributes, histogram)
        };
        if let Some(Data::ExponentialHistogram(data)) = self.data(metric) {
            data.data_points.push(point);
        }
    }

    fn exponential(
        &self,
        attributes: &[Pair<'_>],
        histogram: Exponential,
    ) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            attributes: self.attributes(attributes),
            start_time_unix_nano: self.since(),
            time_unix_nano: self.time,
            count: histogram.zero_count + histogram.buckets.iter().sum::<u64>(),
            sum: Some(histogram.sum),
            scale: histogram.scale,
            zero_count: histogram.zero_count,
            positive: Some(Buckets { offset: histogram.offset, bucket_counts: histogram.buckets }),
            negative: Some(Buckets::default()),
            ..Default::default()
        }
    }

    /// The whole collection as one block.
    pub fn into_batch(self, resource: &[Pair<'_>], scope: &'static str) -> Batch {
        Batch::Metrics(ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource { attributes: pairs(resource), ..Default::default() }),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: scope.to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..Default::default()
                    }),
                    metrics: self.metrics,
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        })
    }

    fn number(&self, attributes: &[Pair<'_>], value: u64) -> NumberDataPoint {
        // OTLP integers are signed; a counter past i64::MAX has outlived the machine.
        let value = number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX));
        NumberDataPoint {
            attributes: self.attributes(attributes),
            start_time_unix_nano: self.since(),
            time_unix_nano: self.time,
            value: (!self.about.ended).then_some(value),
            flags: if self.about.ended { NO_RECORDED_VALUE } else { 0 },
            ..Default::default()
        }
    }

    fn attributes(&self, own: &[Pair<'_>]) -> Vec<KeyValue> {
        let about = self.about.attributes.iter().chain(&self.sampled);
        about.cloned().chain(own.iter().map(pair)).collect()
    }

    fn since(&self) -> u64 {
        self.start.max(self.about.start)
    }

    /// The points of `metric`, created at its first use; `None` if it is disabled. Few metrics,
    /// read once per interval: a list is searched faster than a map is built.
    fn data(&mut self, metric: &'static Metric) -> Option<&mut Data> {
        if self.disabled.contains(metric.name) {
            return None;
        }
        let at = self.metrics.iter().position(|m| m.name == metric.name).unwrap_or_else(|| {
            self.metrics.push(Proto {
                name: metric.name.to_owned(),
                description: metric.description.to_owned(),
                unit: metric.unit.to_owned(),
                data: Some(empty(metric.kind)),
                ..Default::default()
            });
            self.metrics.len() - 1
        });
        self.metrics[at].data.as_mut()
    }
}

fn empty(kind: Kind) -> Data {
    let cumulative = AggregationTemporality::Cumulative.into();
    match kind {
        Kind::Counter => Data::Sum(Sum {
            aggregation_temporality: cumulative,
            is_monotonic: true,
            ..Default::default()
        }),
        Kind::UpDownCounter => Data::Sum(Sum {
            aggregation_temporality: cumulative,
            is_monotonic: false,
            ..Default::default()
        }),
        Kind::Gauge => Data::Gauge(Gauge::default()),
        Kind::ExponentialHistogram => Data::ExponentialHistogram(ExponentialHistogram {
            aggregation_temporality: cumulative,
            ..Default::default()
        }),
    }
}

/// Attributes in OTLP's form.
pub fn pairs(attributes: &[Pair<'_>]) -> Vec<KeyValue> {
    attributes.iter().map(pair).collect()
}

fn pair((key, value): &Pair<'_>) -> KeyValue {
    key_value(key, Value::StringValue((*value).to_owned()))
}

/// An attribute of any type in OTLP's form.
pub fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

/// The attribute of a point that counts a share of the events alone.
const SAMPLING_RATE: &str = "ebpf.sampling.rate";

/// The flag of a point that says no more than that its series has ended.
pub(crate) const NO_RECORDED_VALUE: u32 = DataPointFlags::NoRecordedValueMask as u32;

/// Nanoseconds since the epoch, as OTLP counts them; 0 before it.
pub fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
