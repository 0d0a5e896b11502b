//! `metricstransform`: renames, copies, combines and groups metrics, changes their attributes and values, and adds
//! points up. Within one block only: it remembers nothing.

mod aggregate;
mod config;
mod filter;
mod operations;

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{Metric, ResourceMetrics, ScopeMetrics, metric::Data},
};
use tracing::{debug, warn};

use super::attributes::each_point;
use crate::{
    batch::{Batch, Signal, points},
    channel::{Input, Output},
    component::{Component, Context, Processor, Stability},
    config::Mistakes,
};
use aggregate::{Aggregation, aggregate};
pub use config::Config;
use filter::{Filter, Text};
use operations::{Operation, put};

/// Does the same with data of every type.
macro_rules! each {
    ($data:expr, $d:ident => $body:expr, $none:expr) => {{
        use opentelemetry_proto::tonic::metrics::v1::metric::Data;
        match $data {
            Some(Data::Gauge($d)) => $body,
            Some(Data::Sum($d)) => $body,
            Some(Data::Histogram($d)) => $body,
            Some(Data::ExponentialHistogram($d)) => $body,
            Some(Data::Summary($d)) => $body,
            None => $none,
        }
    }};
}
use each;

/// What to do with some metrics, checked.
struct Transform {
    filter: Filter,
    action: Action,
    new_name: String,
    case: Case,
    operations: Vec<Operation>,
}

enum Action {
    Update,
    Insert,
    Combine(Aggregation),
    Group(BTreeMap<String, String>),
}

/// The case of a text that is taken from a name.
#[derive(Clone, Copy)]
enum Case {
    AsIs,
    Lower,
    Upper,
}

/// The processor.
pub struct MetricsTransform {
    transforms: Vec<Transform>,
    /// Whether it was told that metrics cannot be combined: once is enough.
    told: bool,
}

impl Component for MetricsTransform {
    const NAME: &'static str = "metricstransform";
    const ALIASES: &'static [&'static str] = &["metrics_transform"];
    const DESCRIPTION: &'static str =
        "Renames, copies, combines and groups metrics, and changes their attributes and values.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    const STABILITY: Stability = Stability::Beta;
    const EXAMPLE: &'static str = "transforms:
  - include: ^page_cache\\.(hits|misses)$
    match_type: regexp
    action: combine
    new_name: page_cache.lookups
    aggregation_type: sum
";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let mut transforms = Vec::new();
        for (i, transform) in config.transforms.into_iter().enumerate() {
            match transform.check() {
                Ok(transform) => transforms.push(transform),
                Err(nested) => wrong.nest(&format!("transforms::{i}"), nested),
            }
        }
        wrong.or(Self { transforms, told: false })
    }
}

impl Processor for MetricsTransform {
    async fn run(mut self, _: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        while let Some(mut batch) = input.recv().await {
            if let Batch::Metrics(request) = &mut batch {
                self.request(request);
                if request.resource_metrics.is_empty() {
                    continue;
                }
            }
            out.send(batch).await?;
        }
        Ok(())
    }
}

impl MetricsTransform {
    fn request(&mut self, request: &mut ExportMetricsServiceRequest) {
        let mut grouped = Vec::new();
        for of in &mut request.resource_metrics {
            for part in &mut of.scope_metrics {
                for transform in &self.transforms {
                    let metrics = &mut part.metrics;
                    match &transform.action {
                        Action::Update => metrics.retain_mut(|metric| {
                            !transform.filter.matches(metric) || transform.apply(metric)
                        }),
                        Action::Insert => {
                            let copies = metrics.iter().filter(|m| transform.filter.matches(m));
                            let mut copies: Vec<Metric> = copies.cloned().collect();
                            copies.retain_mut(|metric| {
                                transform.filter.retain(metric);
                                transform.apply(metric)
                            });
                            metrics.append(&mut copies);
                        }
                        Action::Combine(aggregation) => {
                            if let Err(reason) = transform.combine(metrics, *aggregation) {
                                match std::mem::replace(&mut self.told, true) {
                                    false => warn!("{reason}"),
                                    true => debug!("{reason}"),
                                }
                            }
                        }
                        Action::Group(labels) => {
                            let metrics = transform.take(metrics);
                            if metrics.is_empty() {
                                continue;
                            }
                            let mut resource = of.resource.clone().unwrap_or_default();
                            for (label, value) in labels {
                                put(&mut resource.attributes, label, value);
                            }
                            grouped.push(ResourceMetrics {
                                resource: Some(resource),
                                scope_metrics: vec![ScopeMetrics {
                                    scope: part.scope.clone(),
                                    metrics,
                                    schema_url: part.schema_url.clone(),
                                }],
                                schema_url: of.schema_url.clone(),
                            });
                        }
                    }
                }
            }
            of.scope_metrics.retain(|part| !part.metrics.is_empty());
        }
        request.resource_metrics.retain(|of| !of.scope_metrics.is_empty());
        request.resource_metrics.append(&mut grouped);
    }
}

impl Transform {
    /// Changes a metric. False if nothing is left of it.
    fn apply(&self, metric: &mut Metric) -> bool {
        let empty = points(metric) == 0;
        // What other actions change are copies, of what is meant.
        let whole = !matches!(self.action, Action::Update) || self.filter.means_all(metric);
        if whole && !self.new_name.is_empty() {
            let expanded = self.filter.expand(&self.new_name, &metric.name);
            metric.name = if expanded.is_empty() { self.new_name.clone() } else { expanded };
        }
        for operation in &self.operations {
            operation.apply(metric, &self.filter, whole);
        }
        empty || points(metric) > 0
    }

    /// Takes the metrics that are meant out, and leaves of them the points that are meant.
    fn take(&self, metrics: &mut Vec<Metric>) -> Vec<Metric> {
        metrics
            .extract_if(.., |metric| self.filter.matches(metric))
            .map(|mut metric| {
                self.filter.retain(&mut metric);
                metric
            })
            .collect()
    }

    /// Makes one metric of those that are meant.
    fn combine(&self, metrics: &mut Vec<Metric>, how: Aggregation) -> Result<(), String> {
        let meant: Vec<&Metric> = metrics.iter().filter(|m| self.filter.matches(m)).collect();
        can_be_combined(&meant)?;
        let mut taken = self.take(metrics);
        for metric in &mut taken {
            self.label(metric);
        }
        let Some(first) = taken.first_mut() else { return Ok(()) };
        let mut combined = Metric {
            name: self.new_name.clone(),
            description: std::mem::take(&mut first.description),
            unit: std::mem::take(&mut first.unit),
            data: None,
            metadata: std::mem::take(&mut first.metadata),
        };
        combined.data = aggregate(taken.into_iter().filter_map(|metric| metric.data), how);
        if self.apply(&mut combined) {
            metrics.push(combined);
        }
        Ok(())
    }

    /// Gives points what groups of the pattern match in the metric's name.
    fn label(&self, metric: &mut Metric) {
        let Text::Regexp(pattern) = &self.filter.name else { return };
        let name = std::mem::take(&mut metric.name);
        if let Some(groups) = pattern.captures(&name) {
            let labels = pattern.capture_names().zip(groups.iter()).enumerate().skip(1);
            for (i, (label, group)) in labels {
                let label = label.map_or_else(|| format!("${i}"), str::to_owned);
                let text = group.map_or("", |group| group.as_str());
                let text = match self.case {
                    Case::AsIs => text.to_owned(),
                    Case::Lower => text.to_lowercase(),
                    Case::Upper => text.to_uppercase(),
                };
                if !text.is_empty() {
                    each_point(metric, &mut |attributes| put(attributes, &label, &text));
                }
            }
        }
        metric.name = name;
    }
}

/// Why metrics cannot be combined, if they cannot: they must have the same type, unit and attributes.
fn can_be_combined(metrics: &[&Metric]) -> Result<(), String> {
    let [first, others @ ..] = metrics else { return Ok(()) };
    if others.is_empty() {
        return Ok(());
    }
    for metric in metrics {
        if let Some(Data::Summary(_)) = &metric.data {
            return Err(format!("Summary metrics cannot be combined: {}", metric.name));
        }
    }
    for other in others {
        let pair = |what: &str, a: &dyn std::fmt::Display, b: &dyn std::fmt::Display| {
            let (first, other) = (&first.name, &other.name);
            Err(format!(
                "metrics cannot be combined as they {what}: {first} ({a}) and {other} ({b})"
            ))
        };
        let (a, b) = (Kind::of(first), Kind::of(other));
        if a.name != b.name {
            return pair("are of different types", &a.name, &b.name);
        }
        if first.unit != other.unit {
            return pair("have different units", &first.unit, &other.unit);
        }
        let (keys, others) = (keys(first), keys(other));
        if keys != others {
            let text = |keys: BTreeSet<&str>| keys.into_iter().collect::<Vec<_>>().join(" ");
            return pair("have different attributes", &text(keys), &text(others));
        }
        if a.temporality != b.temporality {
            let what = "have different aggregation temporalities";
            return pair(what, &a.temporality, &b.temporality);
        }
        if a.monotonic != b.monotonic {
            return pair("have different monotonicity", &a.monotonic, &b.monotonic);
        }
    }
    Ok(())
}

/// What metrics that are combined must have in common.
struct Kind {
    name: &'static str,
    temporality: &'static str,
    monotonic: bool,
}

impl Kind {
    fn of(metric: &Metric) -> Self {
        let temporality = |of: i32| match of {
            1 => "Delta",
            2 => "Cumulative",
            _ => "Unspecified",
        };
        let (name, temporality, monotonic) = match &metric.data {
            None => ("Empty", "", false),
            Some(Data::Gauge(_)) => ("Gauge", "", false),
            Some(Data::Sum(d)) => ("Sum", temporality(d.aggregation_temporality), d.is_monotonic),
            Some(Data::Histogram(d)) => {
                ("Histogram", temporality(d.aggregation_temporality), false)
            }
            Some(Data::ExponentialHistogram(d)) => {
                ("ExponentialHistogram", temporality(d.aggregation_temporality), false)
            }
            Some(Data::Summary(_)) => ("Summary", "", false),
        };
        Self { name, temporality, monotonic }
    }
}

/// The keys of all points' attributes.
fn keys(metric: &Metric) -> BTreeSet<&str> {
    each!(&metric.data, d => d.data_points
        .iter()
        .flat_map(|p| &p.attributes)
        .map(|a| a.key.as_str())
        .collect(), BTreeSet::new())
}

#[cfg(test)]
mod tests;
