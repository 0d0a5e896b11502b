//! System calls exactly as a plan says, with descriptors and advices that no safe wrapper lets through.
#![expect(
    unsafe_code,
    reason = "a wrapper would refuse the invalid arguments that are counted too"
)]

use std::os::fd::BorrowedFd;

use nix::{
    errno::Errno,
    libc,
    sys::{
        stat::fstat,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use tests::plan::{Call, Step, VECTORS};

use crate::{descriptors, memory, ring, wait};

/// Makes the call of `step`; `buffer` is what it may read or write.
pub(crate) fn call(fd: i32, step: &Step, buffer: &mut [u8]) -> Result<u64, Errno> {
    let number = match step.call {
        Call::Read => libc::SYS_read,
        Call::Pread64 => libc::SYS_pread64,
        Call::Write => libc::SYS_write,
        Call::Pwrite64 => libc::SYS_pwrite64,
        Call::Fsync => libc::SYS_fsync,
        Call::Fdatasync => libc::SYS_fdatasync,
        Call::Touch => return memory::touch(fd, step),
        Call::Madvise | Call::ProcessMadvise => return memory::advise(step),
        Call::Descriptors => return descriptors::round(),
        Call::Readahead => return ahead(fd, step),
        Call::Fadvise64 | Call::Fadvise64Compat => {
            let (offset, size) = (step.offset, step.size);
            // SAFETY: no argument is a pointer.
            let ret = unsafe { libc::syscall(libc::SYS_fadvise64, fd, offset, size, step.advice) };
            return Errno::result(ret).map(|_| 0);
        }
        Call::Readv | Call::Preadv | Call::Preadv2 => return vectored(fd, step, buffer),
        Call::Writev | Call::Pwritev | Call::Pwritev2 => return vectored(fd, step, buffer),
        Call::SyncFileRange => {
            let (call, offset, size) = (libc::SYS_sync_file_range, step.offset, step.size);
            // SAFETY: no argument is a pointer.
            let ret = unsafe { libc::syscall(call, fd, offset, size, step.advice) };
            return Errno::result(ret).map(|_| 0);
        }
        Call::Msync => return memory::sync(step, buffer),
        Call::Ring => return ring::request(fd, step, buffer),
        Call::Mmap => return memory::map(fd, step),
        Call::Futex => return wait::futex(step),
        Call::EpollWait | Call::EpollPwait | Call::EpollPwait2 => return wait::events(fd, step),
        Call::IoUringEnter => {
            let nothing = std::ptr::null::<u8>();
            // SAFETY: nothing is submitted, and no argument points anywhere.
            let ret = unsafe {
                libc::syscall(libc::SYS_io_uring_enter, fd, 0, 0, step.advice, nothing, 0)
            };
            return Errno::result(ret).map(|_| 0);
        }
    };
    // SAFETY: the kernel reads or writes at most `len` bytes of the buffer, which is exclusively ours.
    let ret = unsafe { libc::syscall(number, fd, buffer.as_mut_ptr(), buffer.len(), step.offset) };
    Errno::result(ret).map(|bytes| bytes as u64)
}

/// Has the file read ahead, by more than any file has if the advice is negative, and tells how much of the file that is.
fn ahead(fd: i32, step: &Step) -> Result<u64, Errno> {
    let count = if step.advice < 0 { i64::MAX as usize } else { step.size };
    // SAFETY: no argument is a pointer.
    Errno::result(unsafe { libc::readahead(fd, step.offset as i64, count) })?;
    // SAFETY: the call has shown that it is open, and nobody closes it.
    let size = fstat(unsafe { BorrowedFd::borrow_raw(fd) })?.st_size;
    let rest = (size as u64).saturating_sub(step.offset);
    // readahead(2) is posix_fadvise(2) under another name, and there nothing is all that follows.
    Ok(if count == 0 { rest } else { rest.min(count as u64) })
}

/// The same with parts of the buffer.
fn vectored(fd: i32, step: &Step, buffer: &mut [u8]) -> Result<u64, Errno> {
    let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut vectors = [nothing; VECTORS];
    let parts = buffer.chunks_mut(step.size.div_ceil(VECTORS).max(1));
    for (vector, part) in vectors.iter_mut().zip(parts) {
        *vector = libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
    }
    let number = match step.call {
        Call::Readv => libc::SYS_readv,
        Call::Preadv => libc::SYS_preadv,
        Call::Preadv2 => libc::SYS_preadv2,
        Call::Writev => libc::SYS_writev,
        Call::Pwritev => libc::SYS_pwritev,
        _ => libc::SYS_pwritev2,
    };
    let (offset, high, flags) = (step.offset, 0_u64, step.advice);
    // SAFETY: the vectors are disjoint parts of the buffer, which is exclusively ours.
    let ret = unsafe {
        libc::syscall(number, fd, vectors.as_mut_ptr(), vectors.len(), offset, high, flags)
    };
    Errno::result(ret).map(|bytes| bytes as u64)
}

/// Makes the call of `step` in a process that ends after it.
pub(crate) fn forked(fd: i32, step: &Step, buffer: &mut [u8]) -> Result<u64, Errno> {
    // SAFETY: the child makes two system calls and returns nowhere.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let ended = match call(fd, step, buffer) {
                Ok(_) => 0,
                Err(errno) => errno as i32,
            };
            // SAFETY: no argument is a pointer.
            unsafe { libc::_exit(ended) }
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(step.size as u64),
            WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
            other => unreachable!("nobody kills it: {other:?}"),
        },
    }
}

/// `fadvise64` as a 32-bit program makes it: through interrupt 0x80, under another number.
#[cfg(target_arch = "x86_64")]
pub(crate) fn fadvise64_compat(fd: i32, step: &Step) -> Result<u64, Errno> {
    /// `fadvise64` in the kernel's table of 32-bit calls; `keyctl` in that of 64-bit ones.
    const IA32_FADVISE64: i64 = 250;
    let (low, high) = (step.offset & u64::from(u32::MAX), step.offset >> 32);
    let ret: i64;
    // SAFETY: no argument is a pointer, and the kernel keeps every register but rax; older ones
    // clear r8 to r11. rbx belongs to the compiler, so it is exchanged and put back.
    unsafe {
        std::arch::asm!(
            "xchg {fd}, rbx",
            "int 0x80",
            "xchg {fd}, rbx",
            fd = inout(reg) i64::from(fd) => _,
            inlateout("rax") IA32_FADVISE64 => ret,
            in("rcx") low,
            in("rdx") high,
            in("rsi") step.size,
            in("rdi") i64::from(step.advice),
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            options(nostack),
        );
    }
    // The 32-bit result is in eax.
    let ret = i64::from(ret as i32);
    if ret < 0 { Err(Errno::from_raw(-ret as i32)) } else { Ok(0) }
}

/// There is no 32-bit entry to test on other machines.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn fadvise64_compat(_: i32, _: &Step) -> Result<u64, Errno> {
    Err(Errno::ENOSYS)
}
