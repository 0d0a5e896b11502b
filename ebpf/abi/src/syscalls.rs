//! Calls, errors, bytes and durations of the system calls that are watched.

use crate::{errno, exponential};

/// Calls that can be watched at once: entries of the map `STATS`.
pub const MAX_WATCHED: usize = 32;
/// System call numbers that the table [`WATCHED`] covers; higher ones cannot be watched.
pub const NUMBERS: usize = 512;
/// In the table: nobody watches this call.
pub const UNWATCHED: u8 = u8::MAX;
/// The global `[u8; NUMBERS]` that maps a call's number to its entry in `STATS`.
pub const WATCHED: &str = "WATCHED";
/// The global `u32` that is 1 if durations are measured. If it is 0 the enter side is not attached.
pub const TIMED: &str = "TIMED";
/// The global `u32`, a bit per entry of `STATS`, set for calls whose result is a number of bytes.
pub const RETURNS_BYTES: &str = "RETURNS_BYTES";

crate::shared! {
    /// One call's numbers on one CPU.
    pub struct Stats {
        /// Calls that returned.
        pub calls: u64,
        /// Sum of their results, where these are bytes and not errors.
        pub bytes: u64,
        /// Sum of their durations in ns.
        pub nanos: u64,
        /// Durations of zero.
        pub zeros: u64,
        /// Calls by [`errno::slot`]; slot 0 is not used (`calls` less the errors).
        pub errors: [u64; errno::SLOTS as usize],
        /// Durations by [`exponential::bucket`].
        pub buckets: [u64; exponential::BUCKETS],
    }
}

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Calls lost because the map of threads inside a call was full.
        InFlightFull,
    }
}

/// Threads that can be inside a watched call at once, or have been and still live: the entries of
/// the map `IN_FLIGHT`, keyed by the thread's task address, which hold the ns at which the call began,
/// or 0.
pub const MAX_THREADS: u32 = 65_536;
