//! Serves the last value of every series to Prometheus at `/metrics`: as text, in OpenMetrics, or in
//! protobuf with native histograms.

use anyhow::Context as _;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Instant,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, Signal},
    channel::Input,
    component::{Component, Context, Exporter},
    config::Mistakes,
    exporters::tls::server::Tls,
    extensions::{auth::Authenticators, server::Front},
    prometheus_names::{Names, Strategy},
    telemetry::Items,
};

mod buckets;
mod config;
mod exemplar;
mod family;
mod format;
mod labels;
mod page;
mod patience;
mod proto;
mod reason;
pub(crate) mod serve;
mod store;
mod text;
pub(super) mod value;
mod view;

pub(super) use config::{Config, Conversion};
use labels::Identity;
use page::{Exposition, Hidden};
use reason::Tally;
use store::Store;

/// What series are made by.
pub(super) struct Rules {
    config: Config,
    names: Names,
    const_labels: BTreeMap<String, String>,
    /// By which series are told apart.
    hashes: [RandomState; 2],
}

impl Rules {
    fn new(config: Config) -> Self {
        let names = Names::new(&config.namespace, config.strategy()).keeping_underscores();
        let const_labels =
            config.const_labels.iter().map(|(key, value)| (names.label(key), value.clone()));
        let hashes = [RandomState::new(), RandomState::new()];
        Self { const_labels: const_labels.collect(), names, config, hashes }
    }

    /// The identity of what these bytes say.
    fn identity(&self, bytes: &[u8]) -> Identity {
        let [high, low] = &self.hashes;
        u128::from(high.hash_one(bytes)) << u64::BITS | u128::from(low.hash_one(bytes))
    }

    /// Whether there may be one more than that many series.
    fn room(&self, series: usize) -> bool {
        self.config.max_series == 0 || series < self.config.max_series
    }
}

/// The exporter.
pub(super) struct Prometheus {
    rules: Arc<Rules>,
    listeners: Vec<TcpListener>,
    tls: Option<Tls>,
    front: Option<Front>,
}

impl Component for Prometheus {
    const NAME: &'static str = "prometheus";
    const DESCRIPTION: &'static str = "Serves metrics to Prometheus at /metrics.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    const EXAMPLE: &'static str = "endpoint: localhost:9464";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let rules = Rules::new(config);
        let wrong = rules.check();
        let rules = Arc::new(rules);
        wrong.or(Self { rules, listeners: Vec::new(), tls: None, front: None })
    }

    fn warnings(&self) -> Vec<String> {
        self.rules.config.warnings()
    }
}

impl Rules {
    fn check(&self) -> Mistakes {
        let config = &self.config;
        let mut wrong = Mistakes::default();
        if config.endpoint.trim().is_empty() {
            wrong.add(
                "endpoint",
                "expecting a non-blank address to run the Prometheus metrics handler \
                 (required: a host and a port, such as localhost:9464)",
            );
        }
        if let Some(queue) = &config.sending_queue {
            wrong.nest("sending_queue", queue.check());
        }
        wrong.require(
            !config.metric_expiration.is_zero(),
            "metric_expiration",
            "must be greater than 0",
        );
        let strategy = &config.translation_strategy;
        if !strategy.is_empty() && Strategy::named(strategy).is_none() {
            let message = format!("invalid translation_strategy: {strategy}");
            let known = Strategy::ALL.iter().map(|(name, _)| *name);
            wrong.unknown("translation_strategy", message, strategy, known);
        }
        for label in config.const_labels.keys() {
            let name = self.names.label(label);
            wrong.require(
                !name.is_empty() && !name.starts_with("__"),
                &format!("const_labels::{label}"),
                "not a label: it needs a letter or a digit, and may not begin with __",
            );
        }
        wrong.nest("", config.server().check());
        wrong
    }
}

impl Exporter for Prometheus {
    fn secured(&self, known: &Authenticators) -> Mistakes {
        self.rules.config.server().secured(known)
    }

    async fn start(&mut self, cx: &Context) -> anyhow::Result<()> {
        let config = &self.rules.config;
        self.front = Some(config.server().front(&cx.authenticators)?);
        self.tls = config.tls.as_ref().map(|tls| Tls::load(tls, &["http/1.1"])).transpose()?;
        self.listeners = config.server().listen("metrics", "/metrics").await?;
        Ok(())
    }

    async fn run(self, cx: Context, mut input: Input) -> anyhow::Result<()> {
        let counts = Counts::new(&cx);
        let store = Store::new(Arc::clone(&self.rules));
        let mut expiry = tokio::time::interval(store.expiry_interval());
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let openmetrics = self.rules.config.enable_open_metrics;
        let exposition = Arc::new(Exposition::new(store, openmetrics, counts.hidden()));
        let options = self.rules.config.options(self.tls);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve::serve(
            self.listeners,
            options,
            self.front.context("it was not started")?,
            Arc::clone(&exposition),
            stop.clone(),
        ));
        // Should this future be dropped at the deadline, the server ends with it.
        let _stop = stop.drop_guard_ref();

        loop {
            let now = Instant::now();
            let (tally, series) = tokio::select! {
                batch = input.recv() => match batch {
                    Some(Batch::Metrics(request)) => {
                        exposition.change(|store| (store.apply(request, now), store.series)).await
                    }
                    // The pipeline checks signals before it starts.
                    Some(Batch::Logs(_) | Batch::Traces(_)) => continue,
                    None => break,
                },
                _ = expiry.tick() => exposition.change(|store| {
                    store.expire(now);
                    (Tally::default(), store.series)
                }).await,
            };
            counts.add(&tally, series);
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
    hidden: Counter<u64>,
    series: Gauge<u64>,
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
            hidden: cx.meter.u64_counter("otelcol_exporter_prometheus_hidden_series").build(),
            series: cx.meter.u64_gauge("otelcol_exporter_prometheus_series").build(),
            exporter,
        }
    }

    fn hidden(&self) -> Hidden {
        Hidden { counter: self.hidden.clone(), attributes: [self.exporter.clone()] }
    }

    fn add(&self, tally: &Tally, series: usize) {
        self.series.record(series as u64, std::slice::from_ref(&self.exporter));
        self.sent.add(Signal::Metrics, tally.taken);
        for (reason, points) in &tally.dropped {
            self.failed.add(Signal::Metrics, *points);
            let reason = KeyValue::new("reason", reason.name());
            self.dropped.add(*points as u64, &[self.exporter.clone(), reason]);
        }
    }
}

#[cfg(test)]
mod tests;
