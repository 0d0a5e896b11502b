//! Where the agent's own telemetry goes: the SDK's exporters make the requests and try them again, and senders like those
//! of pipelines carry them, with their transport, TLS and proxies. What the SDK reads from the environment
//! (`OTEL_EXPORTER_OTLP_…`) has no say: all that goes out is the sender's, as it is configured.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Request, Response, StatusCode, http::header::RETRY_AFTER};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    LogExporter, MetricExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig,
    WithHttpConfig,
};
use opentelemetry_proto::{
    tonic::collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    transform::{
        logs::tonic::group_logs_by_resource_and_scope,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{LogBatch, LogExporter as _, SdkLogRecord},
    trace::{SpanData, SpanExporter as _},
};
use prost::{DecodeError, Message as _};
use tokio::{runtime::Handle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Otlp, OtlpMetric, Record, scope};
use crate::{
    batch::{Batch, Signal},
    component::Component,
    config::Mistakes,
    exporters::{
        otlp_grpc::{Grpc, OtlpGrpc},
        otlp_http::{Http, OtlpHttp},
        queue::{Failure, Sender as _},
    },
};

/// The longest wait between two attempts, if the peer asks for none: one more is made before the end is over.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// Carries the requests of the SDK, which for metrics makes them on a thread of its own.
struct Carrier {
    transport: Arc<Transport>,
    signal: Signal,
    /// No attempt takes longer, whatever it may by itself.
    patience: Duration,
    /// Cancelled at the end: what is not taken then, is not tried again.
    stop: CancellationToken,
    runtime: Handle,
}

enum Transport {
    Grpc(Grpc),
    Http(Http),
}

impl Transport {
    async fn send(&self, batch: &Batch) -> Result<(), Failure> {
        let sent = match self {
            Self::Grpc(grpc) => grpc.send(batch, &mut ()).await,
            Self::Http(http) => http.send(batch, &mut ()).await,
        };
        sent.map(drop)
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Carrier {
    /// Only the body is taken from the request. A failure is what the SDK tries again, an answer what it goes by.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let batch = read(self.signal, request.into_body())?;
        let last = self.stop.is_cancelled();
        let (transport, patience) = (self.transport.clone(), self.patience);
        let attempt = async move { timeout(patience, transport.send(&batch)).await };
        let failure = match self.runtime.spawn(attempt).await {
            Ok(Ok(Ok(()))) => return Ok(Response::default()),
            Ok(Ok(Err(failure))) => failure,
            Ok(Err(late)) => Failure::Retryable { reason: late.to_string(), after: None },
            // The agent has ended.
            Err(error) => Failure::Permanent { reason: error.to_string() },
        };
        let (Failure::Retryable { reason, .. } | Failure::Permanent { reason }) = &failure;
        // The SDK keeps the reason to itself.
        info!(error = reason, "the agent's own telemetry was not taken");
        let mut answer = Response::builder();
        answer = match failure {
            Failure::Retryable { reason, after: None } if !last => return Err(reason.into()),
            Failure::Retryable { after: Some(after), .. } if !last => answer
                .status(StatusCode::SERVICE_UNAVAILABLE)
                .header(RETRY_AFTER, after.as_secs() + u64::from(after.subsec_nanos() > 0)),
            _ => answer.status(StatusCode::BAD_REQUEST),
        };
        Ok(answer.body(Bytes::new())?)
    }
}

/// What the SDK has encoded, for a sender that encodes it for its transport.
fn read(signal: Signal, body: Bytes) -> Result<Batch, DecodeError> {
    Ok(match signal {
        Signal::Metrics => Batch::Metrics(ExportMetricsServiceRequest::decode(body)?),
        Signal::Logs => Batch::Logs(ExportLogsServiceRequest::decode(body)?),
        Signal::Traces => Batch::Traces(ExportTraceServiceRequest::decode(body)?),
    })
}

impl OtlpMetric {
    /// What sends metrics there, until `stop`.
    pub(in crate::telemetry) fn exporter(
        &self,
        patience: Duration,
        stop: CancellationToken,
    ) -> Result<MetricExporter> {
        let temporality = self.temporality().context("temporality_preference")?;
        let builder = MetricExporter::builder().with_temporality(temporality).with_http();
        Ok(self.common().carried(builder, Signal::Metrics, patience, stop)?.build()?)
    }
}

impl Record for SdkLogRecord {
    const SIGNAL: Signal = Signal::Logs;
    type Exporter = LogExporter;

    fn exporter(
        otlp: &Otlp,
        patience: Duration,
        source: &Resource,
        stop: CancellationToken,
    ) -> Result<LogExporter> {
        let builder = LogExporter::builder().with_http();
        let mut exporter = otlp.carried(builder, Self::SIGNAL, patience, stop)?.build()?;
        exporter.set_resource(source);
        Ok(exporter)
    }

    async fn export(exporter: &LogExporter, records: Vec<Self>) -> OTelSdkResult {
        let scope = scope();
        let of: Vec<_> = records.iter().map(|record| (record, &scope)).collect();
        exporter.export(LogBatch::new(&of)).await
    }

    fn batch(records: Vec<Self>, source: &Resource) -> Batch {
        let scope = scope();
        let of: Vec<_> = records.iter().map(|record| (record, &scope)).collect();
        let resource_logs = group_logs_by_resource_and_scope(&LogBatch::new(&of), &source.into());
        Batch::Logs(ExportLogsServiceRequest { resource_logs })
    }
}

impl Record for SpanData {
    const SIGNAL: Signal = Signal::Traces;
    type Exporter = SpanExporter;

    fn exporter(
        otlp: &Otlp,
        patience: Duration,
        source: &Resource,
        stop: CancellationToken,
    ) -> Result<SpanExporter> {
        let builder = SpanExporter::builder().with_http();
        let mut exporter = otlp.carried(builder, Self::SIGNAL, patience, stop)?.build()?;
        exporter.set_resource(source);
        Ok(exporter)
    }

    async fn export(exporter: &SpanExporter, spans: Vec<Self>) -> OTelSdkResult {
        exporter.export(spans).await
    }

    fn batch(spans: Vec<Self>, source: &Resource) -> Batch {
        let resource_spans = group_spans_by_resource_and_scope(spans, &source.into());
        Batch::Traces(ExportTraceServiceRequest { resource_spans })
    }
}

impl Otlp {
    /// Gives an exporter of the SDK what carries its requests, and all that it would else read from the environment.
    /// What it cannot send is tried again for `patience`, or for good if that is zero.
    fn carried<B: WithExportConfig + WithHttpConfig>(
        &self,
        builder: B,
        signal: Signal,
        patience: Duration,
        stop: CancellationToken,
    ) -> Result<B> {
        let transport = Arc::new(match self.http() {
            Some(true) => Transport::Http(made::<OtlpHttp>(self, signal)?.sender()?),
            _ => Transport::Grpc(made::<OtlpGrpc>(self, signal)?.sender()?),
        });
        let patience = if patience.is_zero() { Duration::MAX } else { patience };
        let retries = RetryPolicy::recommended().with_max_retries(usize::MAX);
        let carrier = Carrier { transport, signal, patience, stop, runtime: Handle::current() };
        Ok(builder
            .with_protocol(Protocol::HttpBinary)
            // The sender knows its own.
            .with_endpoint("/")
            .with_timeout(patience)
            .with_retry_policy(retries.with_max_delay(MAX_DELAY))
            .with_http_client(carrier))
    }

    /// What the exporter of pipelines would say of this.
    pub(super) fn mistakes(&self) -> Mistakes {
        let wrong = match self.http() {
            Some(true) => component::<OtlpHttp>(self, Signal::Metrics).err(),
            _ => component::<OtlpGrpc>(self, Signal::Metrics).err(),
        };
        wrong.unwrap_or_default()
    }
}

/// The exporter that a pipeline would have.
fn component<C: Component>(otlp: &Otlp, signal: Signal) -> Result<C, Mistakes> {
    let config = serde_json::from_value(otlp.config(signal)).map_err(|error| {
        let mut wrong = Mistakes::default();
        wrong.add("", error.to_string());
        wrong
    })?;
    C::new(config)
}

fn made<C: Component>(otlp: &Otlp, signal: Signal) -> Result<C> {
    component(otlp, signal).map_err(|wrong| anyhow!("{wrong:?}"))
}
