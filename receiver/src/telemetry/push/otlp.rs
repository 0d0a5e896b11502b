//! The SDK's own exporters, on connections like those of pipelines: with their TLS and their proxies.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, http::HeaderMap};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, LogExporter, MetricExporter, Protocol, RetryPolicy, SpanExporter,
    WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_proto::{
    tonic::collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
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
use tokio::runtime::Handle;
use tonic::service::Interceptor;
use tracing::info;

use super::{Otlp, OtlpMetric, Record, scope};
use crate::{
    batch::{Batch, Signal},
    component::Component,
    config::Mistakes,
    exporters::{http::Client, otlp_grpc::OtlpGrpc, otlp_http::OtlpHttp, queue::Failure},
};

/// The longest wait between two attempts.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Builds an exporter to there. What it cannot send is tried again for as long as `patience`.
macro_rules! build {
    ($otlp:expr, $builder:expr, $signal:expr, $patience:expr) => {{
        let (otlp, signal, patience): (&Otlp, Signal, Duration) = ($otlp, $signal, $patience);
        if otlp.http() == Some(true) {
            let builder = $builder.with_http().with_protocol(Protocol::HttpBinary);
            let builder = builder.with_endpoint(otlp.url(true, signal));
            finish!(otlp, patience, builder.with_http_client(otlp.client(signal)?))
        } else {
            let (channel, headers) = made::<OtlpGrpc>(otlp, signal)?.open()?;
            let builder = $builder.with_tonic().with_channel(channel).with_metadata(headers);
            finish!(otlp, patience, builder.with_interceptor(otlp.limit()))
        }
    }};
}

/// The part that both transports have.
macro_rules! finish {
    ($otlp:expr, $patience:expr, $builder:expr) => {{
        let builder = $builder.with_timeout($patience).with_retry_policy(retries());
        match $otlp.gzip() {
            true => builder.with_compression(Compression::Gzip).build()?,
            false => builder.build()?,
        }
    }};
}

impl OtlpMetric {
    /// What sends metrics there.
    pub(in crate::telemetry) fn exporter(&self, patience: Duration) -> Result<MetricExporter> {
        let temporality = self.temporality().context("temporality_preference")?;
        let builder = MetricExporter::builder().with_temporality(temporality);
        Ok(build!(&self.common(), builder, Signal::Metrics, patience))
    }
}

impl Record for SdkLogRecord {
    const SIGNAL: Signal = Signal::Logs;
    type Exporter = LogExporter;

    fn exporter(otlp: &Otlp, patience: Duration, source: &Resource) -> Result<LogExporter> {
        let mut exporter = build!(otlp, LogExporter::builder(), Self::SIGNAL, patience);
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

    fn exporter(otlp: &Otlp, patience: Duration, source: &Resource) -> Result<SpanExporter> {
        let mut exporter = build!(otlp, SpanExporter::builder(), Self::SIGNAL, patience);
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
    fn client(&self, signal: Signal) -> Result<Http> {
        let (client, headers) = made::<OtlpHttp>(self, signal)?.open()?;
        Ok(Http { client: Arc::new(client), headers, runtime: Handle::current() })
    }

    /// The time of one attempt, to which the channel keeps if a request says it.
    fn limit(&self) -> impl Interceptor + Clone + Send + Sync + 'static {
        let timeout = Duration::from_millis(self.timeout);
        move |mut request: tonic::Request<()>| {
            if !timeout.is_zero() {
                request.set_timeout(timeout);
            }
            Ok(request)
        }
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

fn retries() -> RetryPolicy {
    RetryPolicy::recommended().with_max_retries(usize::MAX).with_max_delay(MAX_DELAY)
}

/// Makes the requests of the library, which for metrics does so on a thread of its own.
struct Http {
    client: Arc<Client>,
    headers: HeaderMap,
    runtime: Handle,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = request.map(Full::new);
        // The library would read escapes in them.
        request.headers_mut().extend(self.headers.clone());
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move { client.send(request).await }).await?;
        let answer = answer.map_err(|failure| {
            let (Failure::Retryable { reason, .. } | Failure::Permanent { reason }) = failure;
            // The library keeps the reason to itself.
            info!(error = reason, "the agent's own telemetry was not taken");
            reason
        })?;
        let mut response = Response::new(Bytes::from(answer.body));
        (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
        Ok(response)
    }
}
