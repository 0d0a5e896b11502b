//! System calls by name: their numbers on each architecture.

use anyhow::{Context as _, Result};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the numbers of system calls are known for x86-64 and arm64 alone");

/// A system call.
#[derive(Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// Its name, without `sys_`.
    pub name: &'static str,
    /// Its number on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
    x86_64: Option<u32>,
    /// Its number on arm64 (include/uapi/asm-generic/unistd.h).
    aarch64: Option<u32>,
    /// Whether what it returns is a number of bytes.
    pub bytes: bool,
}

impl SystemCall {
    /// Its number here, if this architecture has it.
    pub fn number(&self) -> Option<u32> {
        if cfg!(target_arch = "x86_64") { self.x86_64 } else { self.aarch64 }
    }

    /// Whether it reads from a descriptor into memory.
    pub fn reads(&self) -> bool {
        ["read", "pread64", "readv", "preadv", "preadv2"].contains(&self.name)
    }

    /// What its tracepoints are called, which is the function behind it.
    pub fn event(&self) -> &'static str {
        match self.name {
            "sendfile" => "sendfile64",
            "fadvise64" if cfg!(target_arch = "aarch64") => "fadvise64_64",
            name => name,
        }
    }
}

/// Not there: an architecture that is younger than its better successor never got it.
const NONE: Option<u32> = None;

/// Everything that is known, with the numbers on x86-64 and on arm64.
pub const ALL: &[SystemCall] = &[
    moves_bytes("read", at(0), at(63)),
    moves_bytes("write", at(1), at(64)),
    call("open", at(2), NONE),
    call("close", at(3), at(57)),
    // What it returns is an address.
    call("mmap", at(9), at(222)),
    moves_bytes("pread64", at(17), at(67)),
    moves_bytes("pwrite64", at(18), at(68)),
    moves_bytes("readv", at(19), at(65)),
    moves_bytes("writev", at(20), at(66)),
    call("pipe", at(22), NONE),
    call("msync", at(26), at(227)),
    call("madvise", at(28), at(233)),
    call("dup", at(32), at(23)),
    call("dup2", at(33), NONE),
    moves_bytes("sendfile", at(40), at(71)),
    call("socket", at(41), at(198)),
    call("accept", at(43), at(202)),
    call("socketpair", at(53), at(199)),
    call("fcntl", at(72), at(25)),
    call("fsync", at(74), at(82)),
    call("fdatasync", at(75), at(83)),
    call("creat", at(85), NONE),
    call("sync", at(162), at(81)),
    call("readahead", at(187), at(213)),
    call("futex", at(202), at(98)),
    call("epoll_create", at(213), NONE),
    call("fadvise64", at(221), at(223)),
    call("epoll_wait", at(232), NONE),
    call("mq_open", at(240), at(180)),
    call("inotify_init", at(253), NONE),
    call("openat", at(257), at(56)),
    moves_bytes("splice", at(275), at(76)),
    call("sync_file_range", at(277), at(84)),
    call("epoll_pwait", at(281), at(22)),
    call("signalfd", at(282), NONE),
    call("timerfd_create", at(283), at(85)),
    call("eventfd", at(284), NONE),
    call("fallocate", at(285), at(47)),
    call("accept4", at(288), at(242)),
    call("signalfd4", at(289), at(74)),
    call("eventfd2", at(290), at(19)),
    call("epoll_create1", at(291), at(20)),
    call("dup3", at(292), at(24)),
    call("pipe2", at(293), at(59)),
    call("inotify_init1", at(294), at(26)),
    moves_bytes("preadv", at(295), at(69)),
    moves_bytes("pwritev", at(296), at(70)),
    call("perf_event_open", at(298), at(241)),
    call("fanotify_init", at(300), at(262)),
    call("open_by_handle_at", at(304), at(265)),
    call("syncfs", at(306), at(267)),
    call("memfd_create", at(319), at(279)),
    call("userfaultfd", at(323), at(282)),
    moves_bytes("copy_file_range", at(326), at(285)),
    moves_bytes("preadv2", at(327), at(286)),
    moves_bytes("pwritev2", at(328), at(287)),
    call("io_uring_setup", at(425), at(425)),
    call("io_uring_enter", at(426), at(426)),
    call("open_tree", at(428), at(428)),
    call("fsopen", at(430), at(430)),
    call("fsmount", at(432), at(432)),
    call("fspick", at(433), at(433)),
    call("pidfd_open", at(434), at(434)),
    call("openat2", at(437), at(437)),
    call("pidfd_getfd", at(438), at(438)),
    call("process_madvise", at(440), at(440)),
    // Since Linux 5.11.
    call("epoll_pwait2", at(441), at(441)),
    call("landlock_create_ruleset", at(444), at(444)),
    call("memfd_secret", at(447), at(447)),
];

const fn at(number: u32) -> Option<u32> {
    Some(number)
}

const fn call(name: &'static str, x86_64: Option<u32>, aarch64: Option<u32>) -> SystemCall {
    SystemCall { name, x86_64, aarch64, bytes: false }
}

const fn moves_bytes(name: &'static str, x86_64: Option<u32>, aarch64: Option<u32>) -> SystemCall {
    SystemCall { name, x86_64, aarch64, bytes: true }
}

/// The call of that name.
pub fn named(name: &str) -> Option<&'static SystemCall> {
    ALL.iter().find(|call| call.name == name)
}

/// The number here of a call that every architecture has.
pub fn number(name: &str) -> Result<u32> {
    named(name).and_then(SystemCall::number).with_context(|| format!("no number of {name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_number_means_one_call() {
        let names: BTreeSet<_> = ALL.iter().map(|call| call.name).collect();
        assert_eq!(names.len(), ALL.len());
        for column in [|call: &SystemCall| call.x86_64, |call: &SystemCall| call.aarch64] {
            let numbers: Vec<_> = ALL.iter().filter_map(column).collect();
            assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
        }
    }

    #[test]
    fn numbers_are_those_of_the_c_library() {
        use nix::libc;
        let known = [
            ("read", libc::SYS_read),
            ("pwritev2", libc::SYS_pwritev2),
            ("fadvise64", libc::SYS_fadvise64),
            ("sendfile", libc::SYS_sendfile),
            ("madvise", libc::SYS_madvise),
            ("signalfd4", libc::SYS_signalfd4),
            ("openat2", libc::SYS_openat2),
            ("mmap", libc::SYS_mmap),
            ("futex", libc::SYS_futex),
            ("epoll_pwait", libc::SYS_epoll_pwait),
            ("epoll_pwait2", libc::SYS_epoll_pwait2),
            ("io_uring_enter", libc::SYS_io_uring_enter),
        ];
        for (name, expected) in known {
            assert_eq!(number(name).ok().map(i64::from), Some(expected), "{name}");
        }
        assert_eq!(number("open").is_ok(), cfg!(target_arch = "x86_64"));
    }
}
