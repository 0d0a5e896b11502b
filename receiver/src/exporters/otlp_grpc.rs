//! `otlp_grpc`: OTLP over gRPC, to a Collector or any backend that speaks it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::{
    logs::v1::logs_service_client::LogsServiceClient,
    metrics::v1::metrics_service_client::MetricsServiceClient,
    trace::v1::trace_service_client::TraceServiceClient,
};
use serde::{Deserialize, Serialize};
use tonic::{
    Code, Request, Status,
    codec::CompressionEncoding,
    metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use tracing::warn;

use super::{
    queue::{self, Failure, Sender, Sent},
    retry, tls,
};
use crate::{
    batch::{Batch, Signal},
    channel::Input,
    component::{Component, Context, Exporter},
    config::{Mistakes, Secret},
};

/// The configuration of `otlp_grpc`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the receiver listens: host and port. `http://` means no TLS, `https://` means TLS.
    pub endpoint: String,
    /// How the connection is secured.
    pub tls: tls::Config,
    /// Sent with every request.
    pub headers: BTreeMap<String, Secret>,
    /// How requests are compressed.
    pub compression: Compression,
    /// The time for one attempt; zero is no limit.
    #[serde(with = "crate::config::duration")]
    pub timeout: Duration,
    /// What happens after a failure.
    pub retry_on_failure: retry::Config,
    /// Where batches wait.
    pub sending_queue: queue::Config,
    /// Whether the connection is checked while nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<KeepAlive>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            tls: tls::Config::default(),
            headers: BTreeMap::new(),
            compression: Compression::Gzip,
            timeout: Duration::from_secs(5),
            retry_on_failure: retry::Config::default(),
            sending_queue: queue::Config::default(),
            keepalive: None,
        }
    }
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// Not at all.
    #[serde(alias = "")]
    None,
}

/// `keepalive`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeepAlive {
    /// Time without traffic after which the peer is asked.
    #[serde(with = "crate::config::duration")]
    pub time: Duration,
    /// Time that it has to answer.
    #[serde(with = "crate::config::duration")]
    pub timeout: Duration,
    /// Whether it is asked while no request is under way.
    pub permit_without_stream: bool,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            permit_without_stream: false,
        }
    }
}

/// Time without traffic after which the kernel asks the peer's kernel: Go's default, so the Collector's.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// The exporter.
pub struct OtlpGrpc {
    config: Config,
    url: String,
    secure: bool,
    headers: MetadataMap,
    clients: Option<Clients>,
}

impl Component for OtlpGrpc {
    const NAME: &'static str = "otlp_grpc";
    const ALIASES: &'static [&'static str] = &["otlp"];
    const DESCRIPTION: &'static str = "Sends OTLP over gRPC.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str = "endpoint: collector.example.com:4317\nheaders:\n  authorization: Bearer ${env:TOKEN:-none}";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let (secure, authority) = scheme(&config.endpoint, config.tls.insecure);
        if let Err(message) = check(authority) {
            wrong.add("endpoint", message);
        }
        let mut headers = MetadataMap::new();
        for (name, value) in &config.headers {
            let path = format!("headers::{name}");
            match (
                MetadataKey::<Ascii>::from_bytes(name.to_lowercase().as_bytes()),
                value.expose().parse::<MetadataValue<Ascii>>(),
            ) {
                (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
                (Err(_), _) => wrong.add(path, "is no name for a header"),
                (_, Err(_)) => wrong.add(path, "has a value that no header can have"),
            }
        }
        if let Some(keepalive) = &config.keepalive {
            let positive = "must be a positive duration";
            wrong.require(!keepalive.time.is_zero(), "keepalive::time", positive);
            wrong.require(!keepalive.timeout.is_zero(), "keepalive::timeout", positive);
        }
        wrong.nest("tls", config.tls.check());
        wrong.nest("retry_on_failure", config.retry_on_failure.check());
        wrong.nest("sending_queue", config.sending_queue.check());
        let url = format!("{}://{authority}", if secure { "https" } else { "http" });
        wrong.or(Self { config, url, secure, headers, clients: None })
    }
}

/// Whether the connection is secured, and the host and port that it goes to.
fn scheme(endpoint: &str, insecure: bool) -> (bool, &str) {
    let endpoint = endpoint.trim_end_matches('/');
    if let Some(rest) = endpoint.strip_prefix("https://") {
        (true, rest)
    } else if let Some(rest) = endpoint.strip_prefix("http://") {
        (false, rest)
    } else {
        let name = endpoint.strip_prefix("dns://").unwrap_or(endpoint);
        (!insecure, name.trim_start_matches('/'))
    }
}

/// A host and a port.
fn check(authority: &str) -> Result<(), String> {
    if authority.is_empty() {
        return Err("requires a non-empty \"endpoint\"".to_owned());
    }
    let port = match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !host.is_empty() && !port.contains(']') => port,
        _ => return Err(format!("address {authority}: missing port in address")),
    };
    match port.parse::<u16>() {
        Ok(_) => authority
            .parse::<tonic::codegen::http::uri::Authority>()
            .map(drop)
            .map_err(|e| format!("address {authority}: {e}")),
        Err(_) => Err(format!("invalid port \"{port}\"")),
    }
}

impl Exporter for OtlpGrpc {
    /// Reads certificates, but connects at the first request only: a peer that is down is no error.
    async fn start(&mut self, _: &Context) -> anyhow::Result<()> {
        let mut endpoint = Endpoint::from_shared(self.url.clone())
            .with_context(|| format!("endpoint {}", self.config.endpoint))?
            .user_agent(concat!("fathom/", env!("CARGO_PKG_VERSION")))
            .context("user agent")?
            // A host that has gone without a word must not hold the next attempts up.
            .tcp_keepalive(Some(TCP_KEEPALIVE));
        if !self.config.timeout.is_zero() {
            endpoint = endpoint.connect_timeout(self.config.timeout);
        }
        if let Some(keepalive) = &self.config.keepalive {
            endpoint = endpoint
                .http2_keep_alive_interval(keepalive.time)
                .keep_alive_timeout(keepalive.timeout)
                .keep_alive_while_idle(keepalive.permit_without_stream);
        }
        if self.secure {
            endpoint = self.config.tls.apply(endpoint)?;
        }
        let channel = endpoint.connect_lazy();
        self.clients = Some(Clients::new(channel, self.config.compression));
        Ok(())
    }

    async fn run(self, cx: Context, input: Input) -> anyhow::Result<()> {
        let clients = self.clients.context("it was not started")?;
        let sender = Grpc { clients, timeout: self.config.timeout, headers: self.headers };
        let Config { sending_queue, retry_on_failure, .. } = &self.config;
        queue::run(&cx, input, sending_queue, retry_on_failure, sender).await;
        Ok(())
    }
}

/// A client per signal over one connection.
#[derive(Clone)]
struct Clients {
    metrics: MetricsServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
    traces: TraceServiceClient<Channel>,
}

impl Clients {
    fn new(channel: Channel, compression: Compression) -> Self {
        let mut clients = Self {
            metrics: MetricsServiceClient::new(channel.clone()),
            logs: LogsServiceClient::new(channel.clone()),
            traces: TraceServiceClient::new(channel),
        };
        let encoding = match compression {
            Compression::Gzip => CompressionEncoding::Gzip,
            Compression::Zstd => CompressionEncoding::Zstd,
            Compression::None => return clients,
        };
        clients.metrics = clients.metrics.send_compressed(encoding).accept_compressed(encoding);
        clients.logs = clients.logs.send_compressed(encoding).accept_compressed(encoding);
        clients.traces = clients.traces.send_compressed(encoding).accept_compressed(encoding);
        clients
    }
}

/// Makes one attempt.
struct Grpc {
    clients: Clients,
    timeout: Duration,
    headers: MetadataMap,
}

impl Grpc {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        if !self.timeout.is_zero() {
            // Tells the peer, too.
            request.set_timeout(self.timeout);
        }
        request
    }

    /// The items that the peer refused for good, and why.
    async fn attempt(&self, batch: &Batch) -> Result<(i64, String), Status> {
        // Cheap: all clients share the connection. A retry needs the batch again, so it is copied.
        let mut clients = self.clients.clone();
        Ok(match batch {
            Batch::Metrics(metrics) => {
                let response = clients.metrics.export(self.request(metrics.clone())).await?;
                let partial = response.into_inner().partial_success.unwrap_or_default();
                (partial.rejected_data_points, partial.error_message)
            }
            Batch::Logs(logs) => {
                let response = clients.logs.export(self.request(logs.clone())).await?;
                let partial = response.into_inner().partial_success.unwrap_or_default();
                (partial.rejected_log_records, partial.error_message)
            }
            Batch::Traces(traces) => {
                let response = clients.traces.export(self.request(traces.clone())).await?;
                let partial = response.into_inner().partial_success.unwrap_or_default();
                (partial.rejected_spans, partial.error_message)
            }
        })
    }
}

impl Sender for Grpc {
    async fn send(&self, batch: &Batch) -> Result<Sent, Failure> {
        let attempt = self.attempt(batch);
        let result = match self.timeout.is_zero() {
            true => attempt.await,
            false => tokio::time::timeout(self.timeout, attempt)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))),
        };
        match result {
            Ok((rejected, message)) => {
                let rejected = usize::try_from(rejected).unwrap_or_default();
                if rejected > 0 || !message.is_empty() {
                    warn!(message, dropped_items = rejected, "Partial success response");
                }
                Ok(Sent { rejected })
            }
            Err(status) => Err(failure(&status)),
        }
    }
}

/// Which failures pass: the OTLP specification's table of gRPC codes.
fn failure(status: &Status) -> Failure {
    let mut reason = format!("{:?}: {}", status.code(), status.message());
    // What the transport met, such as a refused connection or certificate, is in the causes.
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = error.source();
    }
    let info = status.get_details_retry_info();
    let retryable = info.is_some();
    let after = info.and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Retryable { reason, after },
        // Without a word on when to come back, it is out of resources for good.
        Code::ResourceExhausted if retryable => Failure::Retryable { reason, after },
        _ => Failure::Permanent { reason },
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn the_endpoint_decides_about_tls() {
        assert_eq!(scheme("host:4317", false), (true, "host:4317"));
        assert_eq!(scheme("host:4317", true), (false, "host:4317"));
        assert_eq!(scheme("http://host:4317/", false), (false, "host:4317"));
        assert_eq!(scheme("https://host:4317", true), (true, "host:4317"));
        assert_eq!(scheme("dns:///host:4317", true), (false, "host:4317"));
    }

    #[test]
    fn endpoints_without_host_or_port_are_refused() {
        assert_eq!(check("host:4317"), Ok(()));
        assert_eq!(check("[::1]:4317"), Ok(()));
        for wrong in ["", "host", ":4317", "[::1]", "host:x", "host:99999", "ho st:1"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_mistake_is_reported() {
        let config = Config {
            headers: [("no name".to_owned(), Secret::new("x"))].into(),
            retry_on_failure: retry::Config { multiplier: -1.0, ..Default::default() },
            sending_queue: queue::Config { queue_size: 0, ..Default::default() },
            ..Config::default()
        };
        let wrong = OtlpGrpc::new(config).err().expect("four mistakes");
        let paths: Vec<_> = wrong.0.iter().map(|m| m.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "endpoint",
                "headers::no name",
                "retry_on_failure::multiplier",
                "sending_queue::queue_size"
            ]
        );
    }

    #[test]
    fn failures_pass_or_stay_as_the_specification_says() {
        let retried = |status: &Status| matches!(failure(status), Failure::Retryable { .. });
        for code in 1..=16 {
            let code = Code::from(code);
            let passes = matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            );
            assert_eq!(retried(&Status::new(code, "")), passes, "{code:?}");
        }
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_secs(7)));
        let status = Status::with_error_details(Code::ResourceExhausted, "", details);
        let Failure::Retryable { after, .. } = failure(&status) else { panic!("it is retried") };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }
}

#[cfg(test)]
mod live;
