//! What `filter` drops, counts and refuses.

use opentelemetry_proto::tonic::{
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Gauge, Histogram, HistogramDataPoint, NumberDataPoint, ResourceMetrics, ScopeMetrics,
        number_data_point::Value,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, span::Event},
};
use serde_json::json;

use super::*;
use crate::{channel::channel, exporters::testing::context, metric::pairs};

fn filter(config: serde_json::Value) -> Result<Filter, Vec<(String, String)>> {
    let config = serde_json::from_value(config).expect("of the right types");
    Filter::new(config)
        .map_err(|wrong| wrong.0.into_iter().map(|one| (one.path, one.message)).collect())
}

fn resource(host: &str) -> Option<Resource> {
    Some(Resource { attributes: pairs(&[("host", host)]), ..Default::default() })
}

/// On host one: a gauge `a` with the values 1, 2 and 3, and a histogram `b` with one point; on host
/// two: a gauge `a` with the value 1.
fn metrics() -> Batch {
    let gauge = |values: &[i64]| {
        let point = |value: &i64| NumberDataPoint {
            value: Some(Value::AsInt(*value)),
            attributes: pairs(&[("n", &value.to_string())]),
            ..Default::default()
        };
        let data_points = values.iter().map(point).collect();
        let data = Some(Data::Gauge(Gauge { data_points }));
        Metric { name: "a".into(), data, ..Default::default() }
    };
    let histogram = Histogram {
        data_points: vec![HistogramDataPoint { count: 4, sum: Some(8.0), ..Default::default() }],
        aggregation_temporality: 2,
    };
    let data = Some(Data::Histogram(histogram));
    let histogram = Metric { name: "b".into(), data, ..Default::default() };
    let of = |host, metrics| ResourceMetrics {
        resource: resource(host),
        scope_metrics: vec![ScopeMetrics { metrics, ..Default::default() }],
        ..Default::default()
    };
    Batch::Metrics(ExportMetricsServiceRequest {
        resource_metrics: vec![
            of("one", vec![gauge(&[1, 2, 3]), histogram]),
            of("two", vec![gauge(&[1])]),
        ],
    })
}

fn logs() -> Batch {
    let log_records = [("INFO", 9), ("ERROR", 17), ("", 0)]
        .map(|(text, severity_number)| LogRecord {
            severity_text: text.into(),
            severity_number,
            ..Default::default()
        })
        .into();
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    Batch::Logs(ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource("one"),
            scope_logs,
            ..Default::default()
        }],
    })
}

fn spans() -> Batch {
    let spans = ["GET", "POST"].map(|name| Span { name: name.into(), ..Default::default() }).into();
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    Batch::Traces(ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource("one"),
            scope_spans,
            ..Default::default()
        }],
    })
}

/// What comes out, and how many items were counted as dropped.
pub(super) async fn filtered(config: serde_json::Value, batch: Batch) -> (Option<Batch>, u64) {
    let processor = filter(config).expect("valid");
    let (cx, metered) = context("filter");
    let ((to, input), (out, mut from)) = (channel(), channel());
    to.send(batch).await.expect("it has room");
    drop(to);
    Processor::run(processor, cx, input, out).await.expect("it does not fail");
    (from.recv().await, metered.count("otelcol_processor_filter_"))
}

/// How many items are left; nothing comes out if none are.
async fn left(config: serde_json::Value, batch: Batch) -> usize {
    let before = batch.items();
    let (rest, dropped) = filtered(config, batch).await;
    let items = rest.as_ref().map_or(0, Batch::items);
    assert_eq!(dropped as usize, before - items, "what is dropped is counted");
    assert_eq!(rest.is_none(), items == 0, "an empty block is not sent");
    items
}

#[tokio::test]
async fn metrics_are_dropped_by_conditions() {
    let cases = [
        (json!({}), 5),
        (json!({"resource": ["attributes[\"host\"] == \"two\""]}), 4),
        (json!({"metric": ["name == \"a\""]}), 1),
        (json!({"metric": ["name == \"a\"", "type == METRIC_DATA_TYPE_HISTOGRAM"]}), 0),
        (json!({"metric": ["HasAttrOnDatapoint(\"n\", \"1\")"]}), 1),
        (json!({"datapoint": ["value_int > 1"]}), 3),
        (json!({"datapoint": ["count == 4 and metric.name == \"b\" and sum == 8"]}), 4),
        (json!({"datapoint": ["metric.type == METRIC_DATA_TYPE_GAUGE"]}), 1),
        (
            json!({"metric": ["name == \"b\""], "datapoint": ["attributes[\"n\"] == \"1\" and \
                resource.attributes[\"host\"] == \"one\""]}),
            3,
        ),
    ];
    for (config, expected) in cases {
        let rest = left(json!({"metrics": config.clone()}), metrics()).await;
        assert_eq!(rest, expected, "{config}");
    }
}

#[tokio::test]
async fn what_is_left_without_points_is_dropped_with_them() {
    let config = json!({"metrics": {"datapoint": ["metric.name == \"a\""]}});
    let (rest, dropped) = filtered(config, metrics()).await;
    let Some(Batch::Metrics(rest)) = rest else { panic!("the histogram is left") };
    assert_eq!(dropped, 4);
    assert_eq!(rest.resource_metrics.len(), 1);
    let metrics = &rest.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!(metrics.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(matches!(&metrics[0].data, Some(Data::Histogram(data)) if data.data_points.len() == 1));
}

#[tokio::test]
async fn metrics_are_dropped_in_the_older_form() {
    let strict = |names: &[&str]| json!({"match_type": "strict", "metric_names": names});
    let two =
        json!({"match_type": "strict", "resource_attributes": [{"key": "host", "value": "two"}]});
    let cases = [
        (json!({"include": strict(&["a"])}), 4),
        (json!({"exclude": strict(&["a"])}), 1),
        (json!({"include": {"match_type": "regexp", "metric_names": ["^[ab]$"]}}), 5),
        (json!({"include": strict(&["a"]), "exclude": two.clone()}), 3),
        (json!({"include": two}), 1),
        (json!({"exclude": {"match_type": "strict"}}), 5),
    ];
    for (config, expected) in cases {
        let rest = left(json!({"metrics": config.clone()}), metrics()).await;
        assert_eq!(rest, expected, "{config}");
    }
}

#[tokio::test]
async fn log_records_are_dropped() {
    let severity = |min: &str, undefined: bool| {
        json!({"match_type": "strict",
            "severity_number": {"min": min, "match_undefined": undefined}})
    };
    let cases = [
        (json!({}), 3),
        (json!({"log_record": ["severity_number < SEVERITY_NUMBER_WARN"]}), 1),
        (json!({"resource": ["attributes[\"host\"] == \"one\""]}), 0),
        (json!({"include": severity("warn", false)}), 1),
        (json!({"include": severity("9", true)}), 3),
        (json!({"exclude": {"match_type": "regexp", "severity_texts": ["^(INFO|ERROR)$"]}}), 1),
        (json!({"exclude": {"match_type": "strict"}}), 3),
    ];
    for (config, expected) in cases {
        assert_eq!(left(json!({"logs": config.clone()}), logs()).await, expected, "{config}");
    }
}

#[tokio::test]
async fn spans_are_dropped() {
    let cases = [
        (json!({"traces": {"span": ["name == \"GET\""]}}), 1),
        (json!({"traces": {"resource": ["IsMatch(attributes[\"host\"], \"^o\")"]}}), 0),
        (json!({"spans": {"include": {"match_type": "strict", "span_names": ["POST"]}}}), 1),
        (json!({"spans": {"exclude": {"match_type": "regexp", "span_names": ["T$"]}}}), 0),
    ];
    for (config, expected) in cases {
        assert_eq!(left(config.clone(), spans()).await, expected, "{config}");
    }
}

#[test]
fn every_mistake_has_its_place_and_the_collector_s_text() {
    let wrong = filter(json!({
        "metrics": {"metric": ["name == \"a\"", "name ="], "datapoint": ["Foo()"], "include": {}},
        "logs": {"include": {"severity_number": {"min": "loud"}}},
        "spans": {"include": {}, "exclude": {"match_type": "x", "services": ["a"]}},
    }))
    .err()
    .expect("wrong");
    let paths: Vec<_> = wrong.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "metrics",
        "metrics::metric::1",
        "metrics::datapoint::0",
        "logs::include::severity_number::min",
        "spans::include",
        "spans::exclude",
    ];
    assert_eq!(paths, expected, "{wrong:#?}");
    assert_eq!(
        wrong[0].1,
        "cannot use \"metrics.resource\", \"metrics.metric\", \"metrics.datapoint\" and the \
         settings \"metrics.include\", \"metrics.exclude\" at the same time"
    );
    assert_eq!(
        wrong[2].1,
        "unable to parse OTTL condition \"Foo()\": undefined function \"Foo\" (at 1:1)"
    );
    assert_eq!(wrong[3].1, "'loud' is not a valid severity: not a valid severity");

    let bodies = json!({"match_type": "strict", "log_bodies": ["a"]});
    let wrong = filter(json!({"spans": {"exclude": bodies}})).err().expect("wrong");
    let message = "log_bodies should not be specified for trace spans";
    assert_eq!(wrong, [("spans::exclude::log_bodies".to_owned(), message.to_owned())]);

    let expr = |text: &str| {
        let include = json!({"match_type": "expr", "expressions": [text]});
        let wrong = filter(json!({"metrics": {"include": include}})).err().expect("wrong");
        wrong[0].1.strip_prefix(&format!("invalid expression {text:?}: ")).map(str::to_owned)
    };
    for (text, message) in
        [("foo", "unknown name foo (1:1)"), ("MetricName", "expected bool, but got string (1:1)")]
    {
        assert_eq!(expr(text).as_deref(), Some(message), "{text}");
    }
}

#[tokio::test]
async fn span_events_are_dropped_and_counted() {
    let mut batch = spans();
    if let Batch::Traces(request) = &mut batch {
        for span in &mut request.resource_spans[0].scope_spans[0].spans {
            let event = |name: &str| Event { name: name.into(), ..Default::default() };
            span.events = vec![event("a"), event("b")];
        }
    }
    let config = json!({"traces": {"spanevent": ["name == \"a\" and span.name == \"GET\"", "event_index == 1"]}});
    let (rest, dropped) = filtered(config, batch).await;
    let Some(Batch::Traces(rest)) = rest else { panic!("the spans are left") };
    let spans = &rest.resource_spans[0].scope_spans[0].spans;
    let names: Vec<Vec<&str>> =
        spans.iter().map(|span| span.events.iter().map(|e| e.name.as_str()).collect()).collect();
    assert_eq!(names, [vec![], vec!["a"]]);
    assert_eq!(dropped, 3);
}

#[tokio::test]
async fn a_condition_that_fails_drops_everything_or_nothing() {
    let fails = "Substring(\"\", 0, 100) == \"test\"";
    for (mode, expected) in [("propagate", 0), ("ignore", 5), ("silent", 5)] {
        let config = json!({"error_mode": mode, "metrics": {"metric": [fails]}});
        assert_eq!(left(config, metrics()).await, expected, "{mode}");
        let config = json!({"error_mode": mode, "metrics": {"datapoint": [fails]}});
        assert_eq!(left(config, metrics()).await, expected, "{mode}");
    }
    let config =
        json!({"error_mode": "ignore", "logs": {"log_record": [fails, "severity_text == \"\""]}});
    assert_eq!(left(config, logs()).await, 2, "the next condition is asked");
}

#[tokio::test]
async fn conditions_say_themselves_what_they_are_about() {
    let metric = [
        (json!(["resource.attributes[\"host\"] == \"two\""]), 4),
        (json!(["metric.name == \"b\"", "datapoint.value_int == 3"]), 3),
        (json!(["scope.name == \"\" and resource.attributes[\"host\"] == \"one\""]), 1),
        (json!([{"context": "metric", "conditions": ["name == \"b\"", "name == \"c\""]}]), 4),
        (json!([{"conditions": ["metric.name == \"b\"", "datapoint.value_int == 3"]}]), 3),
        (
            json!([{"error_mode": "propagate", "conditions": ["1 / 0 == 1 or metric.name == \"a\""]}]),
            0,
        ),
        (json!(["1 / 0 == 1 or metric.name == \"a\"", "metric.name == \"b\""]), 4),
    ];
    for (conditions, expected) in metric {
        let config = json!({"metric_conditions": conditions});
        assert_eq!(left(config.clone(), metrics()).await, expected, "{config}");
    }
    let config = json!({"log_conditions": ["log.severity_number < SEVERITY_NUMBER_WARN"]});
    assert_eq!(left(config, logs()).await, 1);
    let config = json!({"trace_conditions": [
        {"conditions": ["span.name == \"GET\"", "spanevent.name == \"a\""]},
        {"context": "span", "conditions": ["IsRootSpan() and name == \"X\""]}]});
    assert_eq!(left(config, spans()).await, 1);
    let config = json!({"profile_conditions": ["profile.time_unix_nano == 1"], "traces": {}});
    assert_eq!(left(config, spans()).await, 2);

    let wrong = filter(json!({
        "metric_conditions": [{"conditions": ["name == 1"]}, {"conditions": ["metric.name == 1", "span.name == 1"]}],
        "log_conditions": [{"context": "span", "conditions": []}],
    }));
    let wrong = wrong.err().expect("wrong");
    let paths: Vec<_> = wrong.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "metric_conditions::0::conditions::0",
        "metric_conditions::1::conditions::1",
        "log_conditions::0::context",
    ];
    assert_eq!(paths, expected, "{wrong:#?}");
    assert_eq!(wrong[2].1, "unknown context span");
    let wrong = filter(json!({
        "metric_conditions": ["metric.name == \"a\""],
        "metrics": {"metric": []},
        "log_conditions": ["log.body == 1", {"conditions": []}, null],
        "trace_conditions": ["what == 1"],
        "traces": {"span": []},
        "profile_conditions": ["a"],
        "profiles": {"profile": []},
    }));
    let wrong = wrong.err().expect("wrong");
    let texts: Vec<_> = wrong.iter().map(|(_, text)| text.as_str()).collect();
    let expected = [
        "inferred trace conditions \"trace_conditions\" and the settings",
        "inferred metric conditions \"metric_conditions\" and the settings",
        "inferred profile conditions \"profile_conditions\" and the settings",
        "configuring multiple configuration styles is not supported",
        "condition cannot be empty",
    ];
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    assert!(texts.iter().zip(expected).all(|(text, part)| text.contains(part)), "{texts:#?}");
}

#[tokio::test]
async fn metrics_are_dropped_by_expressions() {
    let cases = [
        ("MetricName == 'a' && Label('n') == '1'", 4),
        ("MetricName == \"a\" and HasLabel(\"n\")", 4),
        ("HasLabel('n') && Label('n') matches '[23]'", 3),
        ("MetricType == 'Histogram' || MetricName endsWith 'x'", 1),
        ("!(MetricName startsWith 'a') and not HasLabel('n')", 1),
        ("Label('n') == '' and MetricName contains 'b' and true", 1),
        ("MetricName != 'a' or false", 1),
        ("Label('n') in ['1', '3',]", 4),
        ("HasLabel('n') and Label('n') not in ['1', '3']", 3),
        ("HasLabel('n') and Label('n') not matches '^[23]' && MetricName not contains 'z'", 4),
        ("Label('n') >= '2' && Label('n') < '3'", 3),
    ];
    for (expression, expected) in cases {
        let properties = json!({"match_type": "expr", "expressions": [expression, "false"]});
        let rest = left(json!({"metrics": {"include": properties.clone()}}), metrics()).await;
        assert_eq!(rest, expected, "{expression}");
        let rest = left(json!({"metrics": {"exclude": properties}}), metrics()).await;
        assert_eq!(rest, 5 - expected, "{expression}");
    }
    // What cannot be told of one point cannot be told of the batch.
    let fails = json!({"match_type": "expr", "expressions": ["int(Label('n')) > 1"]});
    assert_eq!(left(json!({"metrics": {"include": fails}}), metrics()).await, 0);
    let none = json!({"metrics": {"include": {"match_type": "expr"}}});
    assert_eq!(left(none, metrics()).await, 5);
}
