//! Which proxy stands between an exporter and its peer: `proxy_url`, or what the environment says, as
//! in Go: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in capitals or not, and never for the host itself.

use std::net::IpAddr;

use anyhow::{Result, bail};
use hyper::{Uri, http::HeaderValue};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::tls::{self, Tls};

/// The proxies of an exporter.
pub struct Proxy {
    matcher: Matcher,
    /// A configured proxy is used for the host itself, too.
    configured: bool,
    /// For proxies that are spoken to with TLS.
    pub tls: Option<Tls>,
}

impl Proxy {
    /// Those of the process's environment.
    pub fn of_environment(tls: &tls::Config) -> Result<Self> {
        Self::of(tls, |name| std::env::var(name).ok())
    }

    fn of(tls: &tls::Config, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_lowercase()));
            value.filter(|value| !value.is_empty())
        };
        let mut builder = Matcher::builder().no(get("NO_PROXY").unwrap_or_default());
        let mut secure = false;
        for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
            let Some(value) = get(name) else { continue };
            // The value may hold a password.
            let Some(proxy) = parse(&value) else { bail!("{name}: {INVALID}") };
            secure |= proxy.uri().scheme_str() == Some("https");
            builder = match name {
                "HTTP_PROXY" => builder.http(value),
                _ => builder.https(value),
            };
        }
        Ok(Self { matcher: builder.build(), configured: false, tls: load(tls, secure)? })
    }

    /// The one that is configured.
    pub fn configured(tls: &tls::Config, url: &str) -> Result<Self> {
        let Some(proxy) = parse(url) else { bail!("proxy_url: {INVALID}") };
        let secure = proxy.uri().scheme_str() == Some("https");
        let matcher = Matcher::builder().all(url.to_owned()).build();
        Ok(Self { matcher, configured: true, tls: load(tls, secure)? })
    }

    /// The proxy that stands before `uri`, if one does.
    pub fn before(&self, uri: &Uri) -> Option<Intercept> {
        if !self.configured && uri.host().is_some_and(itself) {
            return None;
        }
        self.matcher.intercept(uri)
    }

    /// The password to show with a request that a proxy forwards.
    pub fn authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        // A tunnel is opened with it, and what goes through the tunnel is not for the proxy.
        let forwarded = uri.scheme_str() == Some("http");
        self.before(uri).filter(|_| forwarded)?.basic_auth().cloned()
    }
}

/// What is wrong with an address that is none.
pub const INVALID: &str =
    "invalid proxy address: expected http://, https:// or socks5:// and a host";

/// The proxy that a text names.
pub fn parse(text: &str) -> Option<Intercept> {
    let proxy = Matcher::builder().all(text.to_owned()).build();
    let proxy = proxy.intercept(&Uri::from_static("http://any.invalid"))?;
    matches!(proxy.uri().scheme_str(), Some("http" | "https" | "socks5" | "socks5h"))
        .then_some(proxy)
}

/// TLS as configured for the peer, for the proxy.
fn load(config: &tls::Config, secure: bool) -> Result<Option<Tls>> {
    let config = tls::Config { server_name_override: None, ..config.clone() };
    secure.then(|| Tls::load(&config, &["http/1.1"])).transpose()
}

/// Whether a host is the one that this runs on.
fn itself(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Proxy> {
        Proxy::of(&tls::Config::default(), |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn before(proxy: &Proxy, uri: &str) -> Option<String> {
        proxy.before(&uri.parse().unwrap()).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn the_environment_decides_by_scheme_and_host() {
        let proxy = of(&[
            ("HTTP_PROXY", "http://plain:3128"),
            ("https_proxy", "secret:3129"),
            ("NO_PROXY", "inside.example,10.0.0.0/8"),
        ])
        .unwrap();
        assert_eq!(before(&proxy, "http://a.example").as_deref(), Some("http://plain:3128/"));
        assert_eq!(before(&proxy, "https://a.example").as_deref(), Some("http://secret:3129/"));
        for direct in [
            "http://inside.example",
            "https://x.inside.example:4317",
            "http://10.1.2.3:4318",
            "http://localhost:4318",
            "http://127.0.0.1",
            "http://[::1]:4318",
        ] {
            assert_eq!(before(&proxy, direct), None, "{direct}");
        }
        assert_eq!(before(&of(&[("HTTP_PROXY", "")]).unwrap(), "http://a.example"), None);
    }

    #[test]
    fn a_configured_proxy_is_used_for_every_host() {
        let proxy =
            Proxy::configured(&tls::Config::default(), "http://ann:se%40cret@proxy:3128").unwrap();
        assert_eq!(before(&proxy, "http://localhost:4318").as_deref(), Some("http://proxy:3128/"));
        let plain = "http://localhost:4318".parse().unwrap();
        // "ann:se@cret"
        assert_eq!(proxy.authorization(&plain).unwrap(), "Basic YW5uOnNlQGNyZXQ=");
        assert_eq!(proxy.authorization(&"https://localhost:4318".parse().unwrap()), None);
    }

    #[test]
    fn an_address_that_is_none_is_an_error_without_its_password() {
        let error = of(&[("HTTPS_PROXY", "ftp://ann:hunter2@proxy")]).err().unwrap().to_string();
        assert_eq!(error, format!("HTTPS_PROXY: {INVALID}"));
        assert!(Proxy::configured(&tls::Config::default(), "socks4://proxy").is_err());
    }
}
