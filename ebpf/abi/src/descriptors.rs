//! File descriptors that calls open and close.

use crate::syscalls::NUMBERS;

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

/// By the calls' numbers (arch/x86/entry/syscalls/syscall_64.tbl); 0 for all others.
pub const CALLS: [u8; NUMBERS] = calls();

const fn calls() -> [u8; NUMBERS] {
    let list: &[(usize, u8)] = &[
        (2, ONE | FILE),           // open
        (85, ONE | FILE),          // creat
        (257, ONE | FILE),         // openat
        (304, ONE | FILE),         // open_by_handle_at
        (319, ONE | FILE),         // memfd_create
        (437, ONE | FILE),         // openat2
        (447, ONE | FILE),         // memfd_secret
        (41, ONE | SOCKET),        // socket
        (43, ONE | SOCKET),        // accept
        (288, ONE | SOCKET),       // accept4
        (53, TWO | SOCKET),        // socketpair
        (22, TWO | PIPE),          // pipe
        (293, TWO | PIPE),         // pipe2
        (213, ONE | EVENT),        // epoll_create
        (291, ONE | EVENT),        // epoll_create1
        (282, ONE | EVENT),        // signalfd, which makes none if it is given one: see `SIGNALFD`
        (289, ONE | EVENT),        // signalfd4
        (283, ONE | EVENT),        // timerfd_create
        (284, ONE | EVENT),        // eventfd
        (290, ONE | EVENT),        // eventfd2
        (253, ONE | EVENT),        // inotify_init
        (294, ONE | EVENT),        // inotify_init1
        (300, ONE | EVENT),        // fanotify_init
        (298, ONE | EVENT),        // perf_event_open
        (32, ONE | DUPLICATE),     // dup
        (33, ONTO | DUPLICATE),    // dup2
        (292, ONTO | DUPLICATE),   // dup3
        (72, COMMAND | DUPLICATE), // fcntl
        (438, ONE | DUPLICATE),    // pidfd_getfd
        (434, ONE | OTHER),        // pidfd_open
        (323, ONE | OTHER),        // userfaultfd
        (425, ONE | OTHER),        // io_uring_setup
        (428, ONE | OTHER),        // open_tree
        (430, ONE | OTHER),        // fsopen
        (432, ONE | OTHER),        // fsmount
        (433, ONE | OTHER),        // fspick
        (240, ONE | OTHER),        // mq_open
        (444, ONE | OTHER),        // landlock_create_ruleset
        (3, CLOSE),                // close
    ];
    let mut calls = [0; NUMBERS];
    let mut i = 0;
    while i < list.len() {
        calls[list[i].0] = list[i].1;
        i += 1;
    }
    calls
}

/// `signalfd` and `signalfd4`: given a descriptor, they change it and return it.
pub const SIGNALFD: [u64; 2] = [282, 289];

crate::shared! {
    /// The cell of a group.
    pub struct Cell {
        /// Descriptors opened, by kind.
        pub opened: [u64; KINDS.len()],
        /// Descriptors closed.
        pub closed: u64,
    }
}
