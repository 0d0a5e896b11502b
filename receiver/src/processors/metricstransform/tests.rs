//! The cases of the Collector's own tests, and what they leave out.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
        HistogramDataPoint, NumberDataPoint, Sum, exemplar,
        exponential_histogram_data_point::Buckets, number_data_point::Value,
    },
    resource::v1::Resource,
};
use serde::Deserialize;
use serde_yaml::Value as Yaml;

use super::*;
use crate::{channel::channel, exporters::testing::context, metric::pairs};

#[derive(Deserialize)]
struct Case {
    name: String,
    transforms: Yaml,
    r#in: Vec<Given>,
    out: Vec<Given>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Given {
    name: String,
    r#type: String,
    unit: String,
    description: String,
    points: Vec<Vec<Yaml>>,
}

fn number(yaml: &Yaml) -> f64 {
    yaml.as_f64().expect("a number")
}

fn numbers(yaml: &Yaml) -> Vec<f64> {
    yaml.as_sequence().expect("a list").iter().map(number).collect()
}

fn attributes(point: &[Yaml]) -> Vec<KeyValue> {
    let Some(labels) = point.get(3) else { return Vec::new() };
    let labels: BTreeMap<String, String> =
        serde_yaml::from_value(labels.clone()).expect("attributes");
    let pair = |(key, value): (String, String)| {
        crate::metric::key_value(&key, any_value::Value::StringValue(value))
    };
    labels.into_iter().map(pair).collect()
}

impl Given {
    fn metric(self) -> Metric {
        let time = |yaml: &Yaml| yaml.as_u64().expect("a time");
        let scalar = |point: &Vec<Yaml>| NumberDataPoint {
            start_time_unix_nano: time(&point[0]),
            time_unix_nano: time(&point[1]),
            value: Some(match point[2].as_i64() {
                Some(value) => Value::AsInt(value),
                None => Value::AsDouble(number(&point[2])),
            }),
            attributes: attributes(point),
            ..Default::default()
        };
        let histogram = |point: &Vec<Yaml>| {
            let value = point[2].as_sequence().expect("a histogram");
            let exemplar = |value: f64| Exemplar {
                value: Some(exemplar::Value::AsDouble(value)),
                ..Default::default()
            };
            let exemplars = value.get(6).map(numbers).unwrap_or_default();
            HistogramDataPoint {
                start_time_unix_nano: time(&point[0]),
                time_unix_nano: time(&point[1]),
                count: time(&value[0]),
                sum: Some(number(&value[1])),
                explicit_bounds: numbers(&value[2]),
                bucket_counts: numbers(&value[3]).into_iter().map(|n| n as u64).collect(),
                min: value.get(4).map(number),
                max: value.get(5).map(number),
                exemplars: exemplars.into_iter().map(exemplar).collect(),
                attributes: attributes(point),
                ..Default::default()
            }
        };
        let points = self.points.iter();
        let sum = |aggregation_temporality| {
            let data_points = self.points.iter().map(scalar).collect();
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
        };
        let data = match self.r#type.as_str() {
            "" => Data::Gauge(Gauge { data_points: points.map(scalar).collect() }),
            "sum" => sum(2),
            "delta" => sum(1),
            "histogram" => Data::Histogram(Histogram {
                data_points: points.map(histogram).collect(),
                aggregation_temporality: 2,
            }),
            other => panic!("{other}"),
        };
        Metric {
            name: self.name,
            unit: self.unit,
            description: self.description,
            data: Some(data),
            ..Default::default()
        }
    }
}

fn processor(transforms: &str) -> MetricsTransform {
    let transforms: Yaml = serde_yaml::from_str(transforms).expect("YAML");
    made(transforms).expect("valid")
}

fn made(transforms: Yaml) -> Result<MetricsTransform, Mistakes> {
    let config = Config { transforms: serde_yaml::from_value(transforms).expect("of the types") };
    MetricsTransform::new(config)
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let part = ScopeMetrics { metrics, ..Default::default() };
    let of = ResourceMetrics { scope_metrics: vec![part], ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of] }
}

fn transformed(mut processor: MetricsTransform, metrics: Vec<Metric>) -> Vec<Metric> {
    let mut request = request(metrics);
    processor.request(&mut request);
    let parts = request.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
    parts.flat_map(|part| part.metrics).collect()
}

/// Attributes have no order.
fn sorted(mut metrics: Vec<Metric>) -> Vec<Metric> {
    for metric in &mut metrics {
        each_point(metric, &mut |attributes| attributes.sort_by(|a, b| a.key.cmp(&b.key)));
    }
    metrics
}

#[test]
fn the_collector_s_cases() {
    let cases: Yaml = serde_yaml::from_str(include_str!("cases.yaml")).expect("YAML");
    let cases: Vec<Case> = serde_yaml::from_value(cases).expect("cases");
    assert!(cases.len() > 60, "{}", cases.len());
    for case in cases {
        let metrics = |given: Vec<Given>| given.into_iter().map(Given::metric).collect();
        let processor = made(case.transforms).unwrap_or_else(|e| panic!("{}: {e:?}", case.name));
        let out = transformed(processor, metrics(case.r#in));
        assert_eq!(sorted(out), sorted(metrics(case.out)), "{}", case.name);
    }
}

fn gauge(name: &str, points: &[(&[(&str, &str)], i64)]) -> Metric {
    let point = |(attributes, value): &(&[(&str, &str)], i64)| NumberDataPoint {
        attributes: pairs(attributes),
        value: Some(Value::AsInt(*value)),
        ..Default::default()
    };
    let data_points = points.iter().map(point).collect();
    Metric {
        name: name.to_owned(),
        data: Some(Data::Gauge(Gauge { data_points })),
        ..Default::default()
    }
}

#[test]
fn groups_have_a_resource_of_their_own() {
    let mut processor = processor(
        "[{include: '^container.(.*)$', match_type: regexp, action: group,
            group_resource_labels: {resource.type: container}},
          {include: '^k8s.pod.(.*)$', match_type: regexp, action: group,
            group_resource_labels: {resource.type: k8s.pod}},
          {include: nothing, action: group, group_resource_labels: {}}]",
    );
    let names = ["container.cpu", "k8s.pod.cpu", "container.memory", "other"];
    let mut request = request(names.map(|name| gauge(name, &[(&[], 1)])).into());
    let of = &mut request.resource_metrics[0];
    let host = pairs(&[("host", "one")]);
    of.resource = Some(Resource { attributes: host.clone(), ..Default::default() });
    of.schema_url = "resource schema".into();
    of.scope_metrics[0].schema_url = "scope schema".into();
    let scope = InstrumentationScope { name: "scope".into(), ..Default::default() };
    of.scope_metrics[0].scope = Some(scope.clone());
    processor.request(&mut request);
    let got: Vec<_> = request
        .resource_metrics
        .iter()
        .map(|of| {
            assert_eq!((of.schema_url.as_str(), of.scope_metrics.len()), ("resource schema", 1));
            let part = &of.scope_metrics[0];
            assert_eq!(part.schema_url, "scope schema");
            assert_eq!(part.scope.as_ref(), Some(&scope));
            let names = part.metrics.iter().map(|m| m.name.as_str()).collect::<Vec<_>>();
            (of.resource.clone().expect("it has one").attributes, names)
        })
        .collect();
    let with = |kind| [host.clone(), pairs(&[("resource.type", kind)])].concat();
    let expected = [
        (host.clone(), vec!["other"]),
        (with("container"), vec!["container.cpu", "container.memory"]),
        (with("k8s.pod"), vec!["k8s.pod.cpu"]),
    ];
    assert_eq!(got, expected);
}

#[test]
fn only_points_that_are_meant_are_combined_and_grouped() {
    let metric = || gauge("a", &[(&[("l", "x")], 1), (&[("l", "y")], 2)]);
    let combined = processor(
        "[{include: a, action: combine, new_name: b, aggregation_type: sum,
           experimental_match_labels: {l: x}}]",
    );
    assert_eq!(transformed(combined, vec![metric()]), [gauge("b", &[(&[("l", "x")], 1)])]);
    let grouped = processor(
        "[{include: a, action: group, group_resource_labels: {g: h},
           experimental_match_labels: {l: y}}]",
    );
    assert_eq!(transformed(grouped, vec![metric()]), [gauge("a", &[(&[("l", "y")], 2)])]);
}

#[test]
fn points_are_added_unless_it_is_said_otherwise() {
    let two = || vec![gauge("a", &[(&[("l", "x")], 1), (&[("l", "y")], 2)])];
    let update = |operation: &str| {
        processor(&format!("[{{include: a, action: update, operations: [{{{operation}}}]}}]"))
    };
    let labels = update("action: aggregate_labels, label_set: []");
    assert_eq!(transformed(labels, two()), [gauge("a", &[(&[], 3)])]);
    let values =
        "action: aggregate_label_values, label: l, aggregated_values: [x, y], new_value: z";
    assert_eq!(transformed(update(values), two()), [gauge("a", &[(&[("l", "z")], 3)])]);
}

#[test]
fn a_label_that_takes_another_s_name_takes_its_place() {
    let processor = processor(
        "[{include: a, action: update, operations: [
            {action: update_label, label: l, new_label: m, value_actions: [{value: x, new_value: 'v{{version}}'}]},
            {action: update_label, label: m, new_label: m}]}]",
    );
    let out = transformed(processor, vec![gauge("a", &[(&[("l", "x"), ("m", "y")], 1)])]);
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    assert_eq!(out, [gauge("a", &[(&[("m", version)], 1)])]);
}

fn exponential(points: &[(&str, f64, i32, &[u64])]) -> Metric {
    let point =
        |&(label, sum, offset, counts): &(&str, f64, i32, &[u64])| ExponentialHistogramDataPoint {
            attributes: pairs(&[("l", label)]),
            count: counts.iter().sum::<u64>() + 1,
            sum: Some(sum),
            scale: 1,
            zero_count: 1,
            zero_threshold: 0.5,
            min: Some(sum),
            positive: Some(Buckets { offset, bucket_counts: counts.into() }),
            ..Default::default()
        };
    let data_points = points.iter().map(point).collect();
    let data = ExponentialHistogram { data_points, aggregation_temporality: 2 };
    Metric { name: "a".into(), data: Some(Data::ExponentialHistogram(data)), ..Default::default() }
}

fn exponential_points(metrics: Vec<Metric>) -> Vec<ExponentialHistogramDataPoint> {
    let data = metrics.into_iter().next().and_then(|metric| metric.data);
    let Some(Data::ExponentialHistogram(data)) = data else { panic!("another kind") };
    data.data_points
}

#[test]
fn exponential_histograms_are_added_and_scaled() {
    let sum = "[{include: a, action: update, operations: [
        {action: aggregate_labels, label_set: [], aggregation_type: mean}]}]";
    let all: [(&str, f64, i32, &[u64]); 4] = [
        ("x", 3.0, 2, &[1, 2]),
        ("y", 5.0, 2, &[1, 0, 7]),
        ("z", 9.0, 3, &[1]),
        ("", 1.0, -1, &[4]),
    ];
    let points = exponential_points(transformed(processor(sum), vec![exponential(&all)]));
    let [joined] = points.as_slice() else { panic!("{points:?}") };
    assert_eq!(
        (joined.count, joined.zero_count, joined.sum, joined.min),
        (20, 4, Some(18.0), Some(1.0))
    );
    let buckets = Buckets { offset: -1, bucket_counts: vec![4, 0, 0, 2, 3, 7] };
    assert_eq!((joined.scale, &joined.positive), (1, &Some(buckets)));

    // A coarser one, without a sum, as those with negative values are: two buckets become one.
    let mut mixed = exponential(&all);
    if let Some(Data::ExponentialHistogram(data)) = &mut mixed.data {
        (data.data_points[3].scale, data.data_points[3].sum) = (0, None);
    }
    let points = exponential_points(transformed(processor(sum), vec![mixed]));
    let [joined] = points.as_slice() else { panic!("{points:?}") };
    assert_eq!((joined.scale, joined.count, joined.sum), (0, 20, Some(17.0)));
    let counts: Vec<u64> = joined.positive.iter().flat_map(|b| b.bucket_counts.clone()).collect();
    assert_eq!(counts, [4, 0, 5, 7]);

    let scale = "[{include: a, action: update, operations: [
        {action: experimental_scale_value, experimental_scale: 4}]}]";
    let points = exponential_points(transformed(processor(scale), vec![exponential(&all[..1])]));
    // Four is two octaves, of two buckets each.
    assert_eq!(points[0].positive, Some(Buckets { offset: 6, bucket_counts: vec![1, 2] }));
    assert_eq!(
        (points[0].sum, points[0].min, points[0].zero_threshold),
        (Some(12.0), Some(12.0), 2.0)
    );
}

#[tokio::test]
async fn a_block_of_which_nothing_is_left_is_not_sent() {
    let (cx, _metered) = context("metricstransform");
    let ((to, input), (out, mut from)) = (channel(), channel());
    for metrics in [vec![gauge("a", &[(&[("l", "x")], 1)])], vec![gauge("b", &[(&[], 1)])]] {
        to.send(Batch::Metrics(request(metrics))).await.expect("it has room");
    }
    drop(to);
    let processor = processor(
        "[{include: a, action: update, operations: [
            {action: delete_label_value, label: l, label_value: x}]}]",
    );
    Processor::run(processor, cx, input, out).await.expect("it does not fail");
    let rest = Batch::Metrics(request(vec![gauge("b", &[(&[], 1)])]));
    assert_eq!(from.recv().await, Some(rest));
    assert_eq!(from.recv().await, None);
}

/// The cases of the Collector's own tests of the configuration.
#[test]
fn mistakes_have_the_collector_s_text() {
    let missing = |key: &str, action: &str| {
        format!("missing required field {key:?} while \"action\" is {action}")
    };
    let aggregations =
        r#""aggregation_type" must be in ["sum" "mean" "min" "max" "median" "count"]"#;
    let operations = r#"operation 1: "action" must be in ["add_label" "update_label" "delete_label_value" "toggle_scalar_data_type" "experimental_scale_value" "aggregate_labels" "aggregate_label_values"]"#;
    let operation = |text: &str| format!("include: a, action: update, operations: [{{{text}}}]");
    for (transform, path, message) in [
        ("action: update".into(), "include", "missing required field \"include\"".into()),
        ("include: a, action: insert".into(), "new_name", missing("new_name", "insert")),
        (
            "include: a, action: group".into(),
            "group_resource_labels",
            missing("group_resource_labels", "group"),
        ),
        (
            "include: a, action: combine, aggregation_type: sum".into(),
            "new_name",
            missing("new_name", "combine"),
        ),
        (
            "include: a, action: combine, new_name: b".into(),
            "aggregation_type",
            missing("aggregation_type", "combine"),
        ),
        (
            "include: a, action: invalid".into(),
            "action",
            r#""action" must be in ["insert" "update" "combine" "group"]"#.into(),
        ),
        (
            "include: a, action: update, match_type: invalid".into(),
            "match_type",
            r#""match_type" must be in ["strict" "regexp"]"#.into(),
        ),
        (
            "include: 'old[\\da', action: update, match_type: regexp".into(),
            "include",
            "\"include\", error parsing regexp: missing closing ]: `[\\da`".into(),
        ),
        (
            "include: a, action: update, aggregation_type: invalid".into(),
            "aggregation_type",
            aggregations.into(),
        ),
        (
            "include: a, action: update, submatch_case: invalid".into(),
            "submatch_case",
            r#""submatch_case" must be in ["lower" "upper"]"#.into(),
        ),
        (operation("action: invalid"), "operations::0::action", operations.into()),
        (
            operation("action: update_label"),
            "operations::0::label",
            format!("operation 1: {}", missing("label", "update_label")),
        ),
        (
            operation("action: add_label, new_value: b"),
            "operations::0::new_label",
            format!("operation 1: {}", missing("new_label", "add_label")),
        ),
        (
            operation("action: add_label, new_label: b"),
            "operations::0::new_value",
            format!("operation 1: {}", missing("new_value", "add_label")),
        ),
        (
            operation("action: experimental_scale_value"),
            "operations::0::experimental_scale",
            format!("operation 1: {}", missing("experimental_scale", "experimental_scale_value")),
        ),
        (
            operation("action: aggregate_labels, aggregation_type: x"),
            "operations::0::aggregation_type",
            format!("operation 1: {aggregations}"),
        ),
    ] {
        let transform: String = transform;
        let message: String = message;
        let transforms = serde_yaml::from_str(&format!("[{{{transform}}}]")).expect("YAML");
        let Err(Mistakes(wrong)) = made(transforms) else { panic!("{transform} is valid") };
        let got: Vec<_> = wrong.iter().map(|w| (w.path.clone(), w.message.clone())).collect();
        assert_eq!(got, [(format!("transforms::0::{path}"), message)], "{transform}");
    }
}
