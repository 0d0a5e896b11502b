//! Every server of the agent, as a client sees it: TLS, mTLS, CORS, headers.

use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{
    component::{AnyExporter, AnyExtension, Factory},
    config::Section,
    exporters::{EXPORTERS, queue::testing::context},
    extensions::EXTENSIONS,
};

fn configured<K>(list: &'static [Factory<K>], name: &str, config: &Value) -> K {
    let factory = list.iter().find(|factory| factory.name == name).expect("it is there");
    let section = Section::of_text(&config.to_string()).expect("YAML");
    (factory.configure)(&section).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

/// A free port. Somebody may take it until it is used; that has to be very fast.
async fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Runs a component with these keys beside its `endpoint`, and says where it is.
async fn serving(name: &str, config: &Value) -> String {
    let address = format!("127.0.0.1:{}", port().await);
    let mut config = config.clone();
    let (cx, _) = context(name);
    match name {
        "prometheus" => {
            config["endpoint"] = address.clone().into();
            let mut made: Box<dyn AnyExporter> = configured(EXPORTERS, name, &config);
            made.start(&cx).await.expect("it starts");
            let (output, input) = crate::channel::channel();
            tokio::spawn(async move {
                let _open = output;
                made.run(cx, input).await
            });
        }
        _ => {
            config["endpoint"] = address.clone().into();
            if name == "health_check" {
                config = json!({"use_v2": true, "http": config});
            }
            let mut made: Box<dyn AnyExtension> = configured(EXTENSIONS, name, &config);
            made.start(&cx).await.expect("it starts");
            tokio::spawn(made.run(cx));
        }
    }
    address
}

/// The pages of the servers that there are.
const PAGES: [(&str, &str); 3] =
    [("health_check", "/status"), ("zpages", "/debug/servicez"), ("prometheus", "/metrics")];

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &str,
) -> std::io::Result<String> {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let head = text.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    Ok(head)
}

async fn plain(address: &str, method: &str, path: &str, headers: &str) -> String {
    let stream = TcpStream::connect(address).await.expect("it accepts");
    exchange(stream, method, path, headers).await.expect("it answers")
}

#[tokio::test]
async fn pages_of_other_hosts_may_ask_if_they_are_named() {
    let config = json!({
        "cors": {"allowed_origins": ["https://*.example.com"], "allowed_headers": ["X-A"], "max_age": 60},
        "response_headers": {"x-frame-options": "DENY"},
    });
    for (name, path) in PAGES {
        let address = serving(name, &config).await;
        let good = "origin: https://a.example.com\r\n";
        let answer = plain(&address, "GET", path, good).await;
        assert!(answer.contains("access-control-allow-origin: https://a.example.com"), "{answer}");
        assert!(answer.contains("access-control-allow-credentials: true"), "{answer}");
        assert!(answer.contains("x-frame-options: deny") && answer.contains("vary:"), "{answer}");
        let answer = plain(&address, "GET", path, "origin: https://example.org\r\n").await;
        assert!(!answer.contains("access-control"), "{answer}");

        let asks = "access-control-request-method: GET\r\n";
        for (headers, allowed) in [
            (format!("{good}{asks}"), true),
            (format!("{good}{asks}access-control-request-headers: x-a,content-type\r\n"), true),
            (format!("{good}{asks}access-control-request-headers: x-b\r\n"), false),
            (format!("{good}access-control-request-method: DELETE\r\n"), false),
            (format!("origin: https://example.org\r\n{asks}"), false),
        ] {
            let answer = plain(&address, "OPTIONS", path, &headers).await;
            assert!(answer.starts_with("http/1.1 204"), "{name}: {answer}");
            assert_eq!(
                answer.contains("access-control-max-age: 60"),
                allowed,
                "{headers}: {answer}"
            );
        }
    }
}

/// A certificate for `localhost`, its key, and what signs both.
fn certificates() -> (String, String, String) {
    let made = || -> Result<_, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let signed =
            CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &authority)?;
        Ok((signed.pem(), key.serialize_pem(), authority.pem()))
    };
    made().expect("certificates")
}

#[tokio::test]
async fn every_server_speaks_tls_and_admits_whom_it_knows() {
    use rustls::pki_types::pem::PemObject as _;
    let (certificate, key, authority) = certificates();
    let folder = tempfile::tempdir().expect("a folder");
    let client_ca = folder.path().join("ca.pem");
    std::fs::write(&client_ca, &authority).expect("written");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("added");
    let builder = || {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        builder.with_root_certificates(roots.clone())
    };
    let nobody = Arc::new(builder().with_no_client_auth());
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
    let own = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let known = Arc::new(builder().with_client_auth_cert(chain, own).expect("a client"));

    let tls = json!({"cert_pem": certificate, "key_pem": key});
    let mut mutual = tls.clone();
    mutual["client_ca_file"] = client_ca.display().to_string().into();
    for (name, path) in PAGES {
        for (tls, client, admitted) in
            [(&tls, &nobody, true), (&mutual, &known, true), (&mutual, &nobody, false)]
        {
            let address = serving(name, &json!({"tls": tls})).await;
            let stream = TcpStream::connect(&address).await.expect("it accepts");
            let host = ServerName::try_from("localhost").expect("a name");
            let answer = async {
                let stream = TlsConnector::from(Arc::clone(client)).connect(host, stream).await?;
                exchange(stream, "GET", path, "").await
            };
            let answer = answer.await;
            let well = answer.as_ref().is_ok_and(|head| head.starts_with("http/1.1"));
            assert_eq!(well, admitted, "{name}: {answer:?}");
        }
    }
}
