//! `attributes`: changes the attributes of every data point, log record and span.

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{Metric, metric::Data},
    resource::v1::Resource,
};
use serde::{Deserialize, Serialize};

use super::{
    actions::{self, Actions},
    matching::{self, Item, Kind, Selection},
};
use crate::{
    batch::{Batch, Signal},
    channel::{Input, Output},
    component::{Component, Context, Processor},
    config::Mistakes,
};

/// The configuration of `attributes`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What to do, in this order.
    pub actions: Vec<actions::Config>,
    /// What an item must have to be changed.
    pub include: Option<matching::Config>,
    /// What an item must not have to be changed. Asked after `include`.
    pub exclude: Option<matching::Config>,
}

/// The processor.
pub struct Attributes {
    actions: Actions,
    selection: Selection,
}

impl Component for Attributes {
    const NAME: &'static str = "attributes";
    const DESCRIPTION: &'static str =
        "Changes the attributes of every data point, log record or span.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str =
        "actions:\n  - {key: k8s.node.name, value: \"${env:NODE_NAME:-unknown}\", action: insert}";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let actions = Actions::new("actions", config.actions);
        let selection = Selection::new(config.include, config.exclude);
        match (actions, selection) {
            (Ok(actions), Ok(selection)) => return Ok(Self { actions, selection }),
            (actions, selection) => {
                actions.map_err(|nested| wrong.nest("", nested)).ok();
                selection.map_err(|nested| wrong.nest("", nested)).ok();
            }
        }
        Err(wrong)
    }
}

impl Processor for Attributes {
    fn suits(&self, signal: Signal) -> Mistakes {
        self.selection.unsuited(signal)
    }

    async fn run(self, _: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        while let Some(mut batch) = input.recv().await {
            if self.selection.is_all() {
                each(&mut batch, |attributes| self.actions.apply(attributes));
            } else {
                selected(&mut batch, &self.selection, |attributes| self.actions.apply(attributes));
            }
            out.send(batch).await?;
        }
        Ok(())
    }
}

/// Calls `change` with the attributes of every item.
pub(super) fn each(batch: &mut Batch, mut change: impl FnMut(&mut Vec<KeyValue>)) {
    match batch {
        Batch::Metrics(request) => request
            .resource_metrics
            .iter_mut()
            .flat_map(|r| &mut r.scope_metrics)
            .flat_map(|s| &mut s.metrics)
            .for_each(|metric| each_point(metric, &mut change)),
        Batch::Logs(request) => request
            .resource_logs
            .iter_mut()
            .flat_map(|r| &mut r.scope_logs)
            .flat_map(|s| &mut s.log_records)
            .for_each(|record| change(&mut record.attributes)),
        Batch::Traces(request) => request
            .resource_spans
            .iter_mut()
            .flat_map(|r| &mut r.scope_spans)
            .flat_map(|s| &mut s.spans)
            .for_each(|span| change(&mut span.attributes)),
    }
}

/// Calls `change` with the attributes of the items that are meant.
fn selected(batch: &mut Batch, selection: &Selection, mut change: impl FnMut(&mut Vec<KeyValue>)) {
    fn attributes(resource: &Option<Resource>) -> &[KeyValue] {
        resource.as_ref().map_or(&[], |resource| &resource.attributes)
    }
    match batch {
        Batch::Metrics(request) => {
            for of in &mut request.resource_metrics {
                let resource = attributes(&of.resource);
                for part in &mut of.scope_metrics {
                    let scope = part.scope.as_ref();
                    for metric in &mut part.metrics {
                        let name = std::mem::take(&mut metric.name);
                        each_point(metric, &mut |attributes| {
                            let kind = Kind::Point(&name);
                            if selection.means(&Item { resource, scope, attributes, kind }) {
                                change(attributes);
                            }
                        });
                        metric.name = name;
                    }
                }
            }
        }
        Batch::Logs(request) => {
            for of in &mut request.resource_logs {
                let resource = attributes(&of.resource);
                for part in &mut of.scope_logs {
                    let scope = part.scope.as_ref();
                    for record in &mut part.log_records {
                        let (attributes, kind) = (&record.attributes, Kind::Log(record));
                        if selection.means(&Item { resource, scope, attributes, kind }) {
                            change(&mut record.attributes);
                        }
                    }
                }
            }
        }
        Batch::Traces(request) => {
            for of in &mut request.resource_spans {
                let resource = attributes(&of.resource);
                for part in &mut of.scope_spans {
                    let scope = part.scope.as_ref();
                    for span in &mut part.spans {
                        let (attributes, kind) = (&span.attributes, Kind::Span(span));
                        if selection.means(&Item { resource, scope, attributes, kind }) {
                            change(&mut span.attributes);
                        }
                    }
                }
            }
        }
    }
}

/// Calls `change` with the attributes of every point of a metric.
pub(super) fn each_point(metric: &mut Metric, change: &mut impl FnMut(&mut Vec<KeyValue>)) {
    match &mut metric.data {
        Some(Data::Gauge(d)) => d.data_points.iter_mut().for_each(|p| change(&mut p.attributes)),
        Some(Data::Sum(d)) => d.data_points.iter_mut().for_each(|p| change(&mut p.attributes)),
        Some(Data::Histogram(d)) => {
            d.data_points.iter_mut().for_each(|p| change(&mut p.attributes))
        }
        Some(Data::ExponentialHistogram(d)) => {
            d.data_points.iter_mut().for_each(|p| change(&mut p.attributes));
        }
        Some(Data::Summary(d)) => d.data_points.iter_mut().for_each(|p| change(&mut p.attributes)),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{
            logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
            trace::v1::ExportTraceServiceRequest,
        },
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
        metrics::v1::{
            ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
            HistogramDataPoint, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
            SummaryDataPoint,
        },
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };

    use super::*;
    use crate::config;

    /// How often `each` calls, and how many items it should have called with.
    fn visited(mut batch: Batch) -> (usize, usize) {
        let mut calls = 0;
        each(&mut batch, |_| calls += 1);
        (calls, batch.items())
    }

    #[test]
    fn what_is_selected_is_changed_and_nothing_else() {
        let config = serde_json::json!({
            "include": {"match_type": "strict", "metric_names": ["one"], "log_bodies": ["x"],
                "span_names": ["one"]},
            "exclude": {"match_type": "strict", "attributes": [{"key": "keep"}]},
            "actions": [{"key": "new", "action": "insert", "value": 1}],
        });
        let config = serde_json::from_value(config).expect("of the right types");
        let processor = Attributes::new(config).expect("valid");
        let changed = |mut batch: Batch| {
            let mut changed = 0;
            selected(&mut batch, &processor.selection, |_| changed += 1);
            changed
        };
        let keep = crate::metric::pairs(&[("keep", "")]);
        let metric = |name: &str| Metric {
            name: name.to_owned(),
            data: Some(Data::Gauge(Gauge {
                data_points: vec![
                    NumberDataPoint::default(),
                    NumberDataPoint { attributes: keep.clone(), ..Default::default() },
                ],
            })),
            ..Default::default()
        };
        let metrics = vec![metric("one"), metric("two")];
        let scope = ScopeMetrics { metrics, ..Default::default() };
        let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource] };
        assert_eq!(changed(Batch::Metrics(request)), 1);

        let scope = ScopeLogs { log_records: vec![LogRecord::default()], ..Default::default() };
        let resource = ResourceLogs { scope_logs: vec![scope], ..Default::default() };
        let request = ExportLogsServiceRequest { resource_logs: vec![resource] };
        assert_eq!(changed(Batch::Logs(request)), 0);

        let span = |name: &str| Span { name: name.to_owned(), ..Default::default() };
        let spans = vec![span("one"), span("two")];
        let scope = ScopeSpans { spans, ..Default::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..Default::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource] };
        assert_eq!(changed(Batch::Traces(request)), 1);
    }

    #[test]
    fn mistakes_of_actions_and_of_matching_are_reported_together() {
        let config = serde_json::json!({"include": {}, "exclude": {}});
        let config = serde_json::from_value(config).expect("of the right types");
        let wrong = Attributes::new(config).err().expect("wrong");
        let paths: Vec<_> = wrong.0.iter().map(|m| m.path.as_str()).collect();
        assert_eq!(paths, ["actions", "include", "exclude"]);
    }

    #[test]
    fn what_the_pipelines_signal_does_not_have_is_refused_once() {
        let said = |criterion: &str| {
            let yaml = format!(
                "yaml:
receivers: {{iomonitor: }}
exporters: {{debug: }}
processors:
  attributes/some:
    actions: [{{key: a, action: delete}}]
    include:
      match_type: strict
      {criterion}
service:
  pipelines:
    metrics: {{receivers: [iomonitor], processors: [attributes/some], exporters: [debug]}}
    metrics/2: {{receivers: [iomonitor], processors: [attributes/some], exporters: [debug]}}
"
            );
            config::load(&[yaml], &[], &crate::KINDS).err().map(|report| report.to_string())
        };
        assert_eq!(said("metric_names: [a]"), None);
        let report = said("log_bodies: [a]").expect("it is refused");
        let path = "processors::attributes/some::include::log_bodies: \"span_names\", ";
        assert_eq!(report.matches(path).count(), 1, "{report}");
        assert!(said("services: [a]").is_some_and(|report| report.contains("for metrics")));
        assert!(report.contains("at yaml::9:19"), "{report}");
    }

    #[test]
    fn every_item_of_every_signal_is_visited() {
        let all = [
            Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default()] }),
            Data::Sum(Sum { data_points: vec![Default::default()], ..Default::default() }),
            Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint::default()],
                ..Default::default()
            }),
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint::default()],
                ..Default::default()
            }),
            Data::Summary(Summary { data_points: vec![SummaryDataPoint::default()] }),
        ];
        let metrics = all.map(|data| Metric { data: Some(data), ..Default::default() }).into();
        let scope = ScopeMetrics { metrics, ..Default::default() };
        let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource] };
        assert_eq!(visited(Batch::Metrics(request)), (5, 5));

        let scope = ScopeLogs { log_records: vec![LogRecord::default(); 2], ..Default::default() };
        let resource = ResourceLogs { scope_logs: vec![scope], ..Default::default() };
        let request = ExportLogsServiceRequest { resource_logs: vec![resource] };
        assert_eq!(visited(Batch::Logs(request)), (2, 2));

        let scope = ScopeSpans { spans: vec![Span::default(); 2], ..Default::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..Default::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource] };
        assert_eq!(visited(Batch::Traces(request)), (2, 2));
    }
}
