//! A gRPC server on the loopback whose answers are scripted, and the exporter against it. The
//! counts are read from the meter, as a scrape would.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Server, ServerTlsConfig, server::Router},
};

use super::*;
use crate::{
    batch::Batch,
    channel::{Output, channel},
    exporters::queue::testing::{Metered, context},
};

/// One answer of the server; what is not scripted is accepted.
pub enum Answer {
    Fail(Status),
    Reject(i64),
    Never,
}

#[derive(Clone, Default)]
pub struct Peer {
    pub script: Arc<Mutex<VecDeque<Answer>>>,
    pub accepted: Arc<Mutex<Vec<Batch>>>,
    pub headers: Arc<Mutex<Vec<MetadataMap>>>,
}

macro_rules! service {
    ($service:ident $request:ident $response:ident $partial:ident $rejected:ident $signal:ident) => {
        #[tonic::async_trait]
        impl $service for Peer {
            async fn export(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$response>, Status> {
                let (rejected, error_message) = self.answer(request.metadata().clone()).await?;
                let partial = $partial { $rejected: rejected, error_message };
                let partial_success = (rejected > 0).then_some(partial);
                self.accepted.lock().unwrap().push(Batch::$signal(request.into_inner()));
                Ok(Response::new($response { partial_success }))
            }
        }
    };
}

service!(MetricsService ExportMetricsServiceRequest ExportMetricsServiceResponse
    ExportMetricsPartialSuccess rejected_data_points Metrics);
service!(LogsService ExportLogsServiceRequest ExportLogsServiceResponse
    ExportLogsPartialSuccess rejected_log_records Logs);
service!(TraceService ExportTraceServiceRequest ExportTraceServiceResponse
    ExportTracePartialSuccess rejected_spans Traces);

impl Peer {
    pub fn scripted(script: impl IntoIterator<Item = Answer>) -> Self {
        let peer = Self::default();
        peer.script.lock().unwrap().extend(script);
        peer
    }

    async fn answer(&self, headers: MetadataMap) -> Result<(i64, String), Status> {
        self.headers.lock().unwrap().push(headers);
        let answer = self.script.lock().unwrap().pop_front();
        match answer {
            Some(Answer::Fail(status)) => Err(status),
            Some(Answer::Never) => std::future::pending().await,
            Some(Answer::Reject(items)) => Ok((items, "too old".to_owned())),
            None => Ok((0, String::new())),
        }
    }

    /// Listens; the address it listens on.
    pub async fn serve(&self, tls: Option<ServerTlsConfig>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.serve_on(listener, tls);
        address.to_string()
    }

    /// Listens there.
    pub fn serve_on(&self, listener: TcpListener, tls: Option<ServerTlsConfig>) {
        let serving = self.router(tls).serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
    }

    /// The services.
    pub fn router(&self, tls: Option<ServerTlsConfig>) -> Router {
        macro_rules! both {
            ($server:ident) => {
                $server::new(self.clone())
                    .accept_compressed(CompressionEncoding::Gzip)
                    .accept_compressed(CompressionEncoding::Zstd)
            };
        }
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        server
            .add_service(both!(MetricsServiceServer))
            .add_service(both!(LogsServiceServer))
            .add_service(both!(TraceServiceServer))
    }

    pub fn received(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
}

/// An address where nothing listens yet, and what keeps it from others.
pub fn reserve() -> (SocketAddr, TcpSocket) {
    let holder = socket();
    holder.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (holder.local_addr().unwrap(), holder)
}

/// Listens at a reserved address.
pub fn listen(address: SocketAddr) -> TcpListener {
    let socket = socket();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket
}

/// A batch of `points` data points.
pub fn batch(points: usize) -> Batch {
    let data = Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default(); points] });
    let metric = Metric { name: "m".to_owned(), data: Some(data), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    Batch::Metrics(ExportMetricsServiceRequest { resource_metrics: vec![resource] })
}

/// A configuration with short waits, for the plain-text server at `endpoint`.
pub fn config(endpoint: &str) -> Config {
    let short = Duration::from_millis(10);
    Config {
        endpoint: endpoint.to_owned(),
        tls: tls::Config { insecure: true, ..Default::default() },
        timeout: Duration::from_secs(2),
        retry_on_failure: retry::Config {
            initial_interval: short.into(),
            max_interval: short.into(),
            ..Default::default()
        },
        ..Config::default()
    }
}

/// Starts the exporter. Its task ends when the output is dropped.
pub async fn start(config: Config) -> (Output, Metered, JoinHandle<anyhow::Result<()>>) {
    let (cx, metered) = context("otlp_grpc");
    let (out, input) = channel();
    let mut exporter = OtlpGrpc::new(config).unwrap();
    exporter.start(&cx).await.unwrap();
    (out, metered, tokio::spawn(exporter.run(cx, input)))
}

/// Sends one batch of 7 points and, when `peer` has answered all that was scripted, shuts down.
/// Returns the points counted as sent and as failed.
pub async fn one(peer: &Peer, config: Config) -> (u64, u64) {
    let (out, metered, task) = start(config).await;
    out.send(batch(7)).await.unwrap();
    // Shutdown breaks off retries: first let them happen.
    metered.wait_for("otelcol_exporter_s", 7).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert!(peer.script.lock().unwrap().is_empty(), "the peer was asked too few times");
    (metered.count("otelcol_exporter_sent"), metered.count("otelcol_exporter_send_failed"))
}
