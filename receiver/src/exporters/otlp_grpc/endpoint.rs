//! `endpoint`: where a gRPC server listens.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use hyper::{Uri, http::uri::Authority};
use opentelemetry::KeyValue;

use crate::exporters::{connect::Target, otlp};

/// What an endpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether TLS is spoken.
    pub secure: bool,
    /// Where to.
    pub place: Place,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a host and a port.
    Host(Authority),
    /// On a socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// Reads an endpoint. `insecure` holds where it has no scheme that says otherwise.
    pub fn of(endpoint: &str, insecure: bool) -> Result<Self, String> {
        if let Some(path) = endpoint.strip_prefix("unix://") {
            if path.is_empty() {
                return Err("unix socket path cannot be empty".to_owned());
            }
            return Ok(Self { secure: !insecure, place: Place::Unix(path.into()) });
        }
        let (secure, rest) = match endpoint.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            // As gRPC writes a name, after the server to ask for it. That of the system is asked.
            Some(("dns" | "passthrough", rest)) => {
                (!insecure, rest.split_once('/').map_or(rest, |(_, name)| name))
            }
            Some((scheme, _)) => return Err(format!("unsupported scheme {scheme:?}")),
            None => (!insecure, endpoint),
        };
        Ok(Self { secure, place: Place::Host(host_and_port(rest)?) })
    }

    /// What the agent's own metrics call it.
    pub fn attributes(&self) -> Vec<KeyValue> {
        match &self.place {
            Place::Unix(path) => otlp::server(&path.display().to_string(), None),
            Place::Host(authority) => otlp::server(authority.host(), authority.port_u16()),
        }
    }

    /// For the connector.
    pub fn target(&self) -> Result<Target> {
        Ok(match &self.place {
            Place::Unix(path) => Target::Unix { path: path.clone(), secure: self.secure },
            Place::Host(authority) => Target::Uri(self.uri(authority.as_str())?),
        })
    }

    /// The scheme and the server's name that requests carry: as in gRPC for Go, `authority` before
    /// the name in the certificate before the endpoint's.
    pub fn origin(&self, authority: &str, server_name: Option<&str>) -> Result<Uri> {
        match (authority, server_name, &self.place) {
            ("", Some(name), _) if self.secure => self.uri(name),
            ("", _, Place::Host(authority)) => self.uri(authority.as_str()),
            ("", _, Place::Unix(_)) => self.uri("localhost"),
            (authority, ..) => self.uri(authority),
        }
    }

    fn uri(&self, authority: &str) -> Result<Uri> {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{authority}").parse().with_context(|| format!("address {authority}"))
    }
}

/// A host with a port.
fn host_and_port(text: &str) -> Result<Authority, String> {
    if text.is_empty() {
        return Err("requires a non-empty \"endpoint\"".to_owned());
    }
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => return Err(format!("address {text}: missing port in address")),
    };
    // As in Go, no host is this one.
    let host = if host.is_empty() { "localhost" } else { host };
    match port.parse::<u16>() {
        Ok(_) => authority(&format!("{host}:{port}")).map_err(|e| format!("address {text}: {e}")),
        Err(_) => Err(format!("invalid port \"{port}\"")),
    }
}

/// A host, with a port or without.
pub fn authority(text: &str) -> Result<Authority, String> {
    text.parse().map_err(|e| format!("{e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(endpoint: &str, insecure: bool) -> (bool, String) {
        match Address::of(endpoint, insecure).unwrap() {
            Address { secure, place: Place::Host(authority) } => (secure, authority.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_endpoint_decides_about_tls() {
        let name = || "host:4317".to_owned();
        assert_eq!(host("host:4317", false), (true, name()));
        assert_eq!(host("host:4317", true), (false, name()));
        assert_eq!(host("http://host:4317", false), (false, name()));
        assert_eq!(host(":4317", true), (false, "localhost:4317".to_owned()));
        assert_eq!(host("https://host:4317", true), (true, name()));
        assert_eq!(host("dns:///host:4317", true), (false, name()));
        assert_eq!(host("dns://8.8.8.8/host:4317", true), (false, name()));
        assert_eq!(host("passthrough:///host:4317", false), (true, name()));
        assert_eq!(host("[::1]:4317", true), (false, "[::1]:4317".to_owned()));
    }

    #[test]
    fn metrics_name_the_server() {
        let named = |endpoint: &str| {
            let all = Address::of(endpoint, true).unwrap().attributes().into_iter();
            all.map(|a| format!("{}={}", a.key, a.value)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(named("https://host:4317"), "server.address=host server.port=4317");
        assert_eq!(named("[::1]:4317"), "server.address=::1 server.port=4317");
        assert_eq!(named("unix:///run/otlp.sock"), "server.address=/run/otlp.sock");
    }

    #[test]
    fn a_socket_has_a_path() {
        let address = Address::of("unix:///run/otlp.sock", true).unwrap();
        let path = PathBuf::from("/run/otlp.sock");
        assert_eq!(address.target().unwrap(), Target::Unix { path, secure: false });
        assert_eq!(address.origin("", None).unwrap(), "http://localhost/");
        assert!(Address::of("unix://", true).is_err());
    }

    #[test]
    fn requests_carry_the_name_of_the_server() {
        let address = Address::of("host:4317", false).unwrap();
        assert_eq!(address.origin("", None).unwrap(), "https://host:4317/");
        assert_eq!(address.origin("", Some("cert")).unwrap(), "https://cert/");
        assert_eq!(address.origin("own:1", Some("cert")).unwrap(), "https://own:1/");
        let plain = Address::of("host:4317", true).unwrap();
        assert_eq!(plain.origin("", Some("cert")).unwrap(), "http://host:4317/");
    }

    #[test]
    fn endpoints_without_host_or_port_are_refused() {
        for wrong in
            ["", "host", "[::1]", "host:x", "host:1/", "host:99999", "ho st:1", "ftp://h:1"]
        {
            assert!(Address::of(wrong, false).is_err(), "{wrong}");
        }
    }
}
