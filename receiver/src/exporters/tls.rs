//! `tls` of a client: how the server is checked, and what this side shows of itself.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedCipherSuite,
    SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, SupportedKxGroup, ring, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject as _},
    },
    version::{TLS12, TLS13},
};
use serde::{Deserialize, Deserializer, Serialize};

use self::{
    reloaded::{Files, Reloaded},
    tpm::Tpm,
};
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
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The same, in place.
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<Secret>,
    /// Trusts the system's authorities beside the given ones.
    pub include_system_ca_certs_pool: bool,
    /// The certificate that this side shows.
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
    /// The name that the server's certificate must have, if it is not the endpoint's host.
    #[serde(deserialize_with = "filled", skip_serializing_if = "Option::is_none")]
    pub server_name_override: Option<String>,
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
    /// Checks what types cannot say. Files are read when the exporter starts.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        for (path, message, file, pem) in [
            (
                "ca_file",
                "provide either a CA file or the PEM-encoded string, but not both",
                &self.ca_file,
                &self.ca_pem,
            ),
            (
                "cert_file",
                "provide either certificate file or PEM, but not both",
                &self.cert_file,
                &self.cert_pem,
            ),
            (
                "key_file",
                "provide either key file or PEM, but not both",
                &self.key_file,
                &self.key_pem,
            ),
        ] {
            wrong.require(file.is_none() || pem.is_none(), path, message);
        }
        wrong.require(
            (self.cert_file.is_some() || self.cert_pem.is_some())
                == (self.key_file.is_some() || self.key_pem.is_some()),
            "",
            "TLS configuration must include both certificate and key (CertFile/CertPem and KeyFile/KeyPem)",
        );
        let mut version = |key: &str, text: &str, absent| match text {
            "" => Some(absent),
            "1.0" => Some(0),
            "1.1" => Some(1),
            "1.2" => Some(2),
            "1.3" => Some(3),
            other => {
                wrong.add(key, format!("invalid TLS {key}: unsupported TLS version: {other:?}"));
                None
            }
        };
        let lowest = version("min_version", &self.min_version, 2);
        let highest = version("max_version", &self.max_version, 3);
        if let (Some(lowest), Some(highest)) = (lowest, highest) {
            if highest < lowest {
                wrong.add(
                    "max_version",
                    "invalid TLS configuration: min_version cannot be greater than max_version",
                );
            } else if highest < 2 {
                wrong.add("max_version", "TLS below 1.2 is not spoken");
            }
        }
        let known = ring::default_provider().cipher_suites;
        for (at, suite) in self.cipher_suites.iter().enumerate() {
            if !known.iter().any(|known| name(known) == *suite) {
                let valid: Vec<_> = known.iter().map(name).collect();
                wrong.unknown(
                    format!("cipher_suites::{at}"),
                    format!("invalid TLS cipher suite: {suite:?}"),
                    suite,
                    valid.iter().map(String::as_str),
                );
            }
        }
        self.check_curves(&mut wrong);
        wrong.nest("tpm", self.tpm.check());
        wrong
    }

    /// Those that Go has and this library has not are left out, unless nothing else is wanted.
    fn check_curves(&self, wrong: &mut Mistakes) {
        for (at, name) in self.curve_preferences.iter().enumerate() {
            if !CURVES.iter().any(|(known, _)| known == name) {
                wrong.unknown(
                    format!("curve_preferences::{at}"),
                    format!("invalid curve type: {name}"),
                    name,
                    CURVES.map(|(name, _)| name),
                );
            }
        }
        wrong.require(
            self.curve_preferences.is_empty() || self.curves().next().is_some(),
            "curve_preferences",
            "none of these curves is spoken; valid are: P256, P384, X25519",
        );
    }

    /// The curves that are wanted and spoken.
    fn curves(&self) -> impl Iterator<Item = &'static dyn SupportedKxGroup> {
        let spoken = |name: &String| CURVES.iter().find(|(known, _)| known == name)?.1;
        self.curve_preferences.iter().filter_map(spoken)
    }
}

/// Go's names for curves, and those that are spoken.
const CURVES: [(&str, Option<&'static dyn SupportedKxGroup>); 5] = [
    ("P256", Some(ring::kx_group::SECP256R1)),
    ("P384", Some(ring::kx_group::SECP384R1)),
    ("P521", None),
    ("X25519", Some(ring::kx_group::X25519)),
    ("X25519MLKEM768", None),
];

/// An empty text is none, as in the Collector: a variable that is not set leaves one.
fn filled<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + PartialEq,
{
    let given = Option::<T>::deserialize(deserializer)?;
    Ok(given.filter(|given| *given != T::default()))
}

/// A cipher suite as Go names it, and IANA.
fn name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

/// TLS of a client, as configured.
pub type Tls = Reloaded<Config>;

impl Tls {
    /// The name that the certificate of the server at `host` must have.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>> {
        let name = self.config.server_name_override.as_deref().unwrap_or(host);
        // An IPv6 address stands in brackets.
        let name = name.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(name.to_owned()).with_context(|| format!("tls: server name {name:?}"))
    }
}

impl Files for Config {
    type Read = ClientConfig;

    fn interval(&self) -> Duration {
        self.reload_interval
    }

    fn read(&self, protocols: &[Vec<u8>]) -> Result<ClientConfig> {
        let provider = self.provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions())
            .context("tls")?;
        let builder = if self.insecure_skip_verify {
            let verifier = Arc::new(AnyServer(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            builder.with_root_certificates(self.authorities()?)
        };
        let mut tls = match self.identity()? {
            Some((cert, key)) => {
                builder.with_client_auth_cert(cert, key).context("tls: certificate and key")?
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = protocols.to_vec();
        Ok(tls)
    }
}

impl Config {
    /// The cipher suites to use.
    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.is_empty() {
            provider
                .cipher_suites
                .retain(|s| s.tls13().is_some() || self.cipher_suites.contains(&name(s)));
        }
        if !self.curve_preferences.is_empty() {
            provider.kx_groups = self.curves().collect();
        }
        Arc::new(provider)
    }

    /// The versions to speak.
    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match (self.min_version.as_str(), self.max_version.as_str()) {
            ("1.3", _) => &ALL[..1],
            (_, "1.2") => &ALL[1..],
            _ => &ALL,
        }
    }

    /// The certificate that this side shows, with its key.
    fn identity(&self) -> Result<Option<Identity>> {
        let cert = given("cert_file", &self.cert_file, &self.cert_pem)?;
        let key = given("key_file", &self.key_file, &self.key_pem)?;
        let (Some(cert), Some(key)) = (cert, key) else { return Ok(None) };
        let cert = certificates(&cert).context("tls::cert_file")?;
        ensure!(!cert.is_empty(), "tls: the certificate given holds no PEM certificate");
        let key = match PrivateKeyDer::from_pem_slice(&key) {
            Err(pem::Error::NoItemsFound) => bail!("tls: the key given holds no PEM key"),
            key => key.context("tls::key_file")?,
        };
        Ok(Some((cert, key)))
    }

    /// Who may have signed the server's certificate.
    fn authorities(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let own = given("ca_file", &self.ca_file, &self.ca_pem)?;
        if own.is_none() || self.include_system_ca_certs_pool {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            ensure!(
                own.is_some() || !roots.is_empty(),
                "tls: this system has no certificates of authorities; name one in `ca_file`"
            );
        }
        if let Some(own) = own {
            let own = certificates(&own).context("tls::ca_file")?;
            // What holds no certificate would be taken as «trust nobody», and every send would fail.
            ensure!(!own.is_empty(), "tls: the CA given holds no PEM certificate");
            for certificate in own {
                roots.add(certificate).context("tls::ca_file")?;
            }
        }
        Ok(roots)
    }
}

/// A certificate with those that vouch for it, and its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(text).collect()
}

/// What is in the file or given in place.
fn given(key: &str, file: &Option<PathBuf>, inline: &Option<Secret>) -> Result<Option<Vec<u8>>> {
    if let Some(file) = file {
        let text =
            std::fs::read(file).with_context(|| format!("tls::{key}: {}", file.display()))?;
        return Ok(Some(text));
    }
    Ok(inline.as_ref().map(|secret| secret.expose().as_bytes().to_vec()))
}

/// Takes every server for the right one, but still checks that it holds its certificate's key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

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

mod reloaded;
pub mod server;
mod tpm;

#[cfg(test)]
mod tests;
