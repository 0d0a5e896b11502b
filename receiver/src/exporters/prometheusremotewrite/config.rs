//! The configuration of `prometheusremotewrite`, and what is wrong with one.

use std::{collections::BTreeMap, time::Duration};

use hyper::Uri;
use serde::{Deserialize, Serialize};

use super::labels::Rules;
use crate::{
    config::{Mistakes, Secret, Signed},
    exporters::{
        http::{Cookies, Settings, url},
        middlewares::Middlewares,
        otlp::{compression::Params, headers::Headers},
        prometheus::Conversion,
        queue, retry, tls,
    },
    extensions::auth as authentication,
    prometheus_names::{Names, Strategy},
};

/// The largest request where 0 is configured.
const MAX_BYTES: i64 = 3_000_000;

/// The configuration of `prometheusremotewrite`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The whole URL of the receiver.
    pub endpoint: String,
    /// `prometheus.WriteRequest` is version 1 of the protocol, `io.prometheus.write.v2.Request` version 2.
    pub protobuf_message: String,
    /// Comes before the name of every metric.
    pub namespace: String,
    /// Labels on every series that has none of the name itself.
    pub external_labels: BTreeMap<String, String>,
    /// Whether names say their unit and kind: `_seconds`, `_total`. Without effect if there is a
    /// `translation_strategy`.
    pub add_metric_suffixes: bool,
    /// What becomes of names: `UnderscoreEscapingWithSuffixes`, `UnderscoreEscapingWithoutSuffixes`
    /// and, in version 2 of the protocol alone, `NoUTF8EscapingWithSuffixes` or `NoTranslation`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub translation_strategy: String,
    /// Whether every resource attribute becomes a label.
    pub resource_to_telemetry_conversion: Conversion,
    /// The series that describes each resource.
    pub target_info: TargetInfo,
    /// Leaves out the labels `otel_scope_…`.
    pub disable_scope_info: bool,
    /// Sends type, help and unit of metrics, too. Version 2 always does.
    pub send_metadata: bool,
    /// The most bytes of one request before compression; 0 is 3,000,000.
    pub max_batch_size_bytes: i64,
    /// The most requests of one batch under way at once, instead of `remote_write_queue::num_consumers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_request_parallelism: Option<i64>,
    /// Where batches wait.
    pub remote_write_queue: Queue,
    /// What happens after a failure.
    pub retry_on_failure: Retry,
    /// Sent with every request.
    pub headers: Headers,
    /// The extension that adds credentials to every request.
    #[serde(deserialize_with = "crate::config::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("switch" = true))]
    pub auth: Option<authentication::Config>,
    /// The time for one attempt; zero is no limit.
    #[serde(with = "crate::config::duration")]
    pub timeout: Duration,
    /// `snappy`, which is all that the protocol knows.
    pub compression: String,
    /// Read for the sake of existing files: snappy has no levels.
    pub compression_params: Params,
    /// A log on disk that batches would wait in. There is none of that yet.
    #[serde(deserialize_with = "crate::config::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("switch" = true))]
    pub wal: Option<Wal>,
    /// How connections are secured, where the URL says `https`.
    pub tls: tls::Config,
    /// The proxy to use, instead of what the environment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<Secret>,
    /// Connections that are kept open without a request on them; zero is no limit.
    pub max_idle_conns: usize,
    /// The same for one host; zero is 2.
    pub max_idle_conns_per_host: usize,
    /// Requests that may be under way at once; zero is no limit.
    pub max_conns_per_host: usize,
    /// The time that such a connection is kept open; zero, or less, is no limit.
    pub idle_conn_timeout: Signed,
    /// A connection for every request.
    pub disable_keep_alives: bool,
    /// Offers HTTP/2 to servers that speak TLS.
    pub force_attempt_http2: bool,
    /// Time without traffic after which the peer of an HTTP/2 connection is asked; zero is never.
    #[serde(with = "crate::config::duration")]
    pub http2_read_idle_timeout: Duration,
    /// Time that it has to answer; zero is 15 s.
    #[serde(with = "crate::config::duration")]
    pub http2_ping_timeout: Duration,
    /// Bytes that are read at once; zero adapts.
    pub read_buffer_size: usize,
    /// Read for the sake of existing files. A request is written from where it lies, without a buffer.
    pub write_buffer_size: usize,
    /// Read for the sake of existing files: what a server asks to be sent back, is not. A warning says so.
    #[serde(deserialize_with = "crate::config::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("switch" = true))]
    pub cookies: Option<Cookies>,
    /// Extensions that stand between it and the network. There are none: it must be empty.
    #[serde(skip_serializing_if = "Middlewares::is_empty")]
    pub middlewares: Middlewares,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protobuf_message: Version::V1.message().to_owned(),
            namespace: String::new(),
            external_labels: BTreeMap::new(),
            add_metric_suffixes: true,
            translation_strategy: String::new(),
            resource_to_telemetry_conversion: Conversion::default(),
            target_info: TargetInfo::default(),
            disable_scope_info: false,
            send_metadata: false,
            max_batch_size_bytes: MAX_BYTES,
            max_batch_request_parallelism: None,
            remote_write_queue: Queue::default(),
            retry_on_failure: Retry::default(),
            headers: Headers::default(),
            auth: None,
            timeout: Duration::from_secs(5),
            compression: "snappy".to_owned(),
            compression_params: Params::default(),
            wal: None,
            tls: tls::Config::default(),
            proxy_url: None,
            max_idle_conns: 100,
            max_idle_conns_per_host: 0,
            max_conns_per_host: 0,
            idle_conn_timeout: Duration::from_secs(90).into(),
            disable_keep_alives: false,
            force_attempt_http2: true,
            http2_read_idle_timeout: Duration::ZERO,
            http2_ping_timeout: Duration::ZERO,
            read_buffer_size: 0,
            write_buffer_size: 512 * 1024,
            cookies: None,
            middlewares: Middlewares::default(),
        }
    }
}

/// `wal`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Wal {
    /// Where it would be.
    pub directory: String,
    /// Batches that would be read from it at once.
    pub buffer_size: i64,
    /// How often it would be shortened.
    #[serde(with = "crate::config::duration")]
    pub truncate_frequency: Duration,
    /// How far it would be behind before that is said.
    #[serde(with = "crate::config::duration")]
    pub lag_record_frequency: Duration,
}

/// `target_info`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TargetInfo {
    /// Whether it is sent.
    pub enabled: bool,
}

impl Default for TargetInfo {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `remote_write_queue`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Without a queue, each batch is sent before the next is taken: the pipeline waits.
    pub enabled: bool,
    /// Batches that may wait or be under way.
    pub queue_size: i64,
    /// The most requests of one batch under way at once. Batches go one after the other, so that the
    /// samples of a series arrive in the order of their times.
    pub num_consumers: i64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { enabled: true, queue_size: 10_000, num_consumers: 5 }
    }
}

/// `retry_on_failure`, which here begins with a shorter wait than elsewhere.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Whether a failed send is tried again at all.
    pub enabled: bool,
    /// The wait after the first failure.
    pub initial_interval: Signed,
    /// Each wait is drawn from the interval ± this share of it, so that agents do not return in step.
    pub randomization_factor: f64,
    /// What the interval grows by after each failure.
    pub multiplier: f64,
    /// What the interval does not grow past.
    pub max_interval: Signed,
    /// When to give up, counted from the first attempt; 0 means never.
    pub max_elapsed_time: Signed,
}

impl Default for Retry {
    fn default() -> Self {
        let retry::Config {
            enabled,
            randomization_factor,
            multiplier,
            max_interval,
            max_elapsed_time,
            ..
        } = retry::Config::default();
        Self {
            enabled,
            initial_interval: Duration::from_millis(50).into(),
            randomization_factor,
            multiplier,
            max_interval,
            max_elapsed_time,
        }
    }
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    const ALL: [Self; 2] = [Self::V1, Self::V2];

    const fn message(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }
}

impl Config {
    /// Checks what types cannot say.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        let message = &self.protobuf_message;
        if !Version::ALL.iter().any(|known| known.message() == message) {
            let known = Version::ALL.map(Version::message);
            wrong.unknown(
                "protobuf_message",
                format!(
                    "unknown type for remote write protobuf message {message}, supported: {}",
                    known.join(", ")
                ),
                message,
                known,
            );
        }
        let strategy = &self.translation_strategy;
        if !strategy.is_empty() && Strategy::named(strategy).is_none() {
            let message = format!("invalid translation_strategy: {strategy}");
            let known = Strategy::ALL.iter().map(|(name, _)| *name);
            wrong.unknown("translation_strategy", message, strategy, known);
        } else if !self.strategy().escapes() && self.version() == Version::V1 {
            wrong.add(
                "translation_strategy",
                format!(
                    "translation strategy {strategy} requires Prometheus Remote Write 2.0 (UTF-8 \
                     support): set protobuf_message to {}",
                    Version::V2.message()
                ),
            );
        }
        let label = Names::new("", self.strategy());
        let mut names: BTreeMap<String, &str> = BTreeMap::new();
        for (name, value) in &self.external_labels {
            let path = format!("external_labels::{name}");
            if name.is_empty() || value.is_empty() {
                wrong.add(
                    if name.is_empty() { "external_labels" } else { &path },
                    "prometheus remote write: external labels configuration contains an empty key or value",
                );
            } else if let Some(other) = names.insert(label.label(name), name) {
                wrong.add(&path, format!("is the same label as {other}"));
            }
        }
        wrong.require(
            self.max_batch_size_bytes >= 0,
            "max_batch_size_bytes",
            "max_batch_byte_size must be greater than 0",
        );
        wrong.require(
            self.max_batch_request_parallelism.is_none_or(|given| given >= 1),
            "max_batch_request_parallelism",
            "max_batch_request_parallelism can't be set to below 1",
        );
        wrong.nest("remote_write_queue", self.remote_write_queue.check());
        wrong.require(
            matches!(self.compression.as_str(), "" | "snappy"),
            "compression",
            "compression type must be snappy",
        );
        wrong.require(
            self.wal.is_none(),
            "wal",
            "a log on disk cannot be had: leave the section out, and give remote_write_queue::queue_size \
             and retry_on_failure::max_elapsed_time room for an outage",
        );
        if let Some(auth) = &self.auth {
            wrong.nest("auth", auth.check());
        }
        wrong.nest("", self.settings().check());
        wrong.nest("retry_on_failure", self.retry().check());
        wrong
    }

    /// What becomes of names.
    fn strategy(&self) -> Strategy {
        Strategy::configured(&self.translation_strategy, self.add_metric_suffixes)
    }

    /// Where requests go.
    pub fn url(&self) -> Result<Uri, String> {
        match self.endpoint.as_str() {
            // The Collector takes a bare host and port, too.
            bare if bare.contains(':') && !bare.contains("://") => url(&format!("http://{bare}")),
            whole => url(whole),
        }
    }

    /// The version of the protocol that is spoken.
    pub fn version(&self) -> Version {
        let named = |version: &Version| version.message() == self.protobuf_message;
        Version::ALL.into_iter().find(named).unwrap_or(Version::V1)
    }

    /// The most bytes of a request.
    pub fn max_bytes(&self) -> usize {
        let given =
            if self.max_batch_size_bytes == 0 { MAX_BYTES } else { self.max_batch_size_bytes };
        usize::try_from(given).unwrap_or(usize::MAX)
    }

    /// The most requests of one batch that are under way at once.
    pub fn parallel(&self) -> usize {
        let given = self.max_batch_request_parallelism;
        let given = given.unwrap_or(self.remote_write_queue.num_consumers);
        // With none, nothing would ever be sent.
        usize::try_from(given).unwrap_or(usize::MAX).max(1)
    }

    /// What the shared HTTP client needs.
    pub fn settings(&self) -> Settings<'_> {
        Settings {
            timeout: self.timeout,
            tls: &self.tls,
            proxy_url: self.proxy_url.as_ref(),
            max_idle_conns: self.max_idle_conns,
            max_idle_conns_per_host: self.max_idle_conns_per_host,
            max_conns_per_host: self.max_conns_per_host,
            idle_conn_timeout: self.idle_conn_timeout.or_zero(),
            disable_keep_alives: self.disable_keep_alives,
            force_attempt_http2: self.force_attempt_http2,
            http2_read_idle_timeout: self.http2_read_idle_timeout,
            http2_ping_timeout: self.http2_ping_timeout,
            read_buffer_size: self.read_buffer_size,
            cookies: self.cookies.is_some(),
            middlewares: &self.middlewares,
        }
    }

    /// What the shared queue needs.
    pub fn queue(&self) -> queue::Config {
        queue::Config {
            enabled: self.remote_write_queue.enabled,
            // Two at once could bring the samples of a series out of order.
            num_consumers: 1,
            queue_size: self.remote_write_queue.queue_size,
            ..queue::Config::default()
        }
    }

    /// What the shared retries need.
    pub fn retry(&self) -> retry::Config {
        let Retry {
            enabled,
            initial_interval,
            randomization_factor,
            multiplier,
            max_interval,
            max_elapsed_time,
        } = self.retry_on_failure;
        retry::Config {
            enabled,
            initial_interval,
            randomization_factor,
            multiplier,
            max_interval,
            max_elapsed_time,
        }
    }
}

impl Queue {
    fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        match self.queue_size {
            ..0 => wrong.add("queue_size", "remote write queue size can't be negative"),
            0 if self.enabled => wrong.add("queue_size", "a 0 size queue will drop all the data"),
            size => wrong.require(
                u32::try_from(size).is_ok(),
                "queue_size",
                "must be less than 4294967296",
            ),
        }
        wrong.require(
            self.num_consumers >= 0,
            "num_consumers",
            "remote write consumer number can't be negative",
        );
        wrong
    }
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        let names = Names::new(&config.namespace, config.strategy());
        let labels = config.external_labels.iter();
        Self {
            external: labels.map(|(name, value)| (names.label(name), value.clone())).collect(),
            names,
            scope: !config.disable_scope_info,
            resource: config.resource_to_telemetry_conversion,
            target_info: config.target_info.enabled,
        }
    }
}
