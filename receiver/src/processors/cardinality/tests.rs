//! Tests of the budgets: nothing is lost but what is counted.

use opentelemetry_proto::tonic::{
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram, Gauge, Histogram, Sum,
        exponential_histogram_data_point::Buckets, number_data_point::Value,
    },
    resource::v1::Resource,
};

use super::*;
use crate::metric::pairs;

fn limited(limit: usize) -> Series {
    Series::new(Config { limit, ..Config::default() })
}

fn block(resource: &str, name: &str, data: Data) -> ResourceMetrics {
    let metric = Metric { name: name.into(), data: Some(data), ..Default::default() };
    let attributes = pairs(&[("service.name", resource)]);
    ResourceMetrics {
        resource: Some(Resource { attributes, ..Default::default() }),
        scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }],
        ..Default::default()
    }
}

fn number(who: &[(&str, &str)], time: u64, value: i64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: pairs(who),
        start_time_unix_nano: 1,
        time_unix_nano: time,
        value: Some(Value::AsInt(value)),
        ..Default::default()
    }
}

fn sum(data_points: Vec<NumberDataPoint>) -> Data {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
}

/// What comes out, as resource, attributes and value, in order.
fn pass(series: &mut Series, resource_metrics: Vec<ResourceMetrics>) -> Vec<String> {
    let mut request = ExportMetricsServiceRequest { resource_metrics };
    series.request(&mut request);
    let mut seen = Vec::new();
    for block in request.resource_metrics {
        let owner = words(&block.resource.unwrap_or_default().attributes);
        for metric in block.scope_metrics.into_iter().flat_map(|s| s.metrics) {
            let (Data::Sum(Sum { data_points, .. }) | Data::Gauge(Gauge { data_points })) =
                metric.data.expect("data")
            else {
                panic!("not a number")
            };
            for p in data_points {
                let Some(Value::AsInt(value)) = p.value else { panic!("{:?}", p.value) };
                seen.push(format!("{owner}/{}={value}", words(&p.attributes)));
            }
        }
    }
    seen.sort();
    seen
}

fn words(attributes: &[KeyValue]) -> String {
    let words = attributes.iter().map(|a| match a.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::BoolValue(true)) => a.key.clone(),
        other => panic!("{other:?}"),
    });
    words.collect::<Vec<_>>().join(",")
}

const OVERFLOW: &str = "otel.metric.overflow";

#[tokio::test]
async fn what_is_over_budget_is_one_series_with_the_sum() {
    let mut series = limited(2);
    let at = |time, values: &[(&str, i64)]| {
        let points = values.iter().map(|(who, value)| number(&[("k", who)], time, *value));
        vec![block("a", "m", sum(points.collect()))]
    };
    let seen = pass(&mut series, at(2, &[("1", 1), ("2", 2), ("3", 4), ("4", 8)]));
    assert_eq!(seen, ["a/1=1".into(), "a/2=2".into(), format!("a/{OVERFLOW}=12")]);
    // A folded series that is not there keeps its part.
    let seen = pass(&mut series, at(3, &[("1", 2), ("4", 10)]));
    assert_eq!(seen, ["a/1=2".into(), format!("a/{OVERFLOW}=14")]);
    // One that began anew adds all that it has; an old point adds nothing.
    let seen = pass(&mut series, at(4, &[("3", 1)]));
    assert_eq!(seen, [format!("a/{OVERFLOW}=15")]);
    assert_eq!(pass(&mut series, at(4, &[("3", 7)])), [""; 0]);
    let tally = Tally { folded: 4, out_of_order: 1, ..Tally::default() };
    assert_eq!(series.tally, tally);
}

#[tokio::test]
async fn a_series_that_ends_makes_room_for_a_new_one_only() {
    let mut series = limited(1);
    let one =
        |who, time, value| vec![block("a", "m", sum(vec![number(&[("k", who)], time, value)]))];
    let end = |who, time| {
        let flags = DataPointFlags::NoRecordedValueMask as u32;
        let point = NumberDataPoint { flags, ..number(&[("k", who)], time, 0) };
        vec![block("a", "m", sum(vec![point]))]
    };
    assert_eq!(pass(&mut series, one("1", 2, 5)), ["a/1=5"]);
    assert_eq!(pass(&mut series, one("2", 2, 5)), [format!("a/{OVERFLOW}=5")]);
    assert_eq!(pass(&mut series, end("1", 3)), ["a/1=0"], "the marker goes on");
    assert_eq!(pass(&mut series, one("2", 3, 6)), [format!("a/{OVERFLOW}=6")], "folded for good");
    assert_eq!(pass(&mut series, one("3", 3, 7)), ["a/3=7"]);
    assert_eq!(pass(&mut series, end("2", 4)), [""; 0], "nobody knows it");
    assert_eq!(pass(&mut series, one("2", 5, 1)), [format!("a/{OVERFLOW}=7")]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_series_makes_room_too() {
    let mut series = limited(1);
    let one =
        |who, time, value| vec![block("a", "m", sum(vec![number(&[("k", who)], time, value)]))];
    pass(&mut series, one("1", 2, 5));
    pass(&mut series, one("2", 2, 5));
    tokio::time::advance(Duration::from_secs(301)).await;
    assert_eq!(pass(&mut series, one("2", 3, 6)), ["a/2=6"]);
    tokio::time::advance(Duration::from_secs(301)).await;
    series.sweep();
    assert!(series.budgets.is_empty());
    assert_eq!(series.held, 0);
}

#[tokio::test]
async fn a_sum_that_may_fall_falls_with_its_series() {
    let mut series = limited(1);
    let mut at = |time, flags, values: &[(&str, i64)]| {
        let points = values.iter().map(|(who, value)| number(&[("k", who)], time, *value));
        let data_points = points.map(|p| NumberDataPoint { flags, ..p }).collect();
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let data = Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: false });
        pass(&mut series, vec![block("a", "m", data)])
    };
    at(2, 0, &[("1", 1)]);
    assert_eq!(at(2, 0, &[("2", 5), ("3", 7)]), [format!("a/{OVERFLOW}=12")]);
    assert_eq!(at(3, 0, &[("2", 1)]), [format!("a/{OVERFLOW}=8")]);
    at(4, DataPointFlags::NoRecordedValueMask as u32, &[("3", 0)]);
    assert_eq!(at(5, 0, &[("2", 2)]), [format!("a/{OVERFLOW}=2")]);
}

#[tokio::test]
async fn deltas_add_up_request_by_request() {
    let mut series = limited(1);
    for time in 2..5 {
        let points = ["1", "2", "3"].map(|who| number(&[("k", who)], time, 5));
        let mut data = sum(points.into());
        if let Data::Sum(sum) = &mut data {
            sum.aggregation_temporality = AggregationTemporality::Delta.into();
        }
        let seen = pass(&mut series, vec![block("a", "m", data)]);
        assert_eq!(seen, ["a/1=5".into(), format!("a/{OVERFLOW}=10")]);
    }
    assert_eq!(series.held, 0, "deltas need no memory");
}

#[tokio::test]
async fn gauges_over_budget_are_dropped_and_counted() {
    let mut series = limited(1);
    let data_points = ["1", "2", "3"].map(|who| number(&[("k", who)], 2, 5)).into();
    let seen = pass(&mut series, vec![block("a", "m", Data::Gauge(Gauge { data_points }))]);
    assert_eq!(seen, ["a/1=5"]);
    assert_eq!(series.tally, Tally { not_additive: 2, ..Tally::default() });
}

#[tokio::test]
async fn a_tenant_has_a_budget_and_an_overflow_of_its_own() {
    let tenant = "tenant".to_owned();
    let config =
        Config { limit: 4, tenant_attribute: tenant, tenant_limit: 1, ..Config::default() };
    let mut series = Series::new(config);
    let point = |who, tenant| number(&[("k", who), ("tenant", tenant)], 2, 5);
    let points = [("1", "x"), ("2", "x"), ("3", "y"), ("4", "y"), ("5", "x")];
    let data = sum(points.map(|(who, tenant)| point(who, tenant)).into());
    let seen = pass(&mut series, vec![block("a", "m", data)]);
    let expected = [
        "a/1,x=5".into(),
        "a/3,y=5".into(),
        format!("a/x,{OVERFLOW}=10"),
        format!("a/y,{OVERFLOW}=5"),
    ];
    assert_eq!(seen, expected);
}

/// A sender chooses its resources: they must not be a way around the budget.
#[tokio::test]
async fn the_overflows_are_limited_too() {
    let mut series = limited(2);
    for time in 2..4 {
        let blocks = (0..100).map(|i| block(&i.to_string(), "m", sum(vec![number(&[], time, 1)])));
        let seen = pass(&mut series, blocks.collect());
        let expected = [
            "/otel.metric.overflow=96",
            "0/=1",
            "1/=1",
            "2/otel.metric.overflow=1",
            "3/otel.metric.overflow=1",
        ];
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn the_memory_of_folded_series_is_limited() {
    let mut series = Series::new(Config { limit: 1, max_folded: 2, ..Config::default() });
    let points = ["1", "2", "3", "4"].map(|who| number(&[("k", who)], 2, 5));
    let seen = pass(&mut series, vec![block("a", "m", sum(points.into()))]);
    assert_eq!(seen, ["a/1=5".into(), format!("a/{OVERFLOW}=10")]);
    assert_eq!(series.tally, Tally { folded: 2, full: 1, ..Tally::default() });
}

#[test]
fn mistakes_are_told() {
    let wrong = Config {
        limit: 0,
        metrics: [("m".to_owned(), 0)].into(),
        tenant_limit: 1,
        max_stale: Duration::ZERO,
        ..Config::default()
    };
    let Err(Mistakes(mistakes)) = Cardinality::new(wrong) else { panic!("accepted") };
    let paths: Vec<_> = mistakes.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(paths, ["limit", "metrics::m", "tenant_limit", "max_stale"]);
}

/// One sender's series: what it has observed since it began.
#[derive(Clone, Default)]
struct Sender {
    start: u64,
    observed: Vec<u64>,
}

impl Sender {
    /// The same observations three ways.
    fn points(
        &self,
        who: &str,
        time: u64,
        fine: bool,
    ) -> (NumberDataPoint, HistogramDataPoint, ExponentialHistogramDataPoint) {
        let attributes = pairs(&[("k", who)]);
        let total: u64 = self.observed.iter().sum();
        let count = self.observed.len() as u64;
        let mut bucket_counts = vec![0; 10];
        self.observed.iter().for_each(|v| bucket_counts[v.ilog2() as usize] += 1);
        let explicit_bounds = (1..10_u32).map(|i| f64::from(i).exp2() - 0.5).collect();
        // Coarser than the explicit ones by half, or as fine.
        let exponential = if fine {
            bucket_counts.clone()
        } else {
            bucket_counts.chunks(2).map(|pair| pair.iter().sum()).collect()
        };
        let number = NumberDataPoint {
            start_time_unix_nano: self.start,
            ..number(&[("k", who)], time, total as i64)
        };
        let histogram = HistogramDataPoint {
            attributes: attributes.clone(),
            start_time_unix_nano: self.start,
            time_unix_nano: time,
            count,
            sum: Some(total as f64),
            bucket_counts,
            explicit_bounds,
            ..Default::default()
        };
        let exponential = ExponentialHistogramDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: time,
            count,
            sum: Some(total as f64),
            scale: if fine { 0 } else { -1 },
            positive: Some(Buckets { offset: 0, bucket_counts: exponential }),
            ..Default::default()
        };
        (number, histogram, exponential)
    }
}

/// Whatever begins, grows, begins anew and ends: what comes out has the sum of what went in, and what
/// stands for the folded ones never falls.
#[tokio::test]
async fn sums_are_preserved_at_every_step() {
    let (mut random, mut over_budget) = (fastrand::Rng::with_seed(5), 0);
    for _ in 0..60 {
        let mut series = limited(random.usize(1..6));
        let (mut senders, mut known) = (BTreeMap::<String, Sender>::new(), 0);
        // All that was ever observed, by series, of those that are not over budget and of those that are.
        let mut all = BTreeMap::<String, Vec<u64>>::new();
        let mut folded = BTreeMap::<String, Vec<u64>>::new();
        let mut last: Option<[Data; 3]> = None;
        for time in 2..50 {
            let mut points = (vec![], vec![], vec![]);
            if random.bool() {
                known += 1;
                senders.insert(known.to_string(), Sender { start: 1, observed: Vec::new() });
            }
            for who in senders.keys().cloned().collect::<Vec<_>>() {
                let sender = senders.get_mut(&who).expect("listed");
                let ends = random.u8(0..12) == 0;
                if !ends && random.u8(0..10) == 0 {
                    *sender = Sender { start: time, observed: Vec::new() };
                    if let Some(observed) = all.get_mut(&who) {
                        // A series that goes on as it is begins anew; the overflow keeps what it had.
                        folded.entry(who.clone()).and_modify(|f| f.append(observed));
                        observed.clear();
                    }
                }
                let new =
                    (0..if ends { 0 } else { random.usize(0..4) }).map(|_| random.u64(1..1024));
                sender.observed.extend(new);
                let mut point = sender.points(&who, time, time < 25);
                if ends {
                    let flags = DataPointFlags::NoRecordedValueMask as u32;
                    (point.0.flags, point.1.flags, point.2.flags) = (flags, flags, flags);
                    senders.remove(&who);
                    let ended = all.remove(&who).unwrap_or_default();
                    folded.entry(who).and_modify(|f| f.extend(ended));
                } else {
                    all.insert(who, sender.observed.clone());
                }
                points.0.push(point.0);
                points.1.push(point.1);
                points.2.push(point.2);
            }
            let (sums, histograms, exponentials) = points;
            let aggregation_temporality = AggregationTemporality::Cumulative.into();
            let data = [
                sum(sums),
                Data::Histogram(Histogram { aggregation_temporality, data_points: histograms }),
                Data::ExponentialHistogram(ExponentialHistogram {
                    aggregation_temporality,
                    data_points: exponentials,
                }),
            ];
            let resource_metrics =
                ["s", "h", "e"].iter().zip(data).map(|(name, data)| block("a", name, data));
            let mut request =
                ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() };
            series.request(&mut request);
            let metrics = request.resource_metrics.into_iter().flat_map(|r| r.scope_metrics);
            let out: Vec<Data> =
                metrics.flat_map(|s| s.metrics).filter_map(|metric| metric.data).collect();
            let Ok(out) = <[Data; 3]>::try_from(out) else { continue };
            check(&out, &all, &mut folded, last.as_ref());
            last = Some(out);
        }
        over_budget += folded.len();
    }
    assert!(over_budget > 100, "only {over_budget} series were over budget");
}

/// Compares what came out with all that was observed.
fn check(
    out: &[Data; 3],
    all: &BTreeMap<String, Vec<u64>>,
    folded: &mut BTreeMap<String, Vec<u64>>,
    last: Option<&[Data; 3]>,
) {
    let [Data::Sum(sums), Data::Histogram(histograms), Data::ExponentialHistogram(exponentials)] =
        out
    else {
        panic!("{out:?}")
    };
    let mut own = Vec::new();
    let live = |flags| flags & DataPointFlags::NoRecordedValueMask as u32 == 0;
    for point in sums.data_points.iter().filter(|p| live(p.flags)) {
        let who = words(&point.attributes);
        if who == OVERFLOW {
            continue;
        }
        let expected = Value::AsInt(all[&who].iter().sum::<u64>() as i64);
        assert_eq!(point.value, Some(expected), "{who}");
        own.push(who);
    }
    let over: Vec<_> = all.keys().filter(|who| !own.contains(who)).collect();
    over.iter().for_each(|who| _ = folded.entry((*who).clone()).or_default());
    if over.is_empty() {
        return;
    }
    let observed = || {
        let now = over.iter().flat_map(|who| &all[*who]);
        folded.values().flatten().chain(now).copied()
    };
    let (sum, count) = (observed().sum::<u64>(), observed().count() as u64);
    let is_overflow = |attributes: &[KeyValue]| words(attributes) == OVERFLOW;
    let number = sums.data_points.iter().find(|p| is_overflow(&p.attributes)).expect("sum");
    assert_eq!(number.value, Some(Value::AsInt(sum as i64)));
    let histogram = histograms.data_points.iter().find(|p| is_overflow(&p.attributes));
    let histogram = histogram.expect("histogram");
    assert_eq!((histogram.count, histogram.sum), (count, Some(sum as f64)));
    let exponential = exponentials.data_points.iter().find(|p| is_overflow(&p.attributes));
    let exponential = exponential.expect("exponential");
    assert_eq!((exponential.count, exponential.sum), (count, Some(sum as f64)));
    let mut buckets = vec![0_u64; 10];
    observed().for_each(|v| buckets[v.ilog2() as usize] += 1);
    assert_eq!(histogram.bucket_counts, buckets);
    let positive = exponential.positive.clone().unwrap_or_default();
    for (index, count) in (positive.offset..).zip(&positive.bucket_counts) {
        let width = if exponential.scale == 0 { 1 } else { 2 };
        let expected: u64 = buckets.iter().skip(index as usize * width).take(width).sum();
        assert_eq!(*count, expected, "bucket {index} at scale {}", exponential.scale);
    }
    let Some([Data::Sum(before), ..]) = last else { return };
    if let Some(before) = before.data_points.iter().find(|p| is_overflow(&p.attributes)) {
        let value = |p: &NumberDataPoint| match p.value {
            Some(Value::AsInt(value)) => value,
            other => panic!("{other:?}"),
        };
        assert!(value(number) >= value(before), "it fell");
        assert_eq!(number.start_time_unix_nano, before.start_time_unix_nano);
    }
}
