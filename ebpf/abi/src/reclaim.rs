//! Memory reclaim: what is scanned and freed, and who has to do it himself.

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Pages scanned on the inactive lists, by anyone.
        Scanned,
        /// Pages of these that were reclaimed.
        Reclaimed,
        /// Times a task of the scope began to reclaim because the machine is short of memory.
        GlobalBegins,
        /// Times a task of the scope began to reclaim because its memory cgroup is at its limit.
        MemcgBegins,
        /// Begins of processes that found no place in the map `RECLAIMERS`.
        ReclaimersFull,
    }
}

crate::shared! {
    /// A process, told apart from a later one that gets the same pid: the key of `RECLAIMERS`,
    /// whose `u64` values count the begins.
    pub struct Process {
        /// Start of its main thread, in ns since boot.
        pub start_time: u64,
        /// The process id in the initial pid namespace.
        pub pid: u32,
        /// Explicit padding.
        pub pad: u32,
    }
}

/// Processes remembered between two collections.
pub const MAX_PROCESSES: u32 = 8_192;
