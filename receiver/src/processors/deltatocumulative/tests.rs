//! Tests of the addition, stream by stream.

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::InstrumentationScope,
    metrics::v1::{
        ExponentialHistogram, Histogram, Sum, exponential_histogram_data_point::Buckets,
    },
    resource::v1::Resource,
};
use prometheus::Registry;

use super::*;
use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::metric::pairs;

struct Bench {
    streams: Streams,
    counts: Counts,
    registry: Registry,
    _provider: SdkMeterProvider,
}

fn bench(max_streams: i64) -> Bench {
    let registry = Registry::new();
    let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader.expect("valid")).build();
    let meter = provider.meter("test");
    let config = Config { max_streams, ..Config::default() };
    Bench {
        streams: Streams { config, known: HashMap::new(), swept: Instant::now() },
        counts: Counts {
            points: meter.u64_counter("points").build(),
            streams: meter.u64_gauge("streams").build(),
        },
        registry,
        _provider: provider,
    }
}

impl Bench {
    /// Points that were counted with this `error`; those that went on have none.
    fn counted(&self, error: &str) -> f64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|f| f.name().starts_with("points"));
        let of = |m: &&prometheus::proto::Metric| {
            let label = m.get_label().iter().find(|l| l.name() == "error");
            label.map_or("", |l| l.value()) == error
        };
        metrics.flat_map(|f| f.get_metric()).filter(of).map(|m| m.get_counter().get_value()).sum()
    }

    /// What comes out of one metric, if anything.
    fn pass(&mut self, data: Data) -> Option<Data> {
        let metric = Metric { name: "m".into(), data: Some(data), ..Default::default() };
        let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
        let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
        let mut request = ExportMetricsServiceRequest { resource_metrics: vec![resource] };
        request.resource_metrics.retain_mut(|r| self.streams.resource(r, &self.counts));
        request.resource_metrics.pop()?.scope_metrics.pop()?.metrics.pop()?.data
    }

    /// Passes one delta; returns start and value of the total.
    fn number(
        &mut self,
        start: u64,
        time: u64,
        value: i64,
        who: &[(&str, &str)],
    ) -> Option<(u64, i64)> {
        let sum = Sum {
            aggregation_temporality: AggregationTemporality::Delta.into(),
            is_monotonic: true,
            data_points: vec![NumberDataPoint {
                attributes: pairs(who),
                start_time_unix_nano: start,
                time_unix_nano: time,
                value: Some(Value::AsInt(value)),
                ..Default::default()
            }],
        };
        let Data::Sum(sum) = self.pass(Data::Sum(sum))? else { panic!("another kind came out") };
        assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
        match (sum.data_points[0].start_time_unix_nano, sum.data_points[0].value) {
            (start, Some(Value::AsInt(value))) => Some((start, value)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn deltas_add_up_stream_by_stream() {
    let mut bench = bench(10);
    let (a, b) = ([("k", "a"), ("l", "x")], [("k", "b")]);
    assert_eq!(bench.number(1, 2, 5, &a), Some((1, 5)));
    assert_eq!(bench.number(2, 3, 7, &b), Some((2, 7)));
    // The order of attributes does not matter.
    assert_eq!(bench.number(2, 3, 1, &[("l", "x"), ("k", "a")]), Some((1, 6)));
    // A gap is accepted.
    assert_eq!(bench.number(8, 9, 1, &a), Some((1, 7)));
}

#[tokio::test]
async fn what_cannot_be_added_is_dropped() {
    let mut bench = bench(1);
    assert_eq!(bench.number(10, 20, 5, &[]), Some((10, 5)));
    assert_eq!(bench.number(5, 30, 1, &[]), None, "it starts before the stream");
    assert_eq!(bench.number(15, 20, 1, &[]), None, "it ends with the last point");
    assert_eq!(bench.number(20, 30, 1, &[("k", "b")]), None, "a second stream");
    assert_eq!(bench.number(20, 30, 1, &[]), Some((10, 6)));
    let counted =
        ["", "delta.ErrOlderStart", "delta.ErrOutOfOrder", "limit"].map(|e| bench.counted(e));
    assert_eq!(counted, [2.0, 1.0, 1.0, 1.0]);
}

/// Each part of the identity alone makes another stream.
#[tokio::test]
async fn a_stream_is_resource_scope_metric_and_attributes() {
    let block = |part: &str| {
        let is = |name| if part == name { "other" } else { "same" };
        let point = NumberDataPoint {
            attributes: pairs(&[("k", is("attributes"))]),
            time_unix_nano: 1,
            ..Default::default()
        };
        let sum = Sum {
            aggregation_temporality: AggregationTemporality::Delta.into(),
            is_monotonic: part == "monotonic",
            data_points: vec![point],
        };
        let metric = Metric {
            name: is("name").into(),
            unit: is("unit").into(),
            data: Some(Data::Sum(sum)),
            ..Default::default()
        };
        let scope = InstrumentationScope {
            name: is("scope").into(),
            version: is("version").into(),
            attributes: pairs(&[("s", is("scope attributes"))]),
            ..Default::default()
        };
        let attributes = pairs(&[("r", is("resource"))]);
        ResourceMetrics {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics: vec![metric],
                ..Default::default()
            }],
            ..Default::default()
        }
    };
    let parts = ["", "resource", "scope", "version", "scope attributes", "name", "unit"];
    let parts = parts.into_iter().chain(["monotonic", "attributes"]);
    let mut bench = bench(100);
    for (streams, part) in (1..).zip(parts) {
        assert!(bench.streams.resource(&mut block(part), &bench.counts), "{part}");
        assert_eq!(bench.streams.known.len(), streams, "{part}");
        assert!(!bench.streams.resource(&mut block(part), &bench.counts), "{part} is known");
    }
}

#[tokio::test]
async fn explicit_histograms_add_up_unless_their_bounds_change() {
    let mut bench = bench(10);
    let mut pass = |time: u64, bound: f64, bucket_counts: [u64; 2]| {
        let point = HistogramDataPoint {
            start_time_unix_nano: time - 1,
            time_unix_nano: time,
            count: bucket_counts.iter().sum(),
            sum: Some(time as f64),
            min: Some(time as f64),
            max: Some(time as f64),
            explicit_bounds: vec![bound],
            bucket_counts: bucket_counts.into(),
            ..Default::default()
        };
        let data = Data::Histogram(Histogram {
            aggregation_temporality: AggregationTemporality::Delta.into(),
            data_points: vec![point],
        });
        let Some(Data::Histogram(mut total)) = bench.pass(data) else { panic!("dropped") };
        let p = total.data_points.remove(0);
        (p.start_time_unix_nano, p.count, p.bucket_counts, p.sum, p.min, p.max)
    };
    pass(2, 1.0, [1, 2]);
    let total = pass(3, 1.0, [3, 4]);
    assert_eq!(total, (1, 10, vec![4, 6], Some(5.0), Some(2.0), Some(3.0)));
    // Other bounds: the stream begins anew with the point.
    let total = pass(5, 7.0, [1, 0]);
    assert_eq!(total, (4, 1, vec![1, 0], Some(5.0), Some(5.0), Some(5.0)));
}

#[tokio::test]
async fn a_point_without_a_value_says_nothing_of_the_total() {
    let mut bench = bench(10);
    let mut pass = |time: u64, value: Option<i64>| {
        let point = NumberDataPoint {
            start_time_unix_nano: time - 1,
            time_unix_nano: time,
            value: value.map(Value::AsInt),
            flags: u32::from(value.is_none()),
            ..Default::default()
        };
        let data = Data::Sum(Sum {
            aggregation_temporality: AggregationTemporality::Delta.into(),
            data_points: vec![point],
            is_monotonic: true,
        });
        let Some(Data::Sum(mut total)) = bench.pass(data) else { panic!("dropped") };
        let p = total.data_points.remove(0);
        (p.start_time_unix_nano, p.value, p.flags)
    };
    pass(2, Some(5));
    assert_eq!(pass(3, None), (1, Some(Value::AsInt(5)), 0));
    assert_eq!(pass(4, Some(2)), (1, Some(Value::AsInt(7)), 0));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_forgotten() {
    let mut bench = bench(10);
    assert_eq!(bench.number(1, 2, 5, &[]), Some((1, 5)));
    tokio::time::advance(Duration::from_secs(301)).await;
    bench.streams.sweep();
    assert_eq!(bench.number(2, 3, 1, &[]), Some((2, 1)));
}

#[tokio::test]
async fn cumulative_points_and_gauges_pass() {
    let mut bench = bench(10);
    let sum = Sum {
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
        data_points: vec![NumberDataPoint::default(); 2],
        ..Default::default()
    };
    assert_eq!(bench.pass(Data::Sum(sum.clone())), Some(Data::Sum(sum)));
    assert!(bench.streams.known.is_empty());
}

/// Every observation is one bucket: the sum must hold each of them between its bounds.
#[tokio::test]
async fn exponential_histograms_add_up_whatever_their_scales() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        let mut bench = bench(10);
        let (mut observed, mut sums, mut last) = (Vec::new(), 0.0, None);
        for step in 1..10 {
            let scale = random.i32(-4..10);
            let values: Vec<f64> =
                (0..random.usize(0..20)).map(|_| (random.f64() * 60.0 - 30.0).exp2()).collect();
            let index = |v: &f64| ((v.log2() * f64::from(scale).exp2()).ceil() as i32) - 1;
            let offset = values.iter().map(index).min().unwrap_or(0);
            let width = values.iter().map(index).max().map_or(0, |max| (max - offset + 1) as usize);
            let mut bucket_counts = vec![0; width];
            values.iter().for_each(|v| bucket_counts[(index(v) - offset) as usize] += 1);
            let zero_count = random.u64(0..3);
            let sum: f64 = values.iter().sum();
            let point = ExponentialHistogramDataPoint {
                start_time_unix_nano: step,
                time_unix_nano: step + 1,
                count: values.len() as u64 + zero_count,
                sum: Some(sum),
                scale,
                zero_count,
                positive: Some(Buckets { offset, bucket_counts }),
                ..Default::default()
            };
            observed.extend(values);
            observed.extend(vec![0.0; zero_count as usize]);
            sums += sum;
            let data = ExponentialHistogram {
                data_points: vec![point],
                aggregation_temporality: AggregationTemporality::Delta.into(),
            };
            last = bench.pass(Data::ExponentialHistogram(data));
        }
        let Some(Data::ExponentialHistogram(total)) = last else { panic!("nothing came out") };
        let total = &total.data_points[0];
        assert_eq!(total.start_time_unix_nano, 1);
        assert_eq!(total.count, observed.len() as u64);
        assert!((total.sum.unwrap_or_default() - sums).abs() <= sums * 1e-9);
        assert_eq!(total.zero_count, observed.iter().filter(|v| **v == 0.0).count() as u64);
        let buckets = total.positive.clone().unwrap_or_default();
        for (i, count) in (buckets.offset..).zip(&buckets.bucket_counts) {
            let bound = |i: i32| (f64::from(i) * f64::from(-total.scale).exp2()).exp2();
            let within = observed.iter().filter(|v| **v > bound(i) && **v <= bound(i + 1)).count();
            assert_eq!(*count, within as u64, "bucket {i} at scale {}", total.scale);
        }
    }
}

#[tokio::test]
async fn indices_at_the_ends_of_the_range_cost_no_memory() {
    let mut bench = bench(10);
    let mut pass = |time: u64, offset: i32| {
        let point = ExponentialHistogramDataPoint {
            time_unix_nano: time,
            count: 1,
            scale: 20,
            positive: Some(Buckets { offset, bucket_counts: vec![1] }),
            ..Default::default()
        };
        bench.pass(Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Delta.into(),
        }))
    };
    pass(1, i32::MIN);
    let Some(Data::ExponentialHistogram(total)) = pass(2, i32::MAX) else { panic!("dropped") };
    let buckets = total.data_points[0].positive.clone().unwrap_or_default();
    assert_eq!(buckets.bucket_counts.iter().sum::<u64>(), 2);
    assert!(buckets.bucket_counts.len() <= 640);
}

#[tokio::test]
async fn a_wider_zero_takes_buckets_in() {
    let mut bench = bench(10);
    let mut pass = |time: u64, zero_threshold: f64, zero_count: u64, buckets: Buckets| {
        let point = ExponentialHistogramDataPoint {
            time_unix_nano: time,
            count: zero_count + buckets.bucket_counts.iter().sum::<u64>(),
            zero_threshold,
            zero_count,
            positive: Some(buckets),
            ..Default::default()
        };
        bench.pass(Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Delta.into(),
        }))
    };
    // Scale 0: (1/4, 1/2], (1/2, 1], (1, 2].
    pass(1, 0.0, 0, Buckets { offset: -2, bucket_counts: vec![1, 2, 4] });
    // 0.3 cuts the first of these.
    let Some(Data::ExponentialHistogram(total)) = pass(2, 0.3, 8, Buckets::default()) else {
        panic!("dropped")
    };
    let total = &total.data_points[0];
    assert_eq!((total.zero_count, total.zero_threshold, total.count), (9, 0.5, 15));
    let buckets = total.positive.clone().unwrap_or_default();
    assert_eq!((buckets.offset, buckets.bucket_counts), (-1, vec![2, 4]));
}

/// Whatever is joined, no bucket is left that reaches below the zero threshold, and nothing is lost.
#[tokio::test]
async fn buckets_and_zero_do_not_overlap() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..1000 {
        let (mut bench, mut observed, mut last) = (bench(10), 0, None);
        for time in 1..8 {
            let scale = random.i32(-2..6);
            let zero_threshold =
                if random.bool() { 0.0 } else { (random.f64() * 8.0 - 4.0).exp2() };
            let lower = |i: i32| (f64::from(i) * f64::from(-scale).exp2()).exp2();
            let mut buckets = || {
                let offset = random.i32(-40..40);
                let counts = (offset..offset + random.i32(0..40))
                    .map(|i| if lower(i) < zero_threshold { 0 } else { random.u64(0..3) });
                Buckets { offset, bucket_counts: counts.collect() }
            };
            let (positive, negative) = (buckets(), buckets());
            let counts = positive.bucket_counts.iter().chain(&negative.bucket_counts);
            let count = 1 + counts.sum::<u64>();
            observed += count;
            last = bench.pass(Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint {
                    time_unix_nano: time,
                    scale,
                    count,
                    zero_count: 1,
                    zero_threshold,
                    positive: Some(positive),
                    negative: Some(negative),
                    ..Default::default()
                }],
                aggregation_temporality: AggregationTemporality::Delta.into(),
            }));
        }
        let Some(Data::ExponentialHistogram(total)) = last else { panic!("nothing came out") };
        let total = &total.data_points[0];
        let mut counted = total.zero_count;
        for buckets in [&total.positive, &total.negative].into_iter().flatten() {
            for (i, count) in (buckets.offset..).zip(&buckets.bucket_counts) {
                let lower = (f64::from(i) * f64::from(-total.scale).exp2()).exp2();
                assert!(*count == 0 || lower >= total.zero_threshold, "round {round}, bucket {i}");
                counted += count;
            }
        }
        assert_eq!((total.count, counted), (observed, observed), "round {round}");
    }
}

#[tokio::test]
async fn counts_and_scales_at_the_ends_of_their_range_end() {
    let mut bench = bench(10);
    let mut pass = |time: u64| {
        bench.pass(Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint {
                time_unix_nano: time,
                count: u64::MAX,
                scale: i32::MIN,
                zero_threshold: 0.5,
                positive: Some(Buckets { offset: 0, bucket_counts: vec![u64::MAX; 700] }),
                ..Default::default()
            }],
            aggregation_temporality: AggregationTemporality::Delta.into(),
        }))
    };
    pass(1);
    let Some(Data::ExponentialHistogram(total)) = pass(2) else { panic!("dropped") };
    let total = &total.data_points[0];
    assert_eq!((total.count, total.scale), (u64::MAX, i32::MIN));
    assert!(total.positive.as_ref().is_some_and(|b| b.bucket_counts.len() <= 640));
}
