//! TLS: who is trusted, and what this side shows.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::{peer::*, *};
use crate::exporters::queue::testing::context;

#[tokio::test]
async fn tls_is_on_by_default_and_checks_the_server() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
    let peer = Peer::default();
    let address = peer
        .serve(Some(ServerTlsConfig::new().identity(identity)))
        .await
        .replace("127.0.0.1", "localhost");
    let with = |tls: serde_json::Value| Config {
        tls: serde_json::from_value(tls).unwrap(),
        retry_on_failure: retry::Config { enabled: false, ..Default::default() },
        ..config(&address)
    };
    let ca = made.cert.pem();
    let by_number = address.replace("localhost", "127.0.0.1");

    assert_eq!(one(&peer, with(json!({"ca_pem": ca}))).await, (7, 0));
    assert_eq!(one(&peer, with(json!({"insecure_skip_verify": true}))).await, (7, 0));
    let named = json!({"ca_pem": ca, "server_name_override": "localhost"});
    let named = Config { endpoint: by_number.clone(), ..with(named) };
    assert_eq!(one(&peer, named).await, (7, 0));
    // `https://` overrules `insecure`.
    let forced = json!({"ca_pem": ca, "insecure": true});
    let forced = Config { endpoint: format!("https://{address}"), ..with(forced) };
    assert_eq!(one(&peer, forced).await, (7, 0));
    assert_eq!(peer.received(), 4);

    // An authority that did not sign it, a name that is not in it, and no TLS at all.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    assert_eq!(one(&peer, with(json!({"ca_pem": other}))).await, (0, 7));
    let unnamed = Config { endpoint: by_number, ..with(json!({"ca_pem": ca})) };
    assert_eq!(one(&peer, unnamed).await, (0, 7));
    assert_eq!(one(&peer, with(json!({"insecure": true}))).await, (0, 7));
    assert_eq!(peer.received(), 4);
}

#[tokio::test]
async fn certificates_that_cannot_be_read_stop_the_start() {
    let (cx, _) = context("otlp_grpc");
    for (tls, expected) in [
        (json!({"ca_file": "/nonexistent.pem"}), "tls::ca_file: /nonexistent.pem"),
        (json!({"ca_pem": "rubbish"}), "tls: the CA given holds no PEM certificate"),
    ] {
        let tls = serde_json::from_value(tls).unwrap();
        let mut exporter = OtlpGrpc::new(Config { tls, ..config("localhost:1") }).unwrap();
        let error = exporter.start(&cx).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `localhost`, and its key.
fn signed(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A server that asks for certificates of `authority`; its endpoint.
async fn strict(peer: &Peer, authority: &Authority) -> String {
    let (cert, key) = signed(authority);
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(authority.pem()));
    peer.serve(Some(tls)).await.replace("127.0.0.1", "localhost")
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_sees_it() {
    let (authority, stranger) = (authority(), authority());
    let peer = Peer::default();
    let endpoint = strict(&peer, &authority).await;
    let with = |shown: Option<(String, String)>| {
        let mut tls = json!({"ca_pem": authority.pem()});
        if let Some((cert, key)) = shown {
            (tls["cert_pem"], tls["key_pem"]) = (cert.into(), key.into());
        }
        let mut config = config(&endpoint);
        config.tls = serde_json::from_value(tls).unwrap();
        config.retry_on_failure.enabled = false;
        config
    };
    assert_eq!(one(&peer, with(Some(signed(&authority)))).await, (7, 0));
    assert_eq!(one(&peer, with(None)).await, (0, 7));
    assert_eq!(one(&peer, with(Some(signed(&stranger)))).await, (0, 7));
    assert_eq!(peer.received(), 1);
}

#[tokio::test]
async fn certificates_are_read_again() {
    let (authority, stranger) = (authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    let [ca_file, cert_file, key_file] =
        ["ca", "cert", "key"].map(|name| directory.path().join(name));
    let show = |(cert, key): (String, String)| {
        fs::write(&cert_file, cert).unwrap();
        fs::write(&key_file, key).unwrap();
    };
    fs::write(&ca_file, stranger.pem()).unwrap();
    show(signed(&stranger));
    let peer = Peer::default();
    let mut config = config(&strict(&peer, &authority).await);
    config.tls = serde_json::from_value(json!({
        "ca_file": ca_file, "cert_file": cert_file, "key_file": key_file, "reload_interval": "1ms",
    }))
    .unwrap();
    config.retry_on_failure.enabled = false;
    let (out, metered, task) = start(config).await;
    out.send(batch(7)).await.unwrap();
    metered.wait_for("otelcol_exporter_send_failed", 7).await;
    // Half of a change is no change.
    fs::write(&ca_file, authority.pem()).unwrap();
    fs::write(&key_file, "yet to be written").unwrap();
    out.send(batch(7)).await.unwrap();
    metered.wait_for("otelcol_exporter_send_failed", 14).await;
    show(signed(&authority));
    out.send(batch(7)).await.unwrap();
    metered.wait_for("otelcol_exporter_s", 21).await;
    assert_eq!(metered.count("otelcol_exporter_sent"), 7);
    drop(out);
    task.await.unwrap().unwrap();
}

/// A proxy that takes one `CONNECT`, with TLS if asked, and tells what it read of it.
async fn proxy() -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(client.read_u8().await.unwrap());
        }
        let asked = String::from_utf8(asked).unwrap();
        let to = asked.split_whitespace().nth(1).unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut server).await;
        asked
    });
    (address, serving)
}

#[tokio::test]
async fn a_proxy_tunnels_to_the_server_with_and_without_tls() {
    let authority = authority();
    let peer = Peer::default();
    for secure in [false, true] {
        let endpoint = match secure {
            true => strict(&peer, &authority).await,
            false => peer.serve(None).await,
        };
        let (cert, key) = signed(&authority);
        let tls = json!({
            "insecure": !secure, "ca_pem": authority.pem(), "cert_pem": cert, "key_pem": key,
        });
        let config = Config { tls: serde_json::from_value(tls).unwrap(), ..config(&endpoint) };
        let (address, serving) = proxy().await;
        let mut exporter = OtlpGrpc::new(config.clone()).unwrap();
        let proxy = Proxy::configured(&config.tls, &format!("http://ann:secret@{address}"));
        exporter.channel = Some(exporter.connect(proxy.unwrap()).unwrap());
        let (cx, metered) = context("otlp_grpc");
        let (out, input) = crate::channel::channel();
        let task = tokio::spawn(exporter.run(cx, input));
        out.send(batch(7)).await.unwrap();
        metered.wait_for("otelcol_exporter_s", 7).await;
        assert_eq!(metered.count("otelcol_exporter_sent"), 7);
        drop(out);
        task.await.unwrap().unwrap();
        let asked = serving.await.unwrap();
        assert!(asked.starts_with(&format!("CONNECT {endpoint} HTTP/1.1\r\n")), "{asked}");
        let lower = asked.to_lowercase();
        assert!(lower.contains("proxy-authorization: basic yw5uonnly3jlda=="), "{asked}");
    }
}

#[tokio::test]
async fn credentials_travel_over_tls_alone() {
    struct Fixed;
    impl auth::Client for Fixed {
        fn header(&self) -> auth::Credentials<'_> {
            Box::pin(async { Ok(("authorization".parse()?, "Bearer x".parse()?)) })
        }
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
    let peer = Peer::default();
    let endpoint = peer
        .serve(Some(ServerTlsConfig::new().identity(identity)))
        .await
        .replace("127.0.0.1", "localhost");
    let (mut cx, metered) = context("otlp_grpc");
    let known = auth::Auth { client: Some(Arc::new(Fixed)), server: None };
    cx.authenticators.add(crate::config::Id::parse("fixed").unwrap(), known);
    let auth = Some(auth::Config { authenticator: "fixed".to_owned() });

    let mut plain = OtlpGrpc::new(Config { auth: auth.clone(), ..config("localhost:1") }).unwrap();
    let error = plain.start(&cx).await.unwrap_err().to_string();
    assert!(error.starts_with("the credentials require transport level security"), "{error}");

    let tls = serde_json::from_value(json!({"ca_pem": made.cert.pem()})).unwrap();
    let mut exporter = OtlpGrpc::new(Config { auth, tls, ..config(&endpoint) }).unwrap();
    exporter.start(&cx).await.unwrap();
    let (out, input) = crate::channel::channel();
    let task = tokio::spawn(exporter.run(cx, input));
    out.send(batch(7)).await.unwrap();
    metered.wait_for("otelcol_exporter_sent", 7).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert_eq!(peer.headers.lock().unwrap()[0].get("authorization").unwrap(), "Bearer x");
}
