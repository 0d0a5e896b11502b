//! Requests that carry what an extension says, as it is at that time.

use axum::{http::StatusCode, response::IntoResponse as _};
use serde_json::json;

use super::{
    live::{Peer, config},
    *,
};
use crate::{
    channel::channel,
    component::AnyExtension,
    config::{Id, load},
    exporters::{otlp::sample, queue::testing::context},
};

/// The extension of a type, from a section in YAML.
fn extension(kind: &str, yaml: &str) -> Box<dyn AnyExtension> {
    let around = "receivers: {iomonitor: }\nexporters: {debug: }\nservice: {extensions: [KIND], pipelines: \
                  {metrics: {receivers: [iomonitor], exporters: [debug]}}}\n";
    let text = around.replace("KIND", kind);
    let text = format!("yaml:{text}extensions: {{{kind}: {yaml}}}");
    load(&[text], &[], &crate::KINDS)
        .unwrap_or_else(|report| panic!("{report}"))
        .extensions
        .remove(0)
        .component
}

#[tokio::test]
async fn each_attempt_carries_the_token_as_the_file_has_it_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first").unwrap();
    let peer = Peer::scripted([StatusCode::OK.into_response()]);
    let (mut cx, metered) = context("otlp_http");
    let made = extension("bearertokenauth", &format!("{{filename: {}}}", path.display()));
    cx.authenticators.add(Id::parse("bearertokenauth/x").unwrap(), made.auth());
    let keys = json!({"auth": {"authenticator": "bearertokenauth/x"},
                      "headers": {"authorization": "overruled"}});
    let mut exporter = OtlpHttp::new(config(&peer.serve().await, keys)).unwrap();
    exporter.start(&cx).await.unwrap();
    let (out, input) = channel();
    let task = tokio::spawn(exporter.run(cx, input));
    let batch = sample::all().into_iter().next().unwrap();
    let items = batch.items() as u64;
    out.send(batch.clone()).await.unwrap();
    metered.wait_for("otelcol_exporter_sent", items).await;

    // While there is no token, the batch waits; then it goes with the new one.
    std::fs::remove_file(&path).unwrap();
    out.send(batch).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(metered.count("otelcol_exporter_sent"), items);
    std::fs::write(&path, "second").unwrap();
    metered.wait_for("otelcol_exporter_sent", 2 * items).await;
    drop(out);
    task.await.unwrap().unwrap();
    let asked = peer.asked.lock().unwrap();
    let sent: Vec<_> = asked.iter().map(|a| a.headers["authorization"].to_str().unwrap()).collect();
    assert_eq!(sent, ["Bearer first", "Bearer second"]);
    assert_eq!(metered.count("otelcol_exporter_send_failed"), 0);
}

#[tokio::test]
async fn an_authenticator_that_does_not_run_stops_the_start() {
    let keys = json!({"auth": {"authenticator": "basicauth"}});
    let mut exporter = OtlpHttp::new(config("http://localhost:1", keys)).unwrap();
    let error = exporter.start(&context("otlp_http").0).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("failed to resolve authenticator \"basicauth\": authenticator not found"),
        "{error}"
    );
}
