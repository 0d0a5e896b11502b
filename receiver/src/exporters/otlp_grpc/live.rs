//! Against a real gRPC server on the loopback, whose answers are scripted. The counts are read
//! from the meter, as a scrape would.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Instant,
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Response,
    transport::{Identity, Server, ServerTlsConfig},
};
use tonic_types::ErrorDetails;

use super::*;
use crate::{
    channel::{Output, channel},
    exporters::queue::testing::{Metered, context},
};

/// One answer of the server; what is not scripted is accepted.
enum Answer {
    Fail(Status),
    Reject(i64),
    Never,
}

#[derive(Clone, Default)]
struct Peer {
    script: Arc<Mutex<VecDeque<Answer>>>,
    accepted: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    headers: Arc<Mutex<Vec<MetadataMap>>>,
}

#[tonic::async_trait]
impl MetricsService for Peer {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.headers.lock().unwrap().push(request.metadata().clone());
        let answer = self.script.lock().unwrap().pop_front();
        let mut response = ExportMetricsServiceResponse::default();
        match answer {
            Some(Answer::Fail(status)) => return Err(status),
            Some(Answer::Never) => std::future::pending().await,
            Some(Answer::Reject(points)) => {
                response.partial_success = Some(ExportMetricsPartialSuccess {
                    rejected_data_points: points,
                    error_message: "too old".to_owned(),
                });
            }
            None => {}
        }
        self.accepted.lock().unwrap().push(request.into_inner());
        Ok(Response::new(response))
    }
}

impl Peer {
    fn scripted(script: impl IntoIterator<Item = Answer>) -> Self {
        let peer = Self::default();
        peer.script.lock().unwrap().extend(script);
        peer
    }

    /// Listens; the address it listens on.
    async fn serve(&self, tls: Option<ServerTlsConfig>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = MetricsServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        tokio::spawn(
            server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
        );
        address
    }

    fn received(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

/// A batch of `points` data points.
fn batch(points: usize) -> Batch {
    let data = Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default(); points] });
    let metric = Metric { name: "m".to_owned(), data: Some(data), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    Batch::Metrics(ExportMetricsServiceRequest { resource_metrics: vec![resource] })
}

/// A configuration with short waits, for the plain-text server at `endpoint`.
fn config(endpoint: &str) -> Config {
    let short = Duration::from_millis(10);
    Config {
        endpoint: endpoint.to_owned(),
        tls: tls::Config { insecure: true, ..Default::default() },
        timeout: Duration::from_secs(2),
        retry_on_failure: retry::Config {
            initial_interval: short,
            max_interval: short,
            ..Default::default()
        },
        ..Config::default()
    }
}

/// Starts the exporter. Its task ends when the output is dropped.
async fn start(config: Config) -> (Output, Metered, JoinHandle<anyhow::Result<()>>) {
    let (cx, metered) = context("otlp_grpc");
    let (out, input) = channel();
    let mut exporter = OtlpGrpc::new(config).unwrap();
    exporter.start(&cx).await.unwrap();
    (out, metered, tokio::spawn(exporter.run(cx, input)))
}

/// Sends one batch of 7 points and, when `peer` has answered all that was scripted, shuts down.
/// Returns the points counted as sent and as failed.
async fn one(peer: &Peer, config: Config) -> (u64, u64) {
    let (out, metered, task) = start(config).await;
    out.send(batch(7)).await.unwrap();
    // Shutdown breaks off retries: first let them happen.
    metered.wait_for("otelcol_exporter_s", 7).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert!(peer.script.lock().unwrap().is_empty(), "the peer was asked too few times");
    (metered.count("otelcol_exporter_sent"), metered.count("otelcol_exporter_send_failed"))
}

fn unavailable() -> Answer {
    Answer::Fail(Status::unavailable("restarting"))
}

#[tokio::test]
async fn sends_what_it_is_given_with_headers_and_each_compression() {
    for compression in ["gzip", "zstd", "none"] {
        let peer = Peer::default();
        let address = peer.serve(None).await;
        let headers =
            serde_json::from_value(serde_json::json!({"Authorization": "Bearer x"})).unwrap();
        let config = Config {
            compression: serde_json::from_value(compression.into()).unwrap(),
            headers,
            ..config(&address)
        };
        assert_eq!(one(&peer, config).await, (7, 0), "{compression}");
        let Batch::Metrics(expected) = batch(7) else { unreachable!() };
        assert_eq!(*peer.accepted.lock().unwrap(), [expected]);
        let headers = peer.headers.lock().unwrap()[0].clone();
        assert_eq!(headers.get("authorization").unwrap(), "Bearer x");
        assert!(headers.get("user-agent").unwrap().to_str().unwrap().starts_with("fathom/"));
        let encoding = headers.get("grpc-encoding").map_or("none", |v| v.to_str().unwrap());
        assert_eq!(encoding, compression);
    }
}

#[tokio::test]
async fn retries_until_the_server_is_back() {
    let peer = Peer::scripted([unavailable(), unavailable(), unavailable()]);
    let address = peer.serve(None).await;
    assert_eq!(one(&peer, config(&address)).await, (7, 0));
    assert_eq!(peer.received(), 1);
}

#[tokio::test]
async fn an_exhausted_server_is_retried_when_it_says_when() {
    let asked = Duration::from_millis(400);
    let full = Status::with_error_details(
        Code::ResourceExhausted,
        "full",
        ErrorDetails::with_retry_info(Some(asked)),
    );
    let peer = Peer::scripted([Answer::Fail(full)]);
    let address = peer.serve(None).await;
    let begun = Instant::now();
    assert_eq!(one(&peer, config(&address)).await, (7, 0));
    assert!(begun.elapsed() >= asked, "came back after {:?}", begun.elapsed());

    let peer = Peer::scripted([Answer::Fail(Status::resource_exhausted("full"))]);
    let address = peer.serve(None).await;
    assert_eq!(one(&peer, config(&address)).await, (0, 7));
    assert_eq!(peer.received(), 0);
}

#[tokio::test]
async fn exactly_the_specified_codes_are_retried() {
    let retried: Vec<_> = (0..=16)
        .map(Code::from_i32)
        .filter(|c| matches!(failure(&Status::new(*c, "")), Failure::Retryable { .. }))
        .collect();
    use Code::*;
    assert_eq!(retried, [Cancelled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss]);

    let peer = Peer::scripted([Answer::Fail(Status::invalid_argument("no"))]);
    let address = peer.serve(None).await;
    assert_eq!(one(&peer, config(&address)).await, (0, 7));
}

#[tokio::test]
async fn rejected_points_are_failed_points() {
    let peer = Peer::scripted([Answer::Reject(3)]);
    let address = peer.serve(None).await;
    assert_eq!(one(&peer, config(&address)).await, (4, 3));
    assert_eq!(peer.received(), 1, "a partial success is not sent again");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let peer = Peer::scripted([Answer::Never]);
    let address = peer.serve(None).await;
    let mut config = config(&address);
    config.timeout = Duration::from_millis(100);
    assert_eq!(one(&peer, config).await, (7, 0), "the second attempt is answered");

    let peer = Peer::scripted([Answer::Never]);
    let address = peer.serve(None).await;
    let mut config = self::config(&address);
    config.timeout = Duration::from_millis(100);
    config.retry_on_failure.enabled = false;
    assert_eq!(one(&peer, config).await, (0, 7));
}

#[tokio::test]
async fn a_server_may_come_up_after_the_agent() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let (out, metered, task) = start(config(&address.to_string())).await;
    out.send(batch(7)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(metered.count("otelcol_exporter_s"), 0, "nothing is sent or lost yet");
    let peer = Peer::default();
    let listener = TcpListener::bind(address).await.unwrap();
    let service =
        MetricsServiceServer::new(peer.clone()).accept_compressed(CompressionEncoding::Gzip);
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    metered.wait_for("otelcol_exporter_sent", 7).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert_eq!(peer.received(), 1);
}

#[tokio::test]
async fn tls_is_on_by_default_and_checks_the_server() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
    let peer = Peer::default();
    let address = peer
        .serve(Some(ServerTlsConfig::new().identity(identity)))
        .await
        .replace("127.0.0.1", "localhost");
    let with = |tls: serde_json::Value| Config {
        tls: serde_json::from_value(tls).unwrap(),
        retry_on_failure: retry::Config { enabled: false, ..Default::default() },
        ..config(&address)
    };
    let ca = made.cert.pem();
    let by_number = address.replace("localhost", "127.0.0.1");

    assert_eq!(one(&peer, with(serde_json::json!({"ca_pem": ca}))).await, (7, 0));
    assert_eq!(one(&peer, with(serde_json::json!({"insecure_skip_verify": true}))).await, (7, 0));
    let named = serde_json::json!({"ca_pem": ca, "server_name_override": "localhost"});
    let named = Config { endpoint: by_number.clone(), ..with(named) };
    assert_eq!(one(&peer, named).await, (7, 0));
    // `https://` overrules `insecure`.
    let forced = serde_json::json!({"ca_pem": ca, "insecure": true});
    let forced = Config { endpoint: format!("https://{address}"), ..with(forced) };
    assert_eq!(one(&peer, forced).await, (7, 0));
    assert_eq!(peer.received(), 4);

    // An authority that did not sign it, a name that is not in it, and no TLS at all.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    assert_eq!(one(&peer, with(serde_json::json!({"ca_pem": other}))).await, (0, 7));
    let unnamed = Config { endpoint: by_number, ..with(serde_json::json!({"ca_pem": ca})) };
    assert_eq!(one(&peer, unnamed).await, (0, 7));
    assert_eq!(one(&peer, with(serde_json::json!({"insecure": true}))).await, (0, 7));
    assert_eq!(peer.received(), 4);
}

#[tokio::test]
async fn certificates_that_cannot_be_read_stop_the_start() {
    let (cx, _) = context("otlp_grpc");
    for (tls, expected) in [
        (serde_json::json!({"ca_file": "/nonexistent.pem"}), "tls::ca_file: /nonexistent.pem"),
        (serde_json::json!({"ca_pem": "rubbish"}), "tls: the CA given holds no PEM certificate"),
    ] {
        let tls = serde_json::from_value(tls).unwrap();
        let mut exporter = OtlpGrpc::new(Config { tls, ..config("localhost:1") }).unwrap();
        let error = exporter.start(&cx).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn secrets_are_not_printed() {
    let config: Config = serde_json::from_value(serde_json::json!({
        "headers": {"authorization": "hunter2"}, "tls": {"key_pem": "hunter2"},
    }))
    .unwrap();
    let printed = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
    assert!(!printed.contains("hunter2") && printed.contains("[REDACTED]"));
}
