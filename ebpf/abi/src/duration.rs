//! Durations of several kinds, each in the cells of the octaves that occur.

pub use crate::syscalls::{OCTAVE, OCTAVES};

crate::shared! {
    /// The durations of one octave.
    pub struct Cell {
        /// Their sum in ns.
        pub nanos: u64,
        /// Those of zero.
        pub zeros: u64,
        /// By [`crate::exponential::bucket`], less the octave's first.
        pub buckets: [u64; OCTAVE],
    }
}

/// Entries for so many kinds.
pub const fn entries(kinds: u32) -> u32 {
    kinds * OCTAVES as u32
}

/// The entry of a kind's cell for a bucket's octave.
#[inline(always)]
pub const fn entry(kind: u32, bucket: usize) -> u32 {
    kind * OCTAVES as u32 + (bucket / OCTAVE) as u32
}

crate::shared! {
    /// What a thread has begun and not ended.
    pub struct Begun {
        /// When, in ns.
        pub nanos: u64,
        /// What.
        pub kind: u32,
        /// Whether it is counted: the scope is asked once.
        pub counted: u32,
    }
}

/// Threads that can be inside something at once.
pub const MAX_THREADS: u32 = 8_192;
