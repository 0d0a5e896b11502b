//! Memory reclaim: what is scanned and freed, and who has to do it himself.

crate::shared! {
    /// The cell of a group.
    pub struct Cell {
        /// Times a task of the scope began to reclaim because the machine is short of memory.
        pub global: u64,
        /// Times a task of the scope began to reclaim because its memory cgroup is at its limit.
        pub memcg: u64,
    }
}

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Pages scanned on the inactive lists, by anyone.
        Scanned,
        /// Pages of these that were reclaimed.
        Reclaimed,
        /// Global begins of processes that found no place in the map `RECLAIMERS`.
        GlobalUnplaced,
        /// As many of cgroups.
        MemcgUnplaced,
    }
}

/// Processes remembered between two collections.
pub const MAX_PROCESSES: u32 = 8_192;
