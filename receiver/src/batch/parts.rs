//! Parts of blocks: joining several into one, and taking some items out.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    logs::v1::{ResourceLogs, ScopeLogs},
    metrics::v1::{
        ExponentialHistogram, Gauge, Histogram as Explicit, Metric, ResourceMetrics, ScopeMetrics,
        Sum, Summary, metric::Data,
    },
    trace::v1::{ResourceSpans, ScopeSpans},
};

use super::{Batch, points};

impl Batch {
    /// Takes in what another block of the same signal holds.
    pub fn join(&mut self, more: Self) {
        match (self, more) {
            (Self::Metrics(held), Self::Metrics(more)) => {
                held.resource_metrics.extend(more.resource_metrics);
            }
            (Self::Logs(held), Self::Logs(more)) => held.resource_logs.extend(more.resource_logs),
            (Self::Traces(held), Self::Traces(more)) => {
                held.resource_spans.extend(more.resource_spans);
            }
            _ => unreachable!("a pipeline, and the queue of an exporter, has one signal"),
        }
    }

    /// Takes the first `n` items out of a block. What they belong to is in both parts.
    pub fn take(&mut self, n: usize) -> Self {
        match self {
            Self::Metrics(request) => {
                let resource_metrics =
                    front(&mut request.resource_metrics, n, resource_points, |r, n| {
                        let scope_metrics = front(&mut r.scope_metrics, n, scope_points, |s, n| {
                            let metrics = front(&mut s.metrics, n, points, part);
                            let (scope, schema_url) = (s.scope.clone(), s.schema_url.clone());
                            ScopeMetrics { scope, metrics, schema_url }
                        });
                        let (resource, schema_url) = (r.resource.clone(), r.schema_url.clone());
                        ResourceMetrics { resource, scope_metrics, schema_url }
                    });
                Self::Metrics(ExportMetricsServiceRequest { resource_metrics })
            }
            Self::Logs(request) => {
                let records = |s: &ScopeLogs| s.log_records.len();
                let all = |r: &ResourceLogs| r.scope_logs.iter().map(records).sum();
                let resource_logs = front(&mut request.resource_logs, n, all, |r, n| {
                    let scope_logs = front(&mut r.scope_logs, n, records, |s, n| ScopeLogs {
                        scope: s.scope.clone(),
                        log_records: s.log_records.drain(..n).collect(),
                        schema_url: s.schema_url.clone(),
                    });
                    let (resource, schema_url) = (r.resource.clone(), r.schema_url.clone());
                    ResourceLogs { resource, scope_logs, schema_url }
                });
                Self::Logs(ExportLogsServiceRequest { resource_logs })
            }
            Self::Traces(request) => {
                let spans = |s: &ScopeSpans| s.spans.len();
                let all = |r: &ResourceSpans| r.scope_spans.iter().map(spans).sum();
                let resource_spans = front(&mut request.resource_spans, n, all, |r, n| {
                    let scope_spans = front(&mut r.scope_spans, n, spans, |s, n| ScopeSpans {
                        scope: s.scope.clone(),
                        spans: s.spans.drain(..n).collect(),
                        schema_url: s.schema_url.clone(),
                    });
                    let (resource, schema_url) = (r.resource.clone(), r.schema_url.clone());
                    ResourceSpans { resource, scope_spans, schema_url }
                });
                Self::Traces(ExportTraceServiceRequest { resource_spans })
            }
        }
    }
}

/// Takes elements with `n` items in all from the front of a list; the last of them in part.
fn front<T>(
    list: &mut Vec<T>,
    mut n: usize,
    items: impl Fn(&T) -> usize,
    part: impl Fn(&mut T, usize) -> T,
) -> Vec<T> {
    let mut whole = 0;
    while let Some(count) = list.get(whole).map(&items).filter(|count| *count <= n) {
        n -= count;
        whole += 1;
    }
    let mut taken: Vec<T> = list.drain(..whole).collect();
    if n > 0 {
        taken.extend(list.first_mut().map(|next| part(next, n)));
    }
    taken
}

fn scope_points(scope: &ScopeMetrics) -> usize {
    scope.metrics.iter().map(points).sum()
}

fn resource_points(resource: &ResourceMetrics) -> usize {
    resource.scope_metrics.iter().map(scope_points).sum()
}

/// The first `n` points of a metric as a metric of their own.
fn part(metric: &mut Metric, n: usize) -> Metric {
    let data = metric.data.as_mut().map(|data| match data {
        Data::Gauge(d) => Data::Gauge(Gauge { data_points: d.data_points.drain(..n).collect() }),
        Data::Sum(d) => Data::Sum(Sum { data_points: d.data_points.drain(..n).collect(), ..*d }),
        Data::Histogram(d) => {
            Data::Histogram(Explicit { data_points: d.data_points.drain(..n).collect(), ..*d })
        }
        Data::ExponentialHistogram(d) => Data::ExponentialHistogram(ExponentialHistogram {
            data_points: d.data_points.drain(..n).collect(),
            ..*d
        }),
        Data::Summary(d) => {
            Data::Summary(Summary { data_points: d.data_points.drain(..n).collect() })
        }
    });
    Metric {
        name: metric.name.clone(),
        description: metric.description.clone(),
        unit: metric.unit.clone(),
        metadata: metric.metadata.clone(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{logs::v1::LogRecord, trace::v1::Span};

    use super::*;

    #[test]
    fn records_and_spans_are_split_too() {
        let record = |n| LogRecord { time_unix_nano: n, ..Default::default() };
        let scope = ScopeLogs { log_records: (0..5).map(record).collect(), ..Default::default() };
        let logs = ResourceLogs { scope_logs: vec![scope], ..Default::default() };
        let mut rest = Batch::Logs(ExportLogsServiceRequest { resource_logs: vec![logs] });
        let Batch::Logs(taken) = rest.take(2) else { panic!("not logs") };
        let times = taken.resource_logs[0].scope_logs[0].log_records.iter();
        assert_eq!(times.map(|r| r.time_unix_nano).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(rest.items(), 3);

        let span = |n| Span { start_time_unix_nano: n, ..Default::default() };
        let scope = ScopeSpans { spans: (0..5).map(span).collect(), ..Default::default() };
        let spans = ResourceSpans { scope_spans: vec![scope], ..Default::default() };
        let mut rest = Batch::Traces(ExportTraceServiceRequest { resource_spans: vec![spans] });
        let Batch::Traces(taken) = rest.take(2) else { panic!("not traces") };
        let times = taken.resource_spans[0].scope_spans[0].spans.iter();
        assert_eq!(times.map(|s| s.start_time_unix_nano).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(rest.items(), 3);
    }
}
