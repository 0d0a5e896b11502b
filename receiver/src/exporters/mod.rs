//! The exporters. A new one is a file, its `mod` line and its line in the list.

use crate::component::{AnyExporter, Factory, exporter};

mod debug;
mod otlp_grpc;
mod prometheus;
// Shared by the exporters that send.
mod queue;
mod retry;
mod tls;

/// Every exporter.
pub const EXPORTERS: &[Factory<Box<dyn AnyExporter>>] = &[
    exporter::<debug::Debug>(),
    exporter::<otlp_grpc::OtlpGrpc>(),
    exporter::<prometheus::Prometheus>(),
];
