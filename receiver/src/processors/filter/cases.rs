//! The cases of the Collector's own tests of the older form of `filter`.

use opentelemetry_proto::tonic::{
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{Gauge, NumberDataPoint, ResourceMetrics, ScopeMetrics},
    resource::v1::Resource,
};
use serde_json::json;

use super::{tests::filtered, *};
use crate::metric::pairs;

/// The cases of the Collector's own tests of the older form for metrics: names by resource.
#[tokio::test]
async fn metrics_of_the_collector_s_cases() {
    let all = [
        "full_name_match",
        "not_exact_string_match",
        "prefix/test/match",
        "prefix_test_match",
        "prefixprefix/test/match",
        "test/match/suffix",
        "test_match_suffix",
        "test/match/suffixsuffix",
        "test/contains/match",
        "test_contains_match",
        "random",
        "full/name/match",
        "full_name_match",
        "not_exact_string_match",
    ];
    let one = vec![(json!({}), all.to_vec())];
    let attributes = json!({"attr1": "attr1/val1", "attr2": "attr2/val2", "attr3": "attr3/val3"});
    let with_attributes = vec![(attributes, vec!["metric1", "metric2"])];
    let two = vec![
        (json!({"attr1": "attr1/val1"}), vec!["metric1", "metric2"]),
        (json!({"attr1": "attr1/val2"}), vec!["metric3", "metric4"]),
    ];
    let patterns = json!({"match_type": "regexp", "metric_names": ["prefix/.*", "prefix_.*", ".*/suffix",
        ".*_suffix", ".*/contains/.*", ".*_contains_.*", "full/name/match", "full_name_match"]});
    let some = json!({"match_type": "strict", "metric_names": ["prefix_test_match", "test_contains_match"]});
    let empty = json!({"match_type": "strict"});
    let properties = |kind: &str, names: &[&str]| {
        json!({"match_type": kind, "metric_names": names,
            "resource_attributes": [{"key": "attr1", "value": "attr1/val1"}]})
    };
    let kept =
        |drop: &[&str]| all.iter().filter(|n| !drop.contains(n)).copied().collect::<Vec<_>>();
    let matched = kept(&["not_exact_string_match", "random"]);
    let less =
        kept(&["not_exact_string_match", "random", "prefix_test_match", "test_contains_match"]);
    let first = vec![vec!["metric1", "metric2"]];
    let cases = [
        (json!({"include": patterns}), &one, vec![matched]),
        (
            json!({"exclude": patterns}),
            &one,
            vec![vec!["not_exact_string_match", "random", "not_exact_string_match"]],
        ),
        (json!({"include": patterns, "exclude": some}), &one, vec![less]),
        (json!({"include": empty}), &one, vec![all.to_vec()]),
        (json!({"exclude": empty}), &one, vec![all.to_vec()]),
        (json!({"exclude": empty}), &with_attributes, first.clone()),
        (
            json!({"include": properties("strict", &["metric1", "metric2"])}),
            &with_attributes,
            first.clone(),
        ),
        (
            json!({"include": properties("strict", &["metric1", "metric2", "metric3", "metric4"])}),
            &two,
            first.clone(),
        ),
        (json!({"exclude": properties("strict", &[])}), &two, vec![vec!["metric3", "metric4"]]),
        (json!({"include": properties("regexp", &[".*"])}), &two, first.clone()),
        (json!({"include": properties("regexp", &[])}), &two, first.clone()),
        (json!({"include": properties("strict", &["metric1", "metric2"])}), &two, first.clone()),
        (json!({"include": properties("strict", &[])}), &two, first),
    ];
    for (config, given, expected) in cases {
        let metric = |name: &&str| {
            let data_points = vec![NumberDataPoint::default()];
            let data = Some(Data::Gauge(Gauge { data_points }));
            Metric { name: (*name).to_owned(), data, ..Default::default() }
        };
        let resource_metrics = given.iter().map(|(attributes, names)| ResourceMetrics {
            resource: Some(with(attributes)),
            scope_metrics: vec![ScopeMetrics {
                metrics: names.iter().map(metric).collect(),
                ..Default::default()
            }],
            ..Default::default()
        });
        let request = ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() };
        let (rest, _) = filtered(json!({"metrics": config.clone()}), Batch::Metrics(request)).await;
        let Some(Batch::Metrics(rest)) = rest else { panic!("{config}") };
        let names: Vec<Vec<&str>> = rest
            .resource_metrics
            .iter()
            .map(|of| of.scope_metrics[0].metrics.iter().map(|m| m.name.as_str()).collect())
            .collect();
        assert_eq!(names, expected, "{config}");
    }
}

/// A resource with these attributes.
fn with(attributes: &serde_json::Value) -> Resource {
    let attributes: std::collections::BTreeMap<String, String> =
        serde_json::from_value(attributes.clone()).expect("texts");
    let pair = |(key, value): (&String, &String)| pairs(&[(key, value)]).remove(0);
    Resource { attributes: attributes.iter().map(pair).collect(), ..Default::default() }
}

/// The cases of the Collector's own tests of the older form for log records: which of them are left.
#[tokio::test]
async fn log_records_of_the_collector_s_cases() {
    type Given<'a> = (&'a str, &'a str, &'a str, i32, &'a str);
    // Attribute of the resource, of the record, severity text and number, body.
    let resources: &[Given<'_>] = &[
        ("attr/val1", "rec/val1", "", 0, ""),
        ("attr/val2", "rec/val2", "", 0, ""),
        ("attr/val3", "rec/val5", "", 0, ""),
        ("attr/val4", "", "", 0, ""),
    ];
    let severities: &[Given<'_>] = &[
        ("", "", "DEBUG", 5, "This is a log body"),
        ("", "", "DEBUG2", 9, "This is also a log body"),
        ("", "", "INFO", 17, "test1"),
        ("", "", "WARN", 0, "test2"),
    ];
    let attribute = |kind: &str, value: &str| json!({"match_type": kind, "resource_attributes": [{"key": "attr", "value": value}]});
    let record = |value: &str| json!({"match_type": "regexp", "record_attributes": [{"key": "rec", "value": value}]});
    let texts = |kind: &str, texts: &[&str]| json!({"match_type": kind, "severity_texts": texts});
    let bodies = |kind: &str, texts: &[&str]| json!({"match_type": kind, "bodies": texts});
    let least = |min: &str, undefined: bool| json!({"match_type": "regexp", "severity_number": {"min": min, "match_undefined": undefined}});
    let empty = json!({"match_type": "strict", "resource_attributes": []});
    let cases = [
        (json!({"include": empty}), resources, vec![0, 1, 2, 3]),
        (json!({"exclude": empty}), resources, vec![0, 1, 2, 3]),
        (json!({"include": empty, "exclude": empty}), resources, vec![0, 1, 2, 3]),
        (json!({"include": attribute("strict", "attr/val2")}), resources, vec![1]),
        (json!({"exclude": attribute("strict", "attr/val1")}), resources, vec![1, 2, 3]),
        (
            json!({"include": attribute("strict", "attr/val2"), "exclude": attribute("strict", "attr/val1")}),
            resources,
            vec![1],
        ),
        (json!({"include": attribute("regexp", "attr/val(2|3)")}), resources, vec![1, 2]),
        (json!({"include": attribute("regexp", "attr/val[234]")}), resources, vec![1, 2, 3]),
        (json!({"include": attribute("regexp", "attr/val.*")}), resources, vec![0, 1, 2, 3]),
        (json!({"exclude": attribute("regexp", "attr/val[23]")}), resources, vec![0, 3]),
        (json!({"include": record("rec/val[1]")}), resources, vec![0]),
        (json!({"include": record("rec/val[^2]")}), resources, vec![0, 2]),
        (json!({"include": record("rec/val[1|2]")}), resources, vec![0, 1]),
        (json!({"include": record("rec/val[1|5]")}), resources, vec![0, 2]),
        (json!({"include": texts("strict", &["INFO", "DEBUG2"])}), severities, vec![1, 2]),
        (json!({"include": texts("regexp", &["DEBUG[1-4]?"])}), severities, vec![0, 1]),
        (json!({"exclude": texts("strict", &["INFO", "DEBUG"])}), severities, vec![1, 3]),
        (json!({"exclude": texts("regexp", &["^[DI]"])}), severities, vec![3]),
        (
            json!({"include": bodies("strict", &["test1", "test2", "no match"])}),
            severities,
            vec![2, 3],
        ),
        (json!({"include": bodies("regexp", &["^This"])}), severities, vec![0, 1]),
        (
            json!({"exclude": bodies("strict", &["test1", "test2", "no match"])}),
            severities,
            vec![0, 1],
        ),
        (json!({"exclude": bodies("regexp", &["^This"])}), severities, vec![2, 3]),
        (json!({"include": least("INFO", false)}), severities, vec![1, 2]),
        (json!({"include": least("DEBUG", false)}), severities, vec![0, 1, 2]),
        (json!({"include": least("FATAL", true)}), severities, vec![3]),
        (json!({"exclude": least("INFO", false)}), severities, vec![0, 3]),
        (json!({"exclude": least("TRACE", false)}), severities, vec![3]),
        (json!({"exclude": least("INFO", true)}), severities, vec![0]),
    ];
    for (config, given, expected) in cases {
        let resource_logs =
            given.iter().enumerate().map(|(i, (resource, record, text, severity_number, body))| {
                let attributes =
                    if record.is_empty() { Vec::new() } else { pairs(&[("rec", record)]) };
                let log = LogRecord {
                    time_unix_nano: i as u64,
                    severity_text: (*text).into(),
                    severity_number: *severity_number,
                    attributes,
                    body: Some(crate::value::from_config(&json!(body))),
                    ..Default::default()
                };
                ResourceLogs {
                    resource: Some(with(&json!({"attr": resource}))),
                    scope_logs: vec![ScopeLogs { log_records: vec![log], ..Default::default() }],
                    ..Default::default()
                }
            });
        let request = ExportLogsServiceRequest { resource_logs: resource_logs.collect() };
        let (rest, _) = filtered(json!({"logs": config.clone()}), Batch::Logs(request)).await;
        let Some(Batch::Logs(rest)) = rest else { panic!("{config}") };
        let parts =
            rest.resource_logs.iter().map(|of| of.scope_logs[0].log_records[0].time_unix_nano);
        assert_eq!(parts.collect::<Vec<_>>(), expected, "{config}");
    }
}
