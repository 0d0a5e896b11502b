//! Calls, errors, bytes and durations of the system calls that are watched.

use crate::{errno, exponential};

/// Calls that can be watched at once.
pub const MAX_WATCHED: usize = 32;
/// System call numbers that the table [`WATCHED`] covers; higher ones cannot be watched.
pub const NUMBERS: usize = 512;
/// In the table: nobody watches this call.
pub const UNWATCHED: u8 = u8::MAX;
/// The global `[u8; NUMBERS]` that maps a call's number to its place among the watched ones.
pub const WATCHED: &str = "WATCHED";
/// The global `u32` that is 1 if durations are measured. If it is 0 the enter side is not attached.
pub const TIMED: &str = "TIMED";
/// The global `u32`, a bit per watched call, set for calls whose result is a number of bytes.
pub const RETURNS_BYTES: &str = "RETURNS_BYTES";

/// Buckets in a [`Cell`]: those of one octave, from one power of two to the next.
pub const OCTAVE: usize = 1 << exponential::SCALE;
/// Octaves that cover every duration, rounded up.
pub const OCTAVES: usize = exponential::BUCKETS.div_ceil(OCTAVE);

crate::shared! {
    /// The calls that took a time of one octave. Few of the octaves ever occur, so each has a cell of its
    /// own: a group then needs room for those alone. Calls that are not timed are all in the first.
    pub struct Cell {
        /// Calls that returned.
        pub calls: u64,
        /// Sum of their results, where these are bytes and not errors.
        pub bytes: u64,
        /// Sum of their durations in ns.
        pub nanos: u64,
        /// Durations of zero.
        pub zeros: u64,
        /// Durations by [`exponential::bucket`], less the octave's first.
        pub buckets: [u64; OCTAVE],
    }
}

/// The entry of the cells of watched call `place` for a bucket's octave.
#[inline(always)]
pub const fn cell(place: u32, bucket: usize) -> u32 {
    place * OCTAVES as u32 + (bucket / OCTAVE) as u32
}

/// The entry of the errors of watched call `place` with an [`errno::slot`].
#[inline(always)]
pub const fn error(place: u32, slot: u32) -> u32 {
    place * errno::SLOTS + slot
}

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Calls lost because the map of threads inside a call was full.
        InFlightFull,
    }
}

/// Threads that can be inside a watched call at once, or have been and still live: the entries of the map
/// `IN_FLIGHT`.
pub const MAX_THREADS: u32 = 65_536;

/// The binary logarithm of the entries of the map `SEATS`.
pub const SEATS_BITS: u32 = 14;
