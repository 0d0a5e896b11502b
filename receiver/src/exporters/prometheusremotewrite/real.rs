//! The exporter against a real Prometheus: what it has then, by its own API, is what was sent, once.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, Metric, NumberDataPoint};
use serde_json::{Value, json};

use super::{
    tests::{
        classic, classic_point, config, exponential, exponential_point, gauge, metric, number,
        otlp, sum,
    },
    *,
};
use crate::{
    batch::Batch,
    channel::channel,
    exporters::queue::testing::{Metered, context},
    metric::{nanos, pairs},
};

/// A Prometheus with a directory of its own, killed at the end.
struct Server {
    process: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// `None` where there is no Prometheus to be had, which is not so in CI.
    async fn start(features: &str) -> Option<Self> {
        let found = Command::new("prometheus").arg("--version").output();
        if let Err(error) = found {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "prometheus: {error}");
            eprintln!("skipped: no prometheus ({error}); Debian has it in the package prometheus");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, "global: {}\n").unwrap();
        // Free a moment ago; what takes it meanwhile makes Prometheus end, and the test say so.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let process = spawn(&file, directory.path(), &address, features);
        let server = Self { process, address, _directory: directory };
        let begun = Instant::now();
        while server.get("/-/ready").await.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "Prometheus does not get ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(server)
    }

    async fn get(&self, path: &str) -> Option<Vec<u8>> {
        let pool: Pool<HttpConnector, Empty<Bytes>> =
            Pool::builder(TokioExecutor::new()).build_http();
        let url = format!("http://{}{path}", self.address).parse().unwrap();
        let answer = pool.get(url).await.ok()?;
        let fine = answer.status().is_success();
        let body = answer.into_body().collect().await.ok()?.to_bytes().to_vec();
        fine.then_some(body)
    }

    /// Every raw sample of the series that `selector` finds: labels, then times in ms and values.
    async fn samples(&self, selector: &str) -> BTreeMap<String, Vec<(i64, String)>> {
        let query: String = selector.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = self.get(&format!("/api/v1/query?query={query}%5B1h%5D")).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let of = |series: &Value| {
            let mut labels: BTreeMap<String, String> =
                serde_json::from_value(series["metric"].clone()).unwrap();
            let name = labels.remove("__name__").unwrap_or_default();
            let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let key = if series["histograms"].is_array() { "histograms" } else { "values" };
            let samples = series[key].as_array().unwrap().iter().map(|sample| {
                let time = (sample[0].as_f64().unwrap() * 1000.0).round() as i64;
                let value = match &sample[1] {
                    Value::String(text) => text.clone(),
                    histogram => histogram.to_string(),
                };
                (time, value)
            });
            (format!("{name}{{{}}}", labels.join(",")), samples.collect())
        };
        answer["data"]["result"].as_array().unwrap().iter().map(of).collect()
    }

    /// The value of an expression that has one.
    async fn value(&self, expression: &str) -> String {
        let query: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = self.get(&format!("/api/v1/query?query={query}")).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        answer["data"]["result"][0]["value"][1].as_str().unwrap_or_default().to_owned()
    }
}

fn spawn(file: &Path, directory: &Path, address: &str, features: &str) -> Child {
    Command::new("prometheus")
        .args(["--web.enable-remote-write-receiver", "--log.level=error"])
        .arg(format!("--enable-feature={features}"))
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The batch of one collection: the k-th of a workload that goes on evenly.
fn batch(round: u64, time: u64) -> Batch {
    let float = |metric_value: f64| vec![number(&[("cpu", "0")], time, metric_value)];
    let part = HistogramDataPoint {
        count: 10 * round,
        sum: Some(12.5 * round as f64),
        bucket_counts: vec![round, 2 * round, 7 * round],
        ..classic_point(time)
    };
    let mut native = exponential_point(time);
    native.count = 7 * round;
    native.zero_count = round;
    if let Some(buckets) = &mut native.positive {
        buckets.bucket_counts = vec![2 * round, 0, 4 * round];
    }
    let mut metrics = vec![
        metric("io.ops", "{op}", sum(2, true, float(3.0 * round as f64))),
        metric("depth", "", gauge(float(-(round as f64)))),
        metric("latency", "s", classic(2, vec![part])),
        metric("size", "By", exponential(2, vec![native])),
        // What a receiver would refuse the whole request for, were it sent.
        metric("depth", "", gauge(float(77.0))),
        metric("delta", "", sum(1, true, float(1.0))),
        ending("short.lived", round, time),
    ];
    // Enough series for several requests.
    let many = (0..500).map(|i| number(&[("i", &i.to_string())], time, f64::from(i)));
    metrics.push(metric("many", "", gauge(many.collect())));
    let resource = pairs(&[("service.name", "shop"), ("host.name", "h")]);
    Batch::Metrics(otlp(resource, metrics))
}

/// A series that ends in the third round.
fn ending(name: &str, round: u64, time: u64) -> Metric {
    let point = number(&[], time, 1.0);
    let ended = NumberDataPoint { value: None, flags: 1, ..point.clone() };
    metric(name, "", gauge(vec![if round < 3 { point } else { ended }]))
}

const ROUNDS: u64 = 3;

/// A series with the labels that all have, and its own.
fn series(name: &str, own: &[(&str, &str)]) -> String {
    let mut labels = BTreeMap::from([
        ("cluster", "c"),
        ("job", "shop"),
        ("otel_scope_lib_kind", "k"),
        ("otel_scope_name", "lib"),
        ("otel_scope_version", "1"),
    ]);
    labels.extend(own.iter().copied());
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// Sends all, and waits for what becomes of it.
async fn send(server: &Server, batches: impl Iterator<Item = Batch>) -> Metered {
    let (cx, metered) = context("prometheusremotewrite");
    let (out, input) = channel();
    let mut exporter = PrometheusRemoteWrite::new(config(json!({
        "endpoint": format!("http://{}/api/v1/write", server.address),
        "external_labels": {"cluster": "c"},
        "max_batch_size_bytes": 5000,
        "send_metadata": true,
        "timeout": "60s",
    })))
    .unwrap();
    exporter.start(&cx).await.unwrap();
    let task = tokio::spawn(exporter.run(cx, input));
    let mut items = 0;
    for batch in batches {
        items += batch.items() as u64;
        out.send(batch).await.unwrap();
    }
    metered.wait_for("otelcol_exporter_s", items).await;
    drop(out);
    task.await.unwrap().unwrap();
    metered
}

#[tokio::test]
async fn every_sample_arrives_once_and_as_it_was() {
    let Some(server) = Server::start("native-histograms,exemplar-storage").await else { return };
    let now = nanos(SystemTime::now());
    let time = |round: u64| now - (ROUNDS - round) * 1_000_000_000;
    let metered = send(&server, (1..=ROUNDS).map(|round| batch(round, time(round)))).await;
    let count = |what: &str| metered.count(&format!("otelcol_exporter_{what}_metric_points"));
    assert_eq!((count("sent"), count("send_failed")), (ROUNDS * 505, ROUNDS * 2));
    assert!(metered.count("otelcol_exporter_prometheusremotewrite_sent_batches") > 3 * ROUNDS);

    let each = |value: fn(f64) -> f64| -> Vec<_> {
        let of = |round| ((time(round) / 1_000_000) as i64, value(round as f64).to_string());
        (1..=ROUNDS).map(of).collect()
    };
    let mut expected = BTreeMap::from([
        (series("io_ops_total", &[("cpu", "0")]), each(|k| 3.0 * k)),
        (series("depth", &[("cpu", "0")]), each(|k| -k)),
        (series("latency_seconds_count", &[]), each(|k| 10.0 * k)),
        (series("latency_seconds_sum", &[]), each(|k| 12.5 * k)),
        (series("latency_seconds_bucket", &[("le", "0.000001")]), each(|k| k)),
        (series("latency_seconds_bucket", &[("le", "2.5")]), each(|k| 3.0 * k)),
        (series("latency_seconds_bucket", &[("le", "+Inf")]), each(|k| 10.0 * k)),
    ]);
    expected.insert("target_info{cluster=c,host_name=h,job=shop}".to_owned(), each(|_| 1.0));
    let found = server.samples("{__name__=~\"io.*|depth|latency.*|target_info|delta.*\"}").await;
    assert_eq!(found, expected);

    let many = server.samples("many").await;
    assert_eq!(many.len(), 500);
    for (labels, samples) in many {
        let i = labels.split("i=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
        let values: Vec<_> = samples.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, [i; 3], "{labels}");
    }

    let native = server.samples("size_bytes").await;
    assert_eq!(native.len(), 1);
    let samples = &native[&series("size_bytes", &[])];
    assert_eq!(samples.len(), 3);
    for (round, (_, sample)) in (1..).zip(samples) {
        let histogram: Value = serde_json::from_str(sample).unwrap();
        assert_eq!(histogram["count"], (7 * round).to_string());
        assert_eq!(histogram["sum"], "9");
        let buckets = histogram["buckets"].as_array().unwrap();
        let bucket = |at: usize| {
            let text = |part: usize| buckets[at][part].as_str().unwrap().to_owned();
            (text(1), text(2), text(3))
        };
        let (zero, low, high) = (bucket(0), bucket(1), bucket(2));
        assert_eq!(zero.2, round.to_string());
        assert_eq!(low, ("1".to_owned(), "2".to_owned(), (2 * round).to_string()));
        assert_eq!(high, ("4".to_owned(), "8".to_owned(), (4 * round).to_string()));
    }
    // Three of seven are in the zero bucket and in (1, 2], so the one in the middle is in (4, 8].
    let median: f64 = server.value("histogram_quantile(0.5, size_bytes)").await.parse().unwrap();
    assert!(median > 4.0 && median <= 8.0, "{median}");

    // The stale marker ends it at once, not five minutes later.
    let short = server.samples("short_lived").await;
    assert_eq!(short.values().map(Vec::len).collect::<Vec<_>>(), [2]);
    assert_eq!(server.value("short_lived").await, "");
    assert_eq!(server.value("count(many)").await, "500");
}

#[tokio::test]
async fn a_prometheus_without_native_histograms_gets_everything_else_at_once() {
    let Some(server) = Server::start("").await else { return };
    // Since 3.8 they cannot be switched off any more.
    let version = server.get("/api/v1/status/buildinfo").await.unwrap();
    let version: Value = serde_json::from_slice(&version).unwrap();
    if !version["data"]["version"].as_str().unwrap().starts_with("2.") {
        eprintln!("skipped: a Prometheus that may have native histograms at all times");
        return;
    }
    let begun = Instant::now();
    let metered = send(&server, [batch(1, nanos(SystemTime::now()))].into_iter()).await;
    assert!(begun.elapsed() < Duration::from_secs(60), "the histogram was tried again");
    let count = |what: &str| metered.count(&format!("otelcol_exporter_{what}_metric_points"));
    assert_eq!((count("sent"), count("send_failed")), (504, 3));
    assert_eq!(server.value("count(many)").await, "500");
    assert_eq!(server.value("io_ops_total").await, "3");
    assert_eq!(server.value("size_bytes").await, "");
}
