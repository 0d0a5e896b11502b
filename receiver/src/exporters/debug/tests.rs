//! The lines that are printed, and where.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{EntityRef, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Summary, SummaryDataPoint,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
        summary_data_point::ValueAtQuantile,
    },
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};
use tempfile::tempdir;

use super::{normal::short, *};
use crate::{
    channel::channel,
    exporters::{otlp::sample, queue::testing::context},
    metric::{Kind, Metric as Described, Points, key_value, pairs},
};

const READS: Described = Described {
    name: "reads",
    unit: "{read}",
    kind: Kind::Counter,
    description: "",
    caveat: "",
    attributes: &[],
};

/// 2020-02-11 20:26:12.000000321 UTC.
const START: u64 = 1_581_452_772_000_000_321;
const TIME: u64 = 1_581_452_773_500_000_000;

fn metrics(name: &str, data: Data) -> Batch {
    let metric = Metric { name: name.to_owned(), data: Some(data), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    Batch::Metrics(ExportMetricsServiceRequest { resource_metrics: vec![resource] })
}

/// What is said of the one metric, after what it is in.
fn of_metric(batch: &Batch, verbosity: Verbosity) -> Vec<String> {
    let (text, before) = match verbosity {
        Verbosity::Normal => (normal::text(batch), 2),
        _ => (detailed::text(batch), 11),
    };
    text.lines().skip(before).map(str::to_owned).collect()
}

#[test]
fn a_batch_in_one_line_or_one_line_per_point() {
    let now = std::time::SystemTime::now();
    let disabled = BTreeSet::new();
    let mut made = Points::new(now, now, &disabled);
    made.counter(&READS, &[("device", "sda"), ("x", "1")], 7);
    made.counter(&READS, &[], 8);
    let batch = made.into_batch(&[("host.name", "h"), ("n", "1")], "test");
    let basic = r#"Metrics {"resource metrics": 1, "metrics": 1, "data points": 2}"#;
    assert_eq!(describe(&batch, Verbosity::Basic), basic);
    let version = env!("CARGO_PKG_VERSION");
    let normal = format!(
        "{basic}\nResourceMetrics #0 host.name=h n=1\nScopeMetrics #0 test@{version}\n\
         reads{{device=sda,x=1}} 7\nreads{{}} 8\n"
    );
    assert_eq!(describe(&batch, Verbosity::Normal), normal);
}

#[test]
fn points_of_every_kind() {
    let quantile_values = vec![ValueAtQuantile { quantile: 0.5, value: 2.25 }];
    let times = (START, TIME);
    let cases: [(Data, &str, &[&str]); 4] = [
        (
            Data::Gauge(Gauge {
                data_points: vec![NumberDataPoint {
                    attributes: pairs(&[("a", "b")]),
                    start_time_unix_nano: times.0,
                    time_unix_nano: times.1,
                    value: Some(number_data_point::Value::AsDouble(1.25e-7)),
                    ..Default::default()
                }],
            }),
            "m{a=b} 1.25e-07",
            &[
                "NumberDataPoints #0",
                "Data point attributes:",
                "     -> a: Str(b)",
                "StartTimestamp: 2020-02-11 20:26:12.000000321 +0000 UTC",
                "Timestamp: 2020-02-11 20:26:13.5 +0000 UTC",
                "Value: 0.000000",
            ],
        ),
        (
            Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint {
                    count: 3,
                    sum: Some(15.0),
                    min: Some(1.0),
                    bucket_counts: vec![1, 2],
                    explicit_bounds: vec![10.5],
                    ..Default::default()
                }],
                aggregation_temporality: 2,
            }),
            "m{} count=3 sum=15 min=1 le10.5=1 2",
            &[
                "     -> AggregationTemporality: Cumulative",
                "HistogramDataPoints #0",
                "StartTimestamp: 1970-01-01 00:00:00 +0000 UTC",
                "Timestamp: 1970-01-01 00:00:00 +0000 UTC",
                "Count: 3",
                "Sum: 15.000000",
                "Min: 1.000000",
                "ExplicitBounds #0: 10.500000",
                "Buckets #0, Count: 1",
                "Buckets #1, Count: 2",
            ],
        ),
        (
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint {
                    count: 10,
                    scale: 0,
                    zero_count: 1,
                    positive: Some(Buckets { offset: -1, bucket_counts: vec![2, 3] }),
                    negative: Some(Buckets { offset: 0, bucket_counts: vec![4] }),
                    ..Default::default()
                }],
                aggregation_temporality: 1,
            }),
            "m{} count=10 le-1=4 zero=1 le1=2 le2=3",
            &[
                "     -> AggregationTemporality: Delta",
                "ExponentialHistogramDataPoints #0",
                "StartTimestamp: 1970-01-01 00:00:00 +0000 UTC",
                "Timestamp: 1970-01-01 00:00:00 +0000 UTC",
                "Count: 10",
                "Bucket [-2.000000, -1.000000), Count: 4",
                "Bucket [0, 0], Count: 1",
                "Bucket (0.500000, 1.000000], Count: 2",
                "Bucket (1.000000, 2.000000], Count: 3",
            ],
        ),
        (
            Data::Summary(Summary {
                data_points: vec![SummaryDataPoint {
                    count: 2,
                    sum: 5.0,
                    quantile_values,
                    ..Default::default()
                }],
            }),
            "m{} count=2 sum=5.000000 q0.5=2.25",
            &[
                "SummaryDataPoints #0",
                "StartTimestamp: 1970-01-01 00:00:00 +0000 UTC",
                "Timestamp: 1970-01-01 00:00:00 +0000 UTC",
                "Count: 2",
                "Sum: 5.000000",
                "QuantileValue #0: Quantile 0.500000, Value 2.250000",
            ],
        ),
    ];
    for (data, line, lines) in cases {
        let batch = metrics("m", data);
        assert_eq!(of_metric(&batch, Verbosity::Normal), [line]);
        assert_eq!(of_metric(&batch, Verbosity::Detailed), lines);
    }
}

#[test]
fn records_and_spans() {
    let body = key_value("", Value::StringValue("it happened".to_owned())).value;
    let record = LogRecord {
        time_unix_nano: TIME,
        severity_number: 10,
        severity_text: "INFO".to_owned(),
        body,
        attributes: vec![
            key_value("n", Value::IntValue(1)),
            key_value("b", Value::BytesValue(vec![1])),
        ],
        trace_id: vec![0; 16],
        span_id: vec![0, 0, 0, 0, 0, 0, 1, 0x2f],
        event_name: "event".to_owned(),
        ..Default::default()
    };
    let entity = EntityRef {
        r#type: "host".to_owned(),
        id_keys: vec!["host.name".to_owned()],
        ..Default::default()
    };
    let resource = Resource { entity_refs: vec![entity], ..Default::default() };
    let scope = ScopeLogs { log_records: vec![record], schema_url: "s".to_owned(), scope: None };
    let logs =
        ResourceLogs { resource: Some(resource), scope_logs: vec![scope], ..Default::default() };
    let batch = Batch::Logs(ExportLogsServiceRequest { resource_logs: vec![logs] });
    assert_eq!(normal::text(&batch), "ResourceLog #0\nScopeLog #0 [s]\nit happened n=1 b=AQ==\n");
    let expected = "ResourceLog #0
Resource SchemaURL: \nResource entity refs:
     -> Entity ref #0:
          -> Type: host
          -> ID keys:
               -> host.name
ScopeLogs #0
ScopeLogs SchemaURL: s
InstrumentationScope  \nLogRecord #0
ObservedTimestamp: 1970-01-01 00:00:00 +0000 UTC
Timestamp: 2020-02-11 20:26:13.5 +0000 UTC
SeverityText: INFO
SeverityNumber: Info2(10)
EventName: event
Body: Str(it happened)
Attributes:
     -> n: Int(1)
     -> b: Bytes(AQ==)
Trace ID: \nSpan ID: 000000000000012f
Flags: 0
";
    assert_eq!(detailed::text(&batch), expected);

    let event = span::Event {
        name: "e".to_owned(),
        time_unix_nano: TIME,
        attributes: pairs(&[("k", "v")]),
        dropped_attributes_count: 2,
    };
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "work".to_owned(),
        kind: 3,
        status: Some(Status { message: "no".to_owned(), code: 2 }),
        events: vec![event],
        links: vec![span::Link::default()],
        ..Default::default()
    };
    let scope = ScopeSpans { spans: vec![span], ..Default::default() };
    let spans = ResourceSpans { scope_spans: vec![scope], ..Default::default() };
    let batch = Batch::Traces(ExportTraceServiceRequest { resource_spans: vec![spans] });
    let id = "01".repeat(16);
    let line = format!("work {id} 0202020202020202");
    assert_eq!(normal::text(&batch), format!("ResourceTraces #0\nScopeTraces #0\n{line}\n"));
    let expected = format!(
        "Span #0
    Trace ID       : {id}
    Parent ID      : \n    ID             : 0202020202020202
    Name           : work
    Kind           : Client
    Start time     : 1970-01-01 00:00:00 +0000 UTC
    End time       : 1970-01-01 00:00:00 +0000 UTC
    Status code    : Error
    Status message : no
    DroppedAttributesCount: 0
    DroppedEventsCount: 0
    DroppedLinksCount: 0
Events:
SpanEvent #0
     -> Name: e
     -> Timestamp: 2020-02-11 20:26:13.5 +0000 UTC
     -> DroppedAttributesCount: 2
     -> Attributes::
          -> k: Str(v)
Links:
SpanLink #0
     -> Trace ID: \n     -> ID: \n     -> TraceState: \n     -> DroppedAttributesCount: 0
"
    );
    assert!(detailed::text(&batch).ends_with(&expected), "{}", detailed::text(&batch));
}

#[test]
fn numbers_are_written_as_go_writes_them() {
    for (number, text) in [
        (0.0, "0"),
        (15.0, "15"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (123456.0, "123456"),
        (1048576.0, "1.048576e+06"),
        (1e20, "1e+20"),
        (1.5e21, "1.5e+21"),
        (-2.5, "-2.5"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(short(number), text);
    }
}

#[test]
fn after_the_first_of_a_second_every_nth_is_printed() {
    let config = Config { sampling_initial: 2, sampling_thereafter: 3, ..Default::default() };
    let now = Instant::now();
    let mut sampling = Sampling { second: now, seen: 0 };
    let kept: Vec<_> = (1..=9).filter(|_| sampling.keeps(&config, now)).collect();
    assert_eq!(kept, [1, 2, 5, 8]);
    assert!(sampling.keeps(&config, now + Duration::from_secs(1)));
    let none = Config { sampling_initial: -1, sampling_thereafter: 0, ..Default::default() };
    assert!(!Sampling { second: now, seen: 0 }.keeps(&none, now));
}

#[tokio::test]
async fn files_take_what_is_printed() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out");
    let (cx, metered) = context("debug");
    let (out, input) = channel();
    let config = serde_json::json!({
        "use_internal_logger": false, "output_paths": [path], "sending_queue": {"queue_size": 5},
    });
    let mut exporter = Debug::new(serde_json::from_value(config).unwrap()).ok().unwrap();
    exporter.start(&cx).await.unwrap();
    let task = tokio::spawn(exporter.run(cx, input));
    out.send(sample::logs()).await.unwrap();
    drop(out);
    task.await.unwrap().unwrap();
    let printed = std::fs::read_to_string(path).unwrap();
    assert_eq!(printed, "Logs\t{\"resource logs\": 1, \"log records\": 2}\n");
    assert_eq!(metered.count("otelcol_exporter_sent"), 2);
}

#[test]
fn mistakes_are_reported_as_the_collector_does() {
    let wrong = |config: serde_json::Value| match serde_json::from_value(config) {
        Ok(config) => Debug::new(config).err().expect("a mistake").0.remove(0).message,
        Err(error) => error.to_string(),
    };
    for (config, message) in [
        (serde_json::json!({"verbosity": "none"}), "verbosity level \"None\" is not supported"),
        (serde_json::json!({"verbosity": "loud"}), "unknown metrics level \"loud\""),
        (
            serde_json::json!({"output_paths": ["stderr"]}),
            "output_paths is not supported when use_internal_logger is true",
        ),
        (
            serde_json::json!({"use_internal_logger": false, "output_paths": []}),
            "output_paths must not be empty when use_internal_logger is false",
        ),
        (serde_json::json!({"sending_queue": {"queue_size": 0}}), "`queue_size` must be positive"),
    ] {
        assert!(wrong(config).starts_with(message), "{message}");
    }
    assert!(serde_json::from_value::<Config>(serde_json::json!({"verbosity": "Detailed"})).is_ok());
}
