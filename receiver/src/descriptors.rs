//! File descriptors: how many the process may have, and how many are left.

use std::fs;

use nix::{
    libc::EMFILE,
    sys::resource::{Resource, getrlimit, setrlimit},
};

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
    let used = match fs::read_dir("/proc/self/fd") {
        // One of them is for looking.
        Ok(open) => open.count().saturating_sub(1) as u64,
        // There is not even one to look with.
        Err(error) if error.raw_os_error() == Some(EMFILE) => limit,
        Err(_) => return None,
    };
    Some((limit.saturating_sub(used), limit))
}
