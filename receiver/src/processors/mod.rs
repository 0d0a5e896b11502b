//! The processors. A new one is a file, its `mod` line and its line in the list.

use crate::component::{AnyProcessor, Factory};

/// Every processor.
pub const PROCESSORS: &[Factory<Box<dyn AnyProcessor>>] = &[];
