//! `attributes`: changes the attributes of every data point, log record and span.

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{Metric, metric::Data},
};
use serde::{Deserialize, Serialize};

use super::actions::{self, Actions};
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
}

/// The processor.
pub struct Attributes(Actions);

impl Component for Attributes {
    const NAME: &'static str = "attributes";
    const DESCRIPTION: &'static str =
        "Changes the attributes of every data point, log record or span.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str =
        "actions:\n  - {key: k8s.node.name, value: \"${env:NODE_NAME:-unknown}\", action: insert}";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        Actions::new("actions", config.actions).map(Self)
    }
}

impl Processor for Attributes {
    async fn run(self, _: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        while let Some(mut batch) = input.recv().await {
            each(&mut batch, |attributes| self.0.apply(attributes));
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

fn each_point(metric: &mut Metric, change: &mut impl FnMut(&mut Vec<KeyValue>)) {
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

    /// How often `each` calls, and how many items it should have called with.
    fn visited(mut batch: Batch) -> (usize, usize) {
        let mut calls = 0;
        each(&mut batch, |_| calls += 1);
        (calls, batch.items())
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
