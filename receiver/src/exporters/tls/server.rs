//! `tls` of a server: what it shows of itself, and whom it admits.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use serde::{Deserialize, Serialize};

use super::{
    certificates, filled, given,
    reloaded::{Files, Reloaded},
    tpm::Tpm,
};
use crate::config::{Mistakes, Secret};

/// `tls`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The server's certificate, with those that vouch for it.
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The same, in place.
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub cert_pem: Option<Secret>,
    /// The key of that certificate.
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The same, in place.
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<Secret>,
    /// The authorities of which one must have signed the certificate of every client. Without it
    /// clients need none.
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// Reads `client_ca_file` again, before the next connection, when it has changed.
    pub client_ca_file_reload: bool,
    /// Read for the sake of existing files, as in the Collector; a server asks no one who it is.
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The lowest acceptable version. Nothing below 1.2 is ever spoken.
    pub min_version: String,
    /// The highest acceptable version; 1.3 by default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub max_version: String,
    /// The cipher suites of TLS 1.2 that may be spoken; all that are safe by default. Those of 1.3
    /// are not a matter of choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// The curves that keys may be exchanged on, the preferred one first: `X25519`, `P256`, `P384`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curve_preferences: Vec<String>,
    /// Read for the sake of existing files: what is not safe is never spoken.
    pub include_insecure_cipher_suites: bool,
    /// The age at which what is in the files is read again, before the next connection; 0 is never.
    #[serde(with = "crate::config::duration", skip_serializing_if = "Duration::is_zero")]
    pub reload_interval: Duration,
    /// A key in a TPM. That cannot be had: it must be off.
    #[serde(skip_serializing_if = "Tpm::is_off")]
    pub tpm: Tpm,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cert_file: None,
            cert_pem: None,
            key_file: None,
            key_pem: None,
            client_ca_file: None,
            client_ca_file_reload: false,
            ca_file: None,
            min_version: "1.2".to_owned(),
            max_version: String::new(),
            cipher_suites: Vec::new(),
            curve_preferences: Vec::new(),
            include_insecure_cipher_suites: false,
            reload_interval: Duration::ZERO,
            tpm: Tpm::default(),
        }
    }
}

impl Config {
    /// Checks what types cannot say. Files are read when the server starts.
    pub fn check(&self) -> Mistakes {
        let mut wrong = self.common().check();
        wrong.require(
            wrong.0.iter().any(|mistake| mistake.path.is_empty())
                || self.cert_file.is_some()
                || self.cert_pem.is_some(),
            "",
            "TLS configuration must include both certificate and key for server connections",
        );
        wrong
    }

    /// What both sides have.
    fn common(&self) -> super::Config {
        super::Config {
            cert_file: self.cert_file.clone(),
            cert_pem: self.cert_pem.clone(),
            key_file: self.key_file.clone(),
            key_pem: self.key_pem.clone(),
            min_version: self.min_version.clone(),
            max_version: self.max_version.clone(),
            cipher_suites: self.cipher_suites.clone(),
            curve_preferences: self.curve_preferences.clone(),
            tpm: self.tpm.clone(),
            ..super::Config::default()
        }
    }
}

/// TLS of a server, as configured.
pub type Tls = Reloaded<Config>;

impl Files for Config {
    type Read = ServerConfig;

    fn interval(&self) -> Duration {
        self.reload_interval
    }

    fn written(&self) -> Option<SystemTime> {
        let watched = self.client_ca_file.as_ref().filter(|_| self.client_ca_file_reload);
        watched?.metadata().ok()?.modified().ok()
    }

    fn read(&self, protocols: &[Vec<u8>]) -> Result<ServerConfig> {
        let common = self.common();
        let provider = common.provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(common.versions())
            .context("tls")?;
        let builder = match given("client_ca_file", &self.client_ca_file, &None)? {
            None => builder.with_no_client_auth(),
            Some(text) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(&text).context("tls::client_ca_file")? {
                    roots.add(certificate).context("tls::client_ca_file")?;
                }
                ensure!(!roots.is_empty(), "tls: the client CA given holds no PEM certificate");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().context("tls")?)
            }
        };
        let (cert, key) = common.identity()?.context("tls: no certificate and key")?;
        let mut tls = builder.with_single_cert(cert, key).context("tls: certificate and key")?;
        tls.alpn_protocols = protocols.to_vec();
        Ok(tls)
    }
}
