//! What each format makes of every kind of metric.

use opentelemetry_proto::tonic::metrics::v1::{
    self, ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint,
    Summary, SummaryDataPoint, exponential_histogram_data_point::Buckets,
    summary_data_point::ValueAtQuantile,
};
use prost::Message;

use super::{super::proto, *};

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";
const PROTOBUF: &str = "application/vnd.google.protobuf;\
                        proto=io.prometheus.client.MetricFamily;encoding=delimited";
const START: u64 = 1_700_000_000_500_000_000;
const TIME: u64 = 1_700_000_060_000_000_000;

fn exemplar(value: f64) -> v1::Exemplar {
    v1::Exemplar {
        filtered_attributes: pairs(&[("http.route", "/x"), ("long", &"y".repeat(128))]),
        time_unix_nano: TIME,
        span_id: vec![0xab; 8],
        trace_id: vec![0xcd; 16],
        value: Some(v1::exemplar::Value::AsDouble(value)),
    }
}

/// One metric of each kind, with all that it may have.
fn every_kind() -> Vec<Metric> {
    let cumulative = AggregationTemporality::Cumulative;
    let mut requests = counter(
        "http.requests",
        cumulative,
        NumberDataPoint { exemplars: vec![exemplar(1.0)], ..point(7, START, TIME) },
    );
    requests.description = "A \"quoted\" \\ text.".to_owned();
    let classic = HistogramDataPoint {
        start_time_unix_nano: START,
        time_unix_nano: TIME,
        count: 4,
        sum: Some(7.5),
        explicit_bounds: vec![1.0, 2.5],
        bucket_counts: vec![1, 2, 1],
        exemplars: vec![exemplar(2.5)],
        ..Default::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        start_time_unix_nano: START,
        time_unix_nano: TIME,
        count: 4,
        sum: Some(9.0),
        scale: 0,
        zero_count: 1,
        // (1, 2], (2, 4], (8, 16]
        positive: Some(Buckets { offset: 0, bucket_counts: vec![1, 1, 0, 1] }),
        exemplars: vec![exemplar(3.0)],
        ..Default::default()
    };
    let summary = SummaryDataPoint {
        start_time_unix_nano: START,
        time_unix_nano: TIME,
        count: 2,
        sum: 3.5,
        quantile_values: vec![
            ValueAtQuantile { quantile: 0.5, value: 1.5 },
            ValueAtQuantile { quantile: 1.0, value: 2.0 },
        ],
        ..Default::default()
    };
    let metric =
        |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Default::default() };
    vec![
        requests,
        gauge(
            "temperature",
            NumberDataPoint { exemplars: vec![exemplar(1.0)], ..point(-3, START, TIME) },
        ),
        metric(
            "latency",
            Data::Histogram(Histogram {
                data_points: vec![classic],
                aggregation_temporality: cumulative.into(),
            }),
        ),
        metric(
            "size",
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: cumulative.into(),
            }),
        ),
        metric("age", Data::Summary(Summary { data_points: vec![summary] })),
    ]
}

fn store(config: Config, metrics: Vec<Metric>) -> Store {
    let mut bench = Bench::new(config);
    for metric in metrics {
        assert_eq!(bench.apply(metric), taken());
    }
    bench.0
}

#[test]
fn openmetrics_has_creation_times_and_exemplars() {
    let store = store(Config { send_timestamps: true, ..Config::default() }, every_kind());
    let ids =
        r#"http_route="/x",span_id="abababababababab",trace_id="cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd""#;
    let expected = format!(
        r##"# TYPE age summary
age{{quantile="0.5"}} 1.5 1700000060.000
age{{quantile="1.0"}} 2 1700000060.000
age_sum 3.5 1700000060.000
age_count 2 1700000060.000
age_created 1700000000.500
# HELP http_requests A \"quoted\" \\ text.
# TYPE http_requests counter
http_requests_total 7 1700000060.000 # {{{ids}}} 1 1700000060.000
http_requests_created 1700000000.500
# TYPE latency histogram
latency_bucket{{le="1.0"}} 1 1700000060.000
latency_bucket{{le="2.5"}} 3 1700000060.000 # {{{ids}}} 2.5 1700000060.000
latency_bucket{{le="+Inf"}} 4 1700000060.000
latency_sum 7.5 1700000060.000
latency_count 4 1700000060.000
latency_created 1700000000.500
# TYPE size histogram
size_bucket{{le="2.0"}} 2 1700000060.000
size_bucket{{le="4.0"}} 3 1700000060.000 # {{{ids}}} 3 1700000060.000
size_bucket{{le="8.0"}} 3 1700000060.000
size_bucket{{le="16.0"}} 4 1700000060.000
size_bucket{{le="+Inf"}} 4 1700000060.000
size_sum 9 1700000060.000
size_count 4 1700000060.000
size_created 1700000000.500
# TYPE temperature gauge
temperature -3 1700000060.000
# EOF
"##
    );
    assert_eq!(shown(&store, OPENMETRICS), expected);
}

#[test]
fn openmetrics_calls_nothing_a_counter_whose_name_cannot_be_one() {
    let cumulative = AggregationTemporality::Cumulative;
    let plain = Config { add_metric_suffixes: false, ..Config::default() };
    let store = store(
        plain,
        vec![
            counter("a", cumulative, point(1, START, TIME)),
            counter("b_total", cumulative, point(2, START, TIME)),
            gauge("b", point(3, START, TIME)),
            counter("c_total", cumulative, point(4, START, TIME)),
            gauge("c_created", point(5, START, TIME)),
        ],
    );
    let expected = "# TYPE a unknown\na 1\n# TYPE b gauge\nb 3\n# TYPE b_total unknown\n\
                    b_total 2\n# TYPE c_created gauge\nc_created 5\n# TYPE c counter\n\
                    c_total 4\n# EOF\n";
    assert_eq!(shown(&store, OPENMETRICS), expected);
}

#[test]
fn a_series_of_unknown_age_does_not_hide_that_of_the_next() {
    let cumulative = AggregationTemporality::Cumulative;
    let labelled = |value, start| NumberDataPoint {
        attributes: pairs(&[("n", value)]),
        ..point(1, start, TIME)
    };
    let metrics = vec![
        counter("x", cumulative, labelled("1", 0)),
        counter("x", cumulative, labelled("2", START)),
    ];
    let expected = "# TYPE x counter\nx_total{n=\"1\"} 1\nx_total{n=\"2\"} 1\n\
                    x_created{n=\"2\"} 1700000000.500\n# EOF\n";
    assert_eq!(shown(&store(Config::default(), metrics), OPENMETRICS), expected);
}

#[test]
fn names_of_any_characters_are_quoted_or_escaped() {
    let strategy = "NoTranslation".to_owned();
    let config = Config { translation_strategy: strategy, ..Config::default() };
    let labelled = |attributes, value| NumberDataPoint {
        attributes: pairs(attributes),
        ..point(value, START, TIME)
    };
    let store = store(
        config,
        vec![
            gauge("größe", labelled(&[("a.b", "1"), ("c", "2")], 1)),
            gauge("größe", labelled(&[("a/b", "1"), ("c", "2")], 2)),
            gauge("größe", labelled(&[], 3)),
            gauge("grße", labelled(&[], 4)),
            gauge("plain", labelled(&[("a.b", "1"), ("a_b", "2")], 5)),
            gauge("x.y", labelled(&[], 6)),
            gauge("x/y", labelled(&[], 7)),
        ],
    );
    let utf8 = "text/plain;version=1.0.0;escaping=allow-utf-8";
    let expected = "# TYPE \"grße\" gauge\n{\"grße\"} 4\n\
                    # TYPE \"größe\" gauge\n{\"größe\"} 3\n{\"größe\",\"a.b\"=\"1\",c=\"2\"} 1\n\
                    {\"größe\",\"a/b\"=\"1\",c=\"2\"} 2\n\
                    # TYPE plain gauge\nplain{\"a.b\"=\"1\",a_b=\"2\"} 5\n\
                    # TYPE \"x.y\" gauge\n{\"x.y\"} 6\n# TYPE \"x/y\" gauge\n{\"x/y\"} 7\n";
    assert_eq!(shown(&store, utf8), expected);
    // Two series look like others to a reader of classic names: the exposition stays valid.
    let expected = "# TYPE gr_e gauge\ngr_e 4\n\
                    # TYPE gr__e gauge\ngr__e 3\ngr__e{a_b=\"1\",c=\"2\"} 1\n\
                    # TYPE plain gauge\nplain{a_b=\"1\"} 5\n# TYPE x_y gauge\nx_y 6\n";
    assert_eq!(shown(&store, ""), expected);
    let form = Form::negotiated(&Default::default(), false, true);
    assert_eq!(form.render(&store).hidden, 2);
}

/// A whole family, as a reader sees it.
#[derive(Clone, PartialEq, prost::Message)]
struct Family {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<proto::Metric>,
}

fn families(store: &Store) -> BTreeMap<String, Family> {
    let accept = (axum::http::header::ACCEPT, PROTOBUF.parse().expect("ascii"));
    let form = Form::negotiated(&[accept].into_iter().collect(), false, false);
    let bytes = form.render(store).bytes;
    let mut rest = bytes.as_slice();
    let mut families = BTreeMap::new();
    while !rest.is_empty() {
        let family = Family::decode_length_delimited(&mut rest).expect("whole");
        families.insert(family.name.clone().expect("named"), family);
    }
    families
}

#[test]
fn protobuf_has_native_histograms() {
    let store = store(Config { send_timestamps: true, ..Config::default() }, every_kind());
    let families = families(&store);
    let kinds: Vec<_> =
        families.iter().map(|(name, family)| (name.as_str(), family.kind.expect("said"))).collect();
    let expected =
        [("age", 2), ("http_requests_total", 0), ("latency", 4), ("size", 4), ("temperature", 1)];
    assert_eq!(kinds, expected);
    for family in families.values() {
        assert_eq!(family.metric[0].timestamp_ms, Some(1_700_000_060_000));
    }
    let created = Some(proto::Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 });

    let requests = &families["http_requests_total"];
    assert_eq!(requests.help.as_deref(), Some("A \"quoted\" \\ text."));
    let counter = requests.metric[0].counter.clone().expect("a counter");
    assert_eq!((counter.value, counter.created_timestamp), (Some(7.0), created.clone()));
    let exemplar = counter.exemplar.expect("one");
    let names: Vec<_> = exemplar.label.iter().filter_map(|label| label.name.as_deref()).collect();
    assert_eq!(names, ["http_route", "span_id", "trace_id"]);
    assert_eq!(families["temperature"].metric[0].gauge, Some(proto::Gauge { value: Some(-3.0) }));

    let classic = families["latency"].metric[0].histogram.clone().expect("a histogram");
    assert_eq!((classic.sample_count, classic.sample_sum), (Some(4), Some(7.5)));
    assert_eq!((classic.schema, classic.zero_threshold), (None, None));
    let bucket = |bucket: &proto::Bucket| {
        (bucket.upper_bound.expect("bound"), bucket.cumulative_count.expect("count"))
    };
    let buckets: Vec<_> = classic.bucket.iter().map(bucket).collect();
    assert_eq!(buckets, [(1.0, 1), (2.5, 3), (f64::INFINITY, 4)]);
    assert!(classic.bucket[1].exemplar.is_some() && classic.bucket[2].exemplar.is_none());

    let native = families["size"].metric[0].histogram.clone().expect("a histogram");
    assert_eq!((native.schema, native.zero_threshold), (Some(0), Some(1e-128)));
    assert_eq!((native.sample_count, native.zero_count), (Some(4), Some(1)));
    let spans: Vec<_> =
        native.positive_span.iter().map(|span| (span.offset, span.length)).collect();
    // The third of four is empty.
    assert_eq!(spans, [(Some(1), Some(4))]);
    assert_eq!(native.positive_delta, [1, 0, -1, 1]);
    assert!(native.negative_span.is_empty() && native.negative_delta.is_empty());
    assert_eq!((native.bucket.len(), native.exemplars.len()), (5, 1));
    assert_eq!(native.created_timestamp, created);

    let summary = families["age"].metric[0].summary.clone().expect("a summary");
    assert_eq!((summary.sample_count, summary.sample_sum), (Some(2), Some(3.5)));
    assert_eq!((summary.quantile.len(), summary.created_timestamp), (2, created));
}

#[test]
fn deltas_keep_the_time_since_which_they_add_up() {
    let delta = AggregationTemporality::Delta;
    let mut bench = Bench::new(Config::default());
    bench.apply(counter("x", delta, point(3, START, TIME)));
    bench.apply(counter("x", delta, point(4, TIME, TIME + 1_000_000_000)));
    let expected = "# TYPE x counter\nx_total 7\nx_created 1700000000.500\n# EOF\n";
    assert_eq!(shown(&bench.0, OPENMETRICS), expected);
    // After a gap it counts from anew.
    bench.apply(counter("x", delta, point(1, TIME + 2_000_000_000, TIME + 3_000_000_000)));
    let expected = "# TYPE x counter\nx_total 1\nx_created 1700000062.000\n# EOF\n";
    assert_eq!(shown(&bench.0, OPENMETRICS), expected);
}
