//! Sampling: the share of the events in the scope that a signal counts.

/// The global `u32` that says that one of so many events is counted, on each CPU for itself. 0: each is.
pub const EVERY: &str = "SAMPLE_EVERY";
/// The global `u32` below which a random number counts its event. 0: each is counted.
pub const BELOW: &str = "SAMPLE_BELOW";
