//! One attempt: a batch becomes a request, and its answer a verdict.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Uri,
    http::{
        HeaderMap, HeaderValue,
        header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, PROXY_AUTHORIZATION, USER_AGENT},
    },
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

use super::{Config, Encoding, Urls, answer::Answer};
use crate::{
    batch::{Batch, Signal},
    exporters::{
        connect::{Connector, causes},
        otlp::{
            self,
            compression::{Compression, Params},
        },
        queue::{Failure, Sender, Sent},
    },
    extensions::auth::Client as Authenticator,
};

/// Idle connections to a host that Go keeps where nothing is configured.
const IDLE_PER_HOST: usize = 2;
/// Go's time for an answer to a ping where nothing is configured.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// The smallest reading buffer that hyper takes.
const MIN_BUFFER: usize = 8 * 1024;

/// What sends.
pub struct Http {
    client: Client<Connector, Full<Bytes>>,
    targets: [Option<Target>; Signal::ALL.len()],
    headers: HeaderMap,
    auth: Option<Arc<dyn Authenticator>>,
    encoding: Encoding,
    compression: Compression,
    params: Params,
    timeout: Duration,
    /// As many requests as may be under way.
    room: Option<Semaphore>,
}

/// Where a signal goes.
struct Target {
    url: Uri,
    /// For a proxy that forwards the request.
    authorization: Option<HeaderValue>,
}

impl Http {
    /// Over connections that `connector` makes.
    pub fn new(
        config: &Config,
        connector: Connector,
        urls: Urls,
        mut authorizations: [Option<HeaderValue>; Signal::ALL.len()],
        configured: HeaderMap,
        auth: Option<Arc<dyn Authenticator>>,
    ) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        let idle = match (config.max_idle_conns_per_host, config.max_idle_conns) {
            _ if config.disable_keep_alives => 0,
            (0, 0) => IDLE_PER_HOST,
            (0, all) => IDLE_PER_HOST.min(all),
            (one, 0) => one,
            (one, all) => one.min(all),
        };
        builder.pool_max_idle_per_host(idle);
        let idle_timeout = config.idle_conn_timeout;
        builder.pool_idle_timeout((!idle_timeout.is_zero()).then_some(idle_timeout));
        if config.read_buffer_size > 0 {
            builder.http1_read_buf_exact_size(config.read_buffer_size.max(MIN_BUFFER));
        }
        if !config.http2_read_idle_timeout.is_zero() {
            let timeout = config.http2_ping_timeout;
            builder
                .http2_keep_alive_interval(config.http2_read_idle_timeout)
                .http2_keep_alive_timeout(if timeout.is_zero() { PING_TIMEOUT } else { timeout })
                .http2_keep_alive_while_idle(true);
        }
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(otlp::USER_AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(config.encoding.content_type()));
        if config.compression != Compression::None {
            let name = HeaderValue::from_static(config.compression.name());
            headers.insert(CONTENT_ENCODING, name);
        }
        if config.disable_keep_alives {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // What is configured wins.
        headers.extend(configured);
        let mut at = 0;
        let targets = urls.map(|url| {
            let authorization = authorizations[at].take();
            at += 1;
            Some(Target { url: url?, authorization })
        });
        Self {
            client: builder.build(connector),
            targets,
            headers,
            auth,
            encoding: config.encoding,
            compression: config.compression,
            params: config.compression_params.clone(),
            timeout: config.timeout,
            room: (config.max_conns_per_host > 0)
                .then(|| Semaphore::new(config.max_conns_per_host)),
        }
    }

    /// The request for `batch`, at its place.
    fn request(&self, batch: &Batch) -> Result<Request<Full<Bytes>>, String> {
        let signal = batch.signal();
        let target = self.targets[signal as usize].as_ref().ok_or_else(|| {
            let name = signal.name();
            format!("either endpoint or {name}_endpoint must be specified")
        })?;
        let plain = self.encoding.write(batch).map_err(|e| e.to_string())?;
        let body = self.compression.compress(&self.params, plain).map_err(|e| e.to_string())?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.url.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(authorization) = &target.authorization {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    async fn attempt(
        &self,
        signal: Signal,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Sent, Failure> {
        let _room = match &self.room {
            // It is never closed.
            Some(room) => room.acquire().await.ok(),
            None => None,
        };
        let url = request.uri().clone();
        let failed = |reason: String| Failure::Retryable { reason, after: None };
        if let Some(auth) = &self.auth {
            let (name, value) = auth.header().await.map_err(|e| failed(format!("{e:#}")))?;
            request.headers_mut().insert(name, value);
        }
        let response = self
            .client
            .request(request)
            .await
            .map_err(|e| failed(format!("failed to make an HTTP request: {}", causes(&e))))?;
        let answer = Answer::read(response).await.map_err(|e| {
            failed(format!("the answer to the request to {url} broke off: {}", causes(&e)))
        })?;
        answer.verdict(signal, &url)
    }
}

impl Sender for Http {
    async fn send(&self, batch: &Batch) -> Result<Sent, Failure> {
        let request = self.request(batch).map_err(|reason| Failure::Permanent { reason })?;
        let attempt = self.attempt(batch.signal(), request);
        if self.timeout.is_zero() {
            return attempt.await;
        }
        tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(|_| {
            let reason = format!("failed to make an HTTP request: no answer in {:?}", self.timeout);
            Err(Failure::Retryable { reason, after: None })
        })
    }
}

impl Encoding {
    /// The content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Proto => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    fn write(self, batch: &Batch) -> serde_json::Result<Vec<u8>> {
        match (self, batch) {
            (Self::Proto, Batch::Metrics(request)) => Ok(request.encode_to_vec()),
            (Self::Proto, Batch::Logs(request)) => Ok(request.encode_to_vec()),
            (Self::Proto, Batch::Traces(request)) => Ok(request.encode_to_vec()),
            (Self::Json, batch) => otlp::json::write(batch),
        }
    }
}
