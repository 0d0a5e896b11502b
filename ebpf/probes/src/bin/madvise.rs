//! Advice about memory, and about files by `readahead`. When a call returns, the saved registers still hold its
//! arguments, so the exit is all that is needed.
#![no_std]
#![no_main]

use abi::{
    errno, fadvise,
    madvise::{CALLS, Cell, MADVISE, PROCESS_MADVISE, READAHEAD, SLOTS, entry},
};
use probes::{
    field::{Memory, record, set},
    file, group, registers,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET,
}

/// The numbers of the calls on this architecture.
#[unsafe(no_mangle)]
static NR_MADVISE: u32 = 0;
#[unsafe(no_mangle)]
static NR_PROCESS_MADVISE: u32 = 0;
#[unsafe(no_mangle)]
static NR_READAHEAD: u32 = 0;

probes::cells! {
    /// Calls by [`entry`].
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; CALLS.len() as u32 * SLOTS]
}

probes::cells! {
    /// Failures by call and error.
    ERRORS, ERRORS_BY_GROUP, ERRORS_SEATS: [u64; CALLS.len() as u32 * errno::SLOTS]
}

/// Bytes that `readahead(file, offset, count)` is about. To the kernel it is advice that they will be needed, so a count
/// may be larger than any file, and 0 stands for all that follow.
#[inline(always)]
fn ahead(regs: impl Memory) -> u64 {
    let (offset, count) = (registers::argument_1(regs), registers::argument_2(regs));
    if !file::are_known() {
        return count;
    }
    let size = file::size(file::mapping(file::of_descriptor(registers::argument_0(regs))));
    fadvise::bytes(size, offset as i64, count as i64)
}

#[inline(always)]
fn left<M: Memory>(number: u64, ret: i64, native: impl FnOnce() -> bool, regs: impl FnOnce() -> M) {
    let call = if number == u64::from(set(&NR_MADVISE)) {
        MADVISE
    } else if number == u64::from(set(&NR_PROCESS_MADVISE)) {
        PROCESS_MADVISE
    } else if number == u64::from(set(&NR_READAHEAD)) {
        READAHEAD
    } else {
        return;
    };
    if !native() {
        return;
    }
    let Some(group) = group::in_scope() else { return };
    let regs = regs();
    // madvise(address, length, advice), process_madvise(process, vectors, count, advice, flags), whose result is
    // the bytes, and readahead, whose advice is its name.
    let (advice, bytes) = match call {
        MADVISE => (registers::argument_2(regs), registers::argument_1(regs)),
        PROCESS_MADVISE => (registers::argument_3(regs), ret as u64),
        _ => (0, ahead(regs)),
    };
    let slot = errno::slot(ret);
    if let Some(cell) = CELLS.cell(group, entry(call, advice as u32)) {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        let cell = unsafe { &mut *cell };
        cell.calls += 1;
        if slot == 0 {
            cell.bytes += bytes;
        }
    }
    if slot != 0
        && let Some(errors) = ERRORS.cell(group, call * errno::SLOTS + slot)
    {
        // SAFETY: as above.
        unsafe { *errors += 1 };
    }
}

probes::raw_tracepoints! {
    /// `sys_exit(regs, ret)`.
    fn exit_btf, exit_raw("sys_exit", ctx) {
        let regs = ctx.pointer(0);
        left(registers::number(regs), ctx.arg(1), registers::native, || regs);
    }
}

probes::tracepoint! {
    /// `raw_syscalls/sys_exit`.
    fn exit_tp(ctx) {
        left(
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID),
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET),
            registers::native,
            registers::current,
        );
    }
}

probes::tracepoint! {
    /// `syscalls/sys_exit_*`, one for each call: callers with 32-bit numbers do not come by here. The record begins like
    /// that of all calls together, but for the width of the number.
    fn exit_call_tp(ctx) {
        let number: u32 = record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID);
        let ret = record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET);
        left(u64::from(number), ret, || true, registers::current);
    }
}
