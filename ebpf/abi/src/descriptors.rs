//! File descriptors that calls open and close.

/// What a descriptor stands for.
pub const KINDS: [&str; 6] = ["file", "socket", "pipe", "event", "duplicate", "other"];
/// Of a file or directory.
pub const FILE: u8 = 0;
/// Of a socket.
pub const SOCKET: u8 = 1;
/// Of a pipe.
pub const PIPE: u8 = 2;
/// Of something to wait for.
pub const EVENT: u8 = 3;
/// Of what another one stands for, too.
pub const DUPLICATE: u8 = 4;
/// Of anything else.
pub const OTHER: u8 = 5;

/// How a call opens or closes: in the upper half of its byte in the table, the kind in the lower.
pub const SHAPE: u8 = 0xf0;
/// It returns a descriptor.
pub const ONE: u8 = 0x10;
/// It makes two and returns 0.
pub const TWO: u8 = 0x20;
/// `dup2`, `dup3`: it returns its second argument, which is none that it has opened if it equals the first.
pub const ONTO: u8 = 0x30;
/// `fcntl`: some of its commands duplicate.
pub const COMMAND: u8 = 0x40;
/// `close`.
pub const CLOSE: u8 = 0x50;
/// `signalfd`: given a descriptor, it changes that one and returns it.
pub const CHANGES: u8 = 0x60;

/// The calls by name: what each does. User space makes a table by number of it.
pub const CALLS: &[(&str, u8)] = &[
    ("open", ONE | FILE),
    ("creat", ONE | FILE),
    ("openat", ONE | FILE),
    ("open_by_handle_at", ONE | FILE),
    ("memfd_create", ONE | FILE),
    ("openat2", ONE | FILE),
    ("memfd_secret", ONE | FILE),
    ("socket", ONE | SOCKET),
    ("accept", ONE | SOCKET),
    ("accept4", ONE | SOCKET),
    ("socketpair", TWO | SOCKET),
    ("pipe", TWO | PIPE),
    ("pipe2", TWO | PIPE),
    ("epoll_create", ONE | EVENT),
    ("epoll_create1", ONE | EVENT),
    ("signalfd", CHANGES | EVENT),
    ("signalfd4", CHANGES | EVENT),
    ("timerfd_create", ONE | EVENT),
    ("eventfd", ONE | EVENT),
    ("eventfd2", ONE | EVENT),
    ("inotify_init", ONE | EVENT),
    ("inotify_init1", ONE | EVENT),
    ("fanotify_init", ONE | EVENT),
    ("perf_event_open", ONE | EVENT),
    ("dup", ONE | DUPLICATE),
    ("dup2", ONTO | DUPLICATE),
    ("dup3", ONTO | DUPLICATE),
    ("fcntl", COMMAND | DUPLICATE),
    ("pidfd_getfd", ONE | DUPLICATE),
    ("pidfd_open", ONE | OTHER),
    ("userfaultfd", ONE | OTHER),
    ("io_uring_setup", ONE | OTHER),
    ("open_tree", ONE | OTHER),
    ("fsopen", ONE | OTHER),
    ("fsmount", ONE | OTHER),
    ("fspick", ONE | OTHER),
    ("mq_open", ONE | OTHER),
    ("landlock_create_ruleset", ONE | OTHER),
    ("close", CLOSE),
];

crate::shared! {
    /// The cell of a group.
    pub struct Cell {
        /// Descriptors opened, by kind.
        pub opened: [u64; KINDS.len()],
        /// Descriptors closed.
        pub closed: u64,
    }
}
