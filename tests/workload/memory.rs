//! What a workload does with its memory.
#![expect(unsafe_code, reason = "mapping, touching and advising about memory has no safe form")]

use nix::{errno::Errno, libc};
use tests::plan::{Call, Step};

/// Maps `size` bytes, reads one of each page, or writes one if no file is behind it, as many times more as `advice`
/// says, and unmaps them. A file is mapped whole, so that the advice against
/// readahead holds for all of it.
pub(crate) fn touch(fd: i32, step: &Step) -> Result<u64, Errno> {
    const PAGE: usize = 4096;
    let anonymous = fd == i32::MAX;
    let flags = if anonymous { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED };
    let protection = libc::PROT_READ | if anonymous { libc::PROT_WRITE } else { 0 };
    let (fd, first) = if anonymous { (-1, 0) } else { (fd, step.offset as usize) };
    let size = first + step.size;
    // SAFETY: a new mapping, of which nothing but this knows.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, fd, 0) };
    if map == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: what is advised about, read and unmapped lies in the mapping, which the file covers.
    unsafe {
        let advised = Errno::result(libc::madvise(map, size, libc::MADV_RANDOM));
        let times = 0..=step.advice.max(0);
        for at in times.flat_map(|_| (first..size).step_by(PAGE)) {
            let byte = map.cast::<u8>().add(at);
            if anonymous {
                byte.write_volatile(1);
            } else {
                byte.read_volatile();
            }
        }
        Errno::result(libc::munmap(map, size))?;
        advised.map(|_| 0)
    }
}

/// Advises about as many bytes of a new mapping, from its start on. What it returns are the bytes, if the kernel has
/// accepted it.
pub(crate) fn advise(step: &Step) -> Result<u64, Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, of which nothing but this knows.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), step.size, protection, flags, -1, 0) };
    if map == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: nobody uses the mapping; the vector is one of the kernel's form, and lives.
    unsafe {
        let advised = if step.call == Call::ProcessMadvise {
            let own = Errno::result(libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0))?;
            let vector = libc::iovec { iov_base: map, iov_len: step.size };
            let (vectors, count) = (&raw const vector, 1_usize);
            let call = libc::SYS_process_madvise;
            let advised = libc::syscall(call, own, vectors, count, step.advice, 0_u32);
            let advised = Errno::result(advised).map(|bytes| bytes as u64);
            libc::close(own as i32);
            advised
        } else {
            Errno::result(libc::madvise(map, step.size, step.advice)).map(|_| step.size as u64)
        };
        Errno::result(libc::munmap(map, step.size))?;
        advised
    }
}

/// Maps `size` bytes of the file at the offset, or of nothing, and unmaps them.
pub(crate) fn map(fd: i32, step: &Step) -> Result<u64, Errno> {
    let anonymous = fd == i32::MAX && step.offset == 0;
    let kind = if anonymous { libc::MAP_ANONYMOUS } else { 0 };
    let (flags, none) = (libc::MAP_PRIVATE | kind, std::ptr::null_mut::<u8>());
    let (call, size, fd) = (libc::SYS_mmap, step.size, if anonymous { -1 } else { fd });
    // SAFETY: a new mapping, of which nothing but this knows, is made, and goes again.
    unsafe {
        let map = libc::syscall(call, none, size, libc::PROT_READ, flags, fd, step.offset);
        let map = Errno::result(map)?;
        Errno::result(libc::syscall(libc::SYS_munmap, map, size))?;
    }
    Ok(0)
}

/// Syncs the pages of `buffer`, or what lies so many bytes behind it.
pub(crate) fn sync(step: &Step, buffer: &[u8]) -> Result<u64, Errno> {
    const PAGE: usize = 4096;
    let first = buffer.as_ptr() as usize / PAGE * PAGE;
    let (call, address) = (libc::SYS_msync, first + step.offset as usize);
    // SAFETY: the kernel writes to no memory.
    let ret = unsafe { libc::syscall(call, address, step.size, step.advice) };
    Errno::result(ret).map(|_| 0)
}
