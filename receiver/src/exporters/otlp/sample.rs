//! Batches that hold every kind of value there is, for tests.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
        HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
        SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, metric::Data,
        number_data_point, summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};

use crate::batch::{Batch, Signal};

/// A time, with digits down to the last nanosecond.
pub const TIME: u64 = 1_700_000_000_123_456_789;
const TRACE: [u8; 16] = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\xfe\xff";
const SPAN: [u8; 8] = *b"\x10\x11\x12\x13\x14\x15\x16\xff";

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: any(value), ..Default::default() }
}

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn attributes() -> Vec<KeyValue> {
    let list = vec![any(Value::IntValue(-1)).unwrap(), AnyValue { value: None }];
    let map = vec![attribute("inner", Value::BoolValue(false))];
    vec![
        attribute("text", text("with \"quotes\", ünïcode and \u{1}")),
        attribute("yes", Value::BoolValue(true)),
        attribute("whole", Value::IntValue(i64::MIN)),
        attribute("part", Value::DoubleValue(0.1)),
        attribute("round", Value::DoubleValue(2.0)),
        attribute("list", Value::ArrayValue(ArrayValue { values: list })),
        attribute("map", Value::KvlistValue(KeyValueList { values: map })),
        attribute("bytes", Value::BytesValue(vec![0, 1, 254, 255])),
        KeyValue {
            key: "nothing".to_owned(),
            value: Some(AnyValue { value: None }),
            ..Default::default()
        },
    ]
}

fn resource() -> Option<Resource> {
    Some(Resource { attributes: attributes(), dropped_attributes_count: 3, ..Default::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "scope".to_owned(),
        version: "1".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 1,
    })
}

fn number(value: number_data_point::Value) -> NumberDataPoint {
    let exemplar = Exemplar {
        filtered_attributes: attributes(),
        time_unix_nano: TIME,
        span_id: SPAN.to_vec(),
        trace_id: TRACE.to_vec(),
        value: Some(exemplar::Value::AsInt(7)),
    };
    NumberDataPoint {
        attributes: attributes(),
        start_time_unix_nano: TIME - 1,
        time_unix_nano: TIME,
        exemplars: vec![exemplar],
        flags: 1,
        value: Some(value),
    }
}

fn histogram() -> HistogramDataPoint {
    HistogramDataPoint {
        start_time_unix_nano: TIME - 1,
        time_unix_nano: TIME,
        count: u64::MAX,
        sum: Some(1.5),
        bucket_counts: vec![0, u64::MAX],
        explicit_bounds: vec![0.25],
        min: Some(-1.0),
        max: None,
        ..Default::default()
    }
}

fn exponential() -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: TIME - 1,
        time_unix_nano: TIME,
        count: 9,
        sum: None,
        scale: -3,
        zero_count: 2,
        positive: Some(Buckets { offset: -5, bucket_counts: vec![1, 2, 4] }),
        negative: None,
        zero_threshold: 0.001,
        ..Default::default()
    }
}

/// A batch of metrics with 9 points.
pub fn metrics() -> Batch {
    use number_data_point::Value::{AsDouble, AsInt};
    let numbers = [AsInt(i64::MAX), AsDouble(0.1), AsDouble(f64::NAN), AsDouble(f64::NEG_INFINITY)];
    let data_points: Vec<_> = numbers.into_iter().map(number).collect();
    let quantile = ValueAtQuantile { quantile: 0.5, value: 2.0 };
    let summary = SummaryDataPoint {
        time_unix_nano: TIME,
        count: 3,
        sum: 4.0,
        quantile_values: vec![quantile],
        ..Default::default()
    };
    let data = [
        Data::Gauge(Gauge { data_points: data_points.clone() }),
        Data::Sum(Sum {
            data_points: data_points[..2].to_vec(),
            aggregation_temporality: 2,
            is_monotonic: true,
        }),
        Data::Histogram(Histogram { data_points: vec![histogram()], aggregation_temporality: 1 }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![exponential()],
            aggregation_temporality: 2,
        }),
        Data::Summary(Summary { data_points: vec![summary] }),
    ];
    let metrics = (0..).zip(data).map(|(number, data)| Metric {
        name: format!("metric.{number}"),
        description: "what it is".to_owned(),
        unit: "By".to_owned(),
        metadata: vec![attribute("more", text("about it"))],
        data: Some(data),
    });
    let scope_metrics = ScopeMetrics {
        scope: scope(),
        metrics: metrics.collect(),
        schema_url: "schema".to_owned(),
    };
    // A resource and a scope that say nothing.
    let bare =
        ResourceMetrics { scope_metrics: vec![ScopeMetrics::default()], ..Default::default() };
    let whole = ResourceMetrics {
        resource: resource(),
        scope_metrics: vec![scope_metrics],
        schema_url: "schema".to_owned(),
    };
    Batch::Metrics(ExportMetricsServiceRequest { resource_metrics: vec![whole, bare] })
}

/// A batch of 2 log records.
pub fn logs() -> Batch {
    let record = LogRecord {
        time_unix_nano: TIME,
        observed_time_unix_nano: TIME + 1,
        severity_number: 9,
        severity_text: "Info".to_owned(),
        body: any(text("it happened")),
        attributes: attributes(),
        dropped_attributes_count: 2,
        flags: 1,
        trace_id: TRACE.to_vec(),
        span_id: SPAN.to_vec(),
        event_name: "event".to_owned(),
    };
    let scope_logs = ScopeLogs {
        scope: scope(),
        log_records: vec![record, LogRecord::default()],
        schema_url: "schema".to_owned(),
    };
    let whole = ResourceLogs {
        resource: resource(),
        scope_logs: vec![scope_logs],
        schema_url: "schema".to_owned(),
    };
    Batch::Logs(ExportLogsServiceRequest { resource_logs: vec![whole] })
}

/// A batch of 2 spans.
pub fn traces() -> Batch {
    let event = span::Event {
        time_unix_nano: TIME,
        name: "event".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 1,
    };
    let link = span::Link {
        trace_id: TRACE.to_vec(),
        span_id: SPAN.to_vec(),
        trace_state: "a=b".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 1,
        flags: 1,
    };
    let whole = Span {
        trace_id: TRACE.to_vec(),
        span_id: SPAN.to_vec(),
        trace_state: "a=b".to_owned(),
        parent_span_id: SPAN.to_vec(),
        flags: 1,
        name: "span".to_owned(),
        kind: 3,
        start_time_unix_nano: TIME - 1,
        end_time_unix_nano: TIME,
        attributes: attributes(),
        dropped_attributes_count: 1,
        events: vec![event],
        dropped_events_count: 1,
        links: vec![link],
        dropped_links_count: 1,
        status: Some(Status { message: "no".to_owned(), code: 2 }),
    };
    // A root span has no parent, and most spans no status.
    let root = Span { parent_span_id: Vec::new(), status: None, ..whole.clone() };
    let scope_spans =
        ScopeSpans { scope: scope(), spans: vec![whole, root], schema_url: "schema".to_owned() };
    let whole = ResourceSpans {
        resource: resource(),
        scope_spans: vec![scope_spans],
        schema_url: "schema".to_owned(),
    };
    Batch::Traces(ExportTraceServiceRequest { resource_spans: vec![whole] })
}

/// A batch of each signal.
pub fn all() -> [Batch; Signal::ALL.len()] {
    [metrics(), logs(), traces()]
}
