//! The exporter as a whole: batches in, HTTP out.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        AggregationTemporality, DataPointFlags, Gauge, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, metric::Data, number_data_point::Value,
    },
    resource::v1::Resource,
};
use reason::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use std::time::Duration;

use super::{config::Conversion, format::Form, *};
use crate::{
    channel::{Output, channel},
    exporters::queue::testing::context,
    metric::{Exponential, Kind, Points, pairs},
};

const DURATION: crate::metric::Metric = crate::metric::Metric {
    name: "ebpf.syscall.duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time in \\ the\nkernel.",
    caveat: "",
    attributes: &[],
};

fn point(value: i64, start: u64, time: u64) -> NumberDataPoint {
    NumberDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: time,
        value: Some(Value::AsInt(value)),
        ..Default::default()
    }
}

fn counter(name: &str, temporality: AggregationTemporality, point: NumberDataPoint) -> Metric {
    let data = Data::Sum(Sum {
        data_points: vec![point],
        aggregation_temporality: temporality.into(),
        is_monotonic: true,
    });
    Metric { name: name.to_owned(), data: Some(data), ..Default::default() }
}

fn gauge(name: &str, point: NumberDataPoint) -> Metric {
    let data = Data::Gauge(Gauge { data_points: vec![point] });
    Metric { name: name.to_owned(), data: Some(data), ..Default::default() }
}

fn request(resource: &[(&str, &str)], metric: Metric) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: pairs(resource), ..Default::default() }),
            scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }],
            ..Default::default()
        }],
    }
}

/// A store, and what it says of each batch.
struct Bench(Store);

impl Bench {
    fn new(config: Config) -> Self {
        Self(Store::new(Arc::new(Rules::new(config))))
    }
    fn apply(&mut self, metric: Metric) -> Tally {
        self.0.apply(request(&[], metric), Instant::now())
    }
    fn text(&self) -> String {
        shown(&self.0, "")
    }
}

/// What a scraper sees that sends this header `Accept`.
fn shown(store: &Store, accept: &str) -> String {
    let accept = (axum::http::header::ACCEPT, accept.parse().expect("ascii"));
    let form = Form::negotiated(&[accept].into_iter().collect(), true, !store.is_classic());
    String::from_utf8(form.render(store).bytes).expect("text")
}

fn dropped(reason: Reason) -> Tally {
    Tally { taken: 0, dropped: BTreeMap::from([(reason, 1)]) }
}

fn taken() -> Tally {
    Tally { taken: 1, dropped: BTreeMap::new() }
}

#[test]
fn a_key_that_a_collector_does_not_heed_is_warned_of() {
    let warned = |keys| {
        let config = serde_json::from_value(keys).expect("valid");
        Prometheus::new(config).expect("valid").warnings().len()
    };
    let endpoint = "localhost:0";
    let strategy = "UnderscoreEscapingWithoutSuffixes";
    assert_eq!(warned(serde_json::json!({"endpoint": endpoint})), 0);
    let key = serde_json::json!({"endpoint": endpoint, "add_metric_suffixes": false});
    assert_eq!(warned(key.clone()), 1);
    let mut both = key;
    both["translation_strategy"] = strategy.into();
    assert_eq!(warned(both), 0, "then it has no say here, either");
}

#[test]
fn series_beyond_the_limit_are_dropped_until_there_is_room() {
    let mut bench = Bench::new(Config { max_series: 2, ..Config::default() });
    let labelled = |key, point| NumberDataPoint { attributes: pairs(&[(key, "1")]), ..point };
    assert_eq!(bench.apply(gauge("x", labelled("a", point(1, 0, 1)))), taken());
    assert_eq!(bench.apply(gauge("y", labelled("a", point(2, 0, 1)))), taken());
    let third = bench.apply(gauge("x", labelled("b", point(3, 0, 1))));
    assert_eq!(third, dropped(Reason::SeriesLimit));
    assert_eq!(bench.apply(gauge("z", point(4, 0, 1))), dropped(Reason::SeriesLimit));
    // Those that are there go on.
    assert_eq!(bench.apply(gauge("x", labelled("a", point(5, 0, 2)))), taken());
    assert_eq!(bench.text(), "# TYPE x gauge\nx{a=\"1\"} 5\n# TYPE y gauge\ny{a=\"1\"} 2\n");
    let flags = DataPointFlags::NoRecordedValueMask as u32;
    bench.apply(gauge("x", NumberDataPoint { flags, ..labelled("a", point(0, 0, 3)) }));
    assert_eq!(bench.0.series, 1);
    assert_eq!(bench.apply(gauge("z", point(4, 0, 1))), taken());
    bench.0.expire(Instant::now() + Duration::from_secs(301));
    assert_eq!(bench.0.series, 0);
}

#[test]
fn what_is_wrong_is_said_at_its_key() {
    let check = |config: serde_json::Value| {
        let config = serde_json::from_value(config).expect("known keys");
        let wrong = Prometheus::new(config).err().unwrap_or_default();
        wrong.0.into_iter().map(|mistake| (mistake.path, mistake.message)).collect::<Vec<_>>()
    };
    let of_the_collector = serde_json::json!({
        "endpoint": "1.2.3.4:1234",
        "tls": {"cert_file": "server.crt", "key_file": "server.key", "ca_file": "ca.crt"},
        "namespace": "test-space",
        "const_labels": {"label1": "value1", "another label": "spaced value"},
        "send_timestamps": true,
        "metric_expiration": 3_600_000_000_000_u64,
        "add_metric_suffixes": false,
        "translation_strategy": "",
    });
    assert_eq!(check(of_the_collector), []);
    let wrong = check(serde_json::json!({
        "translation_strategy": "None",
        "tls": {"client_ca_file": "ca.crt"},
        "metric_expiration": 0,
        "const_labels": {"__name__": "x"},
    }));
    let expected = [
        ("endpoint", "expecting a non-blank address to run the Prometheus metrics handler"),
        ("metric_expiration", "must be greater than 0"),
        ("translation_strategy", "invalid translation_strategy: None"),
        ("const_labels::__name__", "not a label"),
        ("tls", "TLS configuration must include both certificate and key for server connections"),
    ];
    assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
    for ((path, message), (key, start)) in wrong.iter().zip(expected) {
        assert!(path == key && message.starts_with(start), "{path}: {message}");
    }
}

#[test]
fn deltas_add_up_only_without_overlap_and_a_gap_is_a_reset() {
    let delta = AggregationTemporality::Delta;
    let mut bench = Bench::new(Config::default());
    assert_eq!(bench.apply(counter("x", delta, point(3, 10, 20))), taken());
    assert_eq!(bench.apply(counter("x", delta, point(4, 20, 30))), taken());
    assert_eq!(bench.text(), "# TYPE x_total counter\nx_total 7\n");
    let overlap = bench.apply(counter("x", delta, point(5, 25, 40)));
    assert_eq!(overlap, dropped(Reason::DeltaOverlap));
    assert_eq!(bench.text(), "# TYPE x_total counter\nx_total 7\n");
    assert_eq!(bench.apply(counter("x", delta, point(1, 50, 60))), taken());
    assert_eq!(bench.text(), "# TYPE x_total counter\nx_total 1\n");
    let unspecified = AggregationTemporality::Unspecified;
    let tally = bench.apply(counter("x", unspecified, point(1, 60, 70)));
    assert_eq!(tally, dropped(Reason::TemporalityUnspecified));
}

#[test]
fn a_type_conflict_drops_the_later_metric_until_the_first_is_gone() {
    let mut bench = Bench::new(Config::default());
    let total = counter("x", AggregationTemporality::Cumulative, point(1, 1, 2));
    assert_eq!(bench.apply(total), taken());
    assert_eq!(bench.apply(gauge("x.total", point(9, 1, 2))), dropped(Reason::TypeConflict));
    bench.0.expire(Instant::now() + Duration::from_secs(301));
    assert_eq!(bench.text(), "");
    assert_eq!(bench.apply(gauge("x.total", point(9, 1, 2))), taken());
}

#[test]
fn resources_that_labels_cannot_tell_apart_keep_the_scrape_valid() {
    let mut store = Store::new(Arc::new(Rules::new(Config::default())));
    let now = Instant::now();
    let of_host = |host, value| request(&[("host.name", host)], gauge("x", point(value, 1, 2)));
    assert_eq!(store.apply(of_host("a", 1), now), taken());
    assert_eq!(store.apply(of_host("b", 2), now), dropped(Reason::LabelCollision));
    assert_eq!(shown(&store, ""), "# TYPE x gauge\nx 1\n");

    let resource_to_telemetry_conversion = Conversion { enabled: true, ..Default::default() };
    let config = Config { resource_to_telemetry_conversion, ..Config::default() };
    let mut store = Store::new(Arc::new(Rules::new(config)));
    assert_eq!(store.apply(of_host("a", 1), now), taken());
    assert_eq!(store.apply(of_host("b", 2), now), taken());
    let expected = "# TYPE x gauge\nx{host_name=\"a\"} 1\nx{host_name=\"b\"} 2\n";
    assert_eq!(shown(&store, ""), expected);
}

#[test]
fn a_series_goes_on_when_a_resource_changes_that_its_labels_do_not_show() {
    let mut store = Store::new(Arc::new(Rules::new(Config::default())));
    let (cumulative, delta) = (AggregationTemporality::Cumulative, AggregationTemporality::Delta);
    let start = Instant::now();
    let mut at = |host, seconds, metric| {
        let now = start + Duration::from_secs(seconds);
        let tally = store.apply(request(&[("host.name", host)], metric), now);
        (tally, shown(&store, ""), store.series)
    };
    let of = |value, time| counter("x", cumulative, point(value, 1, time));
    let shows = |value| format!("# TYPE x_total counter\nx_total {value}\n");
    assert_eq!(at("a", 0, of(1, 10)), (taken(), shows(1), 1));
    assert_eq!(at("b", 10, of(2, 20)), (taken(), shows(2), 1));
    assert_eq!(at("b", 20, of(3, 30)), (taken(), shows(3), 1));
    // What came before the change does not return, and its end is not that of the series.
    assert_eq!(at("a", 30, of(9, 20)), (dropped(Reason::LabelCollision), shows(3), 1));
    let flags = DataPointFlags::NoRecordedValueMask as u32;
    let end = || counter("x", cumulative, NumberDataPoint { flags, ..point(0, 1, 40) });
    assert_eq!(at("a", 40, end()).1, shows(3));
    // Deltas go on, too, unless they overlap: then the holder stays who it was.
    let overlap = counter("x", delta, point(4, 20, 40));
    assert_eq!(at("c", 50, overlap), (dropped(Reason::DeltaOverlap), shows(3), 1));
    let next = counter("x", delta, point(4, 30, 40));
    assert_eq!(at("c", 60, next), (taken(), shows(7), 1));
    assert_eq!(at("b", 70, end()).1, shows(7));
    assert_eq!(at("c", 80, end()), (taken(), String::new(), 0));
}

#[test]
fn of_two_that_labels_cannot_tell_apart_in_one_batch_the_holder_stays() {
    let mut store = Store::new(Arc::new(Rules::new(Config::default())));
    let start = Instant::now();
    for time in 1..4 {
        let mut both = request(&[("host.name", "a")], gauge("x", point(1, 0, time)));
        let other = request(&[("host.name", "b")], gauge("x", point(2, 0, time + 1)));
        both.resource_metrics.extend(other.resource_metrics);
        let tally = store.apply(both, start + Duration::from_secs(10 * time));
        assert_eq!(tally, Tally { taken: 1, ..dropped(Reason::LabelCollision) });
        assert_eq!(shown(&store, ""), "# TYPE x gauge\nx 1\n");
    }
}

#[test]
fn old_points_are_ignored_and_an_absent_one_removes_its_series_only() {
    let mut bench = Bench::new(Config::default());
    let labelled = |key, point| NumberDataPoint { attributes: pairs(&[(key, "1")]), ..point };
    bench.apply(gauge("x", labelled("a", point(5, 0, 20))));
    bench.apply(gauge("x", labelled("b", point(6, 0, 20))));
    let old = bench.apply(gauge("x", labelled("a", point(4, 0, 19))));
    assert_eq!(old, dropped(Reason::OldTimestamp));
    assert_eq!(bench.text(), "# TYPE x gauge\nx{a=\"1\"} 5\nx{b=\"1\"} 6\n");
    let flags = DataPointFlags::NoRecordedValueMask as u32;
    bench.apply(gauge("x", NumberDataPoint { flags, ..labelled("a", point(0, 0, 30)) }));
    assert_eq!(bench.text(), "# TYPE x gauge\nx{b=\"1\"} 6\n");
}

#[test]
fn labels_are_translated_joined_and_escaped() {
    let config = Config {
        const_labels: BTreeMap::from([("site".to_owned(), "x".to_owned())]),
        ..Config::default()
    };
    let mut store = Store::new(Arc::new(Rules::new(config)));
    let attributes = pairs(&[("a.b", "2"), ("a/b", "3"), ("q", "\"\\\n"), ("__name__", "evil")]);
    let metric = gauge("x", NumberDataPoint { attributes, ..point(1, 0, 1) });
    let resource = [
        ("service.name", "db"),
        ("service.namespace", "prod"),
        ("service.instance.id", "i1"),
        ("host.name", "h"),
    ];
    store.apply(request(&resource, metric), Instant::now());
    let expected = r##"# HELP target_info Target metadata
# TYPE target_info gauge
target_info{host_name="h",instance="i1",job="prod/db",site="x"} 1
# TYPE x gauge
x{a_b="2;3",instance="i1",job="prod/db",q="\"\\\n",site="x"} 1
"##;
    assert_eq!(shown(&store, ""), expected);
}

/// The agent's own histogram: observations of 5 µs, 300 µs and 2 s, and one of zero.
fn durations() -> Batch {
    let now = std::time::SystemTime::now();
    let disabled = std::collections::BTreeSet::new();
    let mut points = Points::new(now, now, &disabled);
    let mut buckets = vec![0; abi::exponential::BUCKETS];
    for nanos in [5_000, 300_000, 2_000_000_000] {
        buckets[abi::exponential::bucket(nanos).expect("not zero")] += 1;
    }
    let (scale, offset) = (abi::exponential::SCALE, abi::exponential::OFFSET);
    let histogram = Exponential { scale, sum: 2.000305, zero_count: 1, offset, buckets };
    points.histogram(&DURATION, &[("syscall", "pread64")], histogram);
    points.into_batch(&[("service.name", "fathom")], "iomonitor")
}

/// A running exporter.
struct Running {
    out: Output,
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn run(config: Config) -> Running {
    let endpoint = "127.0.0.1:0".to_owned();
    let mut exporter = Prometheus::new(Config { endpoint, ..config }).expect("valid");
    let (cx, _) = context("prometheus");
    exporter.start(&cx).await.expect("a free port");
    let address = exporter.listeners[0].local_addr().expect("bound");
    let (out, input) = channel();
    Running { out, address, task: tokio::spawn(exporter.run(cx, input)) }
}

async fn ask(address: std::net::SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    let head = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("a whole answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks until the batch, which goes through a channel, has arrived.
async fn scraped(address: std::net::SocketAddr) -> String {
    loop {
        let answer = ask(address, "GET /metrics HTTP/1.1").await;
        if answer.contains("# TYPE") {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_scrape_while_another_never_reads() {
    let response_headers = ("x-from", "fathom").into();
    let running = run(Config { response_headers, ..Config::default() }).await;
    let address = running.address;
    let mut silent = TcpStream::connect(address).await.expect("listening");
    silent.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    running.out.send(durations()).await.expect("running");

    let answer = scraped(address).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("x-from: fathom"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
    assert!(answer.contains(r"# HELP ebpf_syscall_duration_seconds Time in \\ the\nkernel."));
    for line in [
        r#"_bucket{job="fathom",otel_scope_name="iomonitor",otel_scope_version="0.1.0",syscall="pread64",le="3.814697265625e-06"} 1"#,
        r#"le="7.62939453125e-06"} 2"#,
        r#"le="1"} 3"#,
        r#"le="2"} 4"#,
        r#"le="+Inf"} 4"#,
        r#"syscall="pread64"} 2.000305"#,
    ] {
        assert!(answer.contains(line), "{line} is missing in {answer}");
    }

    let head = ask(address, "HEAD /metrics HTTP/1.1").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(ask(address, "GET / HTTP/1.1").await.starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405"));
    let gzip = ask(address, "GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip").await;
    assert!(gzip.contains("content-encoding: gzip"), "{gzip}");

    // The end of the input ends the exporter, and closes its port.
    drop(running.out);
    running.task.await.expect("no panic").expect("no error");
    assert!(TcpStream::connect(address).await.is_err());
}

/// The formats, line by line.
mod formats;
/// Many series, many scrapers, and bad ones.
mod load;
