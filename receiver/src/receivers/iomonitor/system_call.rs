//! System calls by name: their numbers on this architecture.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the numbers of system calls are known for x86-64 alone");

/// A system call that can be watched.
#[derive(Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// Its name, without `sys_`.
    pub name: &'static str,
    /// Its number (arch/x86/entry/syscalls/syscall_64.tbl).
    pub number: u32,
    /// Whether what it returns is a number of bytes.
    pub bytes: bool,
}

impl SystemCall {
    /// Whether it reads from a descriptor into memory.
    pub fn reads(&self) -> bool {
        ["read", "pread64", "readv", "preadv", "preadv2"].contains(&self.name)
    }
}

/// `fadvise64`, which has a signal of its own.
pub const FADVISE64: u32 = 221;

/// Everything that can be watched.
pub const ALL: &[SystemCall] = &[
    moves_bytes("read", 0),
    moves_bytes("write", 1),
    // What it returns is an address.
    call("mmap", 9),
    moves_bytes("pread64", 17),
    moves_bytes("pwrite64", 18),
    moves_bytes("readv", 19),
    moves_bytes("writev", 20),
    call("msync", 26),
    moves_bytes("sendfile", 40),
    call("fsync", 74),
    call("fdatasync", 75),
    call("sync", 162),
    call("readahead", 187),
    call("futex", 202),
    call("epoll_wait", 232),
    moves_bytes("splice", 275),
    call("sync_file_range", 277),
    call("epoll_pwait", 281),
    call("fallocate", 285),
    moves_bytes("preadv", 295),
    moves_bytes("pwritev", 296),
    call("syncfs", 306),
    moves_bytes("copy_file_range", 326),
    moves_bytes("preadv2", 327),
    moves_bytes("pwritev2", 328),
    call("io_uring_enter", 426),
    // Since Linux 5.11.
    call("epoll_pwait2", 441),
];

const fn call(name: &'static str, number: u32) -> SystemCall {
    SystemCall { name, number, bytes: false }
}

const fn moves_bytes(name: &'static str, number: u32) -> SystemCall {
    SystemCall { name, number, bytes: true }
}

/// The call of that name.
pub fn named(name: &str) -> Option<&'static SystemCall> {
    ALL.iter().find(|call| call.name == name)
}
