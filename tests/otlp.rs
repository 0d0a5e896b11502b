//! An OTLP receiver, written with tonic: what the agent's exporter talks to.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{
        ExponentialHistogramDataPoint, NumberDataPoint, metric::Data, number_data_point,
    },
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Server, ServerTlsConfig},
};

use crate::deadline::wait_for;

/// A running server; it ends with the value.
pub struct OtlpServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    refusals: u32,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its header.
    pub header: MetadataMap,
    /// Its body.
    pub request: ExportMetricsServiceRequest,
}

/// A point of a metric, with what the metric says about it.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// When its counter was zero, in ns since the epoch; 0 for a gauge.
    pub start: u64,
    /// When it was read.
    pub time: u64,
    /// What it says.
    pub value: Reading,
}

/// A point's value.
#[derive(Clone, Debug)]
pub enum Reading {
    /// Of a sum that is cumulative and monotonic.
    Counter(u64),
    /// Of such a sum whose unit has fractions.
    Sum(f64),
    /// Of a sum that goes up and down.
    Level(u64),
    /// Of a gauge.
    Gauge(u64),
    /// A value of the moment that is a share of something.
    Ratio(f64),
    /// Of an exponential histogram that is cumulative.
    Exponential(Box<ExponentialHistogramDataPoint>),
}

impl OtlpServer {
    /// Listens on a free port of the loopback.
    pub fn start() -> Result<Self> {
        Self::serve(None, 0)
    }

    /// The same with TLS.
    pub fn start_tls(tls: ServerTlsConfig) -> Result<Self> {
        Self::serve(Some(tls), 0)
    }

    /// Refuses the first `refusals` requests as a server does that is not ready yet.
    pub fn start_refusing(refusals: u32) -> Result<Self> {
        Self::serve(None, refusals)
    }

    fn serve(tls: Option<ServerTlsConfig>, refusals: u32) -> Result<Self> {
        let runtime = Runtime::new()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { refusals, ..State::default() }));
        let service = MetricsServiceServer::new(Service(Arc::clone(&state)))
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls)?;
        }
        let serving =
            server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);
        Ok(Self { address, state, _runtime: runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that has been received.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state).received.clone()
    }

    /// Every point of the metric `name` that has been received, oldest first.
    pub fn points(&self, name: &str) -> Result<Vec<Point>> {
        let received = self.received();
        let metrics = received
            .iter()
            .flat_map(|received| &received.request.resource_metrics)
            .flat_map(|resource| &resource.scope_metrics)
            .flat_map(|scope| &scope.metrics)
            .filter(|metric| metric.name == name);
        let mut found = Vec::new();
        for metric in metrics {
            found.extend(points(metric.data.as_ref().context("a metric without data")?)?);
        }
        Ok(found)
    }

    /// Waits until a point of the metric `name` fits.
    pub fn wait_for(&self, name: &str, fits: impl Fn(&Point) -> bool) -> Result<Point> {
        wait_for(name, || Ok(self.points(name)?.into_iter().find(&fits)))
    }
}

/// The points of one metric. What is not cumulative is an error.
pub fn points(data: &Data) -> Result<Vec<Point>> {
    /// `AGGREGATION_TEMPORALITY_CUMULATIVE`
    const CUMULATIVE: i32 = 2;
    /// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`
    const ENDED: u32 = 1;
    match data {
        Data::Sum(sum) if sum.aggregation_temporality == CUMULATIVE => {
            let reading = if sum.is_monotonic { Reading::Counter } else { Reading::Level };
            sum.data_points.iter().map(|point| number(point, reading, Reading::Sum)).collect()
        }
        Data::Gauge(gauge) => {
            // One that says no more than that its series has ended is no value of the moment.
            let values = gauge.data_points.iter().filter(|point| point.flags & ENDED == 0);
            values.map(|point| number(point, Reading::Gauge, Reading::Ratio)).collect()
        }
        Data::ExponentialHistogram(histogram)
            if histogram.aggregation_temporality == CUMULATIVE =>
        {
            let point = |point: &ExponentialHistogramDataPoint| {
                Ok(Point {
                    attributes: attributes(&point.attributes)?,
                    start: point.start_time_unix_nano,
                    time: point.time_unix_nano,
                    value: Reading::Exponential(Box::new(point.clone())),
                })
            };
            histogram.data_points.iter().map(point).collect()
        }
        other => bail!("neither cumulative nor a gauge: {other:?}"),
    }
}

fn number(
    point: &NumberDataPoint,
    reading: impl Fn(u64) -> Reading,
    fraction: impl Fn(f64) -> Reading,
) -> Result<Point> {
    let value = match point.value {
        Some(number_data_point::Value::AsInt(value)) => reading(u64::try_from(value)?),
        Some(number_data_point::Value::AsDouble(value)) => fraction(value),
        None => bail!("no value"),
    };
    Ok(Point {
        attributes: attributes(&point.attributes)?,
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        value,
    })
}

fn attributes(pairs: &[KeyValue]) -> Result<BTreeMap<String, String>> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => Ok((pair.key.clone(), text.clone())),
        Some(Value::IntValue(number)) => Ok((pair.key.clone(), number.to_string())),
        other => bail!("attribute {} is neither text nor number: {other:?}", pair.key),
    };
    pairs.iter().map(text).collect()
}

struct Service(Arc<Mutex<State>>);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut state = lock(&self.0);
        if state.refusals > 0 {
            state.refusals -= 1;
            return Err(Status::unavailable("not ready yet"));
        }
        let (header, _, request) = request.into_parts();
        state.received.push(Received { header, request });
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
