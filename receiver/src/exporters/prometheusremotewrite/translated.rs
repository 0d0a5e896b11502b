//! What becomes of points, and which requests carry it.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        Exemplar as OtlpExemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric,
        NumberDataPoint, Summary, SummaryDataPoint, exemplar, metric::Data,
        summary_data_point::ValueAtQuantile,
    },
};
use prost::Message as _;
use serde_json::json;

use super::{
    proto::{BucketSpan, MetricType, STALE, TimeSeries, WriteRequest, v2},
    requests::{Holds, Request, requests},
    tests::*,
    translate::{Reason, Translated},
    *,
};
use crate::metric::pairs;

const MILLIS: i64 = 1_700_000_000_123;
const CUMULATIVE: i32 = 2;
const DELTA: i32 = 1;
const ENDED: u32 = 1;

fn summary() -> Data {
    let quantile_values = vec![ValueAtQuantile { quantile: 0.5, value: 2.0 }];
    let point = SummaryDataPoint {
        time_unix_nano: TIME,
        count: 3,
        sum: 4.0,
        quantile_values,
        ..Default::default()
    };
    Data::Summary(Summary { data_points: vec![point] })
}

fn bare(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    otlp(Vec::new(), metrics)
}

fn translated(keys: serde_json::Value, request: &ExportMetricsServiceRequest) -> Translated {
    let config = config(keys);
    Translated::of(&Rules::from(&config), request, config.version() == Version::V2)
}

/// The messages of version 1 that a batch becomes.
fn messages(requests: &[Request]) -> Vec<WriteRequest> {
    let plain = requests.iter().map(|r| snap::raw::Decoder::new().decompress_vec(&r.body).unwrap());
    plain.map(|plain| WriteRequest::decode(plain.as_slice()).unwrap()).collect()
}

fn all_v1(translated: Translated) -> Vec<TimeSeries> {
    let requests = requests(Version::V1, translated, usize::MAX, false).unwrap();
    messages(&requests).into_iter().flat_map(|message| message.timeseries).collect()
}

/// Every sample: its series, its time and its value.
fn samples(keys: serde_json::Value, request: &ExportMetricsServiceRequest) -> Vec<String> {
    let mut all = Vec::new();
    for series in all_v1(translated(keys, request)) {
        for sample in &series.samples {
            assert_eq!(sample.start_timestamp, 0, "version 1 has no starts");
            all.push(format!("{} {} {}", written(&series), sample.timestamp, sample.value));
        }
    }
    all
}

/// As few labels as can be.
fn plain() -> serde_json::Value {
    json!({"disable_scope_info": true})
}

#[test]
fn points_become_samples_under_the_names_of_prometheus() {
    let request = bare(vec![
        metric("io.ops", "{op}", sum(CUMULATIVE, true, vec![number(&[("a.b", "1")], TIME, 3.0)])),
        metric("queue", "1", sum(CUMULATIVE, false, vec![number(&[], TIME, -1.0)])),
        metric("usage", "1", gauge(vec![number(&[("empty", "")], TIME, 0.5)])),
        metric("latency", "s", classic(CUMULATIVE, vec![classic_point(TIME)])),
        metric("old", "", summary()),
    ]);
    let expected = [
        "__name__=io_ops_total a_b=1 1700000000123 3",
        "__name__=queue 1700000000123 -1",
        "__name__=usage_ratio 1700000000123 0.5",
        "__name__=latency_seconds_count 1700000000123 10",
        "__name__=latency_seconds_sum 1700000000123 12.5",
        "__name__=latency_seconds_bucket le=0.000001 1700000000123 1",
        "__name__=latency_seconds_bucket le=2.5 1700000000123 3",
        "__name__=latency_seconds_bucket le=+Inf 1700000000123 10",
        "__name__=old_count 1700000000123 3",
        "__name__=old_sum 1700000000123 4",
        "__name__=old quantile=0.5 1700000000123 2",
    ];
    assert_eq!(samples(plain(), &request), expected);
    let keys =
        json!({"disable_scope_info": true, "namespace": "my-own", "add_metric_suffixes": false});
    assert_eq!(samples(keys, &request)[0], "__name__=my_own_io_ops a_b=1 1700000000123 3");
}

#[test]
fn labels_say_where_a_point_is_from() {
    let resource = pairs(&[
        ("service.name", "shop"),
        ("service.namespace", "eu"),
        ("service.instance.id", "i"),
        ("host.name", "h"),
    ]);
    let points = vec![number(&[("Zone", "z"), ("job", "own"), ("x", "mine")], TIME, 1.0)];
    let request = otlp(resource, vec![metric("m", "", gauge(points))]);
    let keys = json!({"external_labels": {"x": "theirs", "cluster.name": "c"}, "namespace": "n"});
    assert_eq!(
        samples(keys.clone(), &request),
        [
            "Zone=z __name__=n_m cluster_name=c instance=i job=eu/shop otel_scope_lib_kind=k otel_scope_name=lib \
             otel_scope_version=1 x=mine 1700000000123 1",
            "__name__=n_target_info cluster_name=c host_name=h instance=i job=eu/shop x=theirs 1700000000123 1",
        ]
    );
    let mut keys = keys;
    keys["resource_to_telemetry_conversion"] = json!({"enabled": true});
    keys["target_info"] = json!({"enabled": false});
    keys["disable_scope_info"] = json!(true);
    assert_eq!(
        samples(keys, &request),
        [
            "Zone=z __name__=n_m cluster_name=c host_name=h instance=i job=eu/shop service_instance_id=i \
          service_name=shop service_namespace=eu x=mine 1700000000123 1"
        ]
    );
}

#[test]
fn a_resource_is_described_only_if_that_says_something() {
    let count = |resource: &[(&str, &str)], time| {
        let points = vec![number(&[], time, 1.0)];
        let request = otlp(pairs(resource), vec![metric("m", "", gauge(points))]);
        samples(json!({}), &request).iter().filter(|s| s.contains("target_info")).count()
    };
    assert_eq!(count(&[("service.name", "s"), ("host.name", "h")], TIME), 1);
    assert_eq!(count(&[("service.instance.id", "s"), ("host.name", "h")], TIME), 1);
    assert_eq!(count(&[("service.name", "s")], TIME), 0);
    assert_eq!(count(&[("host.name", "h")], TIME), 0);
    assert_eq!(count(&[("service.name", "s"), ("host.name", "h")], 0), 0);
    // Two parts of one resource say the same of it.
    let part = otlp(
        pairs(&[("service.name", "s"), ("host.name", "h")]),
        vec![metric("m", "", gauge(vec![number(&[], TIME, 1.0)]))],
    );
    let mut twice = part.clone();
    twice.resource_metrics.extend(part.resource_metrics);
    let translated = translated(json!({}), &twice);
    assert_eq!(translated.dropped.values().sum::<usize>(), 1, "the same point twice");
    let infos: Vec<_> = all_v1(translated).into_iter().map(|s| s.samples.len()).collect();
    assert_eq!(infos, [1, 1]);
}

#[test]
fn what_has_ended_is_stale_in_each_of_its_series() {
    let number = |name: &str| {
        let point = NumberDataPoint { value: None, flags: ENDED, ..number(&[], TIME, 0.0) };
        metric(name, "", sum(CUMULATIVE, true, vec![point]))
    };
    let classic_ended = HistogramDataPoint {
        explicit_bounds: vec![1.0],
        time_unix_nano: TIME,
        flags: ENDED,
        ..Default::default()
    };
    let native_ended =
        ExponentialHistogramDataPoint { time_unix_nano: TIME, flags: ENDED, ..Default::default() };
    let request = bare(vec![
        number("n"),
        metric("h", "", classic(CUMULATIVE, vec![classic_ended])),
        metric("e", "", exponential(CUMULATIVE, vec![native_ended])),
    ]);
    let all = all_v1(translated(plain(), &request));
    let names: Vec<_> = all.iter().map(written).collect();
    assert_eq!(
        names,
        [
            "__name__=n_total",
            "__name__=h_count",
            "__name__=h_sum",
            "__name__=h_bucket le=1",
            "__name__=h_bucket le=+Inf",
            "__name__=e",
        ]
    );
    for series in &all[..5] {
        assert_eq!(series.samples[0].value.to_bits(), STALE, "{series:?}");
        assert_eq!(series.samples[0].timestamp, MILLIS);
    }
    assert_eq!(all[5].histograms[0].sum.to_bits(), STALE);
    assert_eq!(all[5].histograms[0].timestamp, MILLIS);
}

#[test]
fn an_exponential_histogram_is_native() {
    let point = exponential_point(TIME);
    let request = bare(vec![metric("d", "s", exponential(CUMULATIVE, vec![point]))]);
    let all = all_v1(translated(plain(), &request));
    assert_eq!(all.len(), 1);
    assert_eq!(written(&all[0]), "__name__=d_seconds");
    let native = &all[0].histograms[0];
    assert_eq!((native.count_int, native.sum, native.zero_count_int), (Some(7), 9.0, Some(1)));
    assert_eq!(native.positive_spans, [BucketSpan { offset: 1, length: 3 }]);
    assert_eq!(native.positive_deltas, [2, -2, 4]);
    assert_eq!((native.timestamp, native.start_timestamp), (MILLIS, 0));
}

#[test]
fn what_cannot_be_sent_is_counted_by_its_reason_and_the_rest_is_sent() {
    let two = || vec![number(&[("a", "1")], TIME, 1.0), number(&[("a", "2")], TIME, 1.0)];
    let contradicts = HistogramDataPoint { count: 1, ..classic_point(TIME) };
    let coarse = ExponentialHistogramDataPoint { scale: -5, ..exponential_point(TIME) };
    let request = bare(vec![
        metric("delta.sum", "", sum(DELTA, true, two())),
        metric("delta.updown", "", sum(DELTA, false, two())),
        metric("unspecified", "", sum(0, true, two())),
        metric("delta.classic", "", classic(DELTA, vec![classic_point(TIME)])),
        metric("delta.native", "", exponential(DELTA, vec![exponential_point(TIME)])),
        metric("---", "", gauge(two())),
        metric("bad", "", classic(CUMULATIVE, vec![contradicts, classic_point(TIME)])),
        metric("coarse", "", exponential(CUMULATIVE, vec![coarse])),
        metric("timeless", "", gauge(vec![number(&[], 0, 1.0)])),
        metric("twice", "", gauge(vec![number(&[], TIME, 1.0), number(&[], TIME + 1, 2.0)])),
        // A series of the histogram above.
        metric("bad.count", "", gauge(vec![number(&[], TIME + 5_000_000, 1.0)])),
        metric("good", "", gauge(two())),
    ]);
    let translated = translated(plain(), &request);
    let dropped: BTreeMap<_, _> =
        translated.dropped.iter().map(|((why, name), n)| ((*why, name.as_str()), *n)).collect();
    use Reason::{Collision, Malformed, Name, Scale, Temporality};
    assert_eq!(
        dropped,
        BTreeMap::from([
            ((Temporality, "delta.sum"), 2),
            ((Temporality, "delta.updown"), 2),
            ((Temporality, "unspecified"), 2),
            ((Temporality, "delta.classic"), 1),
            ((Temporality, "delta.native"), 1),
            ((Name, "---"), 2),
            ((Malformed, "bad"), 1),
            ((Malformed, "timeless"), 1),
            ((Scale, "coarse"), 1),
            ((Collision, "twice"), 1),
            ((Collision, "bad.count"), 1),
        ])
    );
    let sent: usize = translated.groups.iter().map(|group| group.points).sum();
    assert_eq!(sent, 4);
    let names: BTreeSet<_> = all_v1(translated)
        .iter()
        .map(|s| written(s).split(' ').next().unwrap().to_owned())
        .collect();
    let expected = ["bad_bucket", "bad_count", "bad_sum", "good", "twice"];
    assert_eq!(names, expected.map(|name| format!("__name__={name}")).into());
}

#[test]
fn a_series_that_would_be_two_kinds_at_once_is_one() {
    let request = bare(vec![
        metric("h", "", exponential(CUMULATIVE, vec![exponential_point(TIME)])),
        metric("h", "", gauge(vec![number(&[], TIME + 9_000_000, 1.0)])),
    ]);
    let translated = translated(plain(), &request);
    assert_eq!(translated.dropped, BTreeMap::from([((Reason::Collision, "h".to_owned()), 1)]));
    assert_eq!(all_v1(translated).len(), 1);
}

#[test]
fn samples_of_a_series_are_in_the_order_of_their_times() {
    const MS: u64 = 1_000_000;
    let late = [5, 1, 3].map(|ms| number(&[], TIME + ms * MS, ms as f64));
    let early = [4, 2].map(|ms| number(&[], TIME + ms * MS, ms as f64));
    let histograms = [2, 0, 1].map(|ms| exponential_point(TIME + ms * MS));
    let mut request = bare(vec![
        metric("m", "", gauge(late.into())),
        metric("h", "", exponential(CUMULATIVE, histograms.into())),
    ]);
    request
        .resource_metrics
        .extend(bare(vec![metric("m", "", gauge(early.into()))]).resource_metrics);
    let all = all_v1(translated(plain(), &request));
    assert_eq!(all.len(), 2);
    let values: Vec<_> = all[0].samples.iter().map(|s| s.value).collect();
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0]);
    let times: Vec<_> = all[1].histograms.iter().map(|h| h.timestamp - MILLIS).collect();
    assert_eq!(times, [0, 1, 2]);
}

#[test]
fn exemplars_are_at_the_series_that_they_are_examples_of() {
    let example = |value: f64, text: &str| OtlpExemplar {
        filtered_attributes: pairs(&[("who.am.i", text)]),
        time_unix_nano: TIME,
        trace_id: vec![0xab; 16],
        span_id: vec![0; 8],
        value: Some(exemplar::Value::AsDouble(value)),
    };
    let long = "x".repeat(200);
    let exemplars = vec![example(99.0, "a"), example(0.5, &long)];
    let with = |point: NumberDataPoint| NumberDataPoint { exemplars: exemplars.clone(), ..point };
    let histogram = HistogramDataPoint { exemplars: exemplars.clone(), ..classic_point(TIME) };
    let native =
        ExponentialHistogramDataPoint { exemplars: exemplars.clone(), ..exponential_point(TIME) };
    let request = bare(vec![
        metric("s", "", sum(CUMULATIVE, true, vec![with(number(&[], TIME, 1.0))])),
        metric("g", "", gauge(vec![with(number(&[], TIME, 1.0))])),
        metric("h", "", classic(CUMULATIVE, vec![histogram])),
        metric("e", "", exponential(CUMULATIVE, vec![native])),
    ]);
    let mut found = Vec::new();
    for series in all_v1(translated(plain(), &request)) {
        for exemplar in &series.exemplars {
            assert_eq!(exemplar.timestamp, MILLIS);
            let labels: Vec<_> = exemplar.labels.iter().map(|l| l.name.as_str()).collect();
            found.push(format!("{}: {} {}", written(&series), exemplar.value, labels.join(",")));
        }
    }
    assert_eq!(
        found,
        [
            "__name__=s_total: 99 trace_id,who_am_i",
            "__name__=s_total: 0.5 trace_id",
            "__name__=h_bucket le=2.5: 0.5 trace_id",
            "__name__=h_bucket le=+Inf: 99 trace_id,who_am_i",
            "__name__=e: 99 trace_id,who_am_i",
            "__name__=e: 0.5 trace_id",
        ]
    );
}

#[test]
fn version_2_says_what_a_series_is_and_since_when_it_counts() {
    let keys =
        json!({"protobuf_message": "io.prometheus.write.v2.Request", "disable_scope_info": true});
    let request = bare(vec![
        metric("io", "By", sum(CUMULATIVE, true, vec![number(&[("k", "v")], TIME, 3.0)])),
        metric("e", "s", exponential(CUMULATIVE, vec![exponential_point(TIME)])),
        metric("g", "", gauge(vec![number(&[], TIME, 1.0)])),
    ]);
    let requests = requests(Version::V2, translated(keys, &request), usize::MAX, true).unwrap();
    let holds: Vec<_> = requests.iter().map(|request| request.holds).collect();
    let floats = Holds { points: 2, samples: 2, ..Default::default() };
    let native = Holds { points: 1, histograms: 1, ..Default::default() };
    assert_eq!(holds, [floats, native], "what some receivers do not take is on its own");
    let messages: Vec<_> = requests.iter().map(decoded_v2).collect();
    let started = (START / 1_000_000) as i64;
    let mut said = Vec::new();
    for message in &messages {
        let text = |place: u32| message.symbols[place as usize].as_str();
        for series in &message.timeseries {
            let metadata = series.metadata.unwrap();
            let (help, unit) = (text(metadata.help_ref), text(metadata.unit_ref));
            said.push((metadata.r#type(), help, unit, series.created_timestamp));
        }
    }
    assert_eq!(
        said,
        [
            (MetricType::Counter, "what io is", "bytes", started),
            (MetricType::Gauge, "what g is", "", 0),
            (MetricType::Histogram, "what e is", "seconds", started),
        ]
    );
    let counter = &messages[0].timeseries[0];
    assert_eq!(counter.samples[0].start_timestamp, started);
    assert_eq!(messages[1].timeseries[0].histograms[0].start_timestamp, started);
    let text = |place: &u32| messages[0].symbols[*place as usize].as_str();
    let labels: Vec<_> = counter.labels_refs.iter().map(text).collect();
    assert_eq!(labels, ["__name__", "io_bytes_total", "k", "v"]);
}

fn decoded_v2(request: &Request) -> v2::Request {
    let plain = snap::raw::Decoder::new().decompress_vec(&request.body).unwrap();
    let message = v2::Request::decode(plain.as_slice()).unwrap();
    assert_eq!(message.symbols[0], "");
    let once: BTreeSet<_> = message.symbols.iter().collect();
    assert_eq!(once.len(), message.symbols.len(), "each text once");
    message
}

#[test]
fn no_request_is_larger_than_configured_and_nothing_is_lost_or_split() {
    let points = (0..200).map(|i| number(&[("i", &i.to_string())], TIME, f64::from(i)));
    let histograms = (0..20).map(|i| HistogramDataPoint {
        attributes: pairs(&[("i", &i.to_string())]),
        ..classic_point(TIME)
    });
    let request = bare(vec![
        metric("m", "", gauge(points.collect())),
        metric("h", "", classic(CUMULATIVE, histograms.collect())),
    ]);
    const MAX: usize = 1000;
    for version in [Version::V1, Version::V2] {
        let translated = translated(plain(), &request);
        let split = requests(version, translated, MAX, true).unwrap();
        let sizes = split.iter().map(|r| snap::raw::decompress_len(&r.body).unwrap());
        let sizes: Vec<_> = sizes.collect();
        assert!(sizes.len() > 8 && sizes.iter().all(|size| *size < MAX), "{version:?}: {sizes:?}");
        let points: usize = split.iter().map(|r| r.holds.points).sum();
        let samples: usize = split.iter().map(|r| r.holds.samples).sum();
        assert_eq!((points, samples), (220, 300), "{version:?}");
        // The points of a request are known by the series that it has.
        for request in &split {
            let names: Vec<String> = match version {
                Version::V1 => messages(std::slice::from_ref(request))[0]
                    .timeseries
                    .iter()
                    .map(|series| written(series).split(' ').next().unwrap().to_owned())
                    .collect(),
                Version::V2 => {
                    let message = decoded_v2(request);
                    let text = |place: u32| message.symbols[place as usize].as_str();
                    let name = |refs: &[u32]| format!("{}={}", text(refs[0]), text(refs[1]));
                    message.timeseries.iter().map(|s| name(&s.labels_refs)).collect()
                }
            };
            let whole =
                names.iter().filter(|n| ["__name__=m", "__name__=h_count"].contains(&n.as_str()));
            let buckets = names.iter().filter(|name| *name == "__name__=h_bucket").count();
            let counts = names.iter().filter(|name| *name == "__name__=h_count").count();
            assert_eq!((whole.count(), buckets), (request.holds.points, 3 * counts));
        }
    }
    // What is larger by itself goes by itself.
    let translated = translated(plain(), &request);
    assert_eq!(requests(Version::V2, translated, 1, true).unwrap().len(), 220);
}

#[test]
fn metadata_goes_in_requests_of_its_own() {
    let request = bare(vec![
        metric("io", "By", sum(CUMULATIVE, true, vec![number(&[], TIME, 3.0)])),
        metric("e", "s", exponential(CUMULATIVE, vec![exponential_point(TIME)])),
    ]);
    let all = requests(Version::V1, translated(plain(), &request), usize::MAX, true).unwrap();
    let messages = messages(&all);
    let lengths: Vec<_> = messages.iter().map(|m| (m.timeseries.len(), m.metadata.len())).collect();
    assert_eq!(lengths, [(1, 0), (1, 0), (0, 2)]);
    assert_eq!(all[2].holds.points, 0);
    let said: Vec<_> = messages[2]
        .metadata
        .iter()
        .map(|m| (m.r#type(), m.metric_family_name.as_str(), m.help.as_str(), m.unit.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (MetricType::Counter, "io_bytes_total", "what io is", "By"),
            (MetricType::Histogram, "e_seconds", "what e is", "s"),
        ]
    );
    let split = requests(Version::V1, translated(plain(), &request), 1, true).unwrap();
    assert_eq!(split.len(), 4);
}

#[test]
fn names_are_translated_by_the_configured_strategy() {
    let points = vec![number(&[("http.route", "/")], TIME, 1.0)];
    let request = bare(vec![metric("http.io", "By", sum(CUMULATIVE, true, points))]);
    for (strategy, name, dot) in [
        ("UnderscoreEscapingWithSuffixes", "n_s_http_io_bytes_total", "_"),
        ("UnderscoreEscapingWithoutSuffixes", "n_s_http_io", "_"),
        ("NoUTF8EscapingWithSuffixes", "n.s_http.io_bytes_total", "."),
        ("NoTranslation", "n.s_http.io", "."),
    ] {
        let keys = json!({
            "namespace": "n.s", "translation_strategy": strategy, "external_labels": {"a.b": "c"},
            "protobuf_message": "io.prometheus.write.v2.Request", "disable_scope_info": true,
            // Without effect beside it.
            "add_metric_suffixes": false,
        });
        let labels = translated(keys, &request).groups[0].series[0].labels.clone();
        let labels: Vec<_> = labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect();
        let expected =
            [format!("__name__={name}"), format!("a{dot}b=c"), format!("http{dot}route=/")];
        assert_eq!(labels, expected, "{strategy}");
    }
}
