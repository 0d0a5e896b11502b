//! `otlp_grpc`: OTLP over gRPC, to a Collector or any backend that speaks it.

mod endpoint;
mod send;
mod wire;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use hyper::http::HeaderMap;
use serde::{Deserialize, Serialize};
use tonic::{
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use self::endpoint::Address;
pub use self::send::Grpc;
use super::{
    connect::{Connector, HTTP2},
    middlewares::Middlewares,
    otlp::{self, compression::GrpcCompression, headers::Headers},
    proxy::Proxy,
    queue, retry,
    tls::{self, Tls},
};
use crate::{
    batch::Signal,
    channel::Input,
    component::{Component, Context, Exporter},
    config::Mistakes,
    extensions::auth::{self, Authenticators},
};

/// The configuration of `otlp_grpc`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the receiver listens: host and port, or `unix:///PATH`. `http://` means no TLS,
    /// `https://` means TLS.
    pub endpoint: String,
    /// How the connection is secured.
    pub tls: tls::Config,
    /// Sent with every request.
    pub headers: Headers,
    /// The extension that adds credentials to every request.
    #[serde(deserialize_with = "crate::config::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("switch" = true))]
    pub auth: Option<auth::Config>,
    /// How this agent names itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// The name of the server in requests, if it is not the endpoint's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authority: String,
    /// How requests are compressed.
    pub compression: GrpcCompression,
    /// The time for one attempt; zero is no limit.
    #[serde(with = "crate::config::duration")]
    pub timeout: Duration,
    /// While the peer cannot be reached, an attempt goes on until its time is over.
    pub wait_for_ready: bool,
    /// Read for the sake of existing files: there is one connection, to one address of the name.
    pub balancer_name: String,
    /// Read for the sake of existing files: buffers are as large as what comes in.
    pub read_buffer_size: usize,
    /// Read for the sake of existing files: a request is written from where it lies.
    pub write_buffer_size: usize,
    /// What happens after a failure.
    pub retry_on_failure: retry::Config,
    /// Where batches wait.
    pub sending_queue: queue::Config,
    /// Whether the connection is checked while nothing is sent.
    #[serde(deserialize_with = "crate::config::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("switch" = true))]
    pub keepalive: Option<KeepAlive>,
    /// Extensions that stand between it and the network. There are none: it must be empty.
    #[serde(skip_serializing_if = "Middlewares::is_empty")]
    pub middlewares: Middlewares,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            tls: tls::Config::default(),
            headers: Headers::default(),
            auth: None,
            user_agent: String::new(),
            authority: String::new(),
            compression: GrpcCompression::Gzip,
            timeout: Duration::from_secs(5),
            wait_for_ready: false,
            balancer_name: "round_robin".to_owned(),
            read_buffer_size: 0,
            write_buffer_size: 512 * 1024,
            retry_on_failure: retry::Config::default(),
            sending_queue: queue::Config::default(),
            keepalive: None,
            middlewares: Middlewares::default(),
        }
    }
}

/// The times without traffic and to answer where none are configured: those of gRPC.
const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// `keepalive`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeepAlive {
    /// Time without traffic after which the peer is asked; zero is 10 s.
    #[serde(with = "crate::config::duration")]
    pub time: Duration,
    /// Time that it has to answer; zero is 20 s.
    #[serde(with = "crate::config::duration")]
    pub timeout: Duration,
    /// Whether it is asked while no request is under way.
    pub permit_without_stream: bool,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { time: Duration::ZERO, timeout: Duration::ZERO, permit_without_stream: false }
    }
}

/// The exporter.
pub struct OtlpGrpc {
    config: Config,
    address: Option<Address>,
    headers: MetadataMap,
    channel: Option<Channel>,
    auth: Option<Arc<dyn auth::Client>>,
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
        let address = Address::of(&config.endpoint, config.tls.insecure)
            .map_err(|message| wrong.add("endpoint", message))
            .ok();
        let headers = config.headers.read().unwrap_or_else(|mistakes| {
            wrong.nest("headers", mistakes);
            HeaderMap::new()
        });
        for name in headers.keys().filter(|name| name.as_str().ends_with("-bin")) {
            // gRPC takes such a header for one whose value is encoded.
            wrong.add(format!("headers::{name}"), "is no name for a header of text");
        }
        if !config.authority.is_empty() {
            let known = endpoint::authority(&config.authority).is_ok();
            wrong.require(known, "authority", "must be a host, with or without a port");
        }
        let known = matches!(config.balancer_name.as_str(), "" | "pick_first" | "round_robin");
        if !known {
            let name = &config.balancer_name;
            wrong.add("balancer_name", format!("invalid balancer_name: {name}"));
        }
        if let Some(auth) = &config.auth {
            wrong.nest("auth", auth.check());
        }
        wrong.nest("middlewares", config.middlewares.check());
        wrong.nest("tls", config.tls.check());
        wrong.nest("retry_on_failure", config.retry_on_failure.check());
        wrong.nest("sending_queue", config.sending_queue.check());
        let headers = MetadataMap::from_headers(headers);
        wrong.or(Self { config, address, headers, channel: None, auth: None })
    }
}

const INSECURE: &str = "the credentials require transport level security (auth needs tls)";

impl Exporter for OtlpGrpc {
    fn secured(&self, known: &Authenticators) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Some(auth) = &self.config.auth {
            wrong.nest("auth", auth.resolve(known, "gRPC"));
            // As in the Collector: whoever listens on the way would have them.
            let secure = self.address.as_ref().is_some_and(|address| address.secure);
            wrong.require(secure, "auth", INSECURE);
        }
        wrong
    }

    /// Reads certificates, but connects at the first request only: a peer that is down is no error.
    async fn start(&mut self, cx: &Context) -> anyhow::Result<()> {
        if let Some(auth) = &self.config.auth {
            self.auth = Some(auth.client(&cx.authenticators, "gRPC")?);
            ensure!(self.address.as_ref().is_some_and(|address| address.secure), INSECURE);
        }
        self.channel = Some(self.connect(Proxy::of_environment(&self.config.tls)?)?);
        Ok(())
    }

    async fn run(self, cx: Context, input: Input) -> anyhow::Result<()> {
        let channel = self.channel.context("it was not started")?;
        let sender = Grpc::new(channel, &self.config, self.headers, self.auth);
        let Config { sending_queue, retry_on_failure, .. } = &self.config;
        queue::run(&cx, input, sending_queue, retry_on_failure, sender).await;
        Ok(())
    }
}

impl OtlpGrpc {
    /// What makes the attempts, for whoever has a queue of another kind.
    pub fn sender(self) -> anyhow::Result<Grpc> {
        let channel = self.connect(Proxy::of_environment(&self.config.tls)?)?;
        Ok(Grpc::new(channel, &self.config, self.headers, None))
    }

    /// Makes the channel, which connects when it is used.
    fn connect(&self, proxy: Proxy) -> anyhow::Result<Channel> {
        let config = &self.config;
        let address = self.address.as_ref().context("it has no endpoint")?;
        let tls = address.secure.then(|| Tls::load(&config.tls, &[HTTP2])).transpose()?;
        let agent = match config.user_agent.as_str() {
            "" => otlp::USER_AGENT,
            agent => agent,
        };
        // The connector knows the way. tonic would refuse `https` without a TLS of its own.
        let mut endpoint = Endpoint::from_static("http://peer")
            .origin(address.origin(&config.authority, config.tls.server_name_override.as_deref())?)
            .user_agent(agent)
            .context("user_agent")?;
        if let Some(keepalive) = &config.keepalive {
            let or = |given: Duration, usual| if given.is_zero() { usual } else { given };
            endpoint = endpoint
                .http2_keep_alive_interval(or(keepalive.time, KEEPALIVE_TIME))
                .keep_alive_timeout(or(keepalive.timeout, KEEPALIVE_TIMEOUT))
                .keep_alive_while_idle(keepalive.permit_without_stream);
        }
        let connector = Connector::new(tls, proxy, config.timeout).to(address.target()?);
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod live;
#[cfg(test)]
pub(crate) mod peer;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod secure;
#[cfg(test)]
mod tests;
