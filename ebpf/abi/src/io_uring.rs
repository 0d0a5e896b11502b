//! Requests through io_uring, by operation and result.

use crate::errno;
pub use crate::{
    group::Group,
    syscalls::{Cell, OCTAVE, OCTAVES},
};

/// Operations by their number, `enum io_uring_op` of include/uapi/linux/io_uring.h: numbers never change, new ones come
/// at the end.
pub const OPERATIONS: [&str; 63] = [
    "nop",
    "readv",
    "writev",
    "fsync",
    "read_fixed",
    "write_fixed",
    "poll_add",
    "poll_remove",
    "sync_file_range",
    "sendmsg",
    "recvmsg",
    "timeout",
    "timeout_remove",
    "accept",
    "async_cancel",
    "link_timeout",
    "connect",
    "fallocate",
    "openat",
    "close",
    "files_update",
    "statx",
    "read",
    "write",
    "fadvise",
    "madvise",
    "send",
    "recv",
    "openat2",
    "epoll_ctl",
    "splice",
    "provide_buffers",
    "remove_buffers",
    "tee",
    "shutdown",
    "renameat",
    "unlinkat",
    "mkdirat",
    "symlinkat",
    "linkat",
    "msg_ring",
    "fsetxattr",
    "setxattr",
    "fgetxattr",
    "getxattr",
    "socket",
    "uring_cmd",
    "send_zc",
    "sendmsg_zc",
    "read_multishot",
    "waitid",
    "futex_wait",
    "futex_wake",
    "futex_waitv",
    "fixed_fd_install",
    "ftruncate",
    "bind",
    "listen",
    "recv_zc",
    "epoll_wait",
    "readv_fixed",
    "writev_fixed",
    "pipe",
];

/// What of [`OPERATIONS`] answers with a number of bytes.
pub const MOVE_BYTES: [&str; 18] = [
    "readv",
    "writev",
    "read_fixed",
    "write_fixed",
    "sendmsg",
    "recvmsg",
    "read",
    "write",
    "send",
    "recv",
    "splice",
    "tee",
    "send_zc",
    "sendmsg_zc",
    "read_multishot",
    "recv_zc",
    "readv_fixed",
    "writev_fixed",
];

/// The place of all that has no name, and of groups that found none.
pub const UNNAMED: u32 = 0;
/// Places: one for each operation, behind that one.
pub const PLACES: u32 = OPERATIONS.len() as u32 + 1;

/// The place of an operation.
#[inline(always)]
pub const fn place(operation: u8) -> u32 {
    let place = operation as u32 + 1;
    if place < PLACES { place } else { UNNAMED }
}

/// The entry of the completions at a place whose durations are in an octave.
#[inline(always)]
pub const fn cell(place: u32, octave: u32) -> u32 {
    place * OCTAVES as u32 + octave
}

/// The entry of the failures at a place with an [`errno::slot`].
#[inline(always)]
pub const fn error(place: u32, slot: u32) -> u32 {
    place * errno::SLOTS + slot
}

crate::shared! {
    /// A request that has been submitted.
    pub struct Request {
        /// Whose it is.
        pub group: Group,
        /// When it was submitted, in ns; 0 if it has completed.
        pub began: u64,
        /// The place of its operation.
        pub place: u32,
        /// Whether it is counted: the scope is asked once.
        pub counted: u32,
    }
}

crate::counters! {
    /// The entries of the map `COUNTERS`.
    pub enum Counter {
        /// Requests that were not followed to their end, because the map of them was full.
        InFlightFull,
    }
}

/// The binary logarithm of the entries of the map `SEATS`.
pub const SEATS_BITS: u32 = 14;

/// The entries of the map `IN_FLIGHT`: the seats that are taken, and requests that are followed without one.
pub const MAX_REQUESTS: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_their_places() {
        assert_eq!(place(0), 1);
        assert_eq!(OPERATIONS[place(22) as usize - 1], "read");
        assert_eq!(OPERATIONS[place(62) as usize - 1], "pipe");
        assert_eq!(place(63), UNNAMED);
        assert_eq!(place(255), UNNAMED);
        assert!(MOVE_BYTES.iter().all(|name| OPERATIONS.contains(name)));
    }

    #[test]
    fn entries_are_apart() {
        assert_eq!(cell(UNNAMED, 0), 0);
        assert_eq!(cell(1, 0), cell(0, OCTAVES as u32 - 1) + 1);
        assert_eq!(error(1, 0), error(0, errno::SLOTS - 1) + 1);
    }
}
