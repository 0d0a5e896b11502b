//! `auth`: how an exporter proves who it is, by an extension that it names.
//!
//! Whoever sends asks for the header before each attempt, so that credentials which change are taken
//! up by the next one.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use anyhow::{Result, anyhow};
use hyper::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

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

    /// The extension, as a client uses it. `protocol` is for the error.
    pub fn client(&self, known: &Authenticators, protocol: &str) -> Result<Arc<dyn Client>> {
        let name = &self.authenticator;
        let id = Id::parse(name).map_err(|message| anyhow!("auth::authenticator: {message}"))?;
        let auth = known.0.get(&id).ok_or_else(|| {
            anyhow!(
                "failed to resolve authenticator \"{name}\": authenticator not found \
                 (it must be in service::extensions)"
            )
        })?;
        auth.client.clone().ok_or_else(|| {
            anyhow!("requested authenticator is not a {protocol} client authenticator: \"{name}\"")
        })
    }
}

/// What an extension can do for the security of others.
#[derive(Clone, Default)]
pub struct Auth {
    /// For who sends requests.
    pub client: Option<Arc<dyn Client>>,
}

/// The extensions that run, by their ids.
#[derive(Clone, Default)]
pub struct Authenticators(Arc<BTreeMap<Id, Auth>>);

impl Authenticators {
    /// Makes an extension known to the components that start after it.
    pub fn add(&mut self, id: Id, auth: Auth) {
        Arc::make_mut(&mut self.0).insert(id, auth);
    }

    /// Some of them.
    pub(crate) fn only(&self, which: impl Fn(&Id) -> bool) -> Self {
        let some = self.0.iter().filter(|(id, _)| which(id));
        Self(Arc::new(some.map(|(id, auth)| (id.clone(), auth.clone())).collect()))
    }
}

/// A header, or why there is none now.
pub type Credentials<'a> =
    Pin<Box<dyn Future<Output = Result<(HeaderName, HeaderValue)>> + Send + 'a>>;

/// Proves to a peer who sends.
pub trait Client: Send + Sync {
    /// The header for the next request.
    fn header(&self) -> Credentials<'_>;
}
