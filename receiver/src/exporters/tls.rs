//! `tls` of a client: how the server is checked, and what this side shows of itself.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, ensure};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::config::{Mistakes, Secret};

/// `tls`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Plain text instead of TLS. An `https://` endpoint overrules it.
    pub insecure: bool,
    /// Encrypts, but takes any certificate of any server.
    pub insecure_skip_verify: bool,
    /// The authorities that may have signed the server's certificate; the system's by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The same, in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<Secret>,
    /// Trusts the system's authorities beside the given ones.
    pub include_system_ca_certs_pool: bool,
    /// The certificate that this side shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The same, in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_pem: Option<Secret>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The same, in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<Secret>,
    /// The name that the server's certificate must have, if it is not the endpoint's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name_override: Option<String>,
    /// The lowest acceptable version. Nothing below 1.2 is ever spoken.
    pub min_version: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            insecure: false,
            insecure_skip_verify: false,
            ca_file: None,
            ca_pem: None,
            include_system_ca_certs_pool: false,
            cert_file: None,
            cert_pem: None,
            key_file: None,
            key_pem: None,
            server_name_override: None,
            min_version: "1.2".to_owned(),
        }
    }
}

impl Config {
    /// Checks what types cannot say. Files are read when the exporter starts.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        for (path, what, file, pem) in [
            ("ca_file", "provide either a CA file", &self.ca_file, &self.ca_pem),
            (
                "cert_file",
                "for auth via TLS, provide either a certificate",
                &self.cert_file,
                &self.cert_pem,
            ),
            ("key_file", "for auth via TLS, provide either a key", &self.key_file, &self.key_pem),
        ] {
            if file.is_some() && pem.is_some() {
                wrong.add(path, format!("{what} or the PEM-encoded string, but not both"));
            }
        }
        wrong.require(
            (self.cert_file.is_some() || self.cert_pem.is_some())
                == (self.key_file.is_some() || self.key_pem.is_some()),
            "",
            "for auth via TLS, provide both certificate and key, or neither",
        );
        match self.min_version.as_str() {
            "" | "1.0" | "1.1" | "1.2" => {}
            "1.3" => wrong.add("min_version", "TLS 1.3 cannot be required; 1.2 is the minimum"),
            other => wrong.add("min_version", format!("unsupported TLS version: {other:?}")),
        }
        wrong
    }

    /// `endpoint`, speaking TLS by these settings. Reads the files.
    pub fn apply(&self, endpoint: Endpoint) -> anyhow::Result<Endpoint> {
        let mut tls = ClientTlsConfig::new();
        if let Some(name) = &self.server_name_override {
            tls = tls.domain_name(name);
        }
        let cert = pem("cert_file", &self.cert_file, &self.cert_pem)?;
        let key = pem("key_file", &self.key_file, &self.key_pem)?;
        if let (Some(cert), Some(key)) = (cert, key) {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        if self.insecure_skip_verify {
            let verifier = Arc::new(AnyServer(ring::default_provider()));
            return endpoint.tls_config_with_verifier(tls, verifier).context("tls");
        }
        let authorities = pem("ca_file", &self.ca_file, &self.ca_pem)?;
        if authorities.is_none() || self.include_system_ca_certs_pool {
            tls = tls.with_native_roots();
        }
        if let Some(authorities) = authorities {
            // What holds no certificate would be taken as «trust nobody», and every send would fail.
            ensure!(
                authorities.windows(CERTIFICATE.len()).any(|w| w == CERTIFICATE),
                "tls: the CA given holds no PEM certificate"
            );
            tls = tls.ca_certificate(Certificate::from_pem(authorities));
        }
        endpoint.tls_config(tls).context("tls")
    }
}

/// What every PEM certificate starts with.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What is in the file or given in place.
fn pem(
    key: &str,
    file: &Option<PathBuf>,
    inline: &Option<Secret>,
) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(file) = file {
        let text =
            std::fs::read(file).with_context(|| format!("tls::{key}: {}", file.display()))?;
        return Ok(Some(text));
    }
    Ok(inline.as_ref().map(|secret| secret.expose().as_bytes().to_vec()))
}

/// Takes every server for the right one, but still checks that it holds its certificate's key.
#[derive(Debug)]
struct AnyServer(CryptoProvider);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
