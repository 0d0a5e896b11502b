//! The configuration, and points for all tests.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
    },
    resource::v1::Resource,
};
use serde_json::json;

use super::{proto::TimeSeries, *};
use crate::metric::pairs;

/// A time in ns since the epoch.
pub const TIME: u64 = 1_700_000_000_123_456_789;
/// Since when all points count.
pub const START: u64 = TIME - 60_000_000_000;

pub fn config(keys: serde_json::Value) -> Config {
    serde_json::from_value(keys).unwrap()
}

pub fn number(attributes: &[(&str, &str)], time: u64, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: pairs(attributes),
        start_time_unix_nano: START,
        time_unix_nano: time,
        value: Some(Value::AsDouble(value)),
        ..Default::default()
    }
}

pub fn metric(name: &str, unit: &str, data: Data) -> Metric {
    let description = format!("what {name} is");
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description,
        data: Some(data),
        ..Default::default()
    }
}

pub fn gauge(points: Vec<NumberDataPoint>) -> Data {
    Data::Gauge(Gauge { data_points: points })
}

pub fn sum(temporality: i32, is_monotonic: bool, points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(Sum { data_points: points, aggregation_temporality: temporality, is_monotonic })
}

pub fn classic(temporality: i32, points: Vec<HistogramDataPoint>) -> Data {
    Data::Histogram(Histogram { data_points: points, aggregation_temporality: temporality })
}

pub fn classic_point(time: u64) -> HistogramDataPoint {
    HistogramDataPoint {
        start_time_unix_nano: START,
        time_unix_nano: time,
        count: 10,
        sum: Some(12.5),
        bucket_counts: vec![1, 2, 7],
        explicit_bounds: vec![0.000_001, 2.5],
        ..Default::default()
    }
}

pub fn exponential(temporality: i32, points: Vec<ExponentialHistogramDataPoint>) -> Data {
    let aggregation_temporality = temporality;
    Data::ExponentialHistogram(ExponentialHistogram {
        data_points: points,
        aggregation_temporality,
    })
}

pub fn exponential_point(time: u64) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        start_time_unix_nano: START,
        time_unix_nano: time,
        count: 7,
        sum: Some(9.0),
        scale: 0,
        zero_count: 1,
        positive: Some(Buckets { offset: 0, bucket_counts: vec![2, 0, 4] }),
        ..Default::default()
    }
}

/// One resource with one scope.
pub fn otlp(resource: Vec<KeyValue>, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope {
        name: "lib".to_owned(),
        version: "1".to_owned(),
        attributes: pairs(&[("lib.kind", "k")]),
        ..Default::default()
    };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }];
    let resource = Some(Resource { attributes: resource, ..Default::default() });
    let whole = ResourceMetrics { resource, scope_metrics, ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![whole] }
}

/// A series as PromQL writes it.
pub fn written(series: &TimeSeries) -> String {
    assert!(series.labels.is_sorted_by(|a, b| a.name < b.name), "{:?}", series.labels);
    let labels: Vec<_> =
        series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
    labels.join(" ")
}

#[test]
fn every_mistake_is_reported_in_the_collectors_words() {
    let wrong = |keys: serde_json::Value| {
        let mistakes = PrometheusRemoteWrite::new(config(keys)).err().expect("mistakes").0;
        mistakes.into_iter().map(|m| format!("{}: {}", m.path, m.message)).collect::<Vec<_>>()
    };
    let all = wrong(json!({
        "endpoint": "ftp://localhost:8888",
        "translation_strategy": "Underscores",
        "protobuf_message": "io.prometheus.write.v4.Request",
        "external_labels": {"a": "", "b.c": "1", "b_c": "2"},
        "max_batch_size_bytes": -1,
        "max_batch_request_parallelism": 0,
        "remote_write_queue": {"queue_size": -1, "num_consumers": -1},
        "compression": "gzip",
        "wal": {"directory": "/tmp"},
        "proxy_url": "ftp://proxy",
        "headers": {"name": "no\nvalue"},
        "tls": {"min_version": "9"},
        "retry_on_failure": {"multiplier": -1.0},
    }));
    let expected = [
        "protobuf_message: unknown type for remote write protobuf message io.prometheus.write.v4.Request, \
         supported: prometheus.WriteRequest, io.prometheus.write.v2.Request",
        "translation_strategy: invalid translation_strategy: Underscores",
        "external_labels::a: prometheus remote write: external labels configuration contains an empty key or value",
        "external_labels::b_c: is the same label as b.c",
        "max_batch_size_bytes: max_batch_byte_size must be greater than 0",
        "max_batch_request_parallelism: max_batch_request_parallelism can't be set to below 1",
        "remote_write_queue::queue_size: remote write queue size can't be negative",
        "remote_write_queue::num_consumers: remote write consumer number can't be negative",
        "compression: compression type must be snappy",
        "wal: a log on disk cannot be had: leave the section out, and give remote_write_queue::queue_size and \
         retry_on_failure::max_elapsed_time room for an outage",
    ];
    assert_eq!(all[..expected.len()], expected);
    let rest: Vec<_> =
        all[expected.len()..].iter().map(|m| m.split(": ").next().unwrap()).collect();
    assert_eq!(
        rest,
        [
            "proxy_url",
            "tls::min_version",
            "retry_on_failure::multiplier",
            "endpoint",
            "headers::name"
        ]
    );
    assert!(wrong(json!({}))[0].starts_with("endpoint: invalid endpoint"));
    // As in the Collector's own files.
    assert!(PrometheusRemoteWrite::new(config(json!({"endpoint": "localhost:8888"}))).is_ok());
    for strategy in ["NoUTF8EscapingWithSuffixes", "NoTranslation"] {
        let keys = |message: &str| json!({"endpoint": "http://x", "translation_strategy": strategy, "protobuf_message": message});
        let expected = format!(
            "translation_strategy: translation strategy {strategy} requires Prometheus Remote Write 2.0 (UTF-8 \
             support): set protobuf_message to io.prometheus.write.v2.Request"
        );
        assert_eq!(wrong(keys("prometheus.WriteRequest")), [expected]);
        assert!(PrometheusRemoteWrite::new(config(keys("io.prometheus.write.v2.Request"))).is_ok());
    }
    let empty = json!({"endpoint": "http://x", "remote_write_queue": {"queue_size": 0}});
    assert_eq!(
        wrong(empty.clone()),
        ["remote_write_queue::queue_size: a 0 size queue will drop all the data"]
    );
    let mut off = empty;
    off["remote_write_queue"]["enabled"] = json!(false);
    assert!(PrometheusRemoteWrite::new(config(off)).is_ok());
}

#[test]
fn a_part_of_a_section_leaves_the_rest_as_the_collector_has_it() {
    let config = config(json!({
        "retry_on_failure": {"max_interval": "1s"},
        "remote_write_queue": {"queue_size": 7, "num_consumers": 0},
        "max_batch_size_bytes": 0,
        "protobuf_message": "",
    }));
    let retry = config.retry();
    assert_eq!(retry.initial_interval.or_zero().as_millis(), 50);
    assert_eq!(
        (retry.max_interval.or_zero().as_secs(), retry.max_elapsed_time.or_zero().as_secs()),
        (1, 300)
    );
    let queue = config.queue();
    assert_eq!((queue.enabled, queue.queue_size, queue.num_consumers), (true, 7, 1));
    assert_eq!((config.max_bytes(), config.parallel()), (3_000_000, 1));
    assert_eq!((config.version(), config.timeout.as_secs()), (Version::V1, 5));
}
