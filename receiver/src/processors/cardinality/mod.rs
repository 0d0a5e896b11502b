//! `cardinality`: a budget of series for each metric, and for each tenant of it.
//!
//! A series is what resource, scope, metric and attributes identify. Series over budget become one, with
//! `otel.metric.overflow=true`, that adds up to what they add up to. Gauges do not add up: those over
//! budget are dropped.

mod budget;
mod fold;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use opentelemetry::{
    KeyValue as Label,
    metrics::{Counter, Gauge},
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        DataPointFlags, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, metric::Data,
    },
};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::identity::Identities;
use crate::{
    batch::{Batch, Signal, points},
    channel::{Input, Output},
    component::{Component, Context, Processor},
    config::Mistakes,
};
use budget::{Budget, Fate, Over, Overflow};
use fold::{Mode, Piece};

/// The configuration of `cardinality`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The most series of a metric; overflow series come on top.
    pub limit: usize,
    /// Other limits for single metrics, by name.
    pub metrics: BTreeMap<String, usize>,
    /// The attribute of a point, or of its resource, that names a tenant. Each has its own overflow.
    pub tenant_attribute: String,
    /// The most series of a metric that one tenant has; 0 is no limit of its own.
    pub tenant_limit: usize,
    /// A series without a point for this long is forgotten, and its place is free. It must be longer than
    /// the longest interval of collection.
    #[serde(with = "crate::config::duration")]
    pub max_stale: Duration,
    /// The most series over budget of which the last value is held, which sums need; points of further
    /// ones are dropped.
    pub max_folded: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limit: 2000,
            metrics: BTreeMap::new(),
            tenant_attribute: String::new(),
            tenant_limit: 0,
            max_stale: Duration::from_secs(300),
            max_folded: 200_000,
        }
    }
}

/// The processor.
pub struct Cardinality(Config);

impl Component for Cardinality {
    const NAME: &'static str = "cardinality";
    const DESCRIPTION: &'static str =
        "Limits the series of each metric; those over budget become one that has their sum.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(config.limit > 0, "limit", "must be a positive number");
        for (name, limit) in &config.metrics {
            wrong.require(*limit > 0, &format!("metrics::{name}"), "must be a positive number");
        }
        let named = !config.tenant_attribute.is_empty();
        let message = "needs tenant_attribute, which names the tenant";
        wrong.require(config.tenant_limit == 0 || named, "tenant_limit", message);
        let message = "must be a positive duration (got 0s)";
        wrong.require(!config.max_stale.is_zero(), "max_stale", message);
        wrong.or(Self(config))
    }
}

impl Processor for Cardinality {
    async fn run(self, cx: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        let counts = Counts {
            folded: cx.meter.u64_counter("otelcol_cardinality_folded_datapoints").build(),
            dropped: cx.meter.u64_counter("otelcol_cardinality_dropped_datapoints").build(),
            series: cx.meter.u64_gauge("otelcol_cardinality_series_tracked").build(),
        };
        let mut series = Series::new(self.0);
        while let Some(mut batch) = input.recv().await {
            if let Batch::Metrics(request) = &mut batch {
                series.request(request);
                counts.record(&mut series);
            }
            if batch.items() > 0 {
                out.send(batch).await?;
            }
        }
        Ok(())
    }
}

/// The processor's own metrics.
struct Counts {
    folded: Counter<u64>,
    dropped: Counter<u64>,
    series: Gauge<u64>,
}

impl Counts {
    fn record(&self, series: &mut Series) {
        let tally = std::mem::take(&mut series.tally);
        self.folded.add(tally.folded, &[]);
        for (reason, n) in [
            ("not_additive", tally.not_additive),
            ("out_of_order", tally.out_of_order),
            ("max_folded", tally.full),
        ] {
            self.dropped.add(n, &[Label::new("reason", reason)]);
        }
        let sizes = series.budgets.values().map(Budget::len);
        let (admitted, folded) = sizes.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        self.series.record(admitted as u64, &[Label::new("state", "admitted")]);
        self.series.record(folded as u64, &[Label::new("state", "folded")]);
    }
}

/// What became of the points of a request that did not go on as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    folded: u64,
    not_additive: u64,
    out_of_order: u64,
    full: u64,
}

/// What is known of all series.
struct Series {
    config: Config,
    identities: Identities,
    budgets: HashMap<String, Budget>,
    /// Folded series of all metrics.
    held: usize,
    tally: Tally,
    swept: Instant,
}

/// Where an overflow series is to be sent.
struct Due {
    overflow: u128,
    /// Of the resource, of the scope in it and of the metric in that.
    place: [usize; 3],
}

impl Series {
    fn new(config: Config) -> Self {
        Self {
            config,
            identities: Identities::default(),
            budgets: HashMap::new(),
            held: 0,
            tally: Tally::default(),
            swept: Instant::now(),
        }
    }

    fn request(&mut self, request: &mut ExportMetricsServiceRequest) {
        self.sweep();
        let mut due = Vec::new();
        for (i, block) in request.resource_metrics.iter_mut().enumerate() {
            let resource = self.identities.resource(block.resource.as_ref());
            let owned = block.resource.as_ref().map_or(&[][..], |r| &r.attributes);
            let tenant = find(owned, &self.config.tenant_attribute);
            for (j, block) in block.scope_metrics.iter_mut().enumerate() {
                let scope = self.identities.scope(resource, block);
                for (k, metric) in block.metrics.iter_mut().enumerate() {
                    self.metric(metric, scope, tenant, |overflow| {
                        due.push(Due { overflow, place: [i, j, k] });
                    });
                }
            }
        }
        // Once a request, after all that it adds up to is known.
        for due in due {
            self.send(request, &due);
        }
        request.resource_metrics.retain_mut(|block| {
            block.scope_metrics.retain_mut(|block| {
                block.metrics.retain(|metric| points(metric) > 0);
                !block.metrics.is_empty()
            });
            !block.scope_metrics.is_empty()
        });
    }

    fn metric(
        &mut self,
        metric: &mut Metric,
        scope: u128,
        tenant: Option<&KeyValue>,
        mut due: impl FnMut(u128),
    ) {
        let id = self.identities.metric(scope, metric);
        let shared = self.identities.metric(0, metric);
        let Config { limit, metrics, tenant_attribute, tenant_limit, max_folded, .. } =
            &self.config;
        if !self.budgets.contains_key(&metric.name) {
            let limit = metrics.get(&metric.name).copied().unwrap_or(*limit);
            self.budgets.insert(metric.name.clone(), Budget::new(limit));
        }
        let Some(budget) = self.budgets.get_mut(&metric.name) else { return };
        let (identities, tally, held) = (&mut self.identities, &mut self.tally, &mut self.held);
        let now = Instant::now();
        let mut visit =
            |attributes: &[KeyValue], flags, additive: &dyn Fn() -> Option<(Mode, Piece)>| {
                let series = identities.attributes(id, attributes);
                if flags & DataPointFlags::NoRecordedValueMask as u32 != 0 {
                    let before = budget.len().1;
                    let goes_on = budget.end(series);
                    *held -= before - budget.len().1;
                    return goes_on;
                }
                let own = find(attributes, tenant_attribute);
                let tenant = own.or(tenant).map(|t| identities.of(t.encode_to_vec()));
                let limited = tenant.filter(|_| *tenant_limit > 0).map(|t| (t, *tenant_limit));
                if budget.admit(series, limited, now) {
                    return true;
                }
                let Some((mode, piece)) = additive() else {
                    tally.not_additive += 1;
                    return false;
                };
                let overflows = [identities.of((id, tenant)), shared];
                let marked = |shared: bool| {
                    let overflow = KeyValue {
                        key: "otel.metric.overflow".to_owned(),
                        value: Some(AnyValue { value: Some(any_value::Value::BoolValue(true)) }),
                        ..Default::default()
                    };
                    own.filter(|_| !shared).cloned().into_iter().chain([overflow]).collect()
                };
                let over = Over { series, overflows, piece, mode };
                let before = budget.len().1;
                let (fate, overflow) = budget.fold(over, marked, *held < *max_folded, now);
                *held += budget.len().1 - before;
                match fate {
                    Fate::First => due(overflow),
                    Fate::Folded => {}
                    Fate::OutOfOrder => tally.out_of_order += 1,
                    Fate::Full => tally.full += 1,
                }
                tally.folded += u64::from(matches!(fate, Fate::First | Fate::Folded));
                false
            };
        match &mut metric.data {
            Some(Data::Gauge(d)) => {
                d.data_points.retain(|p| visit(&p.attributes, p.flags, &|| None))
            }
            Some(Data::Summary(d)) => {
                d.data_points.retain(|p| visit(&p.attributes, p.flags, &|| None))
            }
            Some(Data::Sum(d)) => {
                let mode = Mode::new(d.aggregation_temporality, d.is_monotonic);
                d.data_points
                    .retain(|p| visit(&p.attributes, p.flags, &|| mode.zip(Piece::number(p))));
            }
            Some(Data::Histogram(d)) => {
                let mode = Mode::new(d.aggregation_temporality, true);
                d.data_points
                    .retain(|p| visit(&p.attributes, p.flags, &|| mode.zip(Piece::histogram(p))));
            }
            Some(Data::ExponentialHistogram(d)) => {
                let mode = Mode::new(d.aggregation_temporality, true);
                d.data_points.retain(|p| {
                    visit(&p.attributes, p.flags, &|| Some((mode?, Piece::exponential(p))))
                });
            }
            None => {}
        }
    }

    /// Appends an overflow series where its first point came from.
    fn send(&mut self, request: &mut ExportMetricsServiceRequest, due: &Due) {
        let [i, j, k] = due.place;
        let metric = &mut request.resource_metrics[i].scope_metrics[j].metrics[k];
        let budget = self.budgets.get_mut(&metric.name);
        let Some(sent) = budget.and_then(|budget| budget.send(due.overflow)) else { return };
        if !sent.shared {
            append(metric, sent);
            return;
        }
        let mut metric = empty(metric);
        append(&mut metric, sent);
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }];
        request.resource_metrics.push(ResourceMetrics { scope_metrics, ..Default::default() });
    }

    /// Forgets what has been silent for too long.
    fn sweep(&mut self) {
        let (now, max) = (Instant::now(), self.config.max_stale);
        // Looking more often than this would not find much more.
        if now - self.swept < max.min(Duration::from_secs(10)) {
            return;
        }
        self.swept = now;
        self.budgets.values_mut().for_each(|budget| budget.sweep(max, now));
        self.budgets.retain(|_, budget| !budget.is_empty());
        self.held = self.budgets.values().map(|budget| budget.len().1).sum();
    }
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a KeyValue> {
    attributes.iter().find(|attribute| !key.is_empty() && attribute.key == key)
}

/// The same metric without points.
fn empty(metric: &Metric) -> Metric {
    let mut metric = metric.clone();
    match &mut metric.data {
        Some(Data::Sum(d)) => d.data_points.clear(),
        Some(Data::Histogram(d)) => d.data_points.clear(),
        Some(Data::ExponentialHistogram(d)) => d.data_points.clear(),
        // These have no overflow.
        Some(Data::Gauge(_) | Data::Summary(_)) | None => {}
    }
    metric
}

fn append(metric: &mut Metric, overflow: Overflow) {
    let Overflow { attributes, times: (start_time_unix_nano, time_unix_nano), total, .. } =
        overflow;
    match (&mut metric.data, total) {
        (Some(Data::Sum(d)), Some(Piece::Number(p))) => d.data_points.push(NumberDataPoint {
            attributes,
            start_time_unix_nano,
            time_unix_nano,
            ..p
        }),
        (Some(Data::Histogram(d)), Some(Piece::Histogram(p))) => {
            d.data_points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                ..p
            });
        }
        (Some(Data::ExponentialHistogram(d)), Some(Piece::Exponential(p))) => {
            d.data_points.push(ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                ..p
            });
        }
        // An overflow is made from points of its metric.
        _ => {}
    }
}

#[cfg(test)]
mod tests;
