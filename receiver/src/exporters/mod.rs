//! The exporters. A new one is a file, its `mod` line and its line in the list.

use crate::component::{AnyExporter, Factory, exporter};

mod debug;
mod file;
pub(crate) mod otlp_grpc;
pub(crate) mod otlp_http;
// Its server is the extensions', too.
pub(crate) mod prometheus;
mod prometheusremotewrite;
// Shared by the exporters that send.
mod connect;
pub(crate) mod http;
pub(crate) mod middlewares;
mod native;
pub(crate) mod otlp;
mod proxy;
pub(crate) mod queue;
pub(crate) mod retry;
pub(crate) mod tls;

#[cfg(test)]
pub(crate) use queue::testing;

/// Every exporter.
pub const EXPORTERS: &[Factory<Box<dyn AnyExporter>>] = &[
    exporter::<debug::Debug>(),
    exporter::<file::File>(),
    exporter::<otlp_grpc::OtlpGrpc>(),
    exporter::<otlp_http::OtlpHttp>(),
    exporter::<prometheus::Prometheus>(),
    exporter::<prometheusremotewrite::PrometheusRemoteWrite>(),
];
