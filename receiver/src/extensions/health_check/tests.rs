//! The extension as whoever asks sees it: over HTTP.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{exporters::queue::testing::context, extensions::testing::ask, status::Reporter};

/// The extension at work, and the exporter and the receiver of its only pipeline.
async fn serving(config: Value) -> (String, Context, Reporter) {
    let (cx, _) = context("health_check");
    let (exporter, receiver) = (Reporter::default(), Reporter::default());
    let group = "pipeline:metrics/a".to_owned();
    cx.statuses.show([
        (&group, &"exporter:x".to_owned(), exporter.clone()),
        (&group, &"receiver:y".to_owned(), receiver.clone()),
    ]);
    receiver.set(Status::Ok, String::new());
    let config = serde_json::from_value(config).expect("of the right types");
    let mut made = HealthCheck::new(config).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    made.start(&cx).await.expect("it listens");
    let server = made.http.as_ref().or(made.grpc.as_ref()).expect("it listens");
    let address = server.listeners[0].local_addr().expect("an address").to_string();
    tokio::spawn(made.run(cx.clone()));
    (address, cx, exporter)
}

#[tokio::test]
async fn version_1_is_ready_when_everything_is() {
    let (address, _cx, exporter) = serving(json!({"endpoint": "127.0.0.1:0"})).await;
    let (code, body) = ask(&address, "/").await;
    assert_eq!(code, 503);
    assert!(body.contains("\"Server not available\""), "{body}");
    exporter.set(Status::Ok, String::new());
    exporter.recoverable("away");
    let (code, body) = ask(&address, "/").await;
    assert_eq!(code, 200, "an error that may pass is no reason to restart the agent");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["status"], "Server available");
    exporter.set(Status::Stopping, String::new());
    assert_eq!(ask(&address, "/").await.0, 503);
    assert_eq!(ask(&address, "/other").await.0, 404);
}

#[tokio::test]
async fn version_1_says_what_it_is_told_to() {
    let config = json!({"endpoint": "127.0.0.1:0", "path": "/up", "response_body": {"healthy": "yes", "unhealthy": "no"}});
    let (address, _cx, exporter) = serving(config).await;
    assert_eq!(ask(&address, "/up").await, (503, "no".to_owned()));
    exporter.set(Status::Ok, String::new());
    assert_eq!(ask(&address, "/up").await, (200, "yes".to_owned()));
}

#[tokio::test]
async fn version_2_shows_the_component_that_is_unwell() {
    let config = json!({"use_v2": true, "http": {"endpoint": "127.0.0.1:0"},
        "component_health": {"include_recoverable_errors": true, "recovery_duration": "200ms"}});
    let (address, _cx, exporter) = serving(config).await;
    assert_eq!(ask(&address, "/status").await.0, 503);
    exporter.set(Status::Ok, String::new());
    let (code, body) = ask(&address, "/status").await;
    assert_eq!((code, body.contains("components")), (200, false), "{body}");

    exporter.recoverable("connection refused");
    for (path, pointer) in [
        ("/status?verbose", "/components/pipeline:metrics~1a/components/exporter:x/error"),
        ("/status?pipeline=metrics%2Fa&verbose=true", "/components/exporter:x/error"),
        ("/status?pipeline=metrics/a&verbose=false", "/error"),
    ] {
        let (code, body) = ask(&address, path).await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((code, &body["healthy"]), (200, &json!(true)), "it may still pass");
        assert_eq!(body["status"], "StatusRecoverableError");
        assert_eq!(body.pointer(pointer), Some(&json!("connection refused")), "{body}");
    }
    tokio::time::sleep(Duration::from_millis(250)).await;
    let (code, body) = ask(&address, "/status").await;
    assert_eq!((code, body.contains("\"healthy\":false")), (500, true), "{body}");
    exporter.ok();
    assert_eq!(ask(&address, "/status").await.0, 200);
    assert_eq!(ask(&address, "/status?pipeline=traces").await.0, 404);
}

#[test]
fn what_is_wrong_is_said_at_its_key() {
    for (config, path, message) in [
        (json!({"endpoint": ""}), "endpoint", "http endpoint required"),
        (json!({"path": "up"}), "path", "path must start with /"),
        (json!({"use_v2": true}), "", "must specify at least one protocol"),
        (
            json!({"use_v2": true, "http": {"endpoint": ""}}),
            "http::endpoint",
            "http endpoint required",
        ),
        (
            json!({"use_v2": true, "grpc": {"endpoint": ""}}),
            "grpc::endpoint",
            "grpc endpoint required",
        ),
        (
            json!({"use_v2": true, "http": {"config": {"enabled": true, "path": "x"}}}),
            "http::config::path",
            "path must start with /",
        ),
        (json!({"transport": "pigeon"}), "transport", "invalid transport type: \"pigeon\""),
        (
            json!({"use_v2": true, "http": {"status": {"path": "x"}}}),
            "http::status::path",
            "path must start with /",
        ),
    ] {
        let config = serde_json::from_value(config).expect("of the right types");
        let wrong = HealthCheck::new(config).err().expect("a mistake");
        assert_eq!((wrong.0[0].path.as_str(), wrong.0[0].message.as_str()), (path, message));
    }
}

#[test]
fn a_protocol_without_keys_has_its_defaults() {
    let read = |text| crate::config::Section::of_text(text).expect("YAML").parse::<Config>();
    let alone = read("{use_v2: true, http: }").expect("valid");
    assert!(alone.check().0.is_empty() && alone.http.is_some() && alone.grpc.is_none());
    let config = read("{use_v2: true, http: , grpc: }").expect("valid");
    assert!(config.check().0.is_empty());
    let (http, grpc) = (config.http.expect("there"), config.grpc.expect("there"));
    assert_eq!(
        (http.endpoint.as_str(), grpc.endpoint.as_str()),
        ("localhost:13133", "localhost:13132")
    );
    assert!(http.status.enabled && !http.config.enabled);
}

#[tokio::test]
async fn the_configuration_is_a_page_if_it_is_asked_for() {
    let config =
        json!({"use_v2": true, "http": {"endpoint": "127.0.0.1:0", "config": {"enabled": true}}});
    let (address, cx, _) = serving(config).await;
    assert_eq!(ask(&address, "/config").await.0, 503, "there is none yet");
    cx.statuses.configure(&json!({"receivers": {"x": null}}));
    assert_eq!(ask(&address, "/config").await, (200, "{\"receivers\":{\"x\":null}}".to_owned()));
}

#[tokio::test]
async fn grpc_says_how_a_pipeline_is_and_when_that_changes() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let config = json!({"use_v2": true, "grpc": {"endpoint": "127.0.0.1:0"},
        "component_health": {"include_recoverable_errors": true, "recovery_duration": "0s"}});
    let (address, cx, exporter) = serving(config).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = endpoint.expect("a URL").connect().await.expect("it accepts");
    let mut client = HealthClient::new(channel);
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let (serving, not, unknown) = (1, 2, 3);
    let mut watched = client.watch(of("metrics/a")).await.expect("it answers").into_inner();
    let mut next = async || watched.message().await.map(|m| m.map(|m| m.status));
    assert_eq!(next().await.expect("a status"), Some(not), "it is starting");
    exporter.set(Status::Ok, String::new());
    assert_eq!(next().await.expect("a status"), Some(serving));
    for service in ["", "metrics/a"] {
        let answer = client.check(of(service)).await.expect("a status").into_inner();
        assert_eq!(answer.status, serving, "{service:?}");
    }
    exporter.recoverable("away");
    assert_eq!(next().await.expect("a status"), Some(not), "it has lasted long enough");
    let error = client.check(of("traces")).await.expect_err("there is none");
    assert_eq!((error.code(), error.message()), (tonic::Code::NotFound, "Service not found."));
    let mut other = client.watch(of("traces")).await.expect("it answers").into_inner();
    assert_eq!(other.message().await.expect("a status").map(|m| m.status), Some(unknown));
    cx.stop.cancel();
    assert_eq!(next().await.expect_err("it ends").code(), tonic::Code::Cancelled);
}
