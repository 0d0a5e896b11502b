//! The keys that every server over HTTP has, the Collector's `confighttp`, and what they do.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
            ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
            ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::auth::{self, Authenticators, Guard};
use crate::{
    config::Mistakes,
    exporters::{
        middlewares::Middlewares,
        otlp::headers::Headers,
        prometheus::serve::{self, Options},
        tls::server::{self as tls, Tls},
    },
};

/// `cors`: pages of which other hosts a browser lets ask.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Those hosts, with their scheme; `*` stands for anything. Without any, none may.
    pub allowed_origins: Vec<String>,
    /// Headers that they may send beside the usual ones; `*` is all.
    pub allowed_headers: Vec<String>,
    /// Headers of an answer that a page may read beside the usual ones.
    pub exposed_headers: Vec<String>,
    /// Seconds for which a browser need not ask again; 0 leaves that to it.
    pub max_age: i64,
}

/// What is configured, under the keys of the same names.
#[derive(Clone, Debug)]
pub struct Settings {
    pub endpoint: String,
    pub transport: String,
    pub tls: Option<tls::Config>,
    pub cors: Option<Cors>,
    pub auth: Option<auth::ServerConfig>,
    pub response_headers: Headers,
    pub read_timeout: Duration,
    pub read_header_timeout: Duration,
    pub write_timeout: Duration,
    pub idle_timeout: Duration,
    pub keep_alives_enabled: bool,
    pub middlewares: Middlewares,
}

/// A configuration with the keys of a server, and more.
macro_rules! server_config {
    (
        $(#[$meta:meta])*
        pub struct $name:ident at $endpoint:literal {
            $($(#[$more:meta])* pub $field:ident: $kind:ty = $default:expr,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Where it listens: `host:port`.
            pub endpoint: String,
            /// `tcp`, `tcp4` or `tcp6`.
            pub transport: String,
            /// TLS, and whom it admits. Plain text by default.
            #[serde(
                deserialize_with = "crate::config::optional",
                skip_serializing_if = "Option::is_none"
            )]
            #[schemars(extend("switch" = true))]
            pub tls: Option<$crate::exporters::tls::server::Config>,
            /// Pages of which other hosts a browser lets ask.
            #[serde(
                deserialize_with = "crate::config::optional",
                skip_serializing_if = "Option::is_none"
            )]
            #[schemars(extend("switch" = true))]
            pub cors: Option<$crate::extensions::server::Cors>,
            /// Who may ask.
            #[serde(
                deserialize_with = "crate::config::optional",
                skip_serializing_if = "Option::is_none"
            )]
            #[schemars(extend("switch" = true))]
            pub auth: Option<$crate::extensions::auth::ServerConfig>,
            /// Headers of every answer.
            pub response_headers: $crate::exporters::otlp::headers::Headers,
            /// How long a peer may take to send a request, where the next key or `idle_timeout` is 0.
            pub read_timeout: $crate::config::Signed,
            /// How long a peer may take to send the head of a request; 0, or less, is no limit.
            pub read_header_timeout: $crate::config::Signed,
            /// How long a peer may take to read an answer; 0, or less, is no limit.
            pub write_timeout: $crate::config::Signed,
            /// How long a connection may be open without a request; 0, or less, is no limit.
            pub idle_timeout: $crate::config::Signed,
            /// Whether a connection is open for more than one request.
            pub keep_alives_enabled: bool,
            /// Read for the sake of existing files: bodies of requests are not read.
            pub max_request_body_size: i64,
            /// The same.
            pub compression_algorithms: Option<Vec<String>>,
            /// Read for the sake of existing files: nothing goes on from here.
            pub include_metadata: bool,
            /// Extensions that stand between it and the network. There are none: it must be empty.
            #[serde(skip_serializing_if = "crate::exporters::middlewares::Middlewares::is_empty")]
            pub middlewares: $crate::exporters::middlewares::Middlewares,
            $($(#[$more])* pub $field: $kind,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    endpoint: $endpoint.to_owned(),
                    transport: "tcp".to_owned(),
                    tls: None,
                    cors: None,
                    auth: None,
                    response_headers: Default::default(),
                    read_timeout: std::time::Duration::ZERO.into(),
                    read_header_timeout: std::time::Duration::from_secs(60).into(),
                    write_timeout: std::time::Duration::from_secs(30).into(),
                    idle_timeout: std::time::Duration::from_secs(60).into(),
                    keep_alives_enabled: true,
                    max_request_body_size: 20 * 1024 * 1024,
                    compression_algorithms: None,
                    include_metadata: false,
                    middlewares: Default::default(),
                    $($field: $default,)*
                }
            }
        }

        impl $name {
            /// What of it is about the server.
            pub(crate) fn server(&self) -> $crate::extensions::server::Settings {
                let config = self.clone();
                $crate::extensions::server::Settings {
                    endpoint: config.endpoint,
                    transport: config.transport,
                    tls: config.tls,
                    cors: config.cors,
                    auth: config.auth,
                    response_headers: config.response_headers,
                    read_timeout: config.read_timeout.or_zero(),
                    read_header_timeout: config.read_header_timeout.or_zero(),
                    write_timeout: config.write_timeout.or_zero(),
                    idle_timeout: config.idle_timeout.or_zero(),
                    keep_alives_enabled: config.keep_alives_enabled,
                    middlewares: config.middlewares,
                }
            }
        }
    };
}
pub(crate) use server_config;

impl Settings {
    /// Checks what types cannot say.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        if !self.endpoint.is_empty() {
            serve::check(&self.endpoint).unwrap_or_else(|message| wrong.add("endpoint", message));
        }
        let known = ["tcp", "tcp4", "tcp6"];
        if !self.transport.is_empty() && !known.contains(&self.transport.as_str()) {
            let message = format!("invalid transport type: {:?}", self.transport);
            wrong.unknown("transport", message, &self.transport, known);
        }
        if let Some(tls) = &self.tls {
            wrong.nest("tls", tls.check());
        }
        if let Some(auth) = &self.auth {
            wrong.nest("auth", auth.check());
        }
        wrong.nest("middlewares", self.middlewares.check());
        if let Err(nested) = self.response_headers.read() {
            wrong.nest("response_headers", nested);
        }
        wrong
    }

    /// Checks who may ask, against the authenticators that there are.
    pub fn secured(&self, known: &Authenticators) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Some(auth) = &self.auth {
            wrong.nest("auth", auth.resolve(known));
        }
        wrong
    }

    /// What stands before the pages.
    pub fn front(&self, known: &Authenticators) -> Result<Front> {
        let auth = self.auth.as_ref();
        Ok(Front {
            guard: auth.map(|auth| auth.guard(known)).transpose()?,
            cors: self.cors.clone().filter(|cors| !cors.allowed_origins.is_empty()),
            headers: self.response_headers.read().unwrap_or_default(),
        })
    }

    /// Reads certificates and listens. `protocols` are those that TLS offers.
    pub async fn start(
        &self,
        known: &Authenticators,
        what: &str,
        path: &str,
        protocols: &[&str],
    ) -> Result<Server> {
        let front = self.front(known)?;
        let tls = self.tls.as_ref().map(|tls| Tls::load(tls, protocols)).transpose()?;
        let listeners = self.listen(what, path).await?;
        Ok(Server { listeners, front, options: self.options(tls) })
    }

    /// Listens. `what` is at `path`, for the log.
    pub async fn listen(&self, what: &str, path: &str) -> Result<Vec<TcpListener>> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        serve::bind(&self.endpoint, &self.transport, what, scheme, path).await
    }

    /// How connections are served.
    pub fn options(&self, tls: Option<Tls>) -> Options {
        let or_read = |limit: Duration| if limit.is_zero() { self.read_timeout } else { limit };
        let limits = [or_read(self.read_header_timeout), or_read(self.idle_timeout)];
        Options {
            // One timer serves both.
            read: limits.into_iter().filter(|limit| !limit.is_zero()).min(),
            write: self.write_timeout,
            keep_alive: self.keep_alives_enabled,
            tls,
            ..Options::default()
        }
    }
}

/// A server that listens.
pub struct Server {
    pub listeners: Vec<TcpListener>,
    front: Front,
    options: Options,
}

impl Server {
    /// With HTTP/2 alone, as gRPC has it.
    pub fn http2(mut self) -> Self {
        self.options.http2 = true;
        self
    }

    /// Serves until `stop`.
    pub async fn run(self, router: Router, stop: CancellationToken) {
        serve::accept(self.listeners, self.options, self.front.before(router), stop).await;
    }
}

/// What stands before the pages of a server.
pub struct Front {
    guard: Option<Guard>,
    cors: Option<Cors>,
    headers: HeaderMap,
}

impl Front {
    /// A router behind it. Who asks whether it may ask, does so without credentials.
    pub fn before(self, mut router: Router) -> Router {
        if let Some(guard) = self.guard {
            router = guard.before(router);
        }
        if let Some(cors) = self.cors {
            router = router.layer(middleware::from_fn_with_state(Arc::new(cors), allow));
        }
        if !self.headers.is_empty() {
            router = router.layer(middleware::from_fn_with_state(Arc::new(self.headers), add));
        }
        router
    }
}

async fn add(State(headers): State<Arc<HeaderMap>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in &*headers {
        // What the page itself says wins.
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}

async fn allow(State(cors): State<Arc<Cors>>, request: Request, next: Next) -> Response {
    let asked = request.headers();
    let origin = asked.get(ORIGIN).filter(|origin| cors.allows_origin(origin)).cloned();
    let method = asked.get(ACCESS_CONTROL_REQUEST_METHOD).cloned();
    let mut response = match method {
        Some(method) if request.method() == Method::OPTIONS => {
            let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
            let mut response = StatusCode::NO_CONTENT.into_response();
            let headers = response.headers_mut();
            let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
            headers.insert(VARY, HeaderValue::from_static(vary));
            let simple = ["GET", "POST", "HEAD"].iter().any(|name| method == *name);
            let fits = wanted.as_ref().is_none_or(|wanted| cors.allows_headers(wanted));
            if origin.is_none() || !simple || !fits {
                return response;
            }
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
            if let Some(wanted) = wanted {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
            }
            if cors.max_age > 0 {
                headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.into());
            }
            response
        }
        _ => {
            let mut response = next.run(request).await;
            response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
            let exposed = HeaderValue::from_str(&cors.exposed_headers.join(", "));
            if let Ok(exposed) = exposed
                && origin.is_some()
                && !exposed.is_empty()
            {
                response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            }
            response
        }
    };
    if let Some(origin) = origin {
        let all = cors.allowed_origins.iter().any(|allowed| allowed == "*");
        let origin = if all { HeaderValue::from_static("*") } else { origin };
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}

impl Cors {
    fn allows_origin(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        self.allowed_origins.iter().any(|allowed| {
            let allowed = allowed.to_ascii_lowercase();
            match allowed.split_once('*') {
                None => allowed == origin,
                Some((start, end)) => {
                    origin.len() >= start.len() + end.len()
                        && origin.starts_with(start)
                        && origin.ends_with(end)
                }
            }
        })
    }

    fn allows_headers(&self, wanted: &HeaderValue) -> bool {
        let usual: &[&str] = match self.allowed_headers.is_empty() {
            true => &[
                "accept",
                "accept-language",
                "content-type",
                "content-language",
                "x-requested-with",
            ],
            false => &["accept", "accept-language", "content-type", "content-language"],
        };
        let Ok(wanted) = wanted.to_str() else { return false };
        let mut names = wanted.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.all(|name| {
            usual.iter().any(|usual| usual.eq_ignore_ascii_case(name))
                || self.allowed_headers.iter().any(|a| a == "*" || a.eq_ignore_ascii_case(name))
        })
    }
}

#[cfg(test)]
mod tests;
