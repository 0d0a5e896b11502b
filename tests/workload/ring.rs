//! Requests through io_uring.
#![expect(unsafe_code, reason = "a ring is handed addresses that must live until it answers")]

use io_uring::{IoUring, opcode, squeue, types};
use nix::{errno::Errno, libc};
use tests::plan::{Step, ring};

/// See [`tests::plan::Call::Ring`].
pub(crate) fn request(fd: i32, step: &Step, buffer: &mut [u8]) -> Result<u64, Errno> {
    let failed = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let mut ring = IoUring::new(2).map_err(failed)?;
    let (file, offset) = (types::Fd(fd), step.offset);
    let (address, size) = (buffer.as_mut_ptr(), buffer.len() as u32);
    let vector = libc::iovec { iov_base: address.cast(), iov_len: buffer.len() };
    let time = types::Timespec::from(std::time::Duration::from_nanos(offset));
    let entry = match step.advice & 0xff {
        0 => opcode::Nop::new().build(),
        1 => opcode::Readv::new(file, &raw const vector, 1).offset(offset).build(),
        2 => opcode::Writev::new(file, &raw const vector, 1).offset(offset).build(),
        3 => opcode::Fsync::new(file).build(),
        11 => opcode::Timeout::new(&raw const time).build(),
        22 => opcode::Read::new(file, address, size).offset(offset).build(),
        23 => opcode::Write::new(file, address, size).offset(offset).build(),
        24 => opcode::Fadvise::new(file, 0, libc::POSIX_FADV_NORMAL).build(),
        other => unreachable!("no plan asks for operation {other}"),
    };
    let marks = [
        (ring::ELSEWHERE, squeue::Flags::ASYNC),
        (ring::SILENT, squeue::Flags::SKIP_SUCCESS),
        (ring::WRONG, squeue::Flags::BUFFER_SELECT),
    ];
    let marked = marks.into_iter().filter(|(mark, _)| step.advice & mark != 0);
    let entry = marked.fold(entry, |entry, (_, flag)| entry.flags(flag));
    let silent = step.advice & ring::SILENT != 0;
    // SAFETY: what it refers to lives until it has been waited for.
    unsafe { ring.submission().push(&entry) }.map_err(|_| Errno::EBUSY)?;
    ring.submit_and_wait(usize::from(!silent)).map_err(failed)?;
    if silent {
        return Ok(0);
    }
    let answer = ring.completion().next().ok_or(Errno::ENODATA)?;
    u64::try_from(answer.result()).map_err(|_| Errno::from_raw(-answer.result()))
}
