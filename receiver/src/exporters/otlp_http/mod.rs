//! `otlp_http`: sends OTLP in HTTP requests, as protobuf or JSON.
//!
//! Answers follow the OTLP specification: 429, 502, 503 and 504 are tried again, at the time that the
//! server names, every other refusal is final, and a partial success counts what was refused.

mod answer;
mod send;

use std::time::Duration;

use anyhow::Context as _;
use hyper::{Uri, http::HeaderMap};
use serde::{Deserialize, Serialize};

pub use self::send::Http;
use super::{
    http::{Client, Cookies, Settings, url},
    middlewares::Middlewares,
    otlp::{
        compression::{Compression, Params},
        headers::Headers,
    },
    queue, retry, tls,
};
use crate::{
    batch::Signal,
    channel::Input,
    component::{Component, Context, Exporter},
    config::{Mistakes, Secret, Signed},
    extensions::auth::{self as authentication, Authenticators},
};

/// The configuration of `otlp_http`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The URL that `/v1/metrics`, `/v1/logs` and `/v1/traces` are added to.
    pub endpoint: String,
    /// The whole URL for metrics, instead.
    pub metrics_endpoint: String,
    /// The whole URL for logs, instead.
    pub logs_endpoint: String,
    /// The whole URL for traces, instead.
    pub traces_endpoint: String,
    /// Read for the sake of existing files: there are no profiles here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub profiles_endpoint: String,
    /// How requests are written.
    pub encoding: Encoding,
    /// How requests are compressed.
    pub compression: Compression,
    /// How hard.
    pub compression_params: Params,
    /// Sent with every request.
    pub headers: Headers,
    /// The extension that adds credentials to every request.
    #[serde(deserialize_with = "crate::config::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("switch" = true))]
    pub auth: Option<authentication::Config>,
    /// The time for one attempt; zero, or less, is no limit.
    pub timeout: Signed,
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
    /// What happens after a failure.
    pub retry_on_failure: retry::Config,
    /// Where batches wait.
    pub sending_queue: queue::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            metrics_endpoint: String::new(),
            logs_endpoint: String::new(),
            traces_endpoint: String::new(),
            profiles_endpoint: String::new(),
            encoding: Encoding::Proto,
            compression: Compression::Gzip,
            compression_params: Params::default(),
            headers: Headers::default(),
            auth: None,
            timeout: Duration::from_secs(30).into(),
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
            retry_on_failure: retry::Config::default(),
            sending_queue: queue::Config::default(),
        }
    }
}

/// How requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum Encoding {
    /// Protobuf.
    Proto,
    /// JSON.
    Json,
}

impl TryFrom<String> for Encoding {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "proto" => Ok(Self::Proto),
            "json" => Ok(Self::Json),
            _ => Err(format!("invalid encoding type: {name}")),
        }
    }
}

/// The exporter.
pub struct OtlpHttp {
    config: Config,
    urls: Urls,
    headers: HeaderMap,
    sender: Option<Http>,
}

/// Where each signal goes, in the order of [`Signal::ALL`].
type Urls = [Option<Uri>; Signal::ALL.len()];

impl Component for OtlpHttp {
    const NAME: &'static str = "otlp_http";
    const ALIASES: &'static [&'static str] = &["otlphttp"];
    const DESCRIPTION: &'static str = "Sends OTLP over HTTP.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str = "endpoint: https://collector.example.com:4318\nheaders:\n  authorization: Bearer ${env:TOKEN:-none}";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let urls = config.urls(&mut wrong);
        wrong.nest("", config.compression.check_params(&config.compression_params));
        let headers = config.headers.read().unwrap_or_else(|mistakes| {
            wrong.nest("headers", mistakes);
            HeaderMap::new()
        });
        if let Some(auth) = &config.auth {
            wrong.nest("auth", auth.check());
        }
        wrong.nest("", config.settings().check());
        wrong.nest("retry_on_failure", config.retry_on_failure.check());
        wrong.nest("sending_queue", config.sending_queue.check());
        wrong.or(Self { config, urls, headers, sender: None })
    }

    fn warnings(&self) -> Vec<String> {
        self.config.settings().warnings()
    }
}

impl Config {
    fn settings(&self) -> Settings<'_> {
        Settings {
            timeout: self.timeout.or_zero(),
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

    fn urls(&self, wrong: &mut Mistakes) -> Urls {
        let given = |signal| -> (&str, &str) {
            match signal {
                Signal::Metrics => ("metrics_endpoint", &self.metrics_endpoint),
                Signal::Logs => ("logs_endpoint", &self.logs_endpoint),
                Signal::Traces => ("traces_endpoint", &self.traces_endpoint),
            }
        };
        let mut read = |key: &str, text: &str| {
            let url = url(text);
            if let Err(why) = &url {
                wrong.add(key, format!("{key} must be a valid URL: {why}"));
            }
            url.ok()
        };
        let base = match self.endpoint.as_str() {
            "" => None,
            text => read("endpoint", text).map(|_| text.trim_end_matches('/')),
        };
        let urls = Signal::ALL.map(|signal| match given(signal) {
            (_, "") => url(&format!("{}/v1/{}", base?, signal.name())).ok(),
            (key, text) => read(key, text),
        });
        let none = Signal::ALL.iter().all(|signal| given(*signal).1.is_empty());
        if self.endpoint.is_empty() && none {
            wrong.add("endpoint", "at least one endpoint must be specified");
        }
        urls
    }
}

impl OtlpHttp {
    /// What makes the attempts, for whoever has a queue of another kind.
    pub fn sender(self) -> anyhow::Result<Http> {
        let client = Client::new(&self.config.settings(), self.urls.iter().flatten(), None)?;
        Ok(Http::new(&self.config, client, self.urls, self.headers))
    }
}

impl Exporter for OtlpHttp {
    fn secured(&self, known: &Authenticators) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Some(auth) = &self.config.auth {
            wrong.nest("auth", auth.resolve(known, "HTTP"));
        }
        wrong
    }

    fn suits(&self, signal: Signal) -> Mistakes {
        let mut wrong = Mistakes::default();
        let key = format!("{}_endpoint", signal.name());
        let given = self.urls[signal as usize].is_some();
        wrong.require(given, &key, &format!("either endpoint or {key} must be specified"));
        wrong
    }

    /// Reads certificates, but connects at the first request only: a peer that is down is no error.
    async fn start(&mut self, cx: &Context) -> anyhow::Result<()> {
        let config = &self.config;
        let auth = config.auth.as_ref();
        let auth = auth.map(|auth| auth.client(&cx.authenticators, "HTTP")).transpose()?;
        let client = Client::new(&config.settings(), self.urls.iter().flatten(), auth)?;
        let headers = std::mem::take(&mut self.headers);
        self.sender = Some(Http::new(config, client, self.urls.clone(), headers));
        Ok(())
    }

    async fn run(self, cx: Context, input: Input) -> anyhow::Result<()> {
        let sender = self.sender.context("it was not started")?;
        let Config { sending_queue, retry_on_failure, .. } = &self.config;
        queue::run(&cx, input, sending_queue, retry_on_failure, sender).await;
        Ok(())
    }
}

#[cfg(test)]
mod auth;
#[cfg(test)]
mod hostile;
#[cfg(test)]
pub(super) mod live;
#[cfg(test)]
mod tests;
