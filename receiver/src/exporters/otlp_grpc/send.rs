//! One attempt: a batch becomes a call, and its status a verdict.

use std::{sync::Arc, time::Duration};

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::{
    logs::v1::logs_service_client::LogsServiceClient,
    metrics::v1::metrics_service_client::MetricsServiceClient,
    trace::v1::trace_service_client::TraceServiceClient,
};
use tonic::{
    Code, ConnectError, Request, Status, codec::CompressionEncoding, metadata::MetadataMap,
    transport::Channel,
};
use tonic_types::StatusExt as _;

use super::{Config, endpoint::Address, wire::Wire};
use crate::{
    batch::{Batch, Signal},
    exporters::{
        connect::causes,
        otlp::{Partial, compression::GrpcCompression},
        queue::{Failure, Sender, Sent},
    },
    extensions::auth::Client,
};

/// The wait before a peer that could not be reached is tried again within one attempt: that of gRPC.
const RECONNECT: Duration = Duration::from_secs(1);

/// A client per signal over one connection.
#[derive(Clone)]
struct Clients {
    metrics: MetricsServiceClient<Wire>,
    logs: LogsServiceClient<Wire>,
    traces: TraceServiceClient<Wire>,
}

impl Clients {
    fn new(channel: Channel, compression: GrpcCompression) -> Self {
        let wire = Wire { channel, snappy: compression == GrpcCompression::Snappy };
        let mut clients = Self {
            metrics: MetricsServiceClient::new(wire.clone()),
            logs: LogsServiceClient::new(wire.clone()),
            traces: TraceServiceClient::new(wire),
        };
        let encoding = match compression {
            GrpcCompression::Gzip => CompressionEncoding::Gzip,
            GrpcCompression::Zstd => CompressionEncoding::Zstd,
            GrpcCompression::Snappy | GrpcCompression::None => return clients,
        };
        clients.metrics = clients.metrics.send_compressed(encoding).accept_compressed(encoding);
        clients.logs = clients.logs.send_compressed(encoding).accept_compressed(encoding);
        clients.traces = clients.traces.send_compressed(encoding).accept_compressed(encoding);
        clients
    }
}

/// Makes one attempt.
pub struct Grpc {
    clients: Clients,
    /// As it is configured, for whoever reads why an attempt failed.
    endpoint: String,
    /// The same for the agent's own metrics.
    server: Vec<KeyValue>,
    timeout: Duration,
    wait_for_ready: bool,
    headers: MetadataMap,
    auth: Option<Arc<dyn Client>>,
}

impl Grpc {
    /// Calls over `channel`.
    pub fn new(
        channel: Channel,
        config: &Config,
        headers: MetadataMap,
        auth: Option<Arc<dyn Client>>,
    ) -> Self {
        Self {
            clients: Clients::new(channel, config.compression),
            endpoint: config.endpoint.clone(),
            server: Address::of(&config.endpoint, config.tls.insecure)
                .map_or_else(|_| Vec::new(), |address| address.attributes()),
            timeout: config.timeout,
            wait_for_ready: config.wait_for_ready,
            headers,
            auth,
        }
    }

    async fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        let mut headers = self.headers.clone();
        if let Some(auth) = &self.auth {
            // Without credentials now, but perhaps later: the attempt is made again.
            let unavailable = |e| Status::unavailable(format!("{e:#}"));
            let (name, value) = auth.header().await.map_err(unavailable)?;
            let mut all = headers.into_headers();
            all.insert(name, value);
            headers = MetadataMap::from_headers(all);
        }
        *request.metadata_mut() = headers;
        if !self.timeout.is_zero() {
            // Tells the peer, too.
            request.set_timeout(self.timeout);
        }
        Ok(request)
    }

    async fn call(&self, batch: &Batch) -> Result<Partial, Status> {
        // Cheap: all clients share the connection. A retry needs the batch again, so it is copied.
        let mut clients = self.clients.clone();
        Ok(match batch {
            Batch::Metrics(metrics) => {
                let response = clients.metrics.export(self.request(metrics.clone()).await?).await?;
                response.into_inner().partial_success.into()
            }
            Batch::Logs(logs) => {
                let response = clients.logs.export(self.request(logs.clone()).await?).await?;
                response.into_inner().partial_success.into()
            }
            Batch::Traces(traces) => {
                let response = clients.traces.export(self.request(traces.clone()).await?).await?;
                response.into_inner().partial_success.into()
            }
        })
    }

    async fn attempt(&self, batch: &Batch) -> Result<Partial, Status> {
        loop {
            match self.call(batch).await {
                Err(status) if self.wait_for_ready && unreached(&status) => {
                    tokio::time::sleep(RECONNECT).await;
                }
                result => return result,
            }
        }
    }
}

impl Sender for Grpc {
    type Kept = ();

    fn peer(&self, _: Signal) -> Vec<KeyValue> {
        self.server.clone()
    }

    async fn send(&self, batch: &Batch, _: &mut ()) -> Result<Sent, Failure> {
        let attempt = self.attempt(batch);
        let late = || Status::deadline_exceeded(format!("no answer in {:?}", self.timeout));
        let result = match self.timeout.is_zero() {
            true => attempt.await,
            false => match tokio::time::timeout(self.timeout, attempt).await {
                Err(_) => Err(late()),
                Ok(Err(status)) if status.message() == LATE => Err(late()),
                Ok(result) => result,
            },
        };
        result.map(Partial::sent).map_err(|status| failure(&status, &self.endpoint))
    }
}

/// Whether there was no connection.
fn unreached(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What the library says where the cause says it all.
const NOTHING: &str = "transport error";
/// What it says of an attempt whose time is over, if it comes before the exporter's own timer.
const LATE: &str = "Timeout expired";

/// What a failure is called, with what the transport met, such as a refused connection or certificate.
fn said(status: &Status) -> String {
    let Some(cause) = std::error::Error::source(status) else {
        return status.message().to_owned();
    };
    // It says no more than that it is one.
    let inner = cause.is::<tonic::transport::Error>().then(|| cause.source()).flatten();
    let text = causes(inner.unwrap_or(cause));
    let text = match status.message() {
        message if message == NOTHING || text.contains(message) => text,
        message => format!("{message}: {text}"),
    };
    let hint = HINTS.iter().find(|(sign, _)| text.contains(sign));
    hint.map_or_else(|| text.clone(), |(_, hint)| format!("{text} ({hint})"))
}

/// What libraries say of a peer that speaks something else, and what to look at.
const HINTS: [(&str, &str); 2] = [
    ("InvalidContentType", "it does not speak TLS: is tls::insecure wanted?"),
    ("frame with invalid size", "it does not speak gRPC here, or speaks TLS"),
];

/// Which failures pass: the OTLP specification's table of gRPC codes.
pub fn failure(status: &Status, endpoint: &str) -> Failure {
    use Code::{
        Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable,
    };
    let info = status.get_details_retry_info();
    let hinted = info.is_some();
    let after = info.and_then(|info| info.retry_delay);
    let broken = std::error::Error::source(status).is_some();
    let (code, retryable) = match status.code() {
        code @ (Cancelled | DeadlineExceeded | Aborted | OutOfRange | Unavailable | DataLoss) => {
            (code, true)
        }
        // The server has said nothing: the connection broke. gRPC calls that unavailable; the
        // library has several names for it.
        _ if broken => (Unavailable, true),
        // Without a word on when to come back, it is out of resources for good.
        code => (code, code == ResourceExhausted && hinted),
    };
    let reason = format!("{code:?}: {endpoint}: {}", said(status));
    match retryable {
        true => Failure::Retryable { reason, after },
        false => Failure::Permanent { reason },
    }
}
