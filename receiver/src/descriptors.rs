//! File descriptors: how many the process may have, and how many are left.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to the most that is allowed. The lower one is for programs that use `select(2)`.
pub fn raise() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If it cannot be had, what there is has to do.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// How many more there may be, and how many in all; `None` if that cannot be known.
pub fn left() -> Option<(u64, u64)> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // One of them is for looking.
    let used = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64;
    Some((limit.saturating_sub(used), limit))
}
