//! Tests of the subtraction.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, Gauge as ProtoGauge, Histogram, ResourceMetrics, ScopeMetrics, Sum,
    exponential_histogram_data_point::Buckets,
};

use super::*;
use crate::{
    channel::channel,
    exporters::testing::context,
    processors::deltatocumulative::{self, DeltaToCumulative},
};

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// A bench of an agent that started at 100.
fn streams(yaml: &str) -> Streams {
    let config = serde_yaml::from_str(yaml).expect("it can be read");
    Streams::new(CumulativeToDelta::new(config).expect("valid"), 100)
}

fn request(name: &str, data: Data) -> ExportMetricsServiceRequest {
    let metric = Metric { name: name.into(), data: Some(data), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

fn pass(streams: &mut Streams, name: &str, data: Data) -> Option<Data> {
    let mut request = request(name, data);
    streams.request(&mut request);
    request.resource_metrics.pop()?.scope_metrics.pop()?.metrics.pop()?.data
}

fn sum(data_points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true })
}

/// Passes one point; returns start and value of what came since.
fn number(streams: &mut Streams, start: u64, time: u64, value: f64) -> Option<(u64, f64)> {
    let point = NumberDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: time,
        value: Some(Value::AsDouble(value)),
        ..Default::default()
    };
    let Data::Sum(sum) = pass(streams, "m", sum(vec![point]))? else { panic!("another kind") };
    assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Delta);
    match sum.data_points[0].value {
        Some(Value::AsDouble(value)) => Some((sum.data_points[0].start_time_unix_nano, value)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_delta_is_what_came_since() {
    let mut s = streams("{}");
    assert_eq!(number(&mut s, 50, 110, 5.0), None, "it counts from before the agent");
    assert_eq!(number(&mut s, 50, 120, 7.5), Some((110, 2.5)));
    assert_eq!(number(&mut s, 50, 115, 6.0), None, "it is older");
    assert_eq!(number(&mut s, 50, 130, 8.0), Some((120, 0.5)));
    assert_eq!(number(&mut s, 50, 140, 1.0), None, "it fell");
    assert_eq!(number(&mut s, 50, 150, 3.0), Some((140, 2.0)), "and is the new base");
    assert_eq!(number(&mut s, 151, 160, 4.0), Some((151, 4.0)), "a new start is known to be zero");
    let reasons = [Dropped::Initial, Dropped::OutOfOrder, Dropped::Reset];
    assert_eq!(s.converted, HashMap::from([(Kind::Sum, 4)]));
    assert_eq!(s.dropped, reasons.map(|reason| ((Kind::Sum, reason), 1)).into());
}

/// The cases of the Collector's own test of the first value.
#[tokio::test]
async fn the_first_value() {
    for (config, start, time, expected) in [
        ("auto", 0, 110, None),
        ("auto", 90, 110, None),
        ("auto", 110, 110, None),
        ("auto", 105, 110, Some((105, 1.0))),
        ("keep", 0, 110, Some((0, 1.0))),
        ("keep", 110, 110, Some((110, 1.0))),
        ("drop", 105, 110, None),
    ] {
        let mut s = streams(&format!("initial_value: {config}"));
        assert_eq!(number(&mut s, start, time, 1.0), expected, "{config} {start}");
    }
}

#[tokio::test]
async fn what_is_not_chosen_passes() {
    let config = "
        include: {match_type: regexp, metrics: ['^a', 'z$'], metric_types: [Sum]}
        exclude: {match_type: strict, metrics: [ab]}";
    let mut s = streams(config);
    let point = NumberDataPoint { value: Some(Value::AsInt(1)), ..Default::default() };
    for (name, converted) in [("a", true), ("xz", true), ("ab", false), ("b", false)] {
        let data = sum(vec![point.clone()]);
        // The first point of what is converted is dropped.
        assert_eq!(pass(&mut s, name, data.clone()), (!converted).then_some(data), "{name}");
    }
    let histogram = Data::Histogram(Histogram {
        data_points: vec![HistogramDataPoint::default()],
        aggregation_temporality: CUMULATIVE,
    });
    assert_eq!(pass(&mut s, "a", histogram.clone()), Some(histogram.clone()), "no sum");
    let mut s = streams("exclude: {metric_types: [histogram]}");
    assert_eq!(pass(&mut s, "a", histogram.clone()), Some(histogram));
    let mut varying = sum(vec![point.clone()]);
    if let Data::Sum(sum) = &mut varying {
        sum.is_monotonic = false;
    }
    assert_eq!(pass(&mut s, "a", varying.clone()), Some(varying));
    let gauge = Data::Gauge(ProtoGauge { data_points: vec![point.clone()] });
    assert_eq!(pass(&mut s, "a", gauge.clone()), Some(gauge));
    let flags = DataPointFlags::NoRecordedValueMask as u32;
    assert_eq!(pass(&mut s, "a", sum(vec![NumberDataPoint { flags, ..point }])), None);
    assert_eq!(s.dropped, HashMap::from([((Kind::Sum, Dropped::NoValue), 1)]));
}

#[tokio::test]
async fn a_histogram_with_other_buckets_is_a_new_base() {
    let mut s = streams("initial_value: keep");
    let mut at = |time, bound, bucket_counts: [u64; 2]| {
        let point = HistogramDataPoint {
            time_unix_nano: time,
            count: bucket_counts.iter().sum(),
            sum: Some(time as f64),
            min: Some(1.0),
            explicit_bounds: vec![bound],
            bucket_counts: bucket_counts.into(),
            ..Default::default()
        };
        let data_points = vec![point];
        let data = Data::Histogram(Histogram { data_points, aggregation_temporality: CUMULATIVE });
        let Data::Histogram(mut out) = pass(&mut s, "m", data)? else { panic!("another kind") };
        let p = out.data_points.remove(0);
        Some((p.count, p.sum, p.min, p.bucket_counts))
    };
    at(1, 1.0, [1, 1]);
    assert_eq!(at(2, 1.0, [2, 4]), Some((4, Some(1.0), None, vec![1, 3])));
    assert_eq!(at(3, 7.0, [3, 4]), None);
    assert_eq!(at(4, 7.0, [4, 4]), Some((1, Some(1.0), None, vec![1, 0])));
    assert_eq!(at(5, 7.0, [1, 0]), Some((1, Some(5.0), None, vec![1, 0])), "it began anew");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_forgotten() {
    let mut s = streams("{max_staleness: 1m, initial_value: drop}");
    number(&mut s, 105, 110, 1.0);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(number(&mut s, 105, 120, 2.0), None);
    let mut s = streams("{max_staleness: 0, initial_value: drop}");
    number(&mut s, 105, 110, 1.0);
    tokio::time::advance(Duration::from_secs(1_000_000)).await;
    assert_eq!(number(&mut s, 105, 120, 2.0), Some((110, 1.0)));
}

/// The cases of the Collector's own test of the configuration.
#[test]
fn mistakes_are_told_as_the_collector_tells_them() {
    for (yaml, path, message) in [
        (
            "include: {metric_types: [gauge]}",
            "include::metric_types",
            "found invalid metric type in include.metric_types: gauge. Valid values are \
             [sum histogram exponentialhistogram]",
        ),
        (
            "exclude: {metric_types: [Invalid]}",
            "exclude::metric_types",
            "found invalid metric type in exclude.metric_types: Invalid. Valid values are \
             [sum histogram exponentialhistogram]",
        ),
        (
            "include: {metrics: [a]}",
            "include::match_type",
            "match_type must be set if metrics are supplied",
        ),
        (
            "exclude: {match_type: strict}",
            "exclude::metrics",
            "metrics must be supplied if match_type is set",
        ),
        (
            "max_staleness: 300",
            "max_staleness",
            "max_staleness (300ns) appears to be missing a unit suffix; did you mean '300s' or \
             '5m0s'? Use '0' for infinite retention",
        ),
        (
            "max_staleness: 999999",
            "max_staleness",
            "max_staleness (999.999µs) is unreasonably small; duration values require a unit \
             suffix (e.g., '300s', '5m', '1h') or use '0' for infinite retention",
        ),
        ("max_streams: 0", "max_streams", "must be a positive number"),
        (
            "include: {match_type: glob, metrics: [a]}",
            "include::match_type",
            "unrecognized match_type: 'glob', valid types are: [regexp strict]",
        ),
    ] {
        let config = serde_yaml::from_str(yaml).expect("it can be read");
        let Err(Mistakes(mistakes)) = CumulativeToDelta::new(config) else { panic!("{yaml}") };
        assert_eq!((mistakes[0].path.as_str(), mistakes[0].message.as_str()), (path, message));
    }
    let error = serde_yaml::from_str::<Config>("initial_value: some").expect_err("no such value");
    assert!(error.to_string().contains("unknown initial_value: some"), "{error}");
}

#[tokio::test]
async fn no_more_streams_than_allowed_are_known() {
    let mut s = streams("{max_streams: 1, initial_value: keep}");
    let point = |name: &str| NumberDataPoint {
        attributes: crate::metric::pairs(&[("name", name)]),
        value: Some(Value::AsInt(1)),
        ..Default::default()
    };
    assert!(pass(&mut s, "m", sum(vec![point("a")])).is_some());
    assert_eq!(pass(&mut s, "m", sum(vec![point("b")])), None);
    assert!(pass(&mut s, "m", sum(vec![point("a")])).is_some());
    assert_eq!(s.dropped, HashMap::from([((Kind::Sum, Dropped::Limit), 1)]));
}

async fn run<P: Processor>(processor: P, batches: Vec<Batch>) -> Vec<Batch> {
    let (cx, _metered) = context(P::NAME);
    let (to, input) = channel();
    let (out, mut from) = channel();
    let task = tokio::spawn(Processor::run(processor, cx, input, out));
    let feed = tokio::spawn(async move {
        for batch in batches {
            to.send(batch).await.expect("it takes batches");
        }
    });
    let mut got = Vec::new();
    while let Some(batch) = from.recv().await {
        got.push(batch);
    }
    feed.await.expect("all was sent");
    task.await.expect("it ends").expect("without an error");
    got
}

/// A receiver starts before the processors that it leads to run: its first points are still all new.
#[tokio::test]
async fn what_counts_from_before_it_runs_is_not_lost() {
    let made = CumulativeToDelta::new(Config::default()).expect("valid");
    let start = nanos(SystemTime::now());
    let point = |name: &str, start| NumberDataPoint {
        attributes: crate::metric::pairs(&[("name", name)]),
        start_time_unix_nano: start,
        time_unix_nano: start + 2_000_000_000,
        value: Some(Value::AsInt(7)),
        ..Default::default()
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    let earlier = start - 1_000_000_000;
    let points = vec![point("new", start), point("old", earlier)];
    let got = run(made, vec![Batch::Metrics(request("m", sum(points)))]).await;
    let [Batch::Metrics(got)] = got.as_slice() else { panic!("{got:?}") };
    let data = &got.resource_metrics[0].scope_metrics[0].metrics[0].data;
    let Some(Data::Sum(sum)) = data else { panic!("{data:?}") };
    assert_eq!(sum.data_points, [point("new", start)]);
}

/// What `deltatocumulative` makes of the deltas is what was there before.
#[tokio::test]
async fn deltas_add_up_to_what_they_came_from() {
    let mut random = fastrand::Rng::with_seed(17);
    for _ in 0..20 {
        let start = nanos(SystemTime::now()) + 1_000_000_000_000;
        let (mut total, mut counts, mut sums) = (0_i64, vec![0_u64; 16], 0.0);
        let mut batches = Vec::new();
        for step in 1..30 {
            for _ in 0..random.usize(0..5) {
                let bucket = random.usize(0..16);
                (counts[bucket], total) = (counts[bucket] + 1, total + random.i64(0..100));
                sums += bucket as f64;
            }
            let (count, time) = (counts.iter().sum(), start + step);
            let number = NumberDataPoint {
                start_time_unix_nano: start,
                time_unix_nano: time,
                value: Some(Value::AsInt(total)),
                ..Default::default()
            };
            let histogram = HistogramDataPoint {
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                sum: Some(sums),
                bucket_counts: counts.clone(),
                explicit_bounds: (1..16).map(f64::from).collect(),
                ..Default::default()
            };
            // The resolution falls, as that of a sender whose range grows.
            let joined = 1 << (step / 10);
            let bucket_counts = counts.chunks(joined).map(|chunk| chunk.iter().sum()).collect();
            let exponential = ExponentialHistogramDataPoint {
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                sum: Some(sums),
                scale: 3 - (step / 10) as i32,
                positive: Some(Buckets { offset: 0, bucket_counts }),
                negative: Some(Buckets::default()),
                ..Default::default()
            };
            let all = [
                sum(vec![number]),
                Data::Histogram(Histogram {
                    data_points: vec![histogram],
                    aggregation_temporality: CUMULATIVE,
                }),
                Data::ExponentialHistogram(ExponentialHistogram {
                    data_points: vec![exponential],
                    aggregation_temporality: CUMULATIVE,
                }),
            ];
            batches.extend(all.map(|data| Batch::Metrics(request("m", data))));
        }
        let forth = CumulativeToDelta::new(Config::default()).expect("valid");
        let deltas = run(forth, batches.clone()).await;
        assert_ne!(deltas, batches);
        let back = DeltaToCumulative::new(deltatocumulative::Config::default()).expect("valid");
        let again = run(back, deltas).await;
        assert_eq!(again.len(), batches.len());
        for (again, before) in again.into_iter().zip(batches) {
            assert_eq!(trimmed(again), trimmed(before));
        }
    }
}

/// Empty buckets at the ends say nothing.
fn trimmed(mut batch: Batch) -> Batch {
    let Batch::Metrics(request) = &mut batch else { panic!("no metrics") };
    let data = &mut request.resource_metrics[0].scope_metrics[0].metrics[0].data;
    if let Some(Data::ExponentialHistogram(data)) = data {
        let point = &mut data.data_points[0];
        for buckets in [&mut point.positive, &mut point.negative] {
            let mut some = buckets.take().unwrap_or_default();
            let empty = some.bucket_counts.iter().take_while(|n| **n == 0).count();
            some.bucket_counts.drain(..empty);
            some.offset += empty as i32;
            while some.bucket_counts.last() == Some(&0) {
                some.bucket_counts.pop();
            }
            *buckets = (!some.bucket_counts.is_empty()).then_some(some);
        }
    }
    batch
}
