//! The exporter against a real HTTP server on the loopback, whose answers are scripted.

use std::time::{Duration, Instant};

use axum::{
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    proto::{WriteRequest, v2},
    tests::{TIME, config, exponential, exponential_point, gauge, metric, number, otlp, written},
    *,
};
use crate::{
    batch::Batch,
    channel::{Output, channel},
    exporters::{
        otlp::sample,
        otlp_http::live::{Asked, Peer},
        queue::testing::{Metered, context},
    },
};

const V2: &str = "io.prometheus.write.v2.Request";

/// Starts the exporter with short waits. Its task ends when the output is dropped.
async fn start(peer: &Peer, keys: Value) -> (Output, Metered, JoinHandle<anyhow::Result<()>>) {
    let mut all = json!({
        "endpoint": format!("{}/api/v1/write?x=1", peer.serve().await),
        "timeout": "2s",
        "retry_on_failure": {"initial_interval": "10ms", "max_interval": "10ms"},
        "disable_scope_info": true,
    });
    for (key, value) in keys.as_object().unwrap() {
        all[key] = value.clone();
    }
    let (cx, metered) = context("prometheusremotewrite");
    let (out, input) = channel();
    let mut exporter = PrometheusRemoteWrite::new(config(all)).unwrap();
    exporter.start(&cx).await.unwrap();
    (out, metered, tokio::spawn(exporter.run(cx, input)))
}

/// Sends a batch and waits until it has come to its end: the points counted as sent and as failed.
async fn deliver(peer: &Peer, keys: Value, batch: Batch) -> ((u64, u64), Metered) {
    let (out, metered, task) = start(peer, keys).await;
    let items = batch.items() as u64;
    out.send(batch).await.unwrap();
    metered.wait_for("otelcol_exporter_s", items).await;
    drop(out);
    task.await.unwrap().unwrap();
    let count = |what: &str| metered.count(&format!("otelcol_exporter_{what}_metric_points"));
    ((count("sent"), count("send_failed")), metered)
}

/// A batch of as many gauges' points as said.
fn points(count: usize) -> Batch {
    let points = (0..count).map(|i| number(&[("i", &i.to_string())], TIME, i as f64));
    Batch::Metrics(otlp(Vec::new(), vec![metric("m", "", gauge(points.collect()))]))
}

fn unpacked(asked: &Asked) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(&asked.body).unwrap()
}

/// The series of the requests that the server took, in the order in which it took them.
fn series(asked: &[Asked]) -> Vec<String> {
    let messages = asked.iter().map(|a| WriteRequest::decode(unpacked(a).as_slice()).unwrap());
    messages.flat_map(|m| m.timeseries.iter().map(written).collect::<Vec<_>>()).collect()
}

fn says(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Response {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(*name, value.parse().unwrap());
    }
    (StatusCode::from_u16(status).unwrap(), all, body).into_response()
}

const SAMPLES: &str = "x-prometheus-remote-write-samples-written";
const HISTOGRAMS: &str = "x-prometheus-remote-write-histograms-written";

fn wrote(status: u16, samples: &str, histograms: &str) -> Response {
    let headers = [
        (SAMPLES, samples),
        (HISTOGRAMS, histograms),
        ("x-prometheus-remote-write-exemplars-written", "0"),
    ];
    says(status, &headers, "")
}

#[tokio::test]
async fn version_1_is_sent_as_the_protocol_says() {
    let peer = Peer::default();
    let keys = json!({"headers": {
        "X-Scope-OrgID": "234", "user-agent": "mine", "Content-Type": "text/plain",
        "X-Prometheus-Remote-Write-Version": "9",
    }});
    let (counts, metered) = deliver(&peer, keys, points(3)).await;
    assert_eq!(counts, (3, 0));
    let asked = peer.asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].uri, "/api/v1/write?x=1");
    let header = |name: &str| asked[0].headers[name].to_str().unwrap();
    assert_eq!(header("content-type"), "application/x-protobuf");
    assert_eq!(header("content-encoding"), "snappy");
    assert_eq!(header("x-prometheus-remote-write-version"), "0.1.0");
    assert_eq!(header("x-scope-orgid"), "234");
    assert!(header("user-agent").starts_with("fathom/"));
    assert_eq!(series(&asked), ["__name__=m i=0", "__name__=m i=1", "__name__=m i=2"]);
    let count =
        |name: &str| metered.count(&format!("otelcol_exporter_prometheusremotewrite_{name}"));
    assert_eq!((count("sent_batches"), count("translated_time_series")), (1, 3));
    assert_eq!(count("failed_translations"), 0);
}

#[tokio::test]
async fn version_2_counts_what_the_receiver_says_that_it_wrote() {
    let both = || {
        let points = (0..3).map(|i| number(&[("i", &i.to_string())], TIME, 1.0)).collect();
        let metrics = vec![
            metric("m", "", gauge(points)),
            metric("e", "", exponential(2, vec![exponential_point(TIME)])),
        ];
        Batch::Metrics(otlp(Vec::new(), metrics))
    };
    let samples_only = |samples| says(200, &[(SAMPLES, samples)], "");
    // The answers to the points of the gauge, and to the histogram.
    for (floats, native, sent, failed) in [
        (wrote(200, "3", "0"), wrote(200, "0", "1"), 4, 0),
        (wrote(204, "2", "0"), wrote(200, "0", "1"), 3, 1),
        (wrote(400, "2", "0"), wrote(400, "0", "0"), 2, 2),
        (wrote(400, "3", "0"), wrote(200, "0", "1"), 4, 0),
        (wrote(400, "0", "0"), wrote(200, "0", "1"), 1, 3),
        (samples_only("3"), samples_only("0"), 3, 1),
        // No receiver of version 2 says nothing.
        (says(200, &[], ""), wrote(200, "0", "1"), 1, 3),
        (says(415, &[], ""), says(415, &[], ""), 0, 4),
    ] {
        let said = |answer: &Response, name: &str| -> u64 {
            answer.headers().get(name).map_or(0, |value| value.to_str().unwrap().parse().unwrap())
        };
        let (samples, histograms) = (said(&floats, SAMPLES), said(&native, HISTOGRAMS));
        let case = format!("{floats:?} {native:?}");
        let peer = Peer::scripted([floats, native]);
        let keys = json!({"protobuf_message": V2, "max_batch_request_parallelism": 1});
        let (counts, metered) = deliver(&peer, keys, both()).await;
        assert_eq!(counts, (sent, failed), "{case}");
        let asked = peer.asked.lock().unwrap();
        assert_eq!(asked.len(), 2, "{case}: nothing is sent again");
        let header = |name: &str| asked[0].headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), format!("application/x-protobuf;proto={V2}"));
        assert_eq!(header("x-prometheus-remote-write-version"), "2.0.0");
        let message = v2::Request::decode(unpacked(&asked[0]).as_slice()).unwrap();
        assert_eq!(message.timeseries.len(), 3);
        let count =
            |name: &str| metered.count(&format!("otelcol_exporter_prometheusremotewrite_{name}"));
        assert_eq!((count("written_samples"), count("written_histograms")), (samples, histograms));
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_counted() {
    for status in [500, 501, 502, 503, 504, 599, 429] {
        let peer = Peer::scripted([says(status, &[], "")]);
        assert_eq!(deliver(&peer, json!({}), points(2)).await.0, (2, 0), "{status}");
        let asked = peer.asked.lock().unwrap();
        assert_eq!(asked.len(), 2, "{status}");
        assert_eq!(asked[0].body, asked[1].body);
    }
    for status in [400, 401, 404, 408, 409, 413, 415, 301] {
        let peer = Peer::scripted([says(status, &[("content-type", "text/plain")], "no\nmore")]);
        assert_eq!(deliver(&peer, json!({}), points(2)).await.0, (0, 2), "{status}");
        assert_eq!(peer.asked.lock().unwrap().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_is_busy_is_left_alone_for_as_long_as_it_asks() {
    for status in [429, 503] {
        let peer = Peer::scripted([says(status, &[("retry-after", "1")], "")]);
        let begun = Instant::now();
        assert_eq!(deliver(&peer, json!({}), points(1)).await.0, (1, 0));
        assert!(begun.elapsed() >= Duration::from_secs(1), "back after {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_retry_repeats_only_the_requests_that_failed() {
    let ok = || says(200, &[], "");
    // Small enough for one series a request.
    let keys = |consumers: u16| json!({"max_batch_size_bytes": 30, "remote_write_queue": {"num_consumers": consumers}});
    let peer = Peer::scripted([ok(), says(503, &[], ""), ok(), says(400, &[], ""), ok()]);
    assert_eq!(deliver(&peer, keys(1), points(4)).await.0, (3, 1));
    {
        let asked = peer.asked.lock().unwrap();
        let order = ["i=0", "i=1", "i=1", "i=2", "i=3"].map(|i| format!("__name__=m {i}"));
        assert_eq!(series(&asked), order);
    }
    // Side by side they come in any order, but each that was taken once.
    let refused = (0..6).map(|at| says(if at % 2 == 0 { 503 } else { 200 }, &[], ""));
    let peer = Peer::scripted(refused);
    assert_eq!(deliver(&peer, keys(5), points(8)).await.0, (8, 0));
    let asked = peer.asked.lock().unwrap();
    assert_eq!(asked.len(), 8 + 3);
    let mut all = series(&asked);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8);
}

#[tokio::test]
async fn what_was_taken_of_a_batch_that_is_given_up_counts_as_sent() {
    let script = [says(200, &[], ""), says(200, &[], ""), says(503, &[], "")];
    let peer = Peer::scripted(script);
    let keys = json!({
        "max_batch_size_bytes": 30,
        "remote_write_queue": {"num_consumers": 1},
        "retry_on_failure": {"enabled": false},
    });
    assert_eq!(deliver(&peer, keys, points(4)).await.0, (2, 2));
    assert_eq!(peer.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn batches_arrive_in_their_order_even_if_one_is_refused_for_a_while() {
    let peer = Peer::scripted((0..3).map(|_| says(503, &[], "")));
    let (out, metered, task) = start(&peer, json!({"max_batch_request_parallelism": 10})).await;
    for time in 0..20 {
        let point = number(&[("time", &time.to_string())], TIME + time * 1_000_000, 1.0);
        let batch = otlp(Vec::new(), vec![metric("m", "", gauge(vec![point]))]);
        out.send(Batch::Metrics(batch)).await.unwrap();
    }
    metered.wait_for("otelcol_exporter_sent", 20).await;
    drop(out);
    task.await.unwrap().unwrap();
    let mut all = series(&peer.asked.lock().unwrap());
    all.dedup();
    let expected: Vec<_> = (0..20).map(|time| format!("__name__=m time={time}")).collect();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn what_cannot_be_translated_counts_as_failed_and_nothing_is_asked_for_it() {
    let peer = Peer::default();
    // All of the gauge's 4 points and of the sum's 2 are of one series and time; the histogram is a delta.
    let (counts, metered) = deliver(&peer, json!({}), sample::metrics()).await;
    assert_eq!(counts, (4, 5));
    let count =
        |name: &str| metered.count(&format!("otelcol_exporter_prometheusremotewrite_{name}"));
    assert_eq!((count("dropped_points"), count("failed_translations")), (5, 1));
    assert_eq!(peer.asked.lock().unwrap().len(), 2);

    let peer = Peer::default();
    let delta = super::tests::sum(1, true, vec![number(&[], TIME, 1.0)]);
    let batch = Batch::Metrics(otlp(Vec::new(), vec![metric("d", "", delta)]));
    assert_eq!(deliver(&peer, json!({}), batch).await.0, (0, 1));
    assert_eq!(peer.asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn without_a_queue_each_batch_is_sent_before_the_next() {
    let peer = Peer::default();
    let keys = json!({"remote_write_queue": {"enabled": false, "queue_size": 0}});
    assert_eq!(deliver(&peer, keys, points(2)).await.0, (2, 0));
}
