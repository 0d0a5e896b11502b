//! Runs of compaction, by result.

/// Results by their number, `enum compact_result` of include/linux/compaction.h, unchanged since Linux 4.8.
pub const RESULTS: [&str; 9] = [
    "not_suitable_zone",
    "skipped",
    "deferred",
    "no_suitable_page",
    "continue",
    "complete",
    "partial_skipped",
    "contended",
    "success",
];

/// Where results are counted that have no name.
pub const OTHER: u32 = RESULTS.len() as u32;
/// Kinds of durations.
pub const KINDS: u32 = OTHER + 1;

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Runs lost because the map of threads inside one was full.
        InFlightFull,
    }
}
