//! The agent's metrics: instruments of the OpenTelemetry SDK, read by Prometheus or pushed by OTLP.

use std::{collections::BTreeMap, fs, sync::LazyLock, time::Duration};

use anyhow::{Context as _, Result};
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider as _, noop::NoopMeterProvider},
};
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
};
use prometheus::{Encoder as _, Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
    transport::{ClientTlsConfig, Endpoint},
};
use tracing::{error, info};

use crate::config::{Mistakes, Secret};

/// `service::telemetry::metrics`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How much is measured.
    #[serde(deserialize_with = "crate::config::any_case")]
    pub level: Level,
    /// Where it goes.
    pub readers: Vec<Reader>,
}

impl Default for Config {
    fn default() -> Self {
        let prometheus = Prometheus::default();
        let pull = Pull { exporter: PullExporter { prometheus: Some(prometheus) } };
        Self { level: Level::Normal, readers: vec![Reader { pull: Some(pull), periodic: None }] }
    }
}

/// How much is measured. There is one amount so far: `none` turns it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    None,
    /// The least.
    Basic,
    /// The usual.
    Normal,
    /// The most.
    Detailed,
}

/// Where metrics go: one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reader {
    /// They are fetched.
    pub pull: Option<Pull>,
    /// They are sent.
    pub periodic: Option<Periodic>,
}

/// Metrics that are fetched.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pull {
    /// By whom.
    pub exporter: PullExporter,
}

/// Who fetches metrics.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PullExporter {
    /// Prometheus.
    pub prometheus: Option<Prometheus>,
}

/// An endpoint for Prometheus.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Prometheus {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on.
    pub port: u16,
    /// Leaves the labels of the instrumentation scope out.
    pub without_scope_info: bool,
    /// Leaves the units out of names.
    pub without_units: bool,
    /// Leaves `_total` out of names.
    pub without_type_suffix: bool,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 8888,
            without_scope_info: true,
            without_units: true,
            without_type_suffix: true,
        }
    }
}

/// Metrics that are sent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Periodic {
    /// Milliseconds between two sendings, as OpenTelemetry's configuration files have it.
    pub interval: u64,
    /// To whom.
    pub exporter: PushExporter,
}

impl Default for Periodic {
    fn default() -> Self {
        Self { interval: 60_000, exporter: PushExporter::default() }
    }
}

/// To whom metrics are sent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PushExporter {
    /// An OTLP receiver.
    pub otlp: Option<Otlp>,
}

/// An OTLP receiver, over gRPC.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// The protocol.
    pub protocol: Protocol,
    /// Its address. A URL, or a host and a port.
    pub endpoint: String,
    /// No TLS, if the endpoint is no URL that says so.
    pub insecure: bool,
    /// Sent with every request.
    pub headers: BTreeMap<String, Secret>,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            protocol: Protocol::Grpc,
            endpoint: "http://localhost:4317".to_owned(),
            insecure: false,
            headers: BTreeMap::new(),
        }
    }
}

/// A protocol of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum Protocol {
    /// gRPC.
    #[serde(rename = "grpc", alias = "grpc/protobuf")]
    Grpc,
}

impl Config {
    pub(super) fn check(&self) -> Result<(), Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(
            self.level == Level::None || !self.readers.is_empty(),
            "readers",
            "collector telemetry metrics reader should exist when metric level is not none",
        );
        for (i, reader) in self.readers.iter().enumerate() {
            let path = format!("readers::{i}");
            match reader {
                Reader { pull: Some(pull), periodic: None } => wrong.require(
                    pull.exporter.prometheus.is_some(),
                    &format!("{path}::pull::exporter"),
                    "names no exporter: there is prometheus",
                ),
                Reader { pull: None, periodic: Some(periodic) } => {
                    let at = format!("{path}::periodic");
                    wrong.require(
                        periodic.interval > 0,
                        &format!("{at}::interval"),
                        "must be positive",
                    );
                    match &periodic.exporter.otlp {
                        None => {
                            wrong.add(format!("{at}::exporter"), "names no exporter: there is otlp")
                        }
                        Some(otlp) => {
                            let at = format!("{at}::exporter::otlp");
                            if let Err(error) = Endpoint::from_shared(otlp.url()) {
                                wrong.add(format!("{at}::endpoint"), error.to_string());
                            }
                            for (name, value) in &otlp.headers {
                                let path = format!("{at}::headers::{name}");
                                let name = MetadataKey::<Ascii>::from_bytes(name.as_bytes());
                                let value = value.expose().parse::<MetadataValue<Ascii>>();
                                wrong.require(name.is_ok(), &path, "is no name for a header");
                                wrong.require(
                                    value.is_ok(),
                                    &path,
                                    "has a value that no header can have",
                                );
                            }
                        }
                    }
                }
                _ => wrong.add(path, "must be either pull or periodic"),
            }
        }
        wrong.or(())
    }
}

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
        let mut builder = SdkMeterProvider::builder().with_resource(resource(config));
        let readers = match config.metrics.level {
            Level::None => &[],
            _ => config.metrics.readers.as_slice(),
        };
        for reader in readers {
            if let Some(prometheus) =
                reader.pull.as_ref().and_then(|p| p.exporter.prometheus.as_ref())
            {
                let registry = Registry::new();
                builder = builder.with_reader(prometheus.reader(&registry)?);
                servers.spawn(prometheus.serve(registry, stop.clone()).await?);
            }
            if let Some(periodic) = &reader.periodic
                && let Some(otlp) = &periodic.exporter.otlp
            {
                let reader = PeriodicReader::builder(otlp.exporter()?)
                    .with_interval(Duration::from_millis(periodic.interval));
                builder = builder.with_reader(reader.build());
            }
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
        self.servers.wait().await;
        let provider = self.provider;
        // It waits for its own threads.
        match tokio::task::spawn_blocking(move || provider.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!("the agent's last metrics are lost: {error}"),
            Err(error) => error!("the agent's metrics did not end: {error}"),
        }
    }
}

impl Prometheus {
    fn reader(&self, registry: &Registry) -> Result<opentelemetry_prometheus::PrometheusExporter> {
        let mut builder = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(!self.without_scope_info);
        if self.without_units {
            builder = builder.without_units();
        }
        if self.without_type_suffix {
            builder = builder.without_counter_suffixes();
        }
        Ok(builder.build()?)
    }

    async fn serve(
        &self,
        registry: Registry,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + use<>> {
        let address = format!("{}:{}", self.host, self.port);
        let listener = TcpListener::bind(&address).await.with_context(|| {
            format!(
                "cannot serve the agent's own metrics at {address} \
                 (service::telemetry::metrics::readers; `metrics::level: none` turns them off)"
            )
        })?;
        info!("serving the agent's own metrics at http://{}/metrics", listener.local_addr()?);
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
        Ok(async move {
            let server = axum::serve(listener, router);
            tokio::select! {
                () = stop.cancelled() => {}
                result = server => {
                    if let Err(error) = result {
                        error!("the agent's own metrics are no longer served: {error}");
                    }
                }
            }
        })
    }
}

impl Otlp {
    fn url(&self) -> String {
        let scheme = if self.insecure { "http" } else { "https" };
        match self.endpoint.contains("://") {
            true => self.endpoint.clone(),
            false => format!("{scheme}://{}", self.endpoint),
        }
    }

    fn exporter(&self) -> Result<MetricExporter> {
        let Protocol::Grpc = self.protocol;
        let mut headers = MetadataMap::new();
        for (name, value) in &self.headers {
            headers.insert(
                MetadataKey::from_bytes(name.as_bytes())?,
                value
                    .expose()
                    .parse()
                    .with_context(|| format!("the value of header {name} is invalid"))?,
            );
        }
        let url = self.url();
        let mut exporter = MetricExporter::builder().with_tonic();
        if url.starts_with("https://") {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
        }
        exporter
            .with_endpoint(url)
            .with_metadata(headers)
            .build()
            .with_context(|| format!("cannot send the agent's own metrics to {}", self.endpoint))
    }
}

/// The agent's id, new at each start.
static INSTANCE: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().to_string());

/// What the agent is, with what the configuration adds and takes away.
pub(super) fn attributes(config: &super::Config) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::from([
        ("service.name", Some(env!("CARGO_PKG_NAME").to_owned())),
        ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("service.instance.id", Some(INSTANCE.clone())),
    ]);
    attributes.extend(config.resource.iter().map(|(key, value)| (key.as_str(), value.clone())));
    attributes.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn resource(config: &super::Config) -> Resource {
    let pairs = attributes(config).into_iter().map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty().with_attributes(pairs).build()
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
