//! What sends the agent's own telemetry: the SDK's exporters, or the console.

mod config;
mod otlp;
mod waiting;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};
use tokio_util::sync::CancellationToken;

use self::config::Otlp;
pub use self::config::{OtlpMetric, Processor};
pub(super) use self::waiting::{Queue, Sending, Waiting};
use crate::{
    batch::{Batch, Signal},
    exporters::otlp::json,
};

/// `console`: a line of OTLP JSON.
fn write(batch: &Batch) -> Result<()> {
    let mut line = json::write(batch)?;
    line.push(b'\n');
    Ok(io::stdout().lock().write_all(&line)?)
}

/// `console` of metrics.
pub(super) struct Console;

impl PushMetricExporter for Console {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let printed = write(&Batch::Metrics(ExportMetricsServiceRequest::from(metrics)));
        printed.map_err(|error| OTelSdkError::InternalFailure(format!("{error:#}")))
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// Whose records and spans they are.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// What waits one by one and is sent together.
pub(super) trait Record: Sized + Send + Sync + 'static {
    /// The signal that they are sent as.
    const SIGNAL: Signal;
    /// What sends them.
    type Exporter: Send + Sync + 'static;
    /// What sends them there, until `stop`.
    fn exporter(
        otlp: &Otlp,
        patience: Duration,
        source: &Resource,
        stop: CancellationToken,
    ) -> Result<Self::Exporter>;
    /// Sends them together.
    fn export(
        exporter: &Self::Exporter,
        records: Vec<Self>,
    ) -> impl Future<Output = OTelSdkResult> + Send;
    /// Them together, for the console.
    fn batch(records: Vec<Self>, source: &Resource) -> Batch;
}

#[cfg(test)]
pub(super) mod tests;
