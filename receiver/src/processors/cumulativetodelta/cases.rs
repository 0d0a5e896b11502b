//! The cases of the Collector's own tests of the processor: their input and what comes of it.

use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    metrics::v1::{
        ExponentialHistogram, Histogram, ResourceMetrics, ScopeMetrics, Sum,
        exponential_histogram_data_point::Buckets,
    },
};

use super::*;
use crate::{channel::channel, exporters::testing::context, metric::pairs};

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
const DELTA: i32 = AggregationTemporality::Delta as i32;
const NAN: f64 = f64::NAN;
/// Stands for a point without a value.
const NONE: f64 = f64::NEG_INFINITY;

fn flags(none: bool) -> u32 {
    if none { DataPointFlags::NoRecordedValueMask as u32 } else { 0 }
}

fn metric(name: &str, data: Data) -> Metric {
    Metric { name: name.into(), data: Some(data), ..Default::default() }
}

fn sum(name: &str, aggregation_temporality: i32, values: &[f64]) -> Metric {
    let point = |value: &f64| NumberDataPoint {
        time_unix_nano: 10,
        value: Some(Value::AsDouble(if *value == NONE { 0.0 } else { *value })),
        flags: flags(*value == NONE),
        ..Default::default()
    };
    let data_points = values.iter().map(point).collect();
    metric(name, Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true }))
}

fn other(name: &str, values: &[f64]) -> Metric {
    let mut metric = sum(name, CUMULATIVE, values);
    let Some(Data::Sum(data)) = &mut metric.data else { panic!("a sum") };
    data.is_monotonic = false;
    metric
}

type HistogramPoint<'a> = (u64, Option<f64>, &'a [u64], Option<(f64, f64)>);

fn histogram(name: &str, aggregation_temporality: i32, points: &[HistogramPoint<'_>]) -> Metric {
    let point = |&(count, sum, buckets, extremes): &HistogramPoint<'_>| HistogramDataPoint {
        time_unix_nano: 10,
        count,
        sum: sum.map(|sum| if sum == NONE { 0.0 } else { sum }),
        bucket_counts: buckets.into(),
        min: extremes.map(|(min, _)| min),
        max: extremes.map(|(_, max)| max),
        flags: flags(sum == Some(NONE)),
        ..Default::default()
    };
    let data_points = points.iter().map(point).collect();
    metric(name, Data::Histogram(Histogram { data_points, aggregation_temporality }))
}

/// As text, in which no number is equal to no number; times are not compared.
fn shown(metrics: &[Metric]) -> Vec<String> {
    let numbers =
        |d: &Sum| format!("{:?}", d.data_points.iter().map(|p| p.value).collect::<Vec<_>>());
    let histograms = |d: &Histogram| {
        let points = d.data_points.iter();
        let points = points.map(|p| (p.count, p.sum, &p.bucket_counts, p.min, p.max));
        format!("{:?}", points.collect::<Vec<_>>())
    };
    let one = |metric: &Metric| match &metric.data {
        Some(Data::Sum(d)) => {
            format!("{} {} {}", metric.name, d.aggregation_temporality, numbers(d))
        }
        Some(Data::Histogram(d)) => {
            format!("{} {} {}", metric.name, d.aggregation_temporality, histograms(d))
        }
        other => panic!("{other:?}"),
    };
    metrics.iter().map(one).collect()
}

async fn case(config: &str, metrics: Vec<Metric>, expected: Vec<Metric>) {
    let parsed = serde_yaml::from_str(config).expect("it can be read");
    let mut streams = Streams::new(CumulativeToDelta::new(parsed).expect("valid"), 100);
    let mut request = request(ScopeMetrics { metrics, ..Default::default() });
    streams.request(&mut request);
    assert_eq!(
        shown(&request.resource_metrics[0].scope_metrics[0].metrics),
        shown(&expected),
        "{config}"
    );
}

fn request(scope: ScopeMetrics) -> ExportMetricsServiceRequest {
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

const ALL: &str = "include: {metrics: ['.*'], match_type: regexp}";
const FIRST: &str = "include: {metrics: [metric_1], match_type: strict}";

#[tokio::test]
async fn sums() {
    let cumulative =
        |a: &[f64], b: &[f64]| vec![sum("metric_1", CUMULATIVE, a), sum("metric_2", CUMULATIVE, b)];
    let delta = |a: &[f64], b: &[f64]| vec![sum("metric_1", DELTA, a), sum("metric_2", DELTA, b)];
    let one = cumulative(&[100.0], &[4.0]);
    let none = "exclude: {metrics: ['.*'], match_type: regexp}";
    case(none, one.clone(), one.clone()).await;
    case(&format!("{ALL}\n{none}"), one.clone(), one).await;

    let first_only =
        |values: &[f64]| vec![sum("metric_1", DELTA, values), sum("metric_2", CUMULATIVE, &[4.0])];
    let input = cumulative(&[0.0, 100.0, 200.0, 500.0], &[4.0]);
    case(FIRST, input, first_only(&[100.0, 100.0, 300.0])).await;
    let input = cumulative(&[0.0, 100.0, 200.0, NAN], &[4.0]);
    let config = "include: {metrics: [_1], match_type: regexp}";
    case(config, input, first_only(&[100.0, 100.0, NAN])).await;

    let input = cumulative(&[0.0, 100.0, NONE, 200.0, 400.0], &[0.0, 100.0, NONE, NONE, 400.0]);
    case("{}", input, delta(&[100.0, 100.0, 200.0], &[100.0, 300.0])).await;
    let input = cumulative(&[0.0, 100.0, 200.0, 500.0], &[0.0, 4.0, 5.0]);
    case(ALL, input, delta(&[100.0, 100.0, 300.0], &[4.0, 1.0])).await;

    let config = format!("{ALL}\nexclude: {{metrics: [metric_1], match_type: strict}}");
    let input = cumulative(&[100.0, 200.0, 500.0], &[0.0, 4.0, 5.0]);
    let second = sum("metric_2", DELTA, &[4.0, 1.0]);
    case(&config, input.clone(), vec![input[0].clone(), second]).await;

    let second = other("metric_2", &[4.0, 5.0]);
    let input = vec![sum("metric_1", CUMULATIVE, &[0.0, 100.0, 200.0, 500.0]), second.clone()];
    case(ALL, input, vec![sum("metric_1", DELTA, &[100.0, 100.0, 300.0]), second]).await;
    let input = vec![sum("metric_1", CUMULATIVE, &[100.0, 105.0, 120.0, 100.0, 110.0])];
    case(ALL, input, vec![sum("metric_1", DELTA, &[5.0, 15.0, 10.0])]).await;
}

#[tokio::test]
async fn histograms() {
    let point = |count, buckets, extremes| (count, Some(count as f64), buckets, extremes);
    let extremes = [Some((0.0, 0.0)), Some((5.0, 800.0)), Some((2.0, 825.0)), Some((3.0, 800.0))];
    let growing = |extremes: [Option<(f64, f64)>; 4]| {
        let all: [(u64, &[u64]); 4] =
            [(0, &[0, 0, 0]), (100, &[50, 25, 25]), (200, &[100, 50, 50]), (500, &[250, 125, 125])];
        let points = all.iter().zip(extremes);
        points.map(|((count, buckets), e)| point(*count, *buckets, e)).collect::<Vec<_>>()
    };
    let grown: [HistogramPoint<'_>; 3] = [
        point(100, &[50, 25, 25], None),
        point(100, &[50, 25, 25], None),
        point(300, &[150, 75, 75], None),
    ];
    let second = histogram("metric_2", CUMULATIVE, &[point(4, &[4, 4, 4], Some((2.0, 3.0)))]);
    let check = |input: Vec<HistogramPoint<'static>>, output: Vec<HistogramPoint<'static>>| {
        let input = vec![histogram("metric_1", CUMULATIVE, &input), second.clone()];
        case(FIRST, input, vec![histogram("metric_1", DELTA, &output), second.clone()])
    };
    check(growing(extremes), grown.into()).await;
    check(growing([None; 4]), grown.into()).await;
    let mut input = growing([None; 4]);
    input[2].1 = Some(NAN);
    let mut output = grown;
    (output[1].1, output[2].1) = (Some(NAN), Some(400.0));
    check(input, output.into()).await;
    let mut input = growing([None; 4]);
    input.iter_mut().for_each(|point| point.1 = None);
    let mut output = grown;
    output.iter_mut().for_each(|point| point.1 = None);
    check(input, output.into()).await;

    let none: HistogramPoint<'_> = (0, Some(NONE), &[0, 0, 0], None);
    let zero = point(0, &[0, 0, 0], None);
    let last: HistogramPoint<'_> = (16, Some(81.0), &[21, 40, 20], None);
    let input = vec![
        histogram(
            "metric_1",
            CUMULATIVE,
            &[zero, grown[0], none, point(500, &[250, 125, 125], None)],
        ),
        histogram(
            "metric_2",
            CUMULATIVE,
            &[zero, (2, Some(3.0), &[1, 1, 1], None), none, none, last],
        ),
    ];
    let output = vec![
        histogram("metric_1", DELTA, &[grown[0], point(400, &[200, 100, 100], None)]),
        histogram(
            "metric_2",
            DELTA,
            &[(2, Some(3.0), &[1, 1, 1], None), (14, Some(78.0), &[20, 39, 19], None)],
        ),
    ];
    case("{}", input, output).await;

    let first = sum("metric_1", CUMULATIVE, &[0.0, 100.0, 200.0, 500.0]);
    for config in ["exclude: {metric_types: [sum]}", "include: {metric_types: [Histogram]}"] {
        let input = vec![first.clone(), histogram("metric_2", CUMULATIVE, &growing(extremes))];
        case(config, input, vec![first.clone(), histogram("metric_2", DELTA, &grown)]).await;
    }
    let empty = histogram("metric_1", CUMULATIVE, &[]);
    case("{}", vec![empty.clone()], vec![empty]).await;
}

/// Two scopes that differ in nothing but their schema or an attribute have streams of their own.
#[tokio::test]
async fn scopes_are_kept_apart() {
    for schema in [true, false] {
        for kind in [Kind::Sum, Kind::Histogram, Kind::Exponential] {
            let config = serde_yaml::from_str("{initial_value: drop, max_staleness: 0}");
            let processor = CumulativeToDelta::new(config.expect("it can be read"));
            let mut streams = Streams::new(processor.expect("valid"), 100);
            let mut at = |source: &str, time, value| {
                let scope = InstrumentationScope {
                    name: "partition-test".into(),
                    attributes: pairs(&[("source", if schema { "" } else { source })]),
                    ..Default::default()
                };
                let mut request = request(ScopeMetrics {
                    scope: Some(scope),
                    schema_url: if schema { source.into() } else { String::new() },
                    metrics: vec![metric("partition.count", data(kind, time, value))],
                });
                streams.request(&mut request);
                let data =
                    request.resource_metrics.pop()?.scope_metrics.pop()?.metrics.pop()?.data?;
                Some(match data {
                    Data::Sum(d) => (
                        d.data_points[0].start_time_unix_nano,
                        d.data_points[0].value == Some(Value::AsInt(2)),
                    ),
                    Data::Histogram(d) => (
                        d.data_points[0].start_time_unix_nano,
                        d.data_points[0].bucket_counts == [2, 0],
                    ),
                    Data::ExponentialHistogram(d) => {
                        let buckets = Buckets { offset: 0, bucket_counts: vec![2] };
                        (
                            d.data_points[0].start_time_unix_nano,
                            d.data_points[0].positive == Some(buckets),
                        )
                    }
                    other => panic!("{other:?}"),
                })
            };
            let got = [at("A", 20, 1), at("B", 25, 3), at("A", 40, 3)];
            assert_eq!(got, [None, None, Some((20, true))], "{schema} {kind:?}");
        }
    }
}

fn data(kind: Kind, time: u64, value: u64) -> Data {
    let (start_time_unix_nano, time_unix_nano) = (1, time);
    let aggregation_temporality = CUMULATIVE;
    match kind {
        Kind::Sum => {
            let value = Some(Value::AsInt(value as i64));
            let point = NumberDataPoint {
                start_time_unix_nano,
                time_unix_nano,
                value,
                ..Default::default()
            };
            Data::Sum(Sum { data_points: vec![point], aggregation_temporality, is_monotonic: true })
        }
        Kind::Histogram => {
            let point = HistogramDataPoint {
                start_time_unix_nano,
                time_unix_nano,
                count: value,
                sum: Some(value as f64),
                explicit_bounds: vec![1.0],
                bucket_counts: vec![value, 0],
                ..Default::default()
            };
            Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality })
        }
        Kind::Exponential => {
            let point = ExponentialHistogramDataPoint {
                start_time_unix_nano,
                time_unix_nano,
                count: value,
                sum: Some(value as f64),
                positive: Some(Buckets { offset: 0, bucket_counts: vec![value] }),
                ..Default::default()
            };
            let data_points = vec![point];
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points,
                aggregation_temporality,
            })
        }
    }
}

#[tokio::test]
async fn it_counts_what_it_converts_and_drops() {
    let one = |name: &str, time, value: f64| {
        let mut metric = sum(name, CUMULATIVE, &[value]);
        if let Some(Data::Sum(d)) = &mut metric.data {
            d.data_points[0].time_unix_nano = time;
        }
        metric
    };
    let buckets = |time, counts: &[u64]| {
        let count = counts.iter().sum();
        let mut metric = histogram("h", CUMULATIVE, &[(count, Some(count as f64), counts, None)]);
        if let Some(Data::Histogram(d)) = &mut metric.data {
            d.data_points[0].time_unix_nano = time;
        }
        metric
    };
    // Converted, dropped, streams.
    let cases = [
        (
            [100.0, 150.0, 200.0, 50.0].iter().zip(0..).map(|(v, t)| one("m", t, *v)).collect(),
            2,
            2,
            1,
        ),
        (vec![buckets(0, &[10]), buckets(1, &[20]), buckets(2, &[5])], 2, 1, 1),
        (vec![one("a", 0, 100.0), one("b", 0, 100.0), buckets(0, &[10])], 0, 3, 3),
        (vec![buckets(0, &[10]), buckets(1, &[15, 5])], 0, 2, 1),
    ];
    for (metrics, converted, dropped, tracked) in cases {
        let metrics: Vec<Metric> = metrics;
        let (cx, metered) = context("cumulativetodelta");
        let ((to, input), (out, _from)) = (channel(), channel());
        for metric in metrics {
            let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
            to.send(Batch::Metrics(request(scope))).await.expect("it has room");
        }
        drop(to);
        let processor = CumulativeToDelta::new(Config::default()).expect("valid");
        Processor::run(processor, cx, input, out).await.expect("it does not fail");
        let dropped_name = "otelcol_cumulativetodelta_datapoints_dropped";
        let all = metered.count("otelcol_cumulativetodelta_datapoints");
        assert_eq!(metered.count(dropped_name), dropped);
        assert_eq!(all - dropped, converted);
        assert_eq!(metered.gauge("otelcol_cumulativetodelta_streams_tracked"), tracked);
    }
}
