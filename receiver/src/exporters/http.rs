//! HTTP requests of exporters: the connections that they share, credentials, one attempt within its
//! time, and what came back.

use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    http::{
        HeaderValue,
        header::{CONNECTION, CONTENT_TYPE, HeaderMap, PROXY_AUTHORIZATION, RETRY_AFTER},
    },
};
use hyper_util::{
    client::legacy::Client as Pool,
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{
    connect::{Connector, causes},
    middlewares::Middlewares,
    proxy::{self, Proxy},
    queue::Failure,
    tls::{self, Tls},
};
use crate::{
    config::{Mistakes, Secret},
    extensions::auth::Client as Authenticator,
};

/// Idle connections to a host that Go keeps where nothing is configured.
const IDLE_PER_HOST: usize = 2;
/// Go's time for an answer to a ping where nothing is configured.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// The smallest reading buffer that hyper takes.
const MIN_BUFFER: usize = 8 * 1024;
/// As much of a body as is read, like the Collector: no message needs more.
const MAX_BODY: usize = 64 * 1024;
/// As much of a line as is logged.
const MAX_LINE: usize = 200;

/// What is configured, under the keys of the same names.
pub struct Settings<'a> {
    pub timeout: Duration,
    pub tls: &'a tls::Config,
    pub proxy_url: Option<&'a Secret>,
    pub max_idle_conns: usize,
    pub max_idle_conns_per_host: usize,
    pub max_conns_per_host: usize,
    pub idle_conn_timeout: Duration,
    pub disable_keep_alives: bool,
    pub force_attempt_http2: bool,
    pub http2_read_idle_timeout: Duration,
    pub http2_ping_timeout: Duration,
    pub read_buffer_size: usize,
    pub cookies: bool,
    pub middlewares: &'a Middlewares,
}

/// `cookies`, which has no keys of its own.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cookies {}

impl Settings<'_> {
    /// What has no effect here.
    pub fn warnings(&self) -> Vec<String> {
        let text = "cookies: what a server asks to be sent back, is not";
        self.cookies.then(|| text.to_owned()).into_iter().collect()
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Some(url) = self.proxy_url {
            let known = url.expose().is_empty() || proxy::parse(url.expose()).is_some();
            wrong.require(known, "proxy_url", proxy::INVALID);
        }
        wrong.nest("middlewares", self.middlewares.check());
        wrong.nest("tls", self.tls.check());
        wrong
    }
}

/// An address that requests can be sent to.
pub fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|e| format!("{e}"))?;
    if let Some(authority) = url.authority() {
        let after = authority.as_str().rsplit(['@', ']']).next().unwrap_or_default();
        if after.contains(':') && url.port_u16().is_none() {
            return Err(format!("invalid port in {authority:?}"));
        }
    }
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(_)) => Ok(url),
        _ => Err("it needs `http://` or `https://`, and a host".to_owned()),
    }
}

/// What sends.
pub struct Client {
    pool: Pool<Connector, Full<Bytes>>,
    connector: Connector,
    auth: Option<Arc<dyn Authenticator>>,
    timeout: Duration,
    /// A connection for every request.
    close: bool,
    /// As many requests as may be under way.
    room: Option<Semaphore>,
}

impl Client {
    /// Reads certificates, if one of the `urls` needs them, but connects at the first request only.
    pub fn new<'a>(
        settings: &Settings<'_>,
        mut urls: impl Iterator<Item = &'a Uri>,
        auth: Option<Arc<dyn Authenticator>>,
    ) -> anyhow::Result<Self> {
        let protocols: &[_] = match settings.force_attempt_http2 {
            true => &["h2", "http/1.1"],
            false => &["http/1.1"],
        };
        let secure = urls.any(|url| url.scheme_str() == Some("https"));
        let tls = secure.then(|| Tls::load(settings.tls, protocols)).transpose()?;
        let proxy = match settings.proxy_url {
            Some(url) if !url.expose().is_empty() => Proxy::configured(settings.tls, url.expose())?,
            _ => Proxy::of_environment(settings.tls)?,
        };
        let connector = Connector::new(tls, proxy, settings.timeout);
        let mut builder = Pool::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        let idle = match (settings.max_idle_conns_per_host, settings.max_idle_conns) {
            _ if settings.disable_keep_alives => 0,
            (0, 0) => IDLE_PER_HOST,
            (0, all) => IDLE_PER_HOST.min(all),
            (one, 0) => one,
            (one, all) => one.min(all),
        };
        builder.pool_max_idle_per_host(idle);
        let idle_timeout = settings.idle_conn_timeout;
        builder.pool_idle_timeout((!idle_timeout.is_zero()).then_some(idle_timeout));
        if settings.read_buffer_size > 0 {
            builder.http1_read_buf_exact_size(settings.read_buffer_size.max(MIN_BUFFER));
        }
        if !settings.http2_read_idle_timeout.is_zero() {
            let timeout = settings.http2_ping_timeout;
            builder
                .http2_keep_alive_interval(settings.http2_read_idle_timeout)
                .http2_keep_alive_timeout(if timeout.is_zero() { PING_TIMEOUT } else { timeout })
                .http2_keep_alive_while_idle(true);
        }
        Ok(Self {
            pool: builder.build(connector.clone()),
            connector,
            auth,
            timeout: settings.timeout,
            close: settings.disable_keep_alives,
            room: (settings.max_conns_per_host > 0)
                .then(|| Semaphore::new(settings.max_conns_per_host)),
        })
    }

    /// Makes one attempt. Whatever keeps an answer from coming may be over at the next one.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let broken = broken(&request);
        let attempt = self.attempt(request, &broken);
        if self.timeout.is_zero() {
            return attempt.await;
        }
        tokio::time::timeout(self.timeout, attempt)
            .await
            .unwrap_or_else(|_| Err(failed(format!("{broken}: no answer in {:?}", self.timeout))))
    }

    async fn attempt(
        &self,
        mut request: Request<Full<Bytes>>,
        broken: &str,
    ) -> Result<Answer, Failure> {
        let _room = match &self.room {
            // It is never closed.
            Some(room) => room.acquire().await.ok(),
            None => None,
        };
        let url = request.uri().clone();
        let headers = request.headers_mut();
        if self.close {
            headers.entry(CONNECTION).or_insert(HeaderValue::from_static("close"));
        }
        if let Some(authorization) = self.connector.authorization(&url) {
            headers.insert(PROXY_AUTHORIZATION, authorization);
        }
        if let Some(auth) = &self.auth {
            let (name, value) = auth.header().await.map_err(|e| failed(format!("{e:#}")))?;
            headers.insert(name, value);
        }
        let response = self.pool.request(request).await.map_err(|e| {
            // Itself it says no more than where in the library it was.
            let why = e.source().map_or_else(|| e.to_string(), causes);
            failed(format!("{broken}: {why}"))
        })?;
        Answer::read(response)
            .await
            .map_err(|e| failed(format!("{broken}: the answer broke off: {}", causes(&e))))
    }
}

/// How what keeps an answer to `request` from coming is introduced: as Go does it, without a password.
fn broken(request: &Request<Full<Bytes>>) -> String {
    let (method, url) = (request.method().as_str(), request.uri().to_string());
    let method = method[..1].to_owned() + &method[1..].to_lowercase();
    let url = match url.split_once("://").zip(request.uri().authority()) {
        Some(((scheme, rest), authority)) if authority.as_str().contains('@') => {
            let user = authority.as_str().split(':').next().unwrap_or_default();
            let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
            format!("{scheme}://{user}:***@{rest}")
        }
        _ => url,
    };
    format!("failed to make an HTTP request: {method} {url:?}")
}

const fn failed(reason: String) -> Failure {
    Failure::Retryable { reason, after: None }
}

/// An answer that has come in.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads it, up to the limit.
    async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (parts, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        while body.len() < MAX_BODY
            && let Some(frame) = incoming.frame().await
        {
            if let Ok(data) = frame?.into_data() {
                let room = MAX_BODY - body.len();
                body.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        Ok(Self { status: parts.status, headers: parts.headers, body })
    }

    /// How long the server asks to be left alone: seconds, or a date.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        // What has passed is now.
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// What a server says to people, if it does.
    pub fn first_line(&self) -> Option<String> {
        let text = self.headers.get(CONTENT_TYPE)?.to_str().ok()?.starts_with("text/plain");
        let line = String::from_utf8_lossy(&self.body).lines().next()?.to_owned();
        text.then(|| line.chars().take(MAX_LINE).filter(|c| !c.is_control()).collect())
    }
}
