//! What a workload does with descriptors.
#![expect(unsafe_code, reason = "each call is made exactly once, by no wrapper that makes another")]

use nix::{errno::Errno, libc};

/// See [`tests::plan::Call::Descriptors`].
pub(crate) fn round() -> Result<u64, Errno> {
    let mut open = Vec::new();
    let mut one = |result: i64| -> Result<i32, Errno> {
        let descriptor = Errno::result(result)? as i32;
        open.push(descriptor);
        Ok(descriptor)
    };
    let mut pairs = [[-1_i32; 2]; 2];
    // SAFETY: the paths end with a zero, and the kernel writes two numbers to each pair.
    unsafe {
        let null = c"/dev/null".as_ptr();
        let file = one(opened(null))?;
        one(libc::syscall(libc::SYS_openat, libc::AT_FDCWD, null, libc::O_RDONLY))?;
        one(libc::syscall(libc::SYS_memfd_create, c"".as_ptr(), 0))?;
        one(libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0))?;
        one(libc::syscall(libc::SYS_eventfd2, 0, 0))?;
        one(libc::syscall(libc::SYS_epoll_create1, 0))?;
        one(libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0))?;
        let copy = one(libc::syscall(libc::SYS_dup, file))?;
        one(libc::syscall(libc::SYS_fcntl, file, libc::F_DUPFD_CLOEXEC, 0))?;
        // Onto a number that is free: what it would close otherwise is not counted.
        Errno::result(libc::syscall(libc::SYS_close, copy))?;
        Errno::result(libc::syscall(libc::SYS_dup3, file, copy, 0))?;
        // None of these opens anything.
        Errno::result(libc::syscall(libc::SYS_fcntl, file, libc::F_GETFD))?;
        #[cfg(target_arch = "x86_64")]
        Errno::result(libc::syscall(libc::SYS_dup2, file, file))?;
        let [sockets, pipe] = &mut pairs;
        let (family, kind) = (libc::AF_UNIX, libc::SOCK_STREAM);
        let call = libc::SYS_socketpair;
        Errno::result(libc::syscall(call, family, kind, 0, sockets.as_mut_ptr()))?;
        Errno::result(libc::syscall(libc::SYS_pipe2, pipe.as_mut_ptr(), 0))?;
        let missing = c"/there/is/no/such/file".as_ptr();
        if opened(missing) >= 0 {
            return Err(Errno::EEXIST);
        }
    }
    let pairs = pairs.into_iter().flatten();
    for descriptor in open.into_iter().chain(pairs) {
        // SAFETY: they are this round's own.
        Errno::result(unsafe { libc::syscall(libc::SYS_close, descriptor) })?;
    }
    // SAFETY: no descriptor has this number.
    unsafe {
        libc::syscall(libc::SYS_dup, i32::MAX);
        libc::syscall(libc::SYS_close, i32::MAX);
    }
    Ok(0)
}

/// What the oldest call returns that opens a file here.
fn opened(path: *const libc::c_char) -> i64 {
    // SAFETY: the callers' paths end with a zero.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        let opened = libc::syscall(libc::SYS_open, path, libc::O_RDONLY);
        #[cfg(not(target_arch = "x86_64"))]
        let opened = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_RDONLY);
        opened
    }
}
