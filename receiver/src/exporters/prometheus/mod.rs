//! Serves the last value of every series to Prometheus, as text at `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::{KeyValue, metrics::Counter};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, Signal},
    channel::Input,
    component::{Component, Context, Exporter},
    config::Mistakes,
    telemetry::Items,
};

mod buckets;
pub(super) mod labels;
pub(super) mod name;
pub(crate) mod serve;
mod store;
mod text;
pub(super) mod value;

use serve::Exposition;
use store::{Store, Tally};

/// The configuration.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Where to listen: `host:port`. Port 0 takes a free one and logs it.
    pub endpoint: String,
    /// Comes before the name of every metric.
    pub namespace: String,
    /// Labels on every series.
    pub const_labels: BTreeMap<String, String>,
    /// Whether samples carry the time of their point instead of that of the scrape.
    pub send_timestamps: bool,
    /// How long a series is served after its last point.
    #[serde(with = "crate::config::duration")]
    pub metric_expiration: Duration,
    /// Leaves out the labels `otel_scope_…`.
    pub without_scope_info: bool,
    /// Whether names say their unit and kind: `_seconds`, `_total`.
    pub add_metric_suffixes: bool,
    /// Whether every resource attribute becomes a label.
    pub resource_to_telemetry_conversion: Conversion,
}

/// Resource attributes as labels.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Conversion {
    /// Whether they are labels of every series.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            namespace: String::new(),
            const_labels: BTreeMap::new(),
            send_timestamps: false,
            metric_expiration: Duration::from_secs(300),
            without_scope_info: false,
            add_metric_suffixes: true,
            resource_to_telemetry_conversion: Conversion::default(),
        }
    }
}

/// The exporter.
pub(super) struct Prometheus {
    config: Arc<Config>,
    listeners: Vec<TcpListener>,
}

impl Component for Prometheus {
    const NAME: &'static str = "prometheus";
    const DESCRIPTION: &'static str = "Serves metrics to Prometheus at /metrics.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    const EXAMPLE: &'static str = "endpoint: localhost:9464";
    type Config = Config;

    fn new(mut config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let port = config.endpoint.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        wrong.require(
            matches!(port, Some(Ok(_))),
            "endpoint",
            "required: a host and a port, such as localhost:9464",
        );
        wrong.require(
            !config.metric_expiration.is_zero(),
            "metric_expiration",
            "must be greater than 0",
        );
        for label in config.const_labels.keys() {
            wrong.require(
                !label.is_empty() && !label.starts_with("__") && name::label(label) == *label,
                &format!("const_labels::{label}"),
                "not a label name: letters, digits and _, neither a digit nor __ first",
            );
        }
        let words = config.namespace.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
        config.namespace = words.filter(|w| !w.is_empty()).collect::<Vec<_>>().join("_");
        wrong.or(Self { config: Arc::new(config), listeners: Vec::new() })
    }
}

impl Exporter for Prometheus {
    async fn start(&mut self, _: &Context) -> anyhow::Result<()> {
        self.listeners = serve::bind(&self.config.endpoint, "metrics", "/metrics").await?;
        Ok(())
    }

    async fn run(self, cx: Context, mut input: Input) -> anyhow::Result<()> {
        let counts = Counts::new(&cx);
        let store = Store::new(Arc::clone(&self.config));
        let mut expiry = tokio::time::interval(store.expiry_interval());
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let exposition = Arc::new(Exposition::new(store, self.config.send_timestamps));
        let stop = CancellationToken::new();
        let serving =
            tokio::spawn(serve::serve(self.listeners, Arc::clone(&exposition), stop.clone()));
        // Should this future be dropped at the deadline, the server ends with it.
        let _stop = stop.drop_guard_ref();

        loop {
            tokio::select! {
                batch = input.recv() => match batch {
                    Some(Batch::Metrics(request)) => {
                        counts.add(&exposition.change(|store| store.apply(request, Instant::now())));
                    }
                    // The pipeline checks signals before it starts.
                    Some(Batch::Logs(_) | Batch::Traces(_)) => {}
                    None => break,
                },
                _ = expiry.tick() => exposition.change(|store| store.expire(Instant::now())),
            }
        }
        stop.cancel();
        serving.await?;
        Ok(())
    }
}

/// The exporter's own metrics.
struct Counts {
    sent: Items,
    failed: Items,
    dropped: Counter<u64>,
    exporter: KeyValue,
}

impl Counts {
    fn new(cx: &Context) -> Self {
        let exporter = KeyValue::new("exporter", cx.id.to_string());
        let attributes = std::slice::from_ref(&exporter);
        Self {
            sent: Items::new(&cx.meter, "otelcol_exporter_sent", attributes),
            failed: Items::new(&cx.meter, "otelcol_exporter_send_failed", attributes),
            dropped: cx.meter.u64_counter("otelcol_exporter_prometheus_dropped_points").build(),
            exporter,
        }
    }

    fn add(&self, tally: &Tally) {
        self.sent.add(Signal::Metrics, tally.taken);
        for (reason, points) in &tally.dropped {
            self.failed.add(Signal::Metrics, *points);
            let reason = KeyValue::new("reason", reason.name());
            self.dropped.add(*points as u64, &[self.exporter.clone(), reason]);
        }
    }
}

/// A lock that outlives a panic of another holder: the store is valid between any two points.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
