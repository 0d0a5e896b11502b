//! Handshakes in memory, with servers that speak less than everything.

use rustls::{
    CipherSuite, ProtocolVersion, ServerConfig, ServerConnection, SupportedProtocolVersion,
    pki_types::PrivatePkcs8KeyDer,
};
use serde_json::json;

use super::*;

fn paths(config: serde_json::Value) -> Vec<String> {
    let config: Config = serde_json::from_value(config).unwrap();
    config.check().0.into_iter().map(|mistake| mistake.path).collect()
}

/// What a handshake with a server that speaks `versions` settles on.
fn settle(
    config: serde_json::Value,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<(ProtocolVersion, CipherSuite), rustls::Error> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut config: Config = serde_json::from_value(config).unwrap();
    assert!(config.check().0.is_empty());
    config.ca_pem = Some(Secret::new(&made.cert.pem()));
    let tls = Tls::load(&config, &[]).unwrap();
    let name = tls.server_name("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(tls.current(), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    Ok((client.protocol_version().unwrap(), suite))
}

#[test]
fn versions_are_kept_to() {
    let version = |config, versions: &[_]| settle(config, versions).map(|(version, _)| version);
    let all = [&TLS12, &TLS13];
    assert_eq!(version(json!({}), &all), Ok(ProtocolVersion::TLSv1_3));
    assert_eq!(version(json!({}), &[&TLS12]), Ok(ProtocolVersion::TLSv1_2));
    assert_eq!(version(json!({"max_version": "1.2"}), &all), Ok(ProtocolVersion::TLSv1_2));
    assert_eq!(version(json!({"min_version": "1.3"}), &all), Ok(ProtocolVersion::TLSv1_3));
    assert!(version(json!({"min_version": "1.3"}), &[&TLS12]).is_err());
    assert!(version(json!({"max_version": "1.2"}), &[&TLS13]).is_err());
}

#[test]
fn cipher_suites_are_kept_to() {
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let config = json!({"cipher_suites": [suite]});
    let expected = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    assert_eq!(settle(config, &[&TLS12]).map(|(_, suite)| suite), Ok(expected));
    let foreign = json!({"cipher_suites": ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]});
    assert!(settle(foreign.clone(), &[&TLS12]).is_err(), "the server's key is of another kind");
    assert!(settle(foreign, &[&TLS13]).is_ok(), "those of 1.3 are no matter of choice");
}

#[test]
fn mistakes_are_found_before_anything_is_read() {
    assert_eq!(
        paths(json!({
            "ca_file": "a", "ca_pem": "a", "cert_file": "a", "cert_pem": "a",
            "min_version": "1.4", "cipher_suites": ["TLS_RSA_WITH_RC4_128_SHA"],
        })),
        ["ca_file", "cert_file", "", "min_version", "cipher_suites::0"]
    );
    assert_eq!(paths(json!({"min_version": "1.3", "max_version": "1.2"})), ["max_version"]);
    assert_eq!(paths(json!({"min_version": "1.0", "max_version": "1.1"})), ["max_version"]);
    assert!(
        paths(json!({"min_version": "1.0", "cipher_suites": ["TLS_AES_128_GCM_SHA256"]}))
            .is_empty()
    );
}

#[test]
fn an_empty_text_is_none() {
    let config: Config = serde_json::from_value(json!({
        "ca_file": "", "ca_pem": "", "cert_file": "", "key_pem": "", "server_name_override": "",
    }))
    .unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn curves_have_gos_names() {
    let both = json!({"curve_preferences": ["P384", "X25519MLKEM768", "X25519"]});
    let config: Config = serde_json::from_value(both).unwrap();
    assert!(config.check().0.is_empty());
    let names: Vec<_> = config.provider().kx_groups.iter().map(|group| group.name()).collect();
    assert_eq!(names, [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]);
    assert_eq!(paths(json!({"curve_preferences": ["P521"]})), ["curve_preferences"]);
    assert_eq!(paths(json!({"curve_preferences": ["P256", "x"]})), ["curve_preferences::1"]);
    assert!(settle(json!({"curve_preferences": ["P256"]}), &[&TLS13]).is_ok());
}
