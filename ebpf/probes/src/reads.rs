//! Reads of files that a task is in: which pages they are about.

use abi::page_cache::MAX_VECTORS;
use aya_ebpf::helpers::bpf_probe_read_user;

use crate::{
    field::{Address, set},
    file, registers,
};

/// The numbers of the calls on this architecture.
#[unsafe(no_mangle)]
static NR_READ: u32 = u32::MAX;
#[unsafe(no_mangle)]
static NR_PREAD64: u32 = u32::MAX;
#[unsafe(no_mangle)]
static NR_READV: u32 = u32::MAX;
#[unsafe(no_mangle)]
static NR_PREADV: u32 = u32::MAX;
#[unsafe(no_mangle)]
static NR_PREADV2: u32 = u32::MAX;

/// The bits of a position in a file that lie within a page.
#[unsafe(no_mangle)]
static PAGE_SHIFT: u32 = 12;

/// By how many bits a position in a file is shifted to give the number of its page.
#[inline(always)]
pub fn page_shift() -> u32 {
    set(&PAGE_SHIFT) & 63
}

/// A read, as the caller asked for it.
#[derive(Clone, Copy)]
pub struct Read {
    /// Whether it is one: nothing else is known otherwise.
    pub known: bool,
    /// The file.
    pub file: Address,
    /// First page.
    pub first: u64,
    /// Last page, which may lie behind the end of the file.
    pub last: u64,
}

/// The read that the current task has called for. Not of those of many parts.
#[inline(always)]
pub fn current() -> Read {
    let none = Read { known: false, file: Address(0), first: 0, last: 0 };
    let regs = registers::current();
    let number = registers::number(regs) as u32;
    let whole = number == set(&NR_READ) || number == set(&NR_PREAD64);
    let second = number == set(&NR_PREADV2);
    if !whole && !second && number != set(&NR_READV) && number != set(&NR_PREADV) {
        return none;
    }
    let size = registers::argument_2(regs);
    let length = if whole { size } else { length(registers::argument_1(regs), size) };
    // A kernel thread has no call, and no registers but zeros, which would be a read of nothing.
    if length == 0 {
        return none;
    }
    let file = file::of_descriptor(registers::argument_0(regs));
    let given = registers::argument_3(regs);
    let own = number == set(&NR_READ) || number == set(&NR_READV) || (second && given == u64::MAX);
    // The file's own position moves when the call returns.
    let position = if own { file::position(file) } else { given };
    let end = position.wrapping_add(length);
    if end <= position {
        return none;
    }
    Read { known: true, file, first: position >> page_shift(), last: (end - 1) >> page_shift() }
}

/// The bytes of all parts of a vector; 0 if they are too many.
#[inline(always)]
fn length(vector: u64, parts: u64) -> u64 {
    /// Bytes of `struct iovec`, and where in it the length is.
    const PART: u64 = 16;
    const LENGTH: u64 = 8;
    if parts > MAX_VECTORS {
        return 0;
    }
    let mut sum = 0_u64;
    let mut part = 0;
    while part < MAX_VECTORS {
        if part >= parts {
            break;
        }
        let at = vector + part * PART + LENGTH;
        // SAFETY: the helper checks the address.
        let Ok(length) = (unsafe { bpf_probe_read_user(at as *const u64) }) else { return 0 };
        sum = sum.wrapping_add(length);
        part += 1;
    }
    sum
}
