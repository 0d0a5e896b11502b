//! Who may ask: names and passwords of a file, or of the configuration.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::warn;

use super::htpasswd::Users;
use crate::{
    config::Secret,
    extensions::auth::{self, Server, Verdict},
};

/// `htpasswd`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Htpasswd {
    /// A file with lines of `user:password`, as Apache's `htpasswd` writes it. It is read for every request.
    pub file: String,
    /// More lines. They win over those of the file.
    pub inline: Secret,
}

/// Compares what a request says with them.
pub struct Checker {
    htpasswd: Htpasswd,
    /// Passwords are made to be slow to check: whoever guesses must not get all processors.
    room: Arc<Semaphore>,
}

impl Checker {
    pub(super) fn new(htpasswd: Htpasswd) -> Self {
        Self { htpasswd, room: Arc::new(Semaphore::new(1)) }
    }

    /// Reads it once, and warns of lines that are none.
    pub(super) fn check(&self) -> Result<()> {
        let (_, wrong) = read(&self.htpasswd)?;
        for line in wrong {
            warn!(
                "{line} is not of the form `user:password`, or its password is cut off: it is ignored"
            );
        }
        Ok(())
    }
}

/// The users, and the places of lines that are wrong.
fn read(htpasswd: &Htpasswd) -> Result<(Users, Vec<String>)> {
    let Htpasswd { file, inline } = htpasswd;
    let mut users = Users::default();
    let mut wrong = Vec::new();
    if !file.is_empty() {
        let text =
            auth::read(Path::new(file)).with_context(|| format!("open htpasswd file: {file}"))?;
        wrong.extend(users.read(&text).into_iter().map(|line| format!("{file}:{line}")));
    }
    let lines = users.read(inline.expose());
    wrong.extend(lines.into_iter().map(|line| format!("line {line} of htpasswd::inline")));
    Ok((users, wrong))
}

impl Server for Checker {
    fn authenticate(&self, headers: HeaderMap) -> Verdict<'_> {
        Box::pin(async move {
            let given =
                headers.get(AUTHORIZATION).ok_or_else(|| anyhow!("no basic auth provided"))?;
            let (user, password) = parse(given)?;
            let permit = Arc::clone(&self.room).acquire_owned().await?;
            let htpasswd = self.htpasswd.clone();
            let known = tokio::task::spawn_blocking(move || {
                // Held to the end even if who asks has gone.
                let _permit = permit;
                read(&htpasswd).map(|(users, _)| users.know(&user, &password))
            });
            match known.await? {
                Ok(true) => Ok(()),
                Ok(false) => bail!("invalid credentials"),
                Err(error) => {
                    warn!("nobody may pass: {error:#}");
                    Err(error)
                }
            }
        })
    }

    fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static("Basic realm=\"fathom\", charset=\"UTF-8\"")
    }
}

/// Name and password of a header.
fn parse(header: &HeaderValue) -> Result<(String, String)> {
    let text = header.to_str().unwrap_or_default();
    let encoded = match text.split_at_checked(6) {
        Some((scheme, encoded)) if scheme.eq_ignore_ascii_case("Basic ") => encoded,
        _ => bail!("invalid authorization scheme prefix"),
    };
    let invalid = || anyhow!("invalid authorization format");
    let decoded = STANDARD.decode(encoded).map_err(|_| invalid())?;
    let decoded = String::from_utf8(decoded).map_err(|_| invalid())?;
    let (user, password) = decoded.split_once(':').ok_or_else(invalid)?;
    Ok((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn verdict(checker: &Checker, header: Option<&str>) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().expect("a value"));
        }
        checker.authenticate(headers).await.map_err(|error| format!("{error:#}"))
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    #[tokio::test]
    async fn who_is_in_the_file_or_inline_may_pass() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("htpasswd");
        let file = path.display().to_string();
        let checker = Checker::new(Htpasswd { file, inline: Secret::new("eve:{SHA}\nbob:inline") });
        let error = checker.check().expect_err("there is no file");
        assert!(format!("{error:#}").starts_with("open htpasswd file: "), "{error:#}");
        std::fs::write(&path, "ann:one\nbob:file\nrubbish").expect("written");
        checker.check().expect("a line that is none is no reason not to start");
        for (credentials, expected) in [
            (basic("ann:one"), Ok(())),
            (basic("ann:one").replace("Basic", "bASIC"), Ok(())),
            (basic("bob:inline"), Ok(())),
            (basic("bob:file"), Err("invalid credentials".to_owned())),
            (basic("rubbish:"), Err("invalid credentials".to_owned())),
            (basic("ann"), Err("invalid authorization format".to_owned())),
            ("Basic ???".to_owned(), Err("invalid authorization format".to_owned())),
            ("Bearer x".to_owned(), Err("invalid authorization scheme prefix".to_owned())),
            ("B".to_owned(), Err("invalid authorization scheme prefix".to_owned())),
        ] {
            assert_eq!(verdict(&checker, Some(&credentials)).await, expected, "{credentials}");
        }
        let nothing = verdict(&checker, None).await;
        assert_eq!(nothing, Err("no basic auth provided".to_owned()));
        std::fs::write(&path, "ann:two").expect("written");
        verdict(&checker, Some(&basic("ann:one"))).await.expect_err("it has changed");
        verdict(&checker, Some(&basic("ann:two"))).await.expect("it has changed");
        std::fs::remove_file(&path).expect("removed");
        verdict(&checker, Some(&basic("ann:two"))).await.expect_err("nobody may pass");
    }
}
