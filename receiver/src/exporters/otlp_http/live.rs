//! The exporter against a real HTTP server on the loopback, whose answers are scripted.

use std::{
    collections::VecDeque,
    io::Read as _,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Request, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use flate2::read::{GzDecoder, ZlibDecoder};
use prost::Message as _;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::{
    batch::Batch,
    channel::{Output, channel},
    exporters::{
        otlp::{json, sample},
        queue::testing::{Metered, context},
    },
};

/// One request, as it came in.
#[derive(Clone)]
pub struct Asked {
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

#[derive(Clone, Default)]
pub struct Peer {
    script: Arc<Mutex<VecDeque<Response>>>,
    pub asked: Arc<Mutex<Vec<Asked>>>,
}

impl Peer {
    /// Gives these answers, then 200 without a body.
    pub fn scripted(script: impl IntoIterator<Item = Response>) -> Self {
        let peer = Self::default();
        peer.script.lock().unwrap().extend(script);
        peer
    }

    pub async fn serve(&self) -> String {
        async fn answer(State(peer): State<Peer>, request: Request<axum::body::Body>) -> Response {
            let (parts, body) = request.into_parts();
            let body =
                axum::body::to_bytes(body, usize::MAX).await.unwrap_or_else(|_| Bytes::new());
            let asked = Asked { uri: parts.uri, headers: parts.headers, body: body.to_vec() };
            peer.asked.lock().unwrap().push(asked);
            let scripted = peer.script.lock().unwrap().pop_front();
            scripted.unwrap_or_else(|| StatusCode::OK.into_response())
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }
}

/// A configuration with short waits, and with the given keys.
pub fn config(endpoint: &str, keys: serde_json::Value) -> Config {
    let mut config = json!({
        "endpoint": endpoint,
        "timeout": "2s",
        "retry_on_failure": {"initial_interval": "10ms", "max_interval": "10ms"},
    });
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

/// Starts the exporter. Its task ends when the output is dropped.
pub async fn start(config: Config) -> (Output, Metered, JoinHandle<anyhow::Result<()>>) {
    let (cx, metered) = context("otlp_http");
    let (out, input) = channel();
    let mut exporter = OtlpHttp::new(config).unwrap();
    exporter.start(&cx).await.unwrap();
    (out, metered, tokio::spawn(exporter.run(cx, input)))
}

/// Sends a batch and waits until it has come to its end: the items counted as sent and as failed.
pub async fn deliver(config: Config, batch: Batch) -> (u64, u64) {
    let (out, metered, task) = start(config).await;
    let items = batch.items() as u64;
    out.send(batch).await.unwrap();
    metered.wait_for("otelcol_exporter_s", items).await;
    drop(out);
    task.await.unwrap().unwrap();
    (metered.count("otelcol_exporter_sent"), metered.count("otelcol_exporter_send_failed"))
}

fn unpacked(asked: &Asked) -> Vec<u8> {
    let mut plain = Vec::new();
    match asked.headers.get("content-encoding").map(|name| name.to_str().unwrap()) {
        Some("gzip") => {
            GzDecoder::new(&*asked.body).read_to_end(&mut plain).unwrap();
        }
        Some("zlib" | "deflate") => {
            ZlibDecoder::new(&*asked.body).read_to_end(&mut plain).unwrap();
        }
        Some("snappy") => plain = snap::raw::Decoder::new().decompress_vec(&asked.body).unwrap(),
        Some("x-snappy-framed") => {
            snap::read::FrameDecoder::new(&*asked.body).read_to_end(&mut plain).unwrap();
        }
        Some("lz4") => {
            lz4_flex::frame::FrameDecoder::new(&*asked.body).read_to_end(&mut plain).unwrap();
        }
        Some("zstd") => plain = zstd::decode_all(&*asked.body).unwrap(),
        None => plain.clone_from(&asked.body),
        Some(other) => panic!("{other}"),
    }
    plain
}

/// Whether the request is `batch`, at its place.
fn is(asked: &Asked, batch: &Batch) -> bool {
    let plain = unpacked(asked);
    let expected = match asked.headers["content-type"].to_str().unwrap() {
        "application/json" => json::write(batch).unwrap(),
        "application/x-protobuf" => match batch {
            Batch::Metrics(request) => request.encode_to_vec(),
            Batch::Logs(request) => request.encode_to_vec(),
            Batch::Traces(request) => request.encode_to_vec(),
        },
        other => panic!("{other}"),
    };
    asked.uri.path() == format!("/v1/{}", batch.signal().name()) && plain == expected
}

#[tokio::test]
async fn every_signal_arrives_as_it_was_in_each_encoding_and_compression() {
    for (encoding, compression) in [
        ("proto", "gzip"),
        ("json", "zstd"),
        ("proto", "zlib"),
        ("json", "deflate"),
        ("proto", "snappy"),
        ("json", "x-snappy-framed"),
        ("proto", "lz4"),
        ("proto", "none"),
    ] {
        for batch in sample::all() {
            let peer = Peer::default();
            let keys = json!({
                "encoding": encoding, "compression": compression,
                "headers": {"Authorization": "Bearer x"},
            });
            let config = config(&peer.serve().await, keys);
            let items = batch.items() as u64;
            assert_eq!(deliver(config, batch.clone()).await, (items, 0));
            let asked = peer.asked.lock().unwrap().clone();
            assert_eq!(asked.len(), 1);
            assert!(is(&asked[0], &batch), "{encoding}, {compression}: {:?}", asked[0].uri);
            let header = |name: &str| asked[0].headers[name].to_str().unwrap().to_owned();
            assert_eq!(header("authorization"), "Bearer x");
            assert!(header("user-agent").starts_with("fathom/"));
            assert_eq!(header("content-length"), asked[0].body.len().to_string());
        }
    }
}

#[tokio::test]
async fn a_server_that_is_busy_is_left_alone_for_as_long_as_it_asks() {
    let busy = |status: StatusCode, after: &str| (status, [("retry-after", after)]).into_response();
    let peer = Peer::scripted([
        busy(StatusCode::TOO_MANY_REQUESTS, "1"),
        StatusCode::BAD_GATEWAY.into_response(),
        StatusCode::GATEWAY_TIMEOUT.into_response(),
    ]);
    let begun = Instant::now();
    let config = config(&peer.serve().await, json!({}));
    assert_eq!(deliver(config, sample::logs()).await, (2, 0));
    assert!(begun.elapsed() >= Duration::from_secs(1), "back after {:?}", begun.elapsed());
    let asked = peer.asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|a| a.body == asked[0].body), "each attempt sends the same");
}

#[tokio::test]
async fn what_is_counted_says_where_it_was_sent() {
    let endpoint = Peer::default().serve().await;
    let port = endpoint.rsplit(':').next().unwrap();
    let (out, metered, task) = start(config(&format!("{endpoint}/base"), json!({}))).await;
    out.send(sample::logs()).await.unwrap();
    metered.wait_for("otelcol_exporter_sent", 1).await;
    drop(out);
    task.await.unwrap().unwrap();
    let labels = metered.labels("otelcol_exporter_sent_log_records");
    let expected = format!(
        "exporter=otlp_http,server_address=127.0.0.1,server_port={port},url_path=/base/v1/logs"
    );
    assert_eq!(labels, [expected]);
    let labels = metered.labels("otelcol_exporter_in_flight_requests");
    assert_eq!(labels, ["data_type=logs,exporter=otlp_http"]);
}

#[tokio::test]
async fn a_refusal_is_final() {
    for status in [400, 401, 404, 413, 500, 501, 307] {
        let peer = Peer::scripted([StatusCode::from_u16(status).unwrap().into_response()]);
        let config = config(&peer.serve().await, json!({}));
        assert_eq!(deliver(config, sample::logs()).await, (0, 2), "{status}");
        assert_eq!(peer.asked.lock().unwrap().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_rejected_is_counted_on_each_signal() {
    let fields = ["rejectedDataPoints", "rejectedLogRecords", "rejectedSpans"];
    for (batch, field) in sample::all().into_iter().zip(fields) {
        let body = json!({"partialSuccess": {field: "1", "errorMessage": "too old"}}).to_string();
        let answer = ([("content-type", "application/json")], body).into_response();
        let peer = Peer::scripted([answer]);
        let items = batch.items() as u64;
        let config = config(&peer.serve().await, json!({"encoding": "json"}));
        assert_eq!(deliver(config, batch).await, (items - 1, 1));
        assert_eq!(peer.asked.lock().unwrap().len(), 1, "it is not sent again");
    }
}

#[tokio::test]
async fn a_signal_without_an_endpoint_is_counted_as_failed() {
    let peer = Peer::default();
    let endpoint = format!("{}/v1/metrics", peer.serve().await);
    let keys = json!({"endpoint": "", "metrics_endpoint": endpoint});
    assert_eq!(deliver(config("", keys.clone()), sample::traces()).await, (0, 2));
    assert_eq!(deliver(config("", keys), sample::metrics()).await, (9, 0));
}

#[tokio::test]
async fn a_proxy_forwards_requests_and_sees_its_password() {
    let proxy = Peer::default();
    let address = proxy.serve().await.replace("http://", "http://ann:secret@");
    let config = config("http://collector.invalid:4318", json!({"proxy_url": address}));
    assert_eq!(deliver(config, sample::logs()).await, (2, 0));
    let asked = proxy.asked.lock().unwrap();
    assert_eq!(asked[0].uri, "http://collector.invalid:4318/v1/logs");
    assert_eq!(asked[0].headers["proxy-authorization"], "Basic YW5uOnNlY3JldA==");
}

#[tokio::test]
async fn connections_are_kept_and_limited_as_configured() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    for (keys, expected) in [
        (json!({"max_conns_per_host": 1}), 1),
        (json!({"disable_keep_alives": true, "sending_queue": {"num_consumers": 1}}), 5),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let listener = axum::serve::ListenerExt::tap_io(listener, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let router = Router::new().fallback(async || StatusCode::OK);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (out, metered, task) = start(config(&format!("http://{address}"), keys)).await;
        for _ in 0..5 {
            out.send(sample::logs()).await.unwrap();
        }
        metered.wait_for("otelcol_exporter_sent", 10).await;
        drop(out);
        task.await.unwrap().unwrap();
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
}
