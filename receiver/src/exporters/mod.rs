//! The exporters. A new one is a file, its `mod` line and its line in the list.

use crate::component::{AnyExporter, Factory};

/// Every exporter.
pub const EXPORTERS: &[Factory<Box<dyn AnyExporter>>] = &[];
