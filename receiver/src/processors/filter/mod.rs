//! `filter`: drops metrics, data points, log records and spans, by conditions in OTTL or by what they
//! have.

mod config;
mod expr;

use std::cell::RefCell;

use opentelemetry::{KeyValue, metrics::Counter};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    metrics::v1::{Metric, metric::Data},
};
use tracing::error;

pub use self::config::Config;
use super::matching::{self, Attributes, Kind, Selection, Texts};
use crate::{
    batch::{Batch, Signal},
    channel::{Input, Output},
    component::{Component, Context, Processor},
    config::Mistakes,
    ottl::{About, Above, Conditions, Context as Level, Item, Of, Point},
};

/// The processor.
pub struct Filter {
    metrics: Metrics,
    logs: Logs,
    traces: Traces,
}

/// Conditions, by what they are about: a few at most.
#[derive(Default)]
struct Asked(Vec<(Level, Conditions)>);

impl Asked {
    fn add(&mut self, level: Level, conditions: Option<Conditions>) {
        let Some(conditions) = conditions else { return };
        match self.0.iter_mut().find(|(known, _)| *known == level) {
            Some((_, known)) => known.extend(conditions),
            None => self.0.push((level, conditions)),
        }
    }

    /// Whether there are none but on resources.
    fn of_resources_only(&self) -> bool {
        self.0.iter().all(|(level, _)| *level == Level::Resource)
    }

    fn about(&self, level: Level) -> Option<&Conditions> {
        self.0.iter().find(|(known, _)| *known == level).map(|(_, conditions)| conditions)
    }
}

/// What drops metrics and points.
struct Metrics {
    asked: Asked,
    include: Option<Names>,
    exclude: Option<Names>,
}

/// Names of metrics and attributes of their resources, in the older form.
struct Names {
    names: Option<Which>,
    resource: Attributes,
}

/// Which metrics are meant.
enum Which {
    Named(Texts),
    /// One of them must match.
    Expressions(Vec<expr::Expression>),
}

impl Which {
    fn matches(&self, metric: &Metric) -> Result<bool, String> {
        match self {
            Self::Named(texts) => Ok(texts.matches(&metric.name)),
            Self::Expressions(all) => {
                for one in all {
                    if one.matches(metric)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

/// What drops log records.
struct Logs {
    asked: Asked,
    selection: Selection,
}

/// What drops spans.
struct Traces {
    asked: Asked,
    selection: Selection,
}

/// Asks conditions, and remembers the first failure that is not to be ignored.
#[derive(Default)]
struct Asker {
    failure: RefCell<Option<String>>,
}

impl Asker {
    /// Whether one of the conditions holds; none does after a failure.
    fn hold(&self, conditions: Option<&Conditions>, item: &Item<'_>) -> bool {
        let Some(conditions) = conditions else { return false };
        if self.failure.borrow().is_some() {
            return false;
        }
        self.unfailing(conditions.hold(item)).unwrap_or(false)
    }

    /// What was asked, if that could be told.
    fn unfailing(&self, asked: Result<bool, String>) -> Option<bool> {
        asked.map_err(|failure| *self.failure.borrow_mut() = Some(failure)).ok()
    }

    /// Whether a resource is dropped.
    fn drops_resource(&self, asked: &Asked, above: Above<'_>) -> bool {
        self.hold(asked.about(Level::Resource), &Item { above, of: Of::Resource })
    }

    /// Whether a scope is dropped.
    fn drops_scope(&self, asked: &Asked, above: Above<'_>) -> bool {
        self.hold(asked.about(Level::Scope), &Item { above, of: Of::Scope })
    }
}

impl Component for Filter {
    const NAME: &'static str = "filter";
    const DESCRIPTION: &'static str = "Drops metrics, data points, log records and spans.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str = "metrics:\n  datapoint:\n    - 'metric.name == \
                                   \"ebpf.syscall.duration\" and attributes[\"syscall.name\"] == \
                                   \"fsync\"'";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        config::check(config)
    }
}

impl Processor for Filter {
    async fn run(self, cx: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        let attributes = [KeyValue::new("filter", cx.id.to_string())];
        // In the order of `Signal`.
        let dropped: [Counter<u64>; 3] = ["datapoints", "logs", "spans"].map(|items| {
            cx.meter.u64_counter(format!("otelcol_processor_filter_{items}.filtered")).build()
        });
        let counter = |name: &str| cx.meter.u64_counter(format!("otelcol_processor_filter_{name}"));
        let dropped_events = counter("spanevents.filtered").build();
        let failed = counter("items.failed").build();
        let count_events = |batch: &Batch| {
            if self.traces.asked.about(Level::SpanEvent).is_some() { events(batch) } else { 0 }
        };
        while let Some(mut batch) = input.recv().await {
            let (before, before_events) = (batch.items(), count_events(&batch));
            let ask = Asker::default();
            let rest = match &mut batch {
                Batch::Metrics(request) => self.metrics.filter(request, &ask),
                Batch::Logs(request) => self.logs.filter(request, &ask),
                Batch::Traces(request) => self.traces.filter(request, &ask),
            };
            if let Some(failure) = ask.failure.into_inner() {
                error!("failed processing {}: {failure}", batch.signal().name());
                failed.add(before as u64, &attributes);
                continue;
            }
            let gone = (before - batch.items()) as u64;
            dropped[batch.signal() as usize].add(gone, &attributes);
            dropped_events.add(before_events - count_events(&batch), &attributes);
            if rest {
                out.send(batch).await?;
            }
        }
        Ok(())
    }
}

/// How many events the spans have.
fn events(batch: &Batch) -> u64 {
    let Batch::Traces(request) = batch else { return 0 };
    let parts = request.resource_spans.iter().flat_map(|of| &of.scope_spans);
    parts.flat_map(|part| &part.spans).map(|span| span.events.len() as u64).sum()
}

impl Metrics {
    /// Drops what is to be dropped; whether something is left.
    fn filter(&self, request: &mut ExportMetricsServiceRequest, ask: &Asker) -> bool {
        let whole =
            self.asked.of_resources_only() && self.include.is_none() && self.exclude.is_none();
        request.resource_metrics.retain_mut(|of| {
            let above = Above {
                resource: of.resource.as_ref(),
                resource_schema: &of.schema_url,
                ..Above::default()
            };
            if ask.drops_resource(&self.asked, above) {
                return false;
            }
            let attributes = of.resource.as_ref().map_or(&[][..], |r| &r.attributes);
            let include = self.include.as_ref().is_none_or(|i| i.resource.matches(attributes));
            let exclude = self
                .exclude
                .as_ref()
                .is_some_and(|e| !e.resource.is_empty() && e.resource.matches(attributes));
            if !include || exclude {
                return false;
            }
            if whole {
                return true;
            }
            of.scope_metrics.retain_mut(|part| {
                let above =
                    Above { scope: part.scope.as_ref(), scope_schema: &part.schema_url, ..above };
                if ask.drops_scope(&self.asked, above) {
                    return false;
                }
                part.metrics.retain_mut(|metric| self.keeps(above, metric, ask));
                !part.metrics.is_empty()
            });
            !of.scope_metrics.is_empty()
        });
        !request.resource_metrics.is_empty()
    }

    fn keeps(&self, above: Above<'_>, metric: &mut Metric, ask: &Asker) -> bool {
        let named =
            |names: &Option<Names>| ask.unfailing(names.as_ref()?.names.as_ref()?.matches(metric));
        if named(&self.include) == Some(false) || named(&self.exclude) == Some(true) {
            return false;
        }
        let of = Of::Metric(About::of(metric));
        if ask.hold(self.asked.about(Level::Metric), &Item { above, of }) {
            return false;
        }
        let conditions = self.asked.about(Level::DataPoint);
        if conditions.is_none() {
            return true;
        }
        let mut data = metric.data.take();
        // The type is the data's, and the data is being changed.
        let about = About::new(metric, data.as_ref());
        let keep =
            |point: Point<'_>| !ask.hold(conditions, &Item { above, of: Of::Point(about, point) });
        macro_rules! retain {
            ($data:ident, $kind:ident) => {{
                $data.data_points.retain(|point| keep(Point::$kind(point)));
                !$data.data_points.is_empty()
            }};
        }
        let rest = match &mut data {
            Some(Data::Gauge(d)) => retain!(d, Number),
            Some(Data::Sum(d)) => retain!(d, Number),
            Some(Data::Histogram(d)) => retain!(d, Histogram),
            Some(Data::ExponentialHistogram(d)) => retain!(d, Exponential),
            Some(Data::Summary(d)) => retain!(d, Summary),
            None => true,
        };
        metric.data = data;
        rest
    }
}

impl Logs {
    /// Drops what is to be dropped; whether something is left.
    fn filter(&self, request: &mut ExportLogsServiceRequest, ask: &Asker) -> bool {
        if self.asked.0.is_empty() && self.selection.is_all() {
            return true;
        }
        let conditions = self.asked.about(Level::Log);
        request.resource_logs.retain_mut(|of| {
            let above = Above {
                resource: of.resource.as_ref(),
                resource_schema: &of.schema_url,
                ..Above::default()
            };
            if ask.drops_resource(&self.asked, above) {
                return false;
            }
            of.scope_logs.retain_mut(|part| {
                let above =
                    Above { scope: part.scope.as_ref(), scope_schema: &part.schema_url, ..above };
                if ask.drops_scope(&self.asked, above) {
                    return false;
                }
                part.log_records.retain(|log| {
                    let item = matching::Item {
                        resource: above.resource.map_or(&[], |resource| &resource.attributes),
                        scope: above.scope,
                        attributes: &log.attributes,
                        kind: Kind::Log(log),
                    };
                    self.selection.means(&item)
                        && !ask.hold(conditions, &Item { above, of: Of::Log(log) })
                });
                !part.log_records.is_empty()
            });
            !of.scope_logs.is_empty()
        });
        !request.resource_logs.is_empty()
    }
}

impl Traces {
    /// Drops what is to be dropped; whether something is left.
    fn filter(&self, request: &mut ExportTraceServiceRequest, ask: &Asker) -> bool {
        if self.asked.0.is_empty() && self.selection.is_all() {
            return true;
        }
        let conditions = self.asked.about(Level::Span);
        let on_events = self.asked.about(Level::SpanEvent);
        request.resource_spans.retain_mut(|of| {
            let above = Above {
                resource: of.resource.as_ref(),
                resource_schema: &of.schema_url,
                ..Above::default()
            };
            if ask.drops_resource(&self.asked, above) {
                return false;
            }
            of.scope_spans.retain_mut(|part| {
                let above =
                    Above { scope: part.scope.as_ref(), scope_schema: &part.schema_url, ..above };
                if ask.drops_scope(&self.asked, above) {
                    return false;
                }
                part.spans.retain_mut(|span| {
                    let item = matching::Item {
                        resource: above.resource.map_or(&[], |resource| &resource.attributes),
                        scope: above.scope,
                        attributes: &span.attributes,
                        kind: Kind::Span(span),
                    };
                    if !self.selection.means(&item)
                        || ask.hold(conditions, &Item { above, of: Of::Span(span) })
                    {
                        return false;
                    }
                    if on_events.is_some() && !span.events.is_empty() {
                        let mut index = 0;
                        let mut events = std::mem::take(&mut span.events);
                        events.retain(|event| {
                            let of = Of::Event(span, event, index);
                            index += 1;
                            !ask.hold(on_events, &Item { above, of })
                        });
                        span.events = events;
                    }
                    true
                });
                !part.spans.is_empty()
            });
            !of.scope_spans.is_empty()
        });
        !request.resource_spans.is_empty()
    }
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;
