//! What flows through a pipeline: one OTLP request of one signal.
//!
//! One type carries all three signals, so that no pipeline code exists three times.

mod parts;

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};

/// A kind of telemetry: the word before the `/` in a pipeline's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Metric points.
    Metrics,
    /// Log records.
    Logs,
    /// Spans.
    Traces,
}

impl Signal {
    /// Every signal, in the order in which lists show them.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Logs, Self::Traces];

    /// The word that pipelines are named by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Traces => "traces",
        }
    }

    /// What one item is called in the names of the agent's own metrics.
    pub const fn items(self) -> &'static str {
        match self {
            Self::Metrics => "metric_points",
            Self::Logs => "log_records",
            Self::Traces => "spans",
        }
    }
}

/// One block of telemetry.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch {
    /// Metrics.
    Metrics(ExportMetricsServiceRequest),
    /// Logs.
    Logs(ExportLogsServiceRequest),
    /// Traces.
    Traces(ExportTraceServiceRequest),
}

impl Batch {
    /// The signal that this block is of.
    pub const fn signal(&self) -> Signal {
        match self {
            Self::Metrics(_) => Signal::Metrics,
            Self::Logs(_) => Signal::Logs,
            Self::Traces(_) => Signal::Traces,
        }
    }

    /// Items in it: data points, log records or spans. This is what drops and sends are counted in.
    pub fn items(&self) -> usize {
        match self {
            Self::Metrics(request) => request
                .resource_metrics
                .iter()
                .flat_map(|r| &r.scope_metrics)
                .flat_map(|s| &s.metrics)
                .map(points)
                .sum(),
            Self::Logs(request) => request
                .resource_logs
                .iter()
                .flat_map(|r| &r.scope_logs)
                .map(|s| s.log_records.len())
                .sum(),
            Self::Traces(request) => request
                .resource_spans
                .iter()
                .flat_map(|r| &r.scope_spans)
                .map(|s| s.spans.len())
                .sum(),
        }
    }
}

/// Data points of one metric.
pub fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 0,
    }
}
