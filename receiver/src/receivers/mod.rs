//! The receivers. A new one is a file, its `mod` line and its line in the list.

use crate::component::{AnyReceiver, Factory};

/// Every receiver.
pub const RECEIVERS: &[Factory<Box<dyn AnyReceiver>>] = &[];
