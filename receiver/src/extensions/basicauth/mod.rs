//! `basicauth`: a user's name and password.

mod htpasswd;
mod server;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::http::{HeaderValue, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use self::server::Checker;
pub use self::server::Htpasswd;
use super::auth::{self, Auth, Client, Credentials};
use crate::{
    batch::Signal,
    component::{Component, Context, Extension},
    config::{Mistakes, Secret},
};

/// The configuration of `basicauth`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Who may ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub htpasswd: Option<Htpasswd>,
}

/// `client_auth`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientAuth {
    /// The user's name.
    pub username: String,
    /// A file with the name, instead. It is read for every request.
    pub username_file: String,
    /// The password.
    pub password: Secret,
    /// A file with the password, instead. It is read for every request.
    pub password_file: String,
}

/// The extension.
pub enum BasicAuth {
    /// For exporters.
    Client(Arc<ClientAuth>),
    /// For what serves.
    Server(Arc<Checker>),
}

impl Component for BasicAuth {
    const NAME: &'static str = "basicauth";
    const DESCRIPTION: &'static str =
        "Authenticates exporters, or who asks servers, by name and password.";
    const SIGNALS: &'static [Signal] = &[];
    const EXAMPLE: &'static str =
        "client_auth:\n  username: fathom\n  password: ${env:PASSWORD:-none}";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let made = match (config.client_auth, config.htpasswd) {
            (Some(client), None) => {
                // It would end there, and the rest would be taken for the password.
                let whole = !client.username.contains(':');
                wrong.require(whole, "client_auth::username", "invalid authorization format");
                Self::Client(Arc::new(client))
            }
            (None, Some(htpasswd)) => {
                let given = !htpasswd.file.is_empty() || !htpasswd.inline.expose().is_empty();
                wrong.require(given, "htpasswd", NO_SOURCE);
                Self::Server(Arc::new(Checker::new(htpasswd)))
            }
            (None, None) => {
                wrong.add("", NO_SOURCE);
                return Err(wrong);
            }
            (Some(_), Some(_)) => {
                wrong.add("", "only one of `htpasswd` or `client_auth` can be specified");
                return Err(wrong);
            }
        };
        wrong.or(made)
    }
}

const NO_SOURCE: &str = "no credential source provided";

impl Extension for BasicAuth {
    const AUTHENTICATES: bool = true;

    async fn start(&mut self, _: &Context) -> Result<()> {
        match self {
            Self::Client(_) => Ok(()),
            Self::Server(checker) => checker.check(),
        }
    }

    fn auth(&self) -> Auth {
        match self {
            Self::Client(client) => Auth { client: Some(client.clone()), server: None },
            Self::Server(checker) => Auth { client: None, server: Some(checker.clone()) },
        }
    }
}

/// A value, or what stands in a file.
async fn read(text: &str, file: &str) -> Result<String> {
    if file.is_empty() {
        return Ok(text.to_owned());
    }
    let named = || format!("cannot read the credentials in {file}");
    let path = PathBuf::from(file);
    let text = spawn_blocking(move || auth::read(&path)).await?.with_context(named)?;
    // Who rewrites a file empties it first: that is no value.
    ensure!(!text.trim().is_empty(), "{}: it is empty", named());
    Ok(text.trim().to_owned())
}

impl Client for ClientAuth {
    fn header(&self) -> Credentials<'_> {
        Box::pin(async {
            let name = read(&self.username, &self.username_file).await?;
            ensure!(!name.contains(':'), "invalid authorization format");
            let password = read(self.password.expose(), &self.password_file).await?;
            let text = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
            let mut value = HeaderValue::from_str(&text)?;
            value.set_sensitive(true);
            Ok((AUTHORIZATION, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made(config: Value) -> Result<BasicAuth, Mistakes> {
        BasicAuth::new(serde_json::from_value(config).expect("of the right types"))
    }

    #[test]
    fn what_is_wrong_is_said_at_its_key() {
        for (config, path, message) in [
            (json!({}), "", "no credential source provided"),
            (json!({"htpasswd": {}}), "htpasswd", "no credential source provided"),
            (
                json!({"htpasswd": {"inline": "a:b"}, "client_auth": {"username": "a"}}),
                "",
                "only one of `htpasswd` or `client_auth` can be specified",
            ),
            (
                json!({"client_auth": {"username": "a:b"}}),
                "client_auth::username",
                "invalid authorization format",
            ),
        ] {
            let wrong = made(config).err().expect("a mistake");
            assert_eq!((wrong.0[0].path.as_str(), wrong.0[0].message.as_str()), (path, message));
        }
    }

    #[tokio::test]
    async fn name_and_password_come_from_values_or_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        let config =
            json!({"client_auth": {"username": "ann", "password": "x", "password_file": path}});
        let client = made(config).expect("valid").auth().client.expect("it is for clients");
        client.header().await.expect_err("there is no file");
        for (password, expected) in
            [("secret", "Basic YW5uOnNlY3JldA=="), ("other", "Basic YW5uOm90aGVy")]
        {
            std::fs::write(&path, format!("{password}\n")).expect("written");
            let (name, value) = client.header().await.expect("a header");
            assert_eq!((name, value.to_str().expect("text")), (AUTHORIZATION, expected));
            assert!(value.is_sensitive(), "logs must not show it");
        }
    }
}
