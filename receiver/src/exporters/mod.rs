//! The exporters. A new one is a file, its `mod` line and its line in the list.

use crate::component::{AnyExporter, Factory, exporter};

mod debug;
mod prometheus;

/// Every exporter.
pub const EXPORTERS: &[Factory<Box<dyn AnyExporter>>] =
    &[exporter::<debug::Debug>(), exporter::<prometheus::Prometheus>()];
