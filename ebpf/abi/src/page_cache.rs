//! Pages that enter and leave the page cache, and pages that reads look for in it.

crate::shared! {
    /// The cell of a group.
    pub struct Cell {
        /// Pages added.
        pub adds: u64,
        /// Pages deleted.
        pub deletes: u64,
        /// Pages that reads looked for.
        pub lookups: u64,
        /// Of these, those of reads that are followed: where they begin and end is known.
        pub followed: u64,
        /// Of those followed, the ones that were there because they had been read ahead, and were read for the first
        /// time.
        pub ahead: u64,
        /// Of those followed, the ones that were not there.
        pub misses: u64,
        /// Pages added by faults of programs.
        pub faulted: u64,
    }
}

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Lookups that could not be followed across a read, because the map of tasks was full.
        LookupsUntracked,
        /// Times that pages read ahead could not be remembered, because the map of them was full.
        AheadFull,
        /// Reads so long that the pages behind their first [`READ_CHUNKS`] were taken for not read ahead.
        TooLong,
    }
}

crate::shared! {
    /// What a task's latest lookup was. The kernel raises one event per batch of folios that a read
    /// finds, each with the end of the whole request; a later batch of the same read adds nothing.
    pub struct Lookup {
        /// The address space.
        pub mapping: u64,
        /// First page of the batch.
        pub index: u64,
        /// Last page of the request.
        pub last_index: u64,
        /// Reads that the task had finished by then: tells one read's batches from the next read.
        pub reads: u64,
    }
}

crate::shared! {
    /// Some pages of a file that follow each other: the key of the map `AHEAD`, whose values have a bit for each page,
    /// set from when it is read ahead until it is read or goes.
    pub struct Chunk {
        /// The address space.
        pub mapping: u64,
        /// The first page's index, divided by [`CHUNK`].
        pub number: u64,
    }
}

/// Pages of a [`Chunk`].
pub const CHUNK: u64 = u64::BITS as u64;
/// Chunks that one read is followed through: 16 MiB.
pub const READ_CHUNKS: u32 = 64;
/// Chunks that one folio is in: the largest have 2048 pages.
pub const FOLIO_CHUNKS: u32 = 33;
/// The entries of the map `AHEAD`: chunks with pages that have been read ahead and not read. 16 GiB, if they lie together.
pub const MAX_AHEAD: u32 = 65_536;

/// The bits of the pages from `first` to `last` in the chunk of `first`.
#[inline(always)]
pub const fn bits(first: u64, last: u64) -> u64 {
    let end = first | (CHUNK - 1);
    let last = if last < end { last } else { end };
    (u64::MAX << (first % CHUNK)) & (u64::MAX >> (CHUNK - 1 - last % CHUNK))
}

/// Parts of a vector that a read is followed with; one of more is not followed.
pub const MAX_VECTORS: u64 = 16;

/// Tasks whose latest lookup is remembered: the entries of the map `LOOKUPS`, keyed by the thread's task address.
pub const MAX_TASKS: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_their_bits() {
        assert_eq!(bits(0, 0), 1);
        assert_eq!(bits(0, 63), u64::MAX);
        assert_eq!(bits(0, 1_000), u64::MAX);
        assert_eq!(bits(63, 64), 1 << 63);
        assert_eq!(bits(64, 64), 1);
        assert_eq!(bits(66, 68), 0b11100);
    }
}
