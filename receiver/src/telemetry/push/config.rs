//! The keys of OpenTelemetry's configuration files for what is sent: `processors`, `exporter`, `otlp`.

use std::{path::PathBuf, time::Duration};

use opentelemetry_sdk::metrics::Temporality;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{batch::Signal, config::Mistakes, exporters::otlp::headers::Headers};

/// What becomes of records: one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Processor {
    /// They are sent together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchProcessor>,
    /// Each is sent by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simple: Option<SimpleProcessor>,
}

/// `batch`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchProcessor {
    /// Milliseconds that a record waits for others at most.
    pub schedule_delay: i64,
    /// Milliseconds in which a batch must have been sent, with all that is tried again. An attempt that is under
    /// way then may still end.
    pub export_timeout: i64,
    /// Records that may wait. What comes while they do is dropped and counted.
    pub max_queue_size: i64,
    /// Records of a batch at most.
    pub max_export_batch_size: i64,
    /// To whom.
    pub exporter: Exporter,
}

impl Default for BatchProcessor {
    fn default() -> Self {
        Self {
            schedule_delay: 1000,
            export_timeout: 30_000,
            max_queue_size: 2048,
            max_export_batch_size: 512,
            exporter: Exporter::default(),
        }
    }
}

/// `simple`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SimpleProcessor {
    /// To whom.
    pub exporter: Exporter,
}

/// To whom records are sent: one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Exporter {
    /// Standard output, as lines of JSON: `console: {}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<Map<String, Value>>,
    /// An OTLP receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Otlp>,
}

macro_rules! otlp {
    ($(#[$meta:meta])* $name:ident {$($(#[$more:meta])* $field:ident: $kind:ty = $default:expr,)*}) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// `grpc` or `http/protobuf`.
            pub protocol: String,
            /// Its address: a URL, or a host and a port. That of HTTP may have a path, which is then the whole
            /// one. By default this machine, without TLS.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub endpoint: Option<String>,
            /// No TLS, if the endpoint is no URL that says so.
            pub insecure: bool,
            /// The file with the authorities of which one must have signed the peer's certificate; those of the
            /// system by default.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub certificate: Option<PathBuf>,
            /// The file with the agent's certificate, for a peer that asks for one.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub client_certificate: Option<PathBuf>,
            /// The file with the key of that.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub client_key: Option<PathBuf>,
            /// `gzip` or `none`.
            pub compression: String,
            /// Milliseconds for one attempt; 0 is no limit.
            pub timeout: u64,
            /// Sent with every request.
            pub headers: Headers,
            /// More of them, as `name=value,name=value`. Those of `headers` win.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub headers_list: Option<crate::config::Secret>,
            $($(#[$more])* pub $field: $kind,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    protocol: "grpc".to_owned(),
                    endpoint: None,
                    insecure: false,
                    certificate: None,
                    client_certificate: None,
                    client_key: None,
                    compression: "none".to_owned(),
                    timeout: 10_000,
                    headers: Headers::default(),
                    headers_list: None,
                    $($field: $default,)*
                }
            }
        }
    };
}

otlp! {
    /// An OTLP receiver.
    Otlp {}
}

otlp! {
    /// An OTLP receiver of metrics.
    OtlpMetric {
        /// `cumulative`; `delta`, which counters and histograms are then; or `lowmemory`, which leaves observed
        /// counters cumulative.
        temporality_preference: String = "cumulative".to_owned(),
        /// Read for the sake of existing files, as in the Collector.
        default_histogram_aggregation: Option<String> = None,
    }
}

impl OtlpMetric {
    /// Whether counts are since the start or since the last time.
    pub(in crate::telemetry) fn temporality(&self) -> Option<Temporality> {
        match self.temporality_preference.as_str() {
            "cumulative" => Some(Temporality::Cumulative),
            "delta" => Some(Temporality::Delta),
            "lowmemory" => Some(Temporality::LowMemory),
            _ => None,
        }
    }

    /// Without what metrics alone have.
    pub(super) fn common(&self) -> Otlp {
        let of = self.clone();
        Otlp {
            protocol: of.protocol,
            endpoint: of.endpoint,
            insecure: of.insecure,
            certificate: of.certificate,
            client_certificate: of.client_certificate,
            client_key: of.client_key,
            compression: of.compression,
            timeout: of.timeout,
            headers: of.headers,
            headers_list: of.headers_list,
        }
    }

    pub(in crate::telemetry) fn check(&self) -> Mistakes {
        let mut wrong = self.common().check();
        if self.temporality().is_none() {
            let given = &self.temporality_preference;
            let message = format!("unsupported temporality preference {given:?}");
            let known = ["cumulative", "delta", "lowmemory"];
            wrong.unknown("temporality_preference", message, given, known);
        }
        wrong
    }
}

impl Otlp {
    fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        let known = ["grpc", "http/protobuf"];
        if self.http().is_none() {
            let message = format!("unsupported protocol {:?}", self.protocol);
            wrong.unknown("protocol", message, &self.protocol, known);
        }
        if !matches!(self.compression.as_str(), "gzip" | "none") {
            let message = format!("unsupported compression {:?}", self.compression);
            wrong.unknown("compression", message, &self.compression, ["gzip", "none"]);
        }
        if let Err(message) = self.headers_list() {
            wrong.add("headers_list", message);
        }
        if wrong.0.is_empty() {
            for mut mistake in self.mistakes().0 {
                // The keys of the exporter.
                if mistake.path.starts_with("tls") {
                    mistake.path = "client_certificate".to_owned();
                } else if mistake.path.ends_with("endpoint") {
                    mistake.path = "endpoint".to_owned();
                }
                wrong.0.push(mistake);
            }
        }
        wrong
    }

    /// Whether it is HTTP; `None` if it is nothing that is known.
    pub(super) fn http(&self) -> Option<bool> {
        match self.protocol.as_str() {
            "grpc" | "grpc/protobuf" => Some(false),
            "http/protobuf" => Some(true),
            _ => None,
        }
    }

    pub(super) fn url(&self, http: bool, signal: Signal) -> String {
        let endpoint = match (self.endpoint.as_deref(), http) {
            (None, true) => "http://localhost:4318",
            (None, false) => "http://localhost:4317",
            (Some(endpoint), _) => endpoint,
        };
        let scheme = if self.insecure { "http" } else { "https" };
        let url = match endpoint.starts_with("http://") || endpoint.starts_with("https://") {
            true => endpoint.to_owned(),
            false => format!("{scheme}://{endpoint}"),
        };
        let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        match path {
            Some((_, path)) if !path.is_empty() => url,
            _ if http => format!("{}/v1/{}", url.trim_end_matches('/'), signal.name()),
            _ => url,
        }
    }

    fn headers_list(&self) -> Result<Vec<(&str, &str)>, String> {
        let list = self.headers_list.as_ref().map_or("", |list| list.expose());
        let pairs = list.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let pair =
            |pair: &'_ str| pair.find('=').ok_or("must be name=value, name=value, …".to_owned());
        pairs.map(|text| pair(text).map(|at| (text[..at].trim(), text[at + 1..].trim()))).collect()
    }

    /// The configuration of a pipeline's exporter to there.
    pub(super) fn config(&self, signal: Signal) -> Value {
        let http = self.http().unwrap_or_default();
        let mut headers: Map<String, Value> = Map::new();
        let listed = self.headers_list().unwrap_or_default();
        let listed = listed.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        for (name, value) in listed.chain(self.headers.exposed()) {
            headers.insert(name, value.into());
        }
        let key = match (http, signal) {
            (false, _) => "endpoint",
            (true, Signal::Metrics) => "metrics_endpoint",
            (true, Signal::Logs) => "logs_endpoint",
            (true, Signal::Traces) => "traces_endpoint",
        };
        json!({
            key: self.url(http, signal),
            "headers": headers,
            "compression": self.compression,
            "timeout": format!("{}ms", self.timeout),
            "tls": {
                "ca_file": self.certificate,
                "cert_file": self.client_certificate,
                "key_file": self.client_key,
            },
        })
    }
}

impl Exporter {
    fn check(&self, what: &str) -> Mistakes {
        let mut wrong = Mistakes::default();
        match self {
            Self { console: Some(_), otlp: Some(_) } => {
                wrong.add("", "must not specify multiple exporters");
            }
            Self { console: None, otlp: None } => {
                wrong.add("", format!("no valid {what} exporter: there are otlp and console"));
            }
            Self { otlp: Some(otlp), .. } => wrong.nest("otlp", otlp.check()),
            Self { console: Some(_), .. } => {}
        }
        wrong
    }
}

impl Processor {
    /// Checks what types cannot say, with the Collector's words for these records.
    pub(in crate::telemetry) fn check(&self, what: &str) -> Mistakes {
        let mut wrong = Mistakes::default();
        match self {
            Self { batch: Some(_), simple: Some(_) } => {
                wrong.add("", format!("must not specify multiple {what} processor type"));
            }
            Self { batch: None, simple: None } => {
                let message = "processor type, must be one of simple or batch";
                wrong.add("", format!("unsupported {what} {message}"));
            }
            Self { batch: Some(batch), .. } => {
                for (key, name, value) in [
                    ("schedule_delay", "schedule delay", batch.schedule_delay),
                    ("export_timeout", "export timeout", batch.export_timeout),
                    ("max_queue_size", "queue size", batch.max_queue_size),
                    ("max_export_batch_size", "batch size", batch.max_export_batch_size),
                ] {
                    let message = format!("invalid {name} {value}");
                    wrong.require(value >= 0, &format!("batch::{key}"), &message);
                }
                wrong.nest("batch::exporter", batch.exporter.check(what));
            }
            Self { simple: Some(simple), .. } => {
                wrong.nest("simple::exporter", simple.exporter.check(what));
            }
        }
        wrong
    }

    /// The records that may wait, those that are sent together, and the time that they wait. As in the SDKs,
    /// a size of 0 is the default one.
    pub(super) fn sizes(&self) -> (usize, usize, Duration) {
        let default = BatchProcessor::default();
        let Some(batch) = &self.batch else {
            return (size(0, default.max_queue_size), 1, Duration::ZERO);
        };
        let room = size(batch.max_queue_size, default.max_queue_size);
        let most = size(batch.max_export_batch_size, default.max_export_batch_size).min(room);
        let delay = u64::try_from(batch.schedule_delay).unwrap_or_default();
        (room, most, Duration::from_millis(delay))
    }

    /// Where to, if it is not the console, and how long it is tried.
    pub(super) fn otlp(&self) -> Option<(&Otlp, Duration)> {
        let default = BatchProcessor::default().export_timeout;
        let (exporter, patience) = match (&self.batch, &self.simple) {
            (Some(batch), _) => (&batch.exporter, batch.export_timeout),
            (None, simple) => (&simple.as_ref()?.exporter, default),
        };
        let patience = Duration::from_millis(u64::try_from(patience).unwrap_or_default());
        Some((exporter.otlp.as_ref()?, patience))
    }
}

/// A size that is given, or the default.
fn size(given: i64, default: i64) -> usize {
    let size = if given > 0 { given } else { default };
    usize::try_from(size).unwrap_or(usize::MAX).min(1 << 20)
}
