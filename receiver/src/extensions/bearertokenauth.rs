//! `bearertokenauth`: a token, from the configuration or from a file that may change.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use hyper::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::auth::{Auth, Client, Credentials, Server, Verdict, read};
use crate::{
    batch::Signal,
    component::{Component, Context, Extension},
    config::{Mistakes, Secret},
};

/// The configuration of `bearertokenauth`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The header that carries the token.
    pub header: String,
    /// What stands before the token; empty is the token alone.
    pub scheme: String,
    /// The token.
    pub token: Secret,
    /// Several tokens, instead. The first is sent, and all are taken.
    pub tokens: Vec<Secret>,
    /// A file with a token in each line, instead. It is read for every request.
    pub filename: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header: "Authorization".to_owned(),
            scheme: "Bearer".to_owned(),
            token: Secret::default(),
            tokens: Vec::new(),
            filename: PathBuf::new(),
        }
    }
}

/// The extension.
pub struct BearerTokenAuth(Arc<Bearer>);

struct Bearer {
    config: Config,
    header: HeaderName,
}

impl Component for BearerTokenAuth {
    const NAME: &'static str = "bearertokenauth";
    const DESCRIPTION: &'static str = "Authenticates exporters, and who asks servers, by a token.";
    const SIGNALS: &'static [Signal] = &[];
    const EXAMPLE: &'static str = "filename: /var/run/secrets/token";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let token = !config.token.expose().is_empty();
        if token && !config.tokens.is_empty() {
            wrong.add("tokens", "either tokens or token should be provided, not both");
        }
        let file = !config.filename.as_os_str().is_empty();
        wrong.require(token || file || !config.tokens.is_empty(), "", "no bearer token provided");
        let header = config.header.parse().unwrap_or_else(|_| {
            wrong.add("header", "is no name for a header");
            HeaderName::from_static("authorization")
        });
        let line = |text: &str| value(&config.scheme, text).is_ok();
        wrong.require(line(""), "scheme", "has a value that no header can have");
        if line("") {
            let no = "has a value that no header can have";
            wrong.require(line(config.token.expose()), "token", no);
            for (i, token) in config.tokens.iter().enumerate() {
                let key = format!("tokens::{i}");
                wrong.require(line(token.expose()), &key, no);
                wrong.require(!token.expose().is_empty(), &key, "is empty");
            }
        }
        wrong.or(Self(Arc::new(Bearer { config, header })))
    }
}

impl Extension for BearerTokenAuth {
    const AUTHENTICATES: bool = true;

    async fn start(&mut self, _: &Context) -> Result<()> {
        let Config { filename, token, tokens, .. } = &self.0.config;
        if filename.as_os_str().is_empty() {
            return Ok(());
        }
        if !token.expose().is_empty() || !tokens.is_empty() {
            warn!("a filename is specified. Configured token(s) is ignored!");
        }
        if let Err(error) = self.0.token().await {
            // What writes it may start later. Until then requests wait, and are tried again.
            warn!("{error:#}");
        }
        Ok(())
    }

    fn auth(&self) -> Auth {
        Auth { client: Some(self.0.clone()), server: Some(self.0.clone()) }
    }
}

impl Bearer {
    /// The token to send.
    async fn token(&self) -> Result<String> {
        let token = self.tokens().await?.into_iter().next().unwrap_or_default();
        // Who rewrites a file empties it first: that is no token.
        ensure!(
            !token.is_empty(),
            "cannot read the token in {}: its first line is empty",
            self.config.filename.display()
        );
        Ok(token)
    }

    async fn tokens(&self) -> Result<Vec<String>> {
        let Config { filename, token, tokens, .. } = &self.config;
        if !filename.as_os_str().is_empty() {
            let path = filename.clone();
            let text = spawn_blocking(move || read(&path))
                .await?
                .with_context(|| format!("cannot read the token in {}", filename.display()))?;
            return Ok(text.lines().map(|line| line.trim().to_owned()).collect());
        }
        let one = tokens.is_empty().then_some(token);
        Ok(tokens.iter().chain(one).map(|token| token.expose().to_owned()).collect())
    }
}

fn value(scheme: &str, token: &str) -> Result<HeaderValue> {
    let text = if scheme.is_empty() { token.to_owned() } else { format!("{scheme} {token}") };
    let mut value = HeaderValue::from_str(&text).context("the token cannot stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

impl Client for Bearer {
    fn header(&self) -> Credentials<'_> {
        Box::pin(async {
            Ok((self.header.clone(), value(&self.config.scheme, &self.token().await?)?))
        })
    }
}

impl Server for Bearer {
    fn authenticate(&self, headers: HeaderMap) -> Verdict<'_> {
        Box::pin(async move {
            let header = &self.config.header;
            let Some(given) = headers.get(&self.header) else {
                bail!("missing or empty authorization header: {header}")
            };
            let tokens = self.tokens().await.inspect_err(|error| {
                warn!("nobody may pass: {error:#}");
            })?;
            // A file ends with an empty line, which is no token.
            let known = tokens.iter().filter(|token| !token.is_empty()).any(|token| {
                value(&self.config.scheme, token)
                    .is_ok_and(|known| known.as_bytes().ct_eq(given.as_bytes()).into())
            });
            ensure!(known, "scheme or token does not match");
            Ok(())
        })
    }

    fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static("Bearer realm=\"fathom\"")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made(config: Value) -> Result<BearerTokenAuth, Mistakes> {
        BearerTokenAuth::new(serde_json::from_value(config).expect("of the right types"))
    }

    fn mistakes(config: Value) -> Vec<(String, String)> {
        let wrong = made(config).err().unwrap_or_default();
        wrong.0.into_iter().map(|m| (m.path, m.message)).collect()
    }

    #[test]
    fn what_is_wrong_is_said_at_its_key() {
        let no = "has a value that no header can have".to_owned();
        assert_eq!(mistakes(json!({})), [(String::new(), "no bearer token provided".to_owned())]);
        assert_eq!(
            mistakes(json!({"header": "a b", "token": "x", "tokens": ["y", "a\nb"]})),
            [
                (
                    "tokens".to_owned(),
                    "either tokens or token should be provided, not both".to_owned()
                ),
                ("header".to_owned(), "is no name for a header".to_owned()),
                ("tokens::1".to_owned(), no.clone()),
            ]
        );
        assert_eq!(mistakes(json!({"scheme": "\n", "token": "x"})), [("scheme".to_owned(), no)]);
        let empty = mistakes(json!({"tokens": ["x", ""]}));
        assert_eq!(empty, [("tokens::1".to_owned(), "is empty".to_owned())]);
    }

    async fn header(auth: &BearerTokenAuth) -> Result<(String, String)> {
        let (name, value) = auth.auth().client.expect("it is for clients").header().await?;
        assert!(value.is_sensitive(), "logs must not show it");
        Ok((name.to_string(), value.to_str()?.to_owned()))
    }

    #[tokio::test]
    async fn the_header_is_scheme_and_token() {
        for (config, expected) in [
            (json!({"token": "a"}), ("authorization", "Bearer a")),
            (json!({"tokens": ["b", "c"]}), ("authorization", "Bearer b")),
            (json!({"token": "d", "scheme": "", "header": "X-Key"}), ("x-key", "d")),
        ] {
            let auth = made(config).expect("valid");
            let (name, value) = header(&auth).await.expect("a header");
            assert_eq!((name.as_str(), value.as_str()), expected);
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_taken_up_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let auth = made(json!({"filename": path, "token": "ignored"})).expect("valid");
        let error = header(&auth).await.expect_err("there is no file");
        assert!(format!("{error:#}").contains("No such file"), "{error:#}");
        for token in ["first", "second"] {
            std::fs::write(&path, format!(" {token} \nother\n")).expect("written");
            assert_eq!(header(&auth).await.expect("a header").1, format!("Bearer {token}"));
        }
        let endless = made(json!({"filename": "/dev/zero"})).expect("valid");
        let error = header(&endless).await.expect_err("it has no end");
        assert!(format!("{error:#}").ends_with("it is larger than 1048576 bytes"), "{error:#}");
        std::fs::write(&path, "").expect("written");
        let error = header(&auth).await.expect_err("it is empty");
        assert!(format!("{error:#}").ends_with("its first line is empty"), "{error:#}");
    }

    async fn passes(auth: &BearerTokenAuth, name: &'static str, header: &str) -> bool {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static(name),
            header.parse().expect("a value"),
        )]);
        let server = auth.auth().server.expect("it is for servers");
        server.authenticate(headers).await.is_ok()
    }

    #[tokio::test]
    async fn who_has_one_of_the_tokens_may_pass() {
        let auth = made(json!({"tokens": ["b", "c"]})).expect("valid");
        for (header, expected) in [
            ("Bearer b", true),
            ("Bearer c", true),
            ("Bearer d", false),
            ("bearer b", false),
            ("b", false),
        ] {
            assert_eq!(passes(&auth, "authorization", header).await, expected, "{header}");
        }
        assert!(!passes(&auth, "x-key", "Bearer b").await);
        let auth = made(json!({"token": "d", "scheme": "", "header": "X-Key"})).expect("valid");
        assert!(passes(&auth, "x-key", "d").await && !passes(&auth, "x-key", "Bearer d").await);

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let auth = made(json!({"filename": path})).expect("valid");
        assert!(!passes(&auth, "authorization", "Bearer ").await, "there is no file");
        std::fs::write(&path, "first\n\nsecond\n").expect("written");
        for (header, expected) in
            [("Bearer first", true), ("Bearer second", true), ("Bearer ", false)]
        {
            assert_eq!(passes(&auth, "authorization", header).await, expected, "{header}");
        }
    }
}
