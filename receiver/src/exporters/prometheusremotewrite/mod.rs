//! `prometheusremotewrite`: sends metrics to Prometheus, and to what speaks its protocol of remote write,
//! version 1 or 2.
//!
//! By the specification the samples of a series come in the order of their times, so there is one batch
//! under way at a time; its requests, which have no series in common, go side by side. Answers of 5xx and
//! 429 are tried again, and only with the requests that they were for.

mod config;
mod labels;
mod point;
mod proto;
mod requests;
mod send;
mod translate;

use anyhow::Context as _;
use hyper::{Uri, http::HeaderMap};

pub use self::config::{Config, Version};
use self::{
    labels::Rules,
    send::{Counts, Peer, RemoteWrite, headers},
};
use super::{http::Client, queue};
use crate::{
    batch::Signal,
    channel::Input,
    component::{Component, Context, Exporter},
    config::Mistakes,
    extensions::auth::Authenticators,
};

/// The exporter.
pub struct PrometheusRemoteWrite {
    config: Config,
    url: Uri,
    headers: HeaderMap,
    sender: Option<RemoteWrite>,
}

impl Component for PrometheusRemoteWrite {
    const NAME: &'static str = "prometheusremotewrite";
    const ALIASES: &'static [&'static str] = &["prometheus_remote_write"];
    const DESCRIPTION: &'static str = "Sends metrics by Prometheus' remote write.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    const EXAMPLE: &'static str =
        "endpoint: https://prometheus.example.com/api/v1/write\nexternal_labels:\n  cluster: east";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = config.check();
        let url = config.url().unwrap_or_else(|why| {
            wrong.add("endpoint", format!("invalid endpoint: {why}"));
            Uri::default()
        });
        let headers = config.headers.read().unwrap_or_else(|mistakes| {
            wrong.nest("headers", mistakes);
            HeaderMap::new()
        });
        wrong.or(Self { config, url, headers, sender: None })
    }

    fn warnings(&self) -> Vec<String> {
        self.config.settings().warnings()
    }
}

impl Exporter for PrometheusRemoteWrite {
    fn secured(&self, known: &Authenticators) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Some(auth) = &self.config.auth {
            wrong.nest("auth", auth.resolve(known, "HTTP"));
        }
        wrong
    }

    /// Reads certificates, but connects at the first request only: a peer that is down is no error.
    async fn start(&mut self, cx: &Context) -> anyhow::Result<()> {
        let config = &self.config;
        let auth = config.auth.as_ref();
        let auth = auth.map(|auth| auth.client(&cx.authenticators, "HTTP")).transpose()?;
        let client = Client::new(&config.settings(), [&self.url].into_iter(), auth)?;
        let version = config.version();
        let headers = headers(std::mem::take(&mut self.headers), version);
        let peer = Peer { client, url: self.url.clone(), headers, version };
        self.sender = Some(RemoteWrite::new(
            Rules::from(config),
            peer,
            config.max_bytes(),
            config.send_metadata,
            config.parallel(),
            Counts::new(cx),
        ));
        Ok(())
    }

    async fn run(self, cx: Context, input: Input) -> anyhow::Result<()> {
        let sender = self.sender.context("it was not started")?;
        let (queue, retry) = (self.config.queue(), self.config.retry());
        queue::run(&cx, input, &queue, &retry, sender).await;
        Ok(())
    }
}

#[cfg(test)]
mod live;
#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod translated;
