//! `auth`: how an exporter proves who it is, and a server has it proved, by an extension that it names.
//!
//! Whoever sends asks for the header before each attempt, so that credentials which change are taken
//! up by the next one.

use std::{
    collections::BTreeMap, fs::File, future::Future, io::Read as _, path::Path, pin::Pin, sync::Arc,
};

use anyhow::{Result, anyhow, ensure};
use axum::{
    Router,
    extract::{Query, Request, State},
    http::{StatusCode, header::WWW_AUTHENTICATE},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use hyper::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::config::{Id, Mistakes};

/// `auth`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The id of the extension.
    pub authenticator: String,
}

impl Config {
    /// Checks what types cannot say.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Err(message) = Id::parse(&self.authenticator) {
            wrong.add("authenticator", message);
        }
        wrong
    }

    /// Whether the extension is among those that run, and of use to a client.
    pub fn resolve(&self, known: &Authenticators, protocol: &str) -> Mistakes {
        unresolved(self.client(known, protocol).err())
    }

    /// The extension, as a client uses it. `protocol` is for the error.
    pub fn client(&self, known: &Authenticators, protocol: &str) -> Result<Arc<dyn Client>> {
        let name = &self.authenticator;
        let auth = known.find(name)?;
        auth.client.clone().ok_or_else(|| {
            anyhow!("requested authenticator is not a {protocol} client authenticator: \"{name}\"")
        })
    }
}

/// `auth` of what serves over HTTP.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The id of the extension.
    pub authenticator: String,
    /// Parameters of a request's query that count as headers.
    pub request_params: Vec<String>,
}

impl ServerConfig {
    /// Checks what types cannot say.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Err(message) = Id::parse(&self.authenticator) {
            wrong.add("authenticator", message);
        }
        for (i, name) in self.request_params.iter().enumerate() {
            let header = name.parse::<HeaderName>().is_ok();
            wrong.require(header, &format!("request_params::{i}"), "is no name for a header");
        }
        wrong
    }

    /// Whether the extension is among those that run, and of use to a server.
    pub fn resolve(&self, known: &Authenticators) -> Mistakes {
        unresolved(self.guard(known).err())
    }

    /// What lets requests pass.
    pub fn guard(&self, known: &Authenticators) -> Result<Guard> {
        let name = &self.authenticator;
        let server = known.find(name)?.server.ok_or_else(|| {
            anyhow!("requested authenticator is not a server authenticator: \"{name}\"")
        })?;
        let header = |name: &String| Some((name.clone(), name.parse().ok()?));
        let params = self.request_params.iter().filter_map(header).collect();
        Ok(Guard { server, params })
    }
}

fn unresolved(error: Option<anyhow::Error>) -> Mistakes {
    let mut wrong = Mistakes::default();
    if let Some(error) = error {
        wrong.add("authenticator", error.to_string());
    }
    wrong
}

/// Lets the requests pass that an extension finds right.
#[derive(Clone)]
pub struct Guard {
    server: Arc<dyn Server>,
    params: Arc<[(String, HeaderName)]>,
}

impl Guard {
    /// A router behind it.
    pub fn before(self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self, pass))
    }
}

/// The Collector's answer, and what HTTP asks for: the name of the scheme.
async fn pass(
    State(Guard { server, params }): State<Guard>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
    next: Next,
) -> Response {
    let mut headers = request.headers().clone();
    for (param, header) in &*params {
        let given = query.iter().find(|(name, _)| name == param);
        if let Some(Ok(value)) = given.map(|(_, value)| HeaderValue::from_str(value)) {
            headers.insert(header, value);
        }
    }
    match server.authenticate(headers).await {
        Ok(()) => next.run(request).await,
        Err(error) => {
            debug!("a request is refused: {error:#}");
            let scheme = [(WWW_AUTHENTICATE, server.scheme())];
            (StatusCode::UNAUTHORIZED, scheme, "Unauthorized\n").into_response()
        }
    }
}

/// What an extension can do for the security of others.
#[derive(Clone, Default)]
pub struct Auth {
    /// For who sends requests.
    pub client: Option<Arc<dyn Client>>,
    /// For who serves them.
    pub server: Option<Arc<dyn Server>>,
}

/// The extensions that run, by their ids.
#[derive(Clone, Default)]
pub struct Authenticators(Arc<BTreeMap<Id, Auth>>);

impl Authenticators {
    /// Makes an extension known to the components that start after it.
    pub fn add(&mut self, id: Id, auth: Auth) {
        Arc::make_mut(&mut self.0).insert(id, auth);
    }

    fn find(&self, name: &str) -> Result<Auth> {
        let id = Id::parse(name).map_err(|message| anyhow!("auth::authenticator: {message}"))?;
        self.0.get(&id).cloned().ok_or_else(|| {
            anyhow!(
                "failed to resolve authenticator \"{name}\": authenticator not found \
                 (it must be in service::extensions)"
            )
        })
    }

    /// Some of them.
    pub(crate) fn only(&self, which: impl Fn(&Id) -> bool) -> Self {
        let some = self.0.iter().filter(|(id, _)| which(id));
        Self(Arc::new(some.map(|(id, auth)| (id.clone(), auth.clone())).collect()))
    }
}

/// Bytes that a file with credentials may have.
const MOST: u64 = 1 << 20;

/// What stands in a file with credentials. It blocks.
pub fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    // What has no length may have no end.
    let read = File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    ensure!(read as u64 <= MOST, "it is larger than {MOST} bytes");
    Ok(text)
}

/// A header, or why there is none now.
pub type Credentials<'a> =
    Pin<Box<dyn Future<Output = Result<(HeaderName, HeaderValue)>> + Send + 'a>>;

/// Proves to a peer who sends.
pub trait Client: Send + Sync {
    /// The header for the next request.
    fn header(&self) -> Credentials<'_>;
}

/// Whether a request may pass, or why not.
pub type Verdict<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Has a peer prove who it is.
pub trait Server: Send + Sync {
    /// Whether a request with these headers may pass.
    fn authenticate(&self, headers: HeaderMap) -> Verdict<'_>;
    /// What a peer that may not pass is told to send.
    fn scheme(&self) -> HeaderValue;
}
