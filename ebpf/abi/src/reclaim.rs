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

/// Who reclaims: the values of `reclaim.type`.
pub const TYPES: [&str; 4] = ["global", "memcg", "kswapd", "other"];
/// A task, because the machine is short of memory.
pub const GLOBAL: u32 = 0;
/// A task whose memory cgroup is at its limit.
pub const MEMCG: u32 = 1;
/// The kernel in the background.
pub const KSWAPD: u32 = 2;
/// Someone who was asked to.
pub const OTHER: u32 = 3;

/// Why a task that reclaims is made to wait, by the numbers of `enum vmscan_throttle_state`
/// (include/linux/mmzone.h).
pub const REASONS: [&str; 4] = ["writeback", "isolated", "noprogress", "congested"];
/// Where waits for other reasons are counted.
pub const OTHER_REASON: u32 = REASONS.len() as u32;

/// Kinds of durations: of direct reclaim, [`GLOBAL`] and [`MEMCG`], ...
pub const DIRECT: u32 = 2;
/// ... and of waits, by reason, behind those.
pub const KINDS: u32 = DIRECT + OTHER_REASON + 1;

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Global begins of processes that found no place in the map `RECLAIMERS`.
        GlobalUnplaced,
        /// As many of cgroups.
        MemcgUnplaced,
        /// Global reclaim lost because the map of threads inside it was full.
        GlobalInFlightFull,
        /// As much of cgroups.
        MemcgInFlightFull,
    }
}

/// Processes remembered between two collections.
pub const MAX_PROCESSES: u32 = 8_192;
