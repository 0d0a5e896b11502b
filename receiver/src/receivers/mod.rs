//! The receivers. A new one is a file or folder, its `mod` line and its line in the list.

use crate::component::{AnyReceiver, Factory, receiver};

pub mod iomonitor;

/// Every receiver.
pub const RECEIVERS: &[Factory<Box<dyn AnyReceiver>>] = &[receiver::<iomonitor::IoMonitor>()];
