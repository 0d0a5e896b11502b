//! What sends the agent's own telemetry: an OTLP exporter of its own, outside all pipelines, or the console.

mod config;
mod waiting;

use std::{
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use opentelemetry::metrics::{MeterProvider as _, noop::NoopMeterProvider};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::InstrumentationScope,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, error_span, warn};

pub use self::config::{OtlpMetric, Processor};
pub(super) use self::waiting::{Queue, Sending, Waiting};
use crate::{
    batch::{Batch, Signal},
    channel::{Input, Output, channel},
    component::{AnyExporter, Context},
    config::Id,
    exporters::otlp::json,
    telemetry::recent::OWN,
};

/// How long the last of it may take at the end.
const DEADLINE: Duration = Duration::from_secs(5);

/// What sends, at work.
pub(super) struct Push {
    output: Output,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Push {
    /// Starts an exporter, or what prints. `what` is sent, for the log.
    pub(super) async fn start(
        exporter: Option<Box<dyn AnyExporter>>,
        what: &'static str,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let (output, input) = channel();
        // What goes wrong here is logged, but not sent: it would have to take the same way.
        let span =
            error_span!("component", otelcol.component.id = %what, otelcol.component.kind = OWN);
        let task = match exporter {
            None => tokio::spawn(print(input).instrument(span)),
            Some(mut exporter) => {
                let cx = Context {
                    id: Id { kind: "otlp".to_owned(), name: what.to_owned() },
                    // Its counts would be taken for those of a pipeline.
                    meter: NoopMeterProvider::new().meter(OWN),
                    stop: stop.clone(),
                    authenticators: Default::default(),
                    status: Default::default(),
                    statuses: Default::default(),
                    tasks: Default::default(),
                };
                let started = exporter.start(&cx).instrument(span.clone()).await;
                started.with_context(|| format!("cannot send the agent's own {what}"))?;
                tokio::spawn(exporter.run(cx, input).instrument(span))
            }
        };
        Ok(Self { output, stop, task })
    }

    /// Where it takes what is to be sent. Whoever has it keeps the exporter from ending.
    pub(super) fn output(&self) -> Output {
        self.output.clone()
    }

    /// Sends what is left. All others must have dropped the output.
    pub(super) async fn end(self) {
        let Self { output, stop, mut task } = self;
        drop(output);
        stop.cancel();
        match timeout(DEADLINE, &mut task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => error!("the agent's own telemetry is lost: {error:#}"),
            Ok(Err(error)) => error!("what sends the agent's own telemetry failed: {error}"),
            Err(_) => {
                task.abort();
                warn!("the agent's last telemetry was not taken within {DEADLINE:?} and is lost");
            }
        }
    }
}

/// `console`: a line of OTLP JSON for each batch.
async fn print(mut input: Input) -> Result<()> {
    while let Some(batch) = input.recv().await {
        let mut line = json::write(&batch)?;
        line.push(b'\n');
        io::stdout().lock().write_all(&line)?;
    }
    Ok(())
}

/// Takes metrics from the SDK.
pub(super) struct Metrics {
    output: Mutex<Option<Output>>,
    temporality: Temporality,
}

impl Metrics {
    pub(super) fn new(output: Output, temporality: Temporality) -> Self {
        Self { output: Mutex::new(Some(output)), temporality }
    }
}

impl PushMetricExporter for Metrics {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let output = output.ok_or(OTelSdkError::AlreadyShutdown)?;
        let request = ExportMetricsServiceRequest::from(metrics);
        let sent = output.send(Batch::Metrics(request)).await;
        sent.map_err(|closed| OTelSdkError::InternalFailure(closed.to_string()))
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

/// The agent, as OTLP says whose records and spans they are.
#[derive(Clone, Default)]
pub(super) struct Source(pub(super) Resource);

impl Source {
    fn scope() -> Option<InstrumentationScope> {
        Some(InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }
}

/// What waits one by one and is sent together.
pub(super) trait Record: Send + 'static {
    /// The signal that they are sent as.
    const SIGNAL: Signal;
    fn batch(records: Vec<Self>, source: &Source) -> Batch
    where
        Self: Sized;
}

impl Record for LogRecord {
    const SIGNAL: Signal = Signal::Logs;
    fn batch(log_records: Vec<Self>, source: &Source) -> Batch {
        let scope_logs =
            vec![ScopeLogs { scope: Source::scope(), log_records, ..Default::default() }];
        let resource = Some(source.0.clone());
        let resource_logs = vec![ResourceLogs { resource, scope_logs, ..Default::default() }];
        Batch::Logs(ExportLogsServiceRequest { resource_logs })
    }
}

impl Record for Span {
    const SIGNAL: Signal = Signal::Traces;
    fn batch(spans: Vec<Self>, source: &Source) -> Batch {
        let scope_spans = vec![ScopeSpans { scope: Source::scope(), spans, ..Default::default() }];
        let resource = Some(source.0.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..Default::default() }];
        Batch::Traces(ExportTraceServiceRequest { resource_spans })
    }
}

#[cfg(test)]
pub(super) mod tests;
