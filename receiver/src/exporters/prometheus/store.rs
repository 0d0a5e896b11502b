//! The last value of every series, and what is refused on the way in.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{AggregationTemporality, Metric, metric::Data},
};

use super::{
    Rules,
    family::{Arrival, Family, Kind, Point},
    labels::{Identity, Origin, target_info},
    reason::{Reason, Tally},
    value::Value,
};
use crate::prometheus_names::Suffix;

/// Warnings are logged once per metric, up to this many metrics: names come from outside.
const WARNED: usize = 1000;

/// The store.
pub(super) struct Store {
    rules: Arc<Rules>,
    /// By name, so that the exposition is sorted.
    pub(super) families: BTreeMap<String, Family>,
    /// Of all families.
    pub(super) series: usize,
    warned: HashSet<(Reason, String)>,
}

macro_rules! points {
    ($data:expr) => {
        points!($data, point => std::mem::take(&mut point.exemplars))
    };
    ($data:expr, $point:ident => $exemplars:expr) => {
        Box::new($data.data_points.into_iter().map(|mut $point| Point {
            attributes: std::mem::take(&mut $point.attributes),
            start: $point.start_time_unix_nano,
            time: $point.time_unix_nano,
            flags: $point.flags,
            exemplars: $exemplars,
            value: Value::try_from($point),
        }))
    };
}

impl Store {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, families: BTreeMap::new(), series: 0, warned: HashSet::new() }
    }

    /// Whether samples carry the time of their point.
    pub(super) fn sends_timestamps(&self) -> bool {
        self.rules.config.send_timestamps
    }

    /// Whether all names are such that every scraper knows them.
    pub(super) fn is_classic(&self) -> bool {
        self.rules.config.strategy().escapes()
    }

    /// Takes in a batch that has come at `now`.
    pub(super) fn apply(&mut self, request: ExportMetricsServiceRequest, now: Instant) -> Tally {
        let mut tally = Tally::default();
        let rules = Arc::clone(&self.rules);
        for resource_metrics in request.resource_metrics {
            let resource = resource_metrics.resource.unwrap_or_default();
            if let Some((identity, labels)) = target_info(&rules, &resource) {
                self.describe_target(identity, labels, now, &mut tally);
            }
            for scope_metrics in resource_metrics.scope_metrics {
                let (scope, schema) = (scope_metrics.scope.as_ref(), &scope_metrics.schema_url);
                let origin = Origin::new(&rules, &resource, scope, schema);
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
            let before = family.series.len();
            family.expire(lifetime, now);
            self.series -= before - family.series.len();
            !family.series.is_empty()
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
        let (kind, temporality, points): (_, _, Box<dyn Iterator<Item = Point>>) = match data {
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
            Data::Summary(summary) => (Kind::Summary, None, points!(summary, point => Vec::new())),
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
            None => Some(Reason::InvalidName.into()),
            _ if temporality == Some(AggregationTemporality::Unspecified) => {
                Some(Reason::TemporalityUnspecified.into())
            }
            _ if delta && kind == Kind::Gauge => Some(Reason::DeltaNonMonotonic.into()),
            Some(public) => self.conflict(public, kind),
        };
        let (Some(public), None) = (public, &refused) else {
            if let Some(refusal) = refused.filter(|_| count > 0) {
                tally.drop(refusal.reason, count);
                self.warn(refusal, &name);
            }
            return;
        };
        if count == 0 {
            return;
        }

        let family = self
            .families
            .entry(public.clone())
            .or_insert_with(|| Family::new(kind, description.clone(), &unit));
        if family.help != description && !family.described_twice {
            family.described_twice = true;
            tracing::info!(
                instrument = public,
                existing = family.help,
                dropped = description,
                "Instrument description conflict, using existing"
            );
        }
        let mut warnings = HashSet::new();
        let arrival = Arrival { origin, metric: &name, delta, now };
        for point in points {
            let before = family.series.len();
            let taken = family.take(&arrival, point, self.rules.room(self.series));
            self.series = self.series + family.series.len() - before;
            match taken {
                Ok(()) => tally.taken += 1,
                Err(reason) => {
                    tally.drop(reason, 1);
                    warnings.insert(reason);
                }
            }
        }
        if family.series.is_empty() {
            self.families.remove(&public);
        }
        for reason in warnings {
            self.warn(reason.into(), &name);
        }
    }

    /// Why samples of `name` would mix with those of a metric of another type, if they would.
    fn conflict(&self, name: &str, kind: Kind) -> Option<Refusal> {
        let of = |held: &str, family: &Family| Refusal {
            reason: Reason::TypeConflict,
            // The Collector's words.
            details: format!(
                "instrument type conflict, using existing type definition. instrument: {held}, \
                 existing: {}, dropped: {}",
                family.kind.name().to_ascii_uppercase(),
                kind.name().to_ascii_uppercase()
            ),
        };
        if let Some(family) = self.families.get(name) {
            return (family.kind != kind).then(|| of(name, family));
        }
        // A histogram `x` also has samples `x_count`: there may be no other metric of that name.
        let below = kind.samples().iter().find_map(|end| {
            let (held, family) = self.families.get_key_value(&format!("{name}{end}"))?;
            Some(of(held, family))
        });
        let above = || {
            ["_bucket", "_count", "_sum"].iter().find_map(|end| {
                let (held, family) = self.families.get_key_value(name.strip_suffix(end)?)?;
                family.kind.samples().contains(end).then(|| of(held, family))
            })
        };
        below.or_else(above)
    }

    fn describe_target(
        &mut self,
        identity: Identity,
        labels: String,
        now: Instant,
        tally: &mut Tally,
    ) {
        let name = self.rules.names.in_namespace("target_info");
        if let Some(refusal) = self.conflict(&name, Kind::Gauge) {
            return self.warn(refusal, &name);
        }
        let family = self
            .families
            .entry(name.clone())
            .or_insert_with(|| Family::new(Kind::Gauge, "Target metadata".to_owned(), ""));
        let before = family.series.len();
        let described = family.describe_target(identity, labels, self.rules.room(self.series), now);
        self.series = self.series + family.series.len() - before;
        if family.series.is_empty() {
            self.families.remove(&name);
        }
        if let Err(reason) = described {
            tally.drop(reason, 1);
            self.warn(reason.into(), &name);
        }
    }

    fn warn(&mut self, refusal: Refusal, metric: &str) {
        let Refusal { reason, details } = refusal;
        if reason == Reason::OldTimestamp || self.warned.len() >= WARNED {
            return;
        }
        if self.warned.insert((reason, metric.to_owned())) {
            tracing::error!(
                metric,
                reason = reason.name(),
                details,
                "dropping points; logged once, counted in otelcol_exporter_prometheus_dropped_points"
            );
        }
    }
}

/// Why points are refused, with what there is to say about it.
struct Refusal {
    reason: Reason,
    details: String,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, details: String::new() }
    }
}
