//! TLS: who is trusted, and what this side shows.

use tonic::transport::{Identity, ServerTlsConfig};

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

    assert_eq!(one(&peer, with(serde_json::json!({"ca_pem": ca}))).await, (7, 0));
    assert_eq!(one(&peer, with(serde_json::json!({"insecure_skip_verify": true}))).await, (7, 0));
    let named = serde_json::json!({"ca_pem": ca, "server_name_override": "localhost"});
    let named = Config { endpoint: by_number.clone(), ..with(named) };
    assert_eq!(one(&peer, named).await, (7, 0));
    // `https://` overrules `insecure`.
    let forced = serde_json::json!({"ca_pem": ca, "insecure": true});
    let forced = Config { endpoint: format!("https://{address}"), ..with(forced) };
    assert_eq!(one(&peer, forced).await, (7, 0));
    assert_eq!(peer.received(), 4);

    // An authority that did not sign it, a name that is not in it, and no TLS at all.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    assert_eq!(one(&peer, with(serde_json::json!({"ca_pem": other}))).await, (0, 7));
    let unnamed = Config { endpoint: by_number, ..with(serde_json::json!({"ca_pem": ca})) };
    assert_eq!(one(&peer, unnamed).await, (0, 7));
    assert_eq!(one(&peer, with(serde_json::json!({"insecure": true}))).await, (0, 7));
    assert_eq!(peer.received(), 4);
}

#[tokio::test]
async fn certificates_that_cannot_be_read_stop_the_start() {
    let (cx, _) = context("otlp_grpc");
    for (tls, expected) in [
        (serde_json::json!({"ca_file": "/nonexistent.pem"}), "tls::ca_file: /nonexistent.pem"),
        (serde_json::json!({"ca_pem": "rubbish"}), "tls: the CA given holds no PEM certificate"),
    ] {
        let tls = serde_json::from_value(tls).unwrap();
        let mut exporter = OtlpGrpc::new(Config { tls, ..config("localhost:1") }).unwrap();
        let error = exporter.start(&cx).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
