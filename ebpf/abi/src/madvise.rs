//! Advice about memory, and about files by `readahead`: by call, advice and result.

/// The calls that give it.
pub const CALLS: [&str; 3] = ["madvise", "process_madvise", "readahead"];
/// The place of `madvise` among them.
pub const MADVISE: u32 = 0;
/// The place of `process_madvise`.
pub const PROCESS_MADVISE: u32 = 1;
/// The place of `readahead`.
pub const READAHEAD: u32 = 2;

/// The advices by number (include/uapi/asm-generic/mman-common.h); those of the gap have no name.
pub const ADVICES: [&str; 26] = [
    "normal",
    "random",
    "sequential",
    "willneed",
    "dontneed",
    "",
    "",
    "",
    "free",
    "remove",
    "dontfork",
    "dofork",
    "mergeable",
    "unmergeable",
    "hugepage",
    "nohugepage",
    "dontdump",
    "dodump",
    "wipeonfork",
    "keeponfork",
    "cold",
    "pageout",
    "populate_read",
    "populate_write",
    "dontneed_locked",
    "collapse",
];
/// Where all others are counted.
pub const OTHER: u32 = ADVICES.len() as u32;
/// Advices that are told apart.
pub const SLOTS: u32 = OTHER + 1;

crate::shared! {
    /// The cell of a group, a call and an advice.
    pub struct Cell {
        /// Calls that returned.
        pub calls: u64,
        /// Bytes that calls which succeeded were about.
        pub bytes: u64,
    }
}

/// The entry of a call's cell for an advice.
#[inline(always)]
pub const fn entry(call: u32, advice: u32) -> u32 {
    // Of the numbers, 5 to 7 mean nothing.
    let named = advice < OTHER && (advice < 5 || advice > 7);
    call * SLOTS + if named { advice } else { OTHER }
}
