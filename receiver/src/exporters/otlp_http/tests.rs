//! What is checked without a server.

use hyper::{
    StatusCode,
    http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use prost::Message as _;
use serde_json::json;
use std::time::SystemTime;

use super::*;
use crate::exporters::{
    http::Answer,
    queue::{Failure, Sent},
};

fn read(config: serde_json::Value) -> Result<OtlpHttp, Mistakes> {
    OtlpHttp::new(serde_json::from_value(config).unwrap())
}

fn urls(config: serde_json::Value) -> [Option<String>; 3] {
    read(config).unwrap().urls.map(|url| url.map(|url| url.to_string()))
}

/// What a server that answers so has said.
fn verdict(
    status: u16,
    headers: &[(hyper::http::HeaderName, &str)],
    body: &[u8],
) -> Result<Sent, Failure> {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
    let status = StatusCode::from_u16(status).unwrap();
    let url = "http://peer/v1/metrics".parse().unwrap();
    Answer { status, headers, body: body.to_vec() }.verdict(Signal::Metrics, &url)
}

#[test]
fn each_signal_has_its_url() {
    let some = |text: &str| Some(text.to_owned());
    for endpoint in ["https://peer:4318/base", "https://peer:4318/base/"] {
        assert_eq!(
            urls(json!({"endpoint": endpoint, "logs_endpoint": "http://logs/in"})),
            [
                some("https://peer:4318/base/v1/metrics"),
                some("http://logs/in"),
                some("https://peer:4318/base/v1/traces"),
            ]
        );
    }
    assert_eq!(
        urls(json!({"metrics_endpoint": "http://peer/"})),
        [some("http://peer/"), None, None]
    );
}

#[test]
fn a_pipeline_needs_a_url_for_its_signal() {
    let exporter = read(json!({"logs_endpoint": "http://peer/"})).unwrap();
    assert_eq!(exporter.suits(Signal::Logs), Mistakes::default());
    for (signal, key) in
        [(Signal::Metrics, "metrics_endpoint"), (Signal::Traces, "traces_endpoint")]
    {
        let wrong = exporter.suits(signal).0;
        let expected = format!("either endpoint or {key} must be specified");
        assert_eq!((wrong.len(), wrong[0].message.as_str()), (1, expected.as_str()));
    }
}

#[test]
fn every_mistake_is_reported() {
    let wrong = |config: serde_json::Value| {
        let mistakes = read(config).err().expect("mistakes").0;
        mistakes.into_iter().map(|m| format!("{}: {}", m.path, m.message)).collect::<Vec<_>>()
    };
    assert_eq!(wrong(json!({})), ["endpoint: at least one endpoint must be specified"]);
    let all = wrong(json!({
        "endpoint": "peer:4318",
        "traces_endpoint": "unix:///run/x",
        "compression": "snappy", "compression_params": {"level": 1},
        "proxy_url": "ftp://proxy",
        "headers": {"name": "no\nvalue"},
        "tls": {"min_version": "9"},
        "retry_on_failure": {"multiplier": -1.0},
        "sending_queue": {"queue_size": 0},
    }));
    let paths: Vec<_> = all.iter().map(|text| text.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "endpoint",
            "traces_endpoint",
            "compression_params::level",
            "headers::name",
            "proxy_url",
            "tls::min_version",
            "retry_on_failure::multiplier",
            "sending_queue::queue_size",
        ]
    );
    assert!(all[0].contains("endpoint must be a valid URL"), "{}", all[0]);
    assert_eq!(
        wrong(json!({"endpoint": "http://p", "compression_params": {"level": 10}})),
        [
            "compression_params::level: unsupported parameters {Level:10} for compression type \"gzip\""
        ]
    );
    let none =
        json!({"endpoint": "http://p", "compression": "", "compression_params": {"level": 5}});
    assert!(read(none).is_ok(), "what is not compressed has no level");
    let port = json!({"endpoint": "http://p:x"});
    assert_eq!(wrong(port), ["endpoint: endpoint must be a valid URL: invalid port in p:x"]);
    let unknown =
        |key: &str| serde_json::from_value::<Config>(json!({ key: "x" })).unwrap_err().to_string();
    assert!(unknown("compression").contains("unsupported compression type \"x\""));
    assert!(unknown("encoding").contains("invalid encoding type: x"));
}

#[test]
fn exactly_the_specified_statuses_are_tried_again() {
    let retried: Vec<_> = (100..=599)
        .filter(|status| matches!(verdict(*status, &[], b""), Err(Failure::Retryable { .. })))
        .collect();
    assert_eq!(retried, [429, 502, 503, 504]);
    let sent: Vec<_> = (100..=599).filter(|status| verdict(*status, &[], b"").is_ok()).collect();
    assert_eq!(sent, (200..300).collect::<Vec<_>>());
}

#[test]
fn the_server_says_when_to_come_back() {
    let after = |status, value: &str| match verdict(status, &[(RETRY_AFTER, value)], b"") {
        Err(Failure::Retryable { after, .. }) => after,
        other => panic!("{other:?}"),
    };
    assert_eq!(after(429, "17"), Some(Duration::from_secs(17)));
    assert_eq!(after(503, "0"), Some(Duration::ZERO));
    assert_eq!(after(503, "soon"), None);
    assert_eq!(after(503, "-1"), None);
    // As in the Collector, where it has a meaning.
    assert_eq!(after(502, "17"), None);
    let date = |date| httpdate::fmt_http_date(date);
    let wait = after(503, &date(SystemTime::now() + Duration::from_secs(100))).unwrap();
    assert!((98..=100).contains(&wait.as_secs()), "{wait:?}");
    let past = date(SystemTime::UNIX_EPOCH);
    assert_eq!(after(429, &past), Some(Duration::ZERO));
}

#[test]
fn a_refusal_carries_what_the_server_says() {
    let reason = |headers: &[_], body: &[u8]| match verdict(400, headers, body) {
        Err(Failure::Permanent { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let plain = "error exporting items, request to http://peer/v1/metrics responded with HTTP Status Code 400";
    let status = tonic_types::Status { code: 3, message: "bad point".to_owned(), details: vec![] };
    let proto = || (CONTENT_TYPE, "application/x-protobuf");
    let json = || (CONTENT_TYPE, "application/json; charset=utf-8");
    let said = format!("{plain}, Message=bad point");
    assert_eq!(reason(&[proto()], &status.encode_to_vec()), said);
    assert_eq!(reason(&[json()], br#"{"code":3,"message":"bad point"}"#), said);
    assert_eq!(reason(&[(CONTENT_TYPE, "text/plain")], b"bad point\nmore"), said);
    assert_eq!(reason(&[proto()], b"\xff\xff garbage"), plain);
    assert_eq!(reason(&[json()], b"{"), plain);
    assert_eq!(reason(&[(CONTENT_TYPE, "text/html")], b"<html>"), plain);
    assert_eq!(reason(&[], b""), plain);
}

#[test]
fn a_success_that_is_none_of_otlp_is_looked_at_by_its_type() {
    let proto = || (CONTENT_TYPE, "application/x-protobuf");
    let json = || (CONTENT_TYPE, "application/json");
    let reason = |headers: &[_], body: &[u8]| match verdict(200, headers, body) {
        Err(Failure::Permanent { reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(&[proto()], b"\xff\xff").starts_with("error parsing protobuf response: "));
    assert!(reason(&[json()], b"[").starts_with("error parsing json response: "));
    assert_eq!(verdict(200, &[(CONTENT_TYPE, "text/html")], b"<html>"), Ok(Sent { rejected: 0 }));
    let partial = br#"{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"late"}}"#;
    assert_eq!(verdict(200, &[json()], partial), Ok(Sent { rejected: 3 }));
    assert_eq!(verdict(200, &[json()], b"{}"), Ok(Sent { rejected: 0 }));
}

#[test]
fn secrets_are_not_printed() {
    let config: Config = serde_json::from_value(json!({
        "headers": [{"name": "authorization", "value": "hunter2"}],
        "proxy_url": "http://ann:hunter2@proxy",
        "tls": {"key_pem": "hunter2"},
    }))
    .unwrap();
    let printed = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
    assert!(!printed.contains("hunter2") && printed.contains("[REDACTED]"));
    assert_eq!(config.headers.read().unwrap()["authorization"], "hunter2");
}
