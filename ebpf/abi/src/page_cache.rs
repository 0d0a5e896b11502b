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
    }
}

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Lookups that could not be followed across a read, because the map of tasks was full.
        LookupsUntracked,
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

/// Tasks whose latest lookup is remembered: the entries of the map `LOOKUPS`, keyed by the thread's task address.
pub const MAX_TASKS: u32 = 65_536;
