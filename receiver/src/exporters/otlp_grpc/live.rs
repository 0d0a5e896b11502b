//! The exporter against a real server: what is sent, tried again and given up.

use std::time::Instant;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{peer::*, send::failure, *};
use crate::{
    batch::Batch,
    exporters::{otlp::sample, queue::Failure},
};

fn unavailable() -> Answer {
    Answer::Fail(Status::unavailable("restarting"))
}

#[tokio::test]
async fn sends_what_it_is_given_with_headers_and_each_compression() {
    for compression in ["gzip", "zstd", "none"] {
        let peer = Peer::default();
        let address = peer.serve(None).await;
        let config = Config {
            compression: serde_json::from_value(compression.into()).unwrap(),
            headers: ("Authorization", "Bearer x").into(),
            ..config(&address)
        };
        assert_eq!(one(&peer, config).await, (7, 0), "{compression}");
        assert_eq!(*peer.accepted.lock().unwrap(), [batch(7)]);
        let headers = peer.headers.lock().unwrap()[0].clone();
        assert_eq!(headers.get("authorization").unwrap(), "Bearer x");
        assert!(headers.get("user-agent").unwrap().to_str().unwrap().starts_with("fathom/"));
        let encoding = headers.get("grpc-encoding").map_or("none", |v| v.to_str().unwrap());
        assert_eq!(encoding, compression);
    }
}

#[tokio::test]
async fn retries_until_the_server_is_back() {
    let peer = Peer::scripted([unavailable(), unavailable(), unavailable()]);
    let address = peer.serve(None).await;
    assert_eq!(one(&peer, config(&address)).await, (7, 0));
    assert_eq!(peer.received(), 1);
}

#[tokio::test]
async fn an_exhausted_server_is_retried_when_it_says_when() {
    let asked = Duration::from_millis(400);
    let full = Status::with_error_details(
        Code::ResourceExhausted,
        "full",
        ErrorDetails::with_retry_info(Some(asked)),
    );
    let peer = Peer::scripted([Answer::Fail(full)]);
    let address = peer.serve(None).await;
    let begun = Instant::now();
    assert_eq!(one(&peer, config(&address)).await, (7, 0));
    assert!(begun.elapsed() >= asked, "came back after {:?}", begun.elapsed());

    let peer = Peer::scripted([Answer::Fail(Status::resource_exhausted("full"))]);
    let address = peer.serve(None).await;
    assert_eq!(one(&peer, config(&address)).await, (0, 7));
    assert_eq!(peer.received(), 0);
}

#[tokio::test]
async fn exactly_the_specified_codes_are_retried() {
    let retried: Vec<_> = (0..=16)
        .map(Code::from_i32)
        .filter(|c| matches!(failure(&Status::new(*c, ""), ""), Failure::Retryable { .. }))
        .collect();
    use Code::*;
    assert_eq!(retried, [Cancelled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss]);

    let peer = Peer::scripted([Answer::Fail(Status::invalid_argument("no"))]);
    let address = peer.serve(None).await;
    assert_eq!(one(&peer, config(&address)).await, (0, 7));
}

#[tokio::test]
async fn rejected_points_are_failed_points() {
    let peer = Peer::scripted([Answer::Reject(3)]);
    let address = peer.serve(None).await;
    assert_eq!(one(&peer, config(&address)).await, (4, 3));
    assert_eq!(peer.received(), 1, "a partial success is not sent again");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let peer = Peer::scripted([Answer::Never]);
    let address = peer.serve(None).await;
    let mut config = config(&address);
    config.timeout = Duration::from_millis(100);
    assert_eq!(one(&peer, config).await, (7, 0), "the second attempt is answered");

    let peer = Peer::scripted([Answer::Never]);
    let address = peer.serve(None).await;
    let mut config = self::config(&address);
    config.timeout = Duration::from_millis(100);
    config.retry_on_failure.enabled = false;
    assert_eq!(one(&peer, config).await, (0, 7));
}

#[tokio::test]
async fn a_server_may_come_up_after_the_agent() {
    let (address, _holder) = reserve();
    let config = config(&address.to_string());
    let (out, metered, task) = start(config).await;
    out.send(batch(7)).await.unwrap();
    let listener = listen(address);
    // Whether or not a connection has been refused before: here is one that comes to nothing.
    drop(listener.accept().await.unwrap());
    assert_eq!(metered.count("otelcol_exporter_s"), 0, "nothing is sent or lost yet");
    let peer = Peer::default();
    peer.serve_on(listener, None);
    metered.wait_for("otelcol_exporter_sent", 7).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert_eq!(peer.received(), 1);
}

#[tokio::test]
async fn an_attempt_can_wait_for_the_server() {
    let (address, _holder) = reserve();
    let mut config = config(&address.to_string());
    config.wait_for_ready = true;
    config.timeout = Duration::from_secs(60);
    config.retry_on_failure.enabled = false;
    let (out, metered, task) = start(config).await;
    out.send(batch(7)).await.unwrap();
    let peer = Peer::default();
    peer.serve_on(listen(address), None);
    metered.wait_for("otelcol_exporter_s", 7).await;
    assert_eq!(metered.count("otelcol_exporter_sent"), 7);
    drop(out);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn every_signal_arrives_as_it_was_and_over_a_socket_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("otlp.sock");
    let peer = Peer::default();
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(peer.router(None).serve_with_incoming(UnixListenerStream::new(listener)));
    let tcp = peer.serve(None).await;
    for endpoint in [tcp, format!("unix://{}", path.display())] {
        peer.accepted.lock().unwrap().clear();
        let (out, metered, task) = start(config(&endpoint)).await;
        for batch in sample::all() {
            out.send(batch).await.unwrap();
        }
        metered.wait_for("otelcol_exporter_s", 9 + 2 + 2).await;
        drop(out);
        task.await.unwrap().unwrap();
        let mut accepted = peer.accepted.lock().unwrap().clone();
        accepted.sort_by_key(Batch::signal);
        // A NaN is not equal to itself.
        assert_eq!(format!("{accepted:?}"), format!("{:?}", sample::all().to_vec()));
        assert_eq!(metered.count("otelcol_exporter_sent"), 9 + 2 + 2);
    }
}

#[tokio::test]
async fn what_is_rejected_is_counted_on_each_signal() {
    for batch in sample::all() {
        let peer = Peer::scripted([Answer::Reject(1)]);
        let (out, metered, task) = start(config(&peer.serve(None).await)).await;
        let items = batch.items() as u64;
        out.send(batch).await.unwrap();
        metered.wait_for("otelcol_exporter_s", items).await;
        assert_eq!(metered.count("otelcol_exporter_send_failed"), 1);
        assert_eq!(metered.count("otelcol_exporter_sent"), items - 1);
        drop(out);
        task.await.unwrap().unwrap();
    }
}

#[test]
fn secrets_are_not_printed() {
    let config: Config = serde_json::from_value(serde_json::json!({
        "headers": {"authorization": "hunter2"}, "tls": {"key_pem": "hunter2"},
    }))
    .unwrap();
    let printed = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
    assert!(!printed.contains("hunter2") && printed.contains("[REDACTED]"));
}
