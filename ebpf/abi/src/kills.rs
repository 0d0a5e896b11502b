//! Processes that a signal ends.

/// Entries of the cells: the first for processes that the kernel chose because memory was short, then one for each
/// signal, by its number.
pub const ENTRIES: u32 = 65;
/// Of processes that the kernel chose.
pub const OOM: u32 = 0;

crate::shared! {
    /// A process's end.
    pub struct Event {
        /// When, in ns since boot.
        pub time: u64,
        /// Its id in the initial pid namespace.
        pub pid: u64,
        /// When it started, in ns since boot.
        pub start: u64,
        /// The id of its cgroup.
        pub cgroup: u64,
        /// The name of its main thread.
        pub name: [u64; 2],
        /// The most pages that it has had in memory at once.
        pub most_pages: u64,
        /// The signal's number.
        pub signal: u32,
        /// See [`DUMPED`], [`CHOSEN`].
        pub flags: u32,
    }
}

/// Its memory was dumped.
pub const DUMPED: u32 = 1;
/// The kernel chose it, because memory was short.
pub const CHOSEN: u32 = 2;

/// Bytes of the buffer of events between two collections.
pub const BUFFER: u32 = 256 << 10;
/// Processes remembered so that none is counted twice.
pub const REMEMBERED: u32 = 1_024;

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Events that found no room in the buffer.
        EventsLost,
    }
}
