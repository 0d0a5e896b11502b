//! The last value of every series, and what is refused on the way in.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map},
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{AggregationTemporality, DataPointFlags, Metric, metric::Data},
};

use super::{
    Rules,
    buckets::Window,
    labels::{Origin, target_info},
    value::{Malformed, Value},
};
use crate::prometheus_names::Suffix;

/// What Prometheus calls a metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }

    /// The label that samples of this kind need for themselves.
    const fn own_label(self) -> &'static str {
        match self {
            Self::Counter | Self::Gauge => "",
            Self::Histogram => "le",
            Self::Summary => "quantile",
        }
    }

    /// The endings of the names of its samples.
    const fn samples(self) -> &'static [&'static str] {
        match self {
            Self::Counter | Self::Gauge => &[""],
            Self::Histogram => &["", "_bucket", "_count", "_sum"],
            Self::Summary => &["", "_count", "_sum"],
        }
    }
}

/// Why a point was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    /// Older than what is held.
    OldTimestamp,
    /// A delta that begins before the last one ended.
    DeltaOverlap,
    /// A delta of something that is no counter.
    DeltaNonMonotonic,
    /// The sender does not say how points add up.
    TemporalityUnspecified,
    /// Another metric of this name has another type.
    TypeConflict,
    /// Another series has the same name and labels.
    LabelCollision,
    /// Nothing in the name can stand in a Prometheus name.
    InvalidName,
    /// The point contradicts itself.
    Malformed,
}

impl Reason {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OldTimestamp => "old_timestamp",
            Self::DeltaOverlap => "delta_overlap",
            Self::DeltaNonMonotonic => "delta_non_monotonic",
            Self::TemporalityUnspecified => "temporality_unspecified",
            Self::TypeConflict => "type_conflict",
            Self::LabelCollision => "label_collision",
            Self::InvalidName => "invalid_name",
            Self::Malformed => "malformed",
        }
    }
}

/// What became of a batch's points.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) taken: usize,
    pub(super) dropped: BTreeMap<Reason, usize>,
}

/// All series of one name.
pub(super) struct Family {
    pub(super) kind: Kind,
    pub(super) help: String,
    /// The bounds that its exponential histograms show.
    pub(super) window: Window,
    /// By their labels as they are written, hence in a stable order.
    pub(super) series: BTreeMap<Arc<str>, Series>,
    labels: HashMap<Box<[u8]>, Arc<str>>,
}

/// One series.
pub(super) struct Series {
    identity: Box<[u8]>,
    pub(super) value: Value,
    /// Nanoseconds since the epoch.
    pub(super) time: u64,
    seen: Instant,
}

/// Warnings are logged once per metric, up to this many metrics: names come from outside.
const WARNED: usize = 1000;

/// The store.
pub(super) struct Store {
    rules: Arc<Rules>,
    /// By name, so that the exposition is sorted.
    pub(super) families: BTreeMap<String, Family>,
    warned: HashSet<(Reason, String)>,
}

/// A point on its way in, whatever its type was.
struct Point {
    attributes: Vec<KeyValue>,
    start: u64,
    time: u64,
    flags: u32,
    value: Result<Value, Malformed>,
}

macro_rules! points {
    ($data:expr) => {
        $data
            .data_points
            .into_iter()
            .map(|mut point| Point {
                attributes: std::mem::take(&mut point.attributes),
                start: point.start_time_unix_nano,
                time: point.time_unix_nano,
                flags: point.flags,
                value: Value::try_from(point),
            })
            .collect()
    };
}

impl Store {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, families: BTreeMap::new(), warned: HashSet::new() }
    }

    /// Takes in a batch that has come at `now`.
    pub(super) fn apply(&mut self, request: ExportMetricsServiceRequest, now: Instant) -> Tally {
        let mut tally = Tally::default();
        let rules = Arc::clone(&self.rules);
        for resource_metrics in request.resource_metrics {
            let resource = resource_metrics.resource.unwrap_or_default();
            if let Some((identity, labels)) = target_info(&rules, &resource) {
                self.describe_target(identity, labels, now);
            }
            for scope_metrics in resource_metrics.scope_metrics {
                let scope = scope_metrics.scope.as_ref();
                let origin = Origin::new(&rules, &resource, scope);
                for metric in scope_metrics.metrics {
                    self.metric(&origin, metric, now, &mut tally);
                }
            }
        }
        tally
    }

    /// Removes what has not been seen for the configured time.
    pub(super) fn expire(&mut self, now: Instant) {
        let lifetime = self.rules.config.metric_expiration;
        self.families.retain(|_, family| {
            let Family { series, labels, .. } = family;
            series.retain(|_, s| {
                let alive = now.saturating_duration_since(s.seen) <= lifetime;
                if !alive {
                    labels.remove(&s.identity);
                }
                alive
            });
            !series.is_empty()
        });
    }

    /// How often [`Self::expire`] should run.
    pub(super) fn expiry_interval(&self) -> Duration {
        (self.rules.config.metric_expiration / 10)
            .clamp(Duration::from_millis(10), Duration::from_secs(30))
    }

    fn metric(&mut self, origin: &Origin<'_>, metric: Metric, now: Instant, tally: &mut Tally) {
        let count = crate::batch::points(&metric);
        let Metric { name, unit, description, data, .. } = metric;
        let Some(data) = data else { return };
        let monotonic = matches!(&data, Data::Sum(sum) if sum.is_monotonic);
        let (kind, temporality, points): (_, _, Vec<Point>) = match data {
            Data::Gauge(gauge) => (Kind::Gauge, None, points!(gauge)),
            Data::Sum(sum) if monotonic => {
                (Kind::Counter, Some(sum.aggregation_temporality()), points!(sum))
            }
            Data::Sum(sum) => (Kind::Gauge, Some(sum.aggregation_temporality()), points!(sum)),
            Data::Histogram(histogram) => {
                (Kind::Histogram, Some(histogram.aggregation_temporality()), points!(histogram))
            }
            Data::ExponentialHistogram(histogram) => {
                (Kind::Histogram, Some(histogram.aggregation_temporality()), points!(histogram))
            }
            Data::Summary(summary) => (Kind::Summary, None, points!(summary)),
        };
        let delta = temporality == Some(AggregationTemporality::Delta);
        let suffix = match (kind, temporality) {
            (Kind::Counter, _) => Suffix::Total,
            // A sum that may fall is shown as a gauge but is no ratio.
            (Kind::Gauge, None) => Suffix::Ratio,
            _ => Suffix::None,
        };
        let public = self.rules.names.metric(&name, &unit, suffix);
        let refused = match &public {
            None => Some(Reason::InvalidName),
            _ if temporality == Some(AggregationTemporality::Unspecified) => {
                Some(Reason::TemporalityUnspecified)
            }
            _ if delta && kind == Kind::Gauge => Some(Reason::DeltaNonMonotonic),
            Some(public) if self.conflicts(public, kind) => Some(Reason::TypeConflict),
            Some(_) => None,
        };
        let (Some(public), None) = (public, refused) else {
            if let Some(reason) = refused.filter(|_| count > 0) {
                *tally.dropped.entry(reason).or_default() += count;
                self.warn(reason, &name);
            }
            return;
        };
        if points.is_empty() {
            return;
        }

        let family = self.families.entry(public.clone()).or_insert_with(|| Family {
            kind,
            help: description,
            window: Window::of_unit(&unit),
            series: BTreeMap::new(),
            labels: HashMap::new(),
        });
        let mut warnings = HashSet::new();
        for point in points {
            match family.take(origin, &name, point, delta, now) {
                Ok(()) => tally.taken += 1,
                Err(reason) => {
                    *tally.dropped.entry(reason).or_default() += 1;
                    warnings.insert(reason);
                }
            }
        }
        if family.series.is_empty() {
            self.families.remove(&public);
        }
        for reason in warnings {
            self.warn(reason, &name);
        }
    }

    /// Whether samples of `name` would mix with those of a metric of another type.
    fn conflicts(&self, name: &str, kind: Kind) -> bool {
        if let Some(family) = self.families.get(name) {
            return family.kind != kind;
        }
        // A histogram `x` also has samples `x_count`: there may be no other metric of that name.
        let below =
            kind.samples().iter().any(|end| self.families.contains_key(&format!("{name}{end}")));
        let above = ["_bucket", "_count", "_sum"].iter().any(|end| {
            let family = name.strip_suffix(end).and_then(|base| self.families.get(base));
            family.is_some_and(|family| family.kind.samples().contains(end))
        });
        below || above
    }

    /// `target_info` of one target: there is one per target, the last one told.
    fn describe_target(&mut self, identity: Box<[u8]>, labels: String, now: Instant) {
        let name = self.rules.names.in_namespace("target_info");
        if self.conflicts(&name, Kind::Gauge) {
            return self.warn(Reason::TypeConflict, &name);
        }
        let family = self.families.entry(name).or_insert_with(|| Family {
            kind: Kind::Gauge,
            help: "Target metadata".to_owned(),
            window: Window::default(),
            series: BTreeMap::new(),
            labels: HashMap::new(),
        });
        if family.labels.get(&identity).is_some_and(|held| **held != *labels) {
            family.remove(&identity);
        }
        let labels: Arc<str> = labels.into();
        family.labels.insert(identity.clone(), Arc::clone(&labels));
        let series = Series { identity, value: Value::Int(1), time: 0, seen: now };
        family.series.insert(labels, series);
    }

    fn warn(&mut self, reason: Reason, metric: &str) {
        if reason == Reason::OldTimestamp || self.warned.len() >= WARNED {
            return;
        }
        if self.warned.insert((reason, metric.to_owned())) {
            tracing::error!(
                metric,
                reason = reason.name(),
                "dropping points; logged once, counted in otelcol_exporter_prometheus_dropped_points"
            );
        }
    }
}

impl Family {
    fn take(
        &mut self,
        origin: &Origin<'_>,
        metric: &str,
        point: Point,
        delta: bool,
        now: Instant,
    ) -> Result<(), Reason> {
        let identity = origin.identity(metric, &point.attributes);
        if point.flags & DataPointFlags::NoRecordedValueMask as u32 != 0 {
            self.remove(&identity);
            return Ok(());
        }
        let mut value = point.value.map_err(|Malformed| Reason::Malformed)?;
        let labels = match self.labels.get(&identity) {
            Some(labels) => Arc::clone(labels),
            None => origin.labels(&point.attributes, self.kind.own_label()).into(),
        };
        match self.series.entry(labels) {
            btree_map::Entry::Vacant(free) => {
                self.labels.insert(identity.clone(), Arc::clone(free.key()));
                if let Value::Exponential(histogram) = &value {
                    self.window.show(histogram);
                }
                free.insert(Series { identity, value, time: point.time, seen: now });
            }
            btree_map::Entry::Occupied(held) => {
                let held = held.into_mut();
                if held.identity != identity {
                    return Err(Reason::LabelCollision);
                }
                if point.time < held.time {
                    return Err(Reason::OldTimestamp);
                }
                if delta {
                    if point.start < held.time {
                        return Err(Reason::DeltaOverlap);
                    }
                    // A gap is a reset: what happened in it is unknown.
                    if point.start == held.time {
                        let mut sum = std::mem::replace(&mut held.value, Value::Int(0));
                        sum.add(value);
                        value = sum;
                    }
                }
                if let Value::Exponential(histogram) = &value {
                    self.window.show(histogram);
                }
                *held = Series { identity, value, time: point.time, seen: now };
            }
        }
        Ok(())
    }

    fn remove(&mut self, identity: &[u8]) {
        if let Some(labels) = self.labels.remove(identity) {
            self.series.remove(&labels);
        }
    }
}
