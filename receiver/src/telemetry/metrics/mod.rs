//! The agent's metrics: instruments of the OpenTelemetry SDK, read by Prometheus or pushed by OTLP.

mod config;
mod views;

use std::{collections::HashSet, fs, time::Duration};

use anyhow::{Context as _, Result};
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use opentelemetry::{
    Key,
    metrics::{Meter, MeterProvider as _, noop::NoopMeterProvider},
};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use self::config::Prometheus;
pub use self::config::{Config, Level};
use super::{DEADLINE, KEPT, push::Console};
use crate::exporters::prometheus::serve;

/// The agent's metrics at work.
pub struct Telemetry {
    provider: SdkMeterProvider,
    meter: Meter,
    servers: TaskTracker,
    stop: CancellationToken,
}

impl Telemetry {
    /// Starts the readers.
    pub async fn start(config: &super::Config) -> Result<Self> {
        let stop = CancellationToken::new();
        let servers = TaskTracker::new();
        let attributes = config.resource.attributes();
        let mut builder = SdkMeterProvider::builder().with_resource(config.resource.source());
        let readers = match config.metrics.level {
            Level::None => &[],
            _ => config.metrics.readers.as_slice(),
        };
        for reader in readers {
            if let Some(prometheus) =
                reader.pull.as_ref().and_then(|p| p.exporter.prometheus.as_ref())
            {
                let registry = Registry::new();
                let reader = prometheus.reader(&registry, attributes.keys())?;
                builder = builder.with_reader(reader);
                servers.spawn(prometheus.serve(registry, stop.clone()).await?);
            }
            if let Some(periodic) = &reader.periodic {
                let interval = Duration::from_millis(periodic.interval);
                let patience = Duration::from_millis(periodic.timeout);
                builder = match &periodic.exporter.otlp {
                    None => builder.with_reader(
                        PeriodicReader::builder(Console).with_interval(interval).build(),
                    ),
                    Some(otlp) => builder.with_reader(
                        PeriodicReader::builder(otlp.exporter(patience, stop.clone())?)
                            .with_interval(interval)
                            .build(),
                    ),
                };
            }
        }
        for view in &config.metrics.views {
            builder = builder.with_view(view.clone().of_sdk());
        }
        let provider = builder.build();
        let meter = match readers.is_empty() {
            false => provider.meter(env!("CARGO_PKG_NAME")),
            // Nobody would ever call what observes; the SDK takes that for a mistake.
            true => NoopMeterProvider::new().meter(env!("CARGO_PKG_NAME")),
        };
        observe_process(&meter);
        servers.close();
        Ok(Self { provider, meter, servers, stop })
    }

    /// Makes instruments.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Sends what has not been sent, and ends.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let provider = self.provider;
        // It waits for its own threads, and they for a peer that says nothing.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown());
        let (_, ended) =
            tokio::join!(timeout(DEADLINE, self.servers.wait()), timeout(DEADLINE, ended));
        match ended {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                error!(target: KEPT, "the agent's last metrics are lost: {error}")
            }
            Ok(Err(error)) => error!("the agent's metrics did not end: {error}"),
            Err(_) => {
                warn!(target: KEPT, "the agent's last metrics were not taken within {DEADLINE:?} and are lost");
            }
        }
    }
}

impl Prometheus {
    fn reader<'a>(
        &self,
        registry: &Registry,
        resource: impl Iterator<Item = &'a String>,
    ) -> Result<opentelemetry_prometheus::PrometheusExporter> {
        let mut builder = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(!self.without_scope_info);
        if self.without_units {
            builder = builder.without_units();
        }
        if self.without_type_suffix {
            builder = builder.without_counter_suffixes();
        }
        if let Some(labels) = &self.with_resource_constant_labels {
            let keys = resource.filter(|key| labels.selects(key)).map(|key| Key::new(key.clone()));
            builder = builder.with_resource_selector(keys.collect::<HashSet<_>>());
        }
        Ok(builder.build()?)
    }

    async fn serve(
        &self,
        registry: Registry,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + use<>> {
        let address = self.address();
        let bound = serve::bind(&address, "tcp", "the agent's own metrics", "http", "/metrics");
        let listeners = bound.await.with_context(|| {
            format!(
                "cannot serve the agent's own metrics at {address} \
                 (service::telemetry::metrics::readers; `metrics::level: none` turns them off)"
            )
        })?;
        let metrics = move || {
            let registry = registry.clone();
            async move {
                let encoder = TextEncoder::new();
                let mut text = Vec::new();
                match encoder.encode(&registry.gather(), &mut text) {
                    Ok(()) => Ok(([(CONTENT_TYPE, encoder.format_type().to_owned())], text)),
                    Err(error) => {
                        Err((axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
                    }
                }
            }
        };
        let router = Router::new().route("/metrics", get(metrics));
        Ok(serve::accept(listeners, serve::Options::default(), router, stop))
    }
}

/// The process's own use of the machine.
fn observe_process(meter: &Meter) {
    let start = Instant::now();
    meter
        .f64_observable_counter("otelcol_process_uptime")
        .with_unit("s")
        .with_description("Uptime of the process")
        .with_callback(move |observer| observer.observe(start.elapsed().as_secs_f64(), &[]))
        .build();
    meter
        .f64_observable_counter("otelcol_process_cpu_seconds")
        .with_unit("s")
        .with_description("Total CPU user and system time in seconds")
        .with_callback(|observer| {
            if let Some(seconds) = cpu_seconds() {
                observer.observe(seconds, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("otelcol_process_memory_rss")
        .with_unit("By")
        .with_description("Total physical memory (resident set size)")
        .with_callback(|observer| {
            if let Some(bytes) = resident() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
}

/// proc_pid_stat(5): user and system time are the 14th and 15th field, in ticks of 10 ms.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / 100.0)
}

/// proc_pid_status(5): `VmRSS:   12345 kB`.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}
