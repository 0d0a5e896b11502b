//! Tests of the addition, stream by stream.

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{ExponentialHistogram, Sum, exponential_histogram_data_point::Buckets},
};

use super::*;
use crate::metric::pairs;

struct Bench {
    streams: Streams,
    counts: Counts,
}

fn bench(max_streams: u64) -> Bench {
    let provider = opentelemetry_sdk::metrics::SdkMeterProvider::default();
    let meter = provider.meter("test");
    let config = Config { max_streams, ..Config::default() };
    Bench {
        streams: Streams { config, known: HashMap::new(), swept: Instant::now() },
        counts: Counts {
            points: meter.u64_counter("points").build(),
            streams: meter.u64_gauge("streams").build(),
        },
    }
}

impl Bench {
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
