//! Where the agent's own telemetry goes: attempts like those of pipelines' exporters, without their queue. What an SDK
//! reads from the environment (`OTEL_EXPORTER_OTLP_…`) has no say: the configuration says all.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
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
    error::{OTelSdkError, OTelSdkResult},
    logs::{LogBatch, SdkLogRecord},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::SpanData,
};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Otlp, OtlpMetric, Record, scope};
use crate::{
    batch::{Batch, Signal},
    component::Component,
    config::Mistakes,
    exporters::{
        otlp_grpc::{Grpc, OtlpGrpc},
        otlp_http::{Http, OtlpHttp},
        queue::{Failure, Sender as _},
        retry::{self, Backoff},
    },
};

/// Who takes it.
pub(super) struct Peer {
    transport: Transport,
    /// What is not taken is tried again for so long; zero is for good.
    patience: Duration,
    /// Cancelled at the end: nobody waits then to try again.
    stop: CancellationToken,
}

enum Transport {
    Grpc(Box<Grpc>),
    Http(Box<Http>),
}

impl Peer {
    /// Sends a batch, with all that is tried again.
    pub(super) async fn send(&self, batch: &Batch) -> Result<()> {
        let attempts = self.attempts(batch);
        if self.patience.is_zero() {
            return attempts.await;
        }
        let late = || anyhow!("not taken within {:?}", self.patience);
        timeout(self.patience, attempts).await.map_err(|_| late())?
    }

    async fn attempts(&self, batch: &Batch) -> Result<()> {
        let config = retry::Config {
            initial_interval: Duration::from_secs(1).into(),
            max_interval: Duration::from_secs(5).into(),
            max_elapsed_time: self.patience.into(),
            ..retry::Config::default()
        };
        let mut waits = Backoff::new(&config);
        loop {
            let last = self.stop.is_cancelled();
            let sent = match &self.transport {
                Transport::Grpc(grpc) => grpc.send(batch, &mut ()).await,
                Transport::Http(http) => http.send(batch, &mut ()).await,
            };
            let (reason, after) = match sent {
                Ok(_) => return Ok(()),
                Err(Failure::Permanent { reason }) => bail!(reason),
                Err(Failure::Retryable { reason, after }) => (reason, after),
            };
            let Some(wait) = waits.next(after).filter(|_| !last) else { bail!(reason) };
            debug!(error = reason, "the agent's own telemetry was not taken");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}

/// What sends metrics, which the SDK reads on a thread of its own.
pub(in crate::telemetry) struct Push {
    peer: Arc<Peer>,
    temporality: Temporality,
    runtime: Handle,
}

impl PushMetricExporter for Push {
    fn export(&self, metrics: &ResourceMetrics) -> impl Future<Output = OTelSdkResult> + Send {
        let batch = Batch::Metrics(ExportMetricsServiceRequest::from(metrics));
        let peer = self.peer.clone();
        let sent = self.runtime.spawn(async move { peer.send(&batch).await });
        async move {
            let sent = sent.await.map_err(Into::into).and_then(|sent| sent);
            sent.map_err(|error| OTelSdkError::InternalFailure(format!("{error:#}")))
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

impl OtlpMetric {
    /// What sends metrics there, until `stop`.
    pub(in crate::telemetry) fn exporter(
        &self,
        patience: Duration,
        stop: CancellationToken,
    ) -> Result<Push> {
        let temporality = self.temporality().context("temporality_preference")?;
        let peer = Arc::new(self.common().peer(Signal::Metrics, patience, stop)?);
        Ok(Push { peer, temporality, runtime: Handle::current() })
    }
}

impl Record for SdkLogRecord {
    const SIGNAL: Signal = Signal::Logs;

    fn batch(records: Vec<Self>, source: &Resource) -> Batch {
        let scope = scope();
        let of: Vec<_> = records.iter().map(|record| (record, &scope)).collect();
        let resource_logs = group_logs_by_resource_and_scope(&LogBatch::new(&of), &source.into());
        Batch::Logs(ExportLogsServiceRequest { resource_logs })
    }
}

impl Record for SpanData {
    const SIGNAL: Signal = Signal::Traces;

    fn batch(spans: Vec<Self>, source: &Resource) -> Batch {
        let resource_spans = group_spans_by_resource_and_scope(spans, &source.into());
        Batch::Traces(ExportTraceServiceRequest { resource_spans })
    }
}

impl Otlp {
    /// Whoever is there, until `stop`.
    pub(super) fn peer(
        &self,
        signal: Signal,
        patience: Duration,
        stop: CancellationToken,
    ) -> Result<Peer> {
        let transport = match self.http() {
            Some(true) => Transport::Http(Box::new(made::<OtlpHttp>(self, signal)?.sender()?)),
            _ => Transport::Grpc(Box::new(made::<OtlpGrpc>(self, signal)?.sender()?)),
        };
        Ok(Peer { transport, patience, stop })
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
