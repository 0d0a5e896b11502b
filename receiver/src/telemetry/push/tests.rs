//! The agent's own telemetry as a peer gets it, and what is wrong with how it is configured.

use std::{
    sync::{Mutex as Lock, atomic::Ordering},
    time::UNIX_EPOCH,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Uri},
    routing::post,
};
use opentelemetry::{
    KeyValue,
    logs::{LogRecord as _, Logger as _, LoggerProvider as _},
    metrics::Counter,
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{
    Code, Status,
    transport::{Identity, ServerTlsConfig},
};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::{Instrument as _, error_span, info, trace_span};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::{
    exporters::otlp_grpc::peer::{Answer, Peer},
    telemetry::{Config, SPANS, Telemetry},
};

/// What came: its path, its headers and its body.
type Came = std::sync::Arc<Lock<Vec<(String, HeaderMap, Bytes)>>>;

async fn peer() -> (String, Came) {
    let came = Came::default();
    let take = async |State(came): State<Came>, url: Uri, headers: HeaderMap, body: Bytes| {
        came.lock().unwrap().push((url.path().to_owned(), headers, body));
    };
    let router = Router::new().fallback(post(take)).with_state(came.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async { axum::serve(listener, router).await });
    (address, came)
}

fn config(config: serde_json::Value) -> Config {
    serde_json::from_value(config).expect("of the right types")
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_pushed_over_http_with_headers_and_temporality() {
    let (address, came) = peer().await;
    let otlp = json!({
        "protocol": "http/protobuf", "endpoint": address, "insecure": true, "compression": "none",
        "headers": [{"name": "x-a", "value": "1"}], "headers_list": "x-a=0, x-b=50%25",
        "temporality_preference": "delta",
    });
    let reader = json!({"periodic": {"interval": 3_600_000, "exporter": {"otlp": otlp}}});
    let config = config(json!({
        "metrics": {"readers": [reader]}, "resource": {"service.name": "me", "service.version": null},
    }));
    config.check().expect("valid");
    let telemetry = Telemetry::start(&config).await.expect("it starts");
    let counter: Counter<u64> = telemetry.meter().u64_counter("otelcol_x").build();
    counter.add(7, &[]);
    // The last ones are sent at the end.
    telemetry.shutdown().await;
    let came = came.lock().unwrap();
    let (path, headers, body) = came.last().expect("something came");
    assert_eq!(path, "/v1/metrics");
    assert_eq!((headers["x-a"].as_bytes(), headers["x-b"].as_bytes()), (&b"1"[..], &b"50%25"[..]));
    let request = ExportMetricsServiceRequest::decode(body.clone()).expect("OTLP");
    let of = &request.resource_metrics[0];
    let resource: Vec<_> = of.resource.iter().flat_map(|r| &r.attributes).map(|a| &a.key).collect();
    assert!(!resource.contains(&&"service.version".to_owned()), "{resource:?}");
    let text = format!("{of:?}");
    assert!(text.contains("\"otelcol_x\"") && text.contains("AsInt(7)"), "{text}");
    assert!(
        text.contains("aggregation_temporality: Delta")
            || text.contains("aggregation_temporality: 1"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_pushed_over_grpc_with_tls_and_gzip_until_they_are_taken() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
    let peer = Peer::scripted([Answer::Fail(Status::unavailable("later")), Answer::Never]);
    let address = peer.serve(Some(ServerTlsConfig::new().identity(identity))).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), made.cert.pem()).expect("written");
    let otlp = json!({
        "endpoint": address.replace("127.0.0.1", "localhost"), "certificate": file.path(),
        "compression": "gzip", "headers": {"x-a": "50%25"}, "timeout": 1000,
    });
    let reader = json!({"periodic": {"interval": 500, "exporter": {"otlp": otlp}}});
    let config = config(json!({"metrics": {"readers": [reader]}}));
    config.check().expect("valid");
    let telemetry = Telemetry::start(&config).await.expect("it starts");
    telemetry.meter().u64_counter("otelcol_x").build().add(7, &[]);
    // Refused, kept waiting, taken.
    while peer.headers.lock().unwrap().len() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    telemetry.shutdown().await;
    let headers = peer.headers.lock().unwrap();
    assert!(headers.iter().all(|of| of.get("x-a").is_some_and(|value| value == "50%25")));
    assert!(headers.iter().all(|of| of.get("grpc-encoding").is_some_and(|value| value == "gzip")));
    let accepted = peer.accepted.lock().unwrap();
    let text = format!("{:?}", accepted[0]);
    assert!(text.contains("\"otelcol_x\"") && text.contains("AsInt(7)"), "{text}");
}

/// What a layer puts into queues, as it is sent.
async fn sent<T: Record>(
    processor: serde_json::Value,
    log: impl AsyncFnOnce(Vec<Queue<T>>),
) -> Vec<(String, Bytes)> {
    let (address, came) = peer().await;
    let mut text = processor.to_string();
    text = text.replace("ADDRESS", &format!("http://{address}"));
    let processor: Processor = serde_json::from_str(&text).expect("of the right types");
    assert!(processor.check("log").0.is_empty(), "{:?}", processor.check("log"));
    let (queue, waiting) = Waiting::new(&processor);
    let source = Resource::builder_empty().build();
    let sending = waiting.start(&source).expect("it starts");
    log(vec![queue]).await;
    Sending::end(vec![sending]).await;
    let came = came.lock().unwrap();
    came.iter().map(|(path, _, body)| (path.clone(), body.clone())).collect()
}

#[tokio::test]
async fn spans_of_batches_name_their_component_and_its_errors() {
    let otlp = json!({"protocol": "http/protobuf", "endpoint": "ADDRESS/custom"});
    let processor = json!({"simple": {"exporter": {"otlp": otlp}}});
    let came = sent(processor, async |queues| {
        let traces = config(json!({"traces": {"sampler": {"parent_based": {"root": {"always_on": {}}}}}}));
        let layer = traces.traces.spans(queues);
        let recent = crate::telemetry::recent::Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent).with(layer);
        let _guard = tracing::subscriber::set_default(subscriber);
        let exporter = error_span!("component", otelcol.component.id = %"otlp/a", otelcol.component.kind = "exporter");
        async {
            let span = trace_span!(target: SPANS, "deliver", signal = "metrics", items.sent = 3, error = "away");
            async { info!("no span") }.instrument(span).await;
        }
        .instrument(exporter)
        .await;
    })
    .await;
    assert_eq!(came.len(), 1);
    assert_eq!(came[0].0, "/custom", "a path that is given is the whole one");
    let request = ExportTraceServiceRequest::decode(came[0].1.clone()).expect("OTLP");
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "exporter/otlp/a/metrics");
    assert_eq!(span.status.as_ref().map(|status| status.message.as_str()), Some("away"));
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.span_id.len() == 8);
    assert!(format!("{:?}", span.attributes).contains("items.sent"), "{span:?}");
}

#[tokio::test]
async fn records_wait_for_each_other_and_none_for_the_network() {
    let otlp = json!({"protocol": "http/protobuf", "endpoint": "ADDRESS"});
    let batch = json!({"schedule_delay": 3_600_000, "max_export_batch_size": 3, "max_queue_size": 5, "exporter": {"otlp": otlp}});
    let mut dropped = None;
    let came = sent(json!({"batch": batch}), async |queues| {
        let logger = SdkLoggerProvider::builder().build().logger("test");
        for i in 0..8 {
            let mut record = logger.create_log_record();
            record.set_observed_timestamp(UNIX_EPOCH + Duration::from_nanos(i));
            queues[0].put(record);
        }
        dropped = Some(queues[0].dropped());
    })
    .await;
    let times = |(path, body): &(String, Bytes)| {
        assert_eq!(path, "/v1/logs");
        let request = ExportLogsServiceRequest::decode(body.clone()).expect("OTLP");
        let records = &request.resource_logs[0].scope_logs[0].log_records;
        records.iter().map(|record| record.observed_time_unix_nano).collect::<Vec<_>>()
    };
    assert_eq!(came.iter().map(times).collect::<Vec<_>>(), [vec![0, 1, 2], vec![3, 4]]);
    assert_eq!(dropped, Some(3));
}

/// The first answer is a refusal for now, the second one for good.
#[tokio::test]
async fn what_nobody_takes_is_tried_again_or_counted() {
    let peer = Peer::scripted([
        Answer::Fail(Status::unavailable("later")),
        Answer::Fail(Status::invalid_argument("never")),
    ]);
    let otlp = json!({"endpoint": peer.serve(None).await, "insecure": true});
    let processor = json!({"simple": {"exporter": {"otlp": otlp}}});
    let processor: Processor = serde_json::from_value(processor).expect("of the right types");
    let (queue, waiting) = Waiting::new(&processor);
    let source = Resource::builder_empty().with_attribute(KeyValue::new("a", "b")).build();
    let sending = waiting.start(&source).expect("it starts");
    let dropped = sending.dropped.clone();
    let logger = SdkLoggerProvider::builder().build().logger("test");
    for _ in 0..2 {
        let mut record = logger.create_log_record();
        record.set_observed_timestamp(UNIX_EPOCH);
        queue.put(record);
    }
    while peer.headers.lock().unwrap().len() < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Sending::end(vec![sending]).await;
    assert_eq!(peer.headers.lock().unwrap().len(), 3);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    let accepted = peer.accepted.lock().unwrap();
    let [Batch::Logs(request)] = &accepted[..] else { panic!("{accepted:?}") };
    let of = &request.resource_logs[0];
    assert_eq!(of.resource.as_ref().expect("it has one").attributes[0].key, "a");
    assert_eq!(of.scope_logs[0].scope.as_ref().expect("it has one").name, "fathom");
}

/// A record on its way to a peer that answers so.
async fn on_its_way(script: impl IntoIterator<Item = Answer>) -> (Peer, Sending) {
    let peer = Peer::scripted(script);
    let otlp = json!({"endpoint": peer.serve(None).await, "insecure": true});
    let processor = json!({"simple": {"exporter": {"otlp": otlp}}});
    let processor: Processor = serde_json::from_value(processor).expect("of the right types");
    let (queue, waiting) = Waiting::new(&processor);
    let sending = waiting.start(&Resource::builder_empty().build()).expect("it starts");
    let mut record = SdkLoggerProvider::builder().build().logger("test").create_log_record();
    record.set_observed_timestamp(UNIX_EPOCH);
    queue.put(record);
    (peer, sending)
}

#[tokio::test]
async fn at_the_end_it_is_tried_once() {
    let away = || Answer::Fail(Status::unavailable("later"));
    let (peer, sending) = on_its_way(std::iter::repeat_with(away).take(100)).await;
    let dropped = sending.dropped.clone();
    Sending::end(vec![sending]).await;
    assert_eq!(peer.headers.lock().unwrap().len(), 1);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_peer_is_left_alone_for_as_long_as_it_asks() {
    let wait = Duration::from_millis(1100);
    let details = ErrorDetails::with_retry_info(Some(wait));
    let busy = Status::with_error_details(Code::ResourceExhausted, "busy", details);
    let begun = std::time::Instant::now();
    let (peer, sending) = on_its_way([Answer::Fail(busy)]).await;
    while peer.accepted.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
    Sending::end(vec![sending]).await;
}

#[test]
fn what_is_wrong_is_said_in_the_collectors_words() {
    let telemetry = |path: &str, value: serde_json::Value| -> Vec<(String, String)> {
        let (section, key) = path.split_once("::").expect("a path");
        let mut of = json!({});
        of[section][key] = value;
        let wrong = config(of).check().err().unwrap_or_default();
        wrong.0.into_iter().map(|m| (m.path, m.message)).collect()
    };
    let otlp = |otlp: serde_json::Value| json!([{"batch": {"exporter": {"otlp": otlp}}}]);
    let both = json!({"exporter": {"console": {}}});
    for (path, value, at, message) in [
        (
            "logs::processors",
            json!([{}]),
            "logs::processors::0",
            "unsupported log processor type, must be one of simple or batch",
        ),
        (
            "logs::processors",
            json!([{"batch": both, "simple": both}]),
            "logs::processors::0",
            "must not specify multiple log processor type",
        ),
        (
            "logs::processors",
            json!([{"batch": {"exporter": {}}}]),
            "logs::processors::0::batch::exporter",
            "no valid log exporter: there are otlp and console",
        ),
        (
            "logs::processors",
            json!([{"batch": {"max_queue_size": -1, "exporter": {"console": {}}}}]),
            "logs::processors::0::batch::max_queue_size",
            "invalid queue size -1",
        ),
        (
            "logs::processors",
            otlp(json!({"protocol": "udp"})),
            "logs::processors::0::batch::exporter::otlp::protocol",
            "unsupported protocol \"udp\"",
        ),
        (
            "logs::processors",
            otlp(json!({"compression": "zip"})),
            "logs::processors::0::batch::exporter::otlp::compression",
            "unsupported compression \"zip\"",
        ),
        (
            "logs::processors",
            otlp(json!({"client_key": "/k"})),
            "logs::processors::0::batch::exporter::otlp::client_certificate",
            "TLS configuration must include both certificate and key (CertFile/CertPem and KeyFile/KeyPem)",
        ),
        (
            "traces::processors",
            json!([{}]),
            "traces::processors::0",
            "unsupported span processor type, must be one of simple or batch",
        ),
        (
            "traces::propagators",
            json!(["b3", "xray"]),
            "traces::propagators::1",
            "error creating propagator: unsupported trace propagator",
        ),
        ("traces::sampler", json!({}), "traces::sampler", "invalid sampler configuration"),
        (
            "metrics::views",
            json!([{"selector": {"unit": "s"}}]),
            "metrics::views",
            "service::telemetry::metrics::views can only be set when service::telemetry::metrics::level is detailed",
        ),
        (
            "metrics::readers",
            json!([]),
            "metrics::readers",
            "collector telemetry metrics reader should exist when metric level is not none",
        ),
        (
            "metrics::readers",
            json!([{}]),
            "metrics::readers::0",
            "no valid metric reader: must be either pull or periodic",
        ),
        (
            "metrics::readers",
            json!([{"pull": {}, "periodic": {}}]),
            "metrics::readers::0",
            "must not specify multiple metric reader type",
        ),
        (
            "metrics::readers",
            json!([{"periodic": {"exporter": {"otlp": {"temporality_preference": "x"}}}}]),
            "metrics::readers::0::periodic::exporter::otlp::temporality_preference",
            "unsupported temporality preference \"x\"",
        ),
        (
            "resource::attributes_list",
            json!("a=b"),
            "resource::attributes_list",
            "resource::attributes_list is not currently supported",
        ),
    ] {
        assert_eq!(telemetry(path, value), [(at.to_owned(), message.to_owned())], "{path}");
    }
}

#[test]
fn what_the_collector_takes_is_taken() {
    for accepted in [
        json!({"logs": {"processors": [{"batch": {"exporter": {"console": {}}}}]}}),
        json!({"logs": {"processors": [{"simple": {"exporter": {"otlp": {"protocol": "grpc", "endpoint": "https://x:4317", "certificate": "/ca"}}}}]}}),
        json!({"traces": {"level": "none"}}),
        json!({"traces": {"propagators": ["tracecontext", "b3"], "sampler": {"trace_id_ratio_based": {"ratio": 0.5}},
            "processors": [{"batch": {"exporter": {"otlp": {"protocol": "http/protobuf", "endpoint": "http://x:4318/v1/traces", "timeout": 0}}}}]}}),
        json!({"metrics": {"level": "none", "readers": []}}),
        json!({"metrics": {"level": "detailed", "views": [{"selector": {"instrument_name": "a*"}}]}}),
        json!({"metrics": {"readers": [{"pull": {"exporter": {"prometheus": {"host": "::1", "port": 1, "with_resource_constant_labels": {"included": ["service.name"]}}}}}]}}),
        json!({"metrics": {"readers": [{"periodic": {"timeout": 5, "exporter": {"console": {}}}}]}}),
        json!({"resource": {"service.name": "x", "service.instance.id": null}}),
        json!({"resource": {"schema_url": "u", "detectors": {}, "attributes": [{"name": "service.name", "value": "y"}, {"name": "n", "value": 5, "type": "int"}]}}),
        json!({"resource": {"attributes": "a name like any other"}}),
    ] {
        config(accepted.clone()).check().unwrap_or_else(|wrong| panic!("{accepted}: {wrong:?}"));
    }
}

#[test]
fn both_forms_of_the_resource_say_what_the_agent_is() {
    let of =
        |resource: serde_json::Value| config(json!({"resource": resource})).resource.attributes();
    let map = of(json!({"service.name": "x", "service.version": null}));
    assert_eq!(map["service.name"], "x");
    assert!(!map.contains_key("service.version") && map.contains_key("service.instance.id"));
    let list = of(
        json!({"attributes": [{"name": "service.name", "value": "y"}, {"name": "n", "value": 5}]}),
    );
    assert_eq!((list["service.name"].as_str(), list["n"].as_str()), ("y", "5"));
}
