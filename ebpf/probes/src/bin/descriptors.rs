//! File descriptors that calls open and close. When a call returns, the saved registers still hold its arguments.
#![no_std]
#![no_main]

use abi::{
    descriptors::{CHANGES, CLOSE, COMMAND, Cell, KINDS, ONTO, SHAPE, TWO},
    errno,
    syscalls::NUMBERS,
};
use probes::{
    field::{Memory, checked, record, set},
    group, registers,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET,
}

/// What each call does, by its number on this architecture; 0 for all others.
#[unsafe(no_mangle)]
static OPENS: [u8; NUMBERS] = [0; NUMBERS];

probes::cells! {
    /// One cell: descriptors.
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; 1]
}

probes::cells! {
    /// Calls that opened none, by error.
    ERRORS, ERRORS_BY_GROUP, ERRORS_SEATS: [u64; errno::SLOTS]
}

/// `F_DUPFD` and `F_DUPFD_CLOEXEC` of include/uapi/linux/fcntl.h.
const DUPLICATES: [u64; 2] = [0, 1030];
/// `EBADF`: the one error with which `close` has closed nothing.
const BAD: i64 = -9;

#[inline(always)]
fn left<M: Memory>(number: u64, ret: i64, native: impl FnOnce() -> bool, regs: impl FnOnce() -> M) {
    let Some(place) = checked::<NUMBERS>(number as usize) else { return };
    let call = set(&OPENS[place]);
    if call == 0 || !native() {
        return;
    }
    let Some(group) = group::in_scope() else { return };
    let shape = call & SHAPE;
    if shape == CLOSE {
        if ret != BAD
            && let Some(cell) = CELLS.cell(group, 0)
        {
            // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
            unsafe { (*cell).closed += 1 };
        }
        return;
    }
    let regs = regs();
    let (first, second) = (registers::argument_0(regs) as u32, registers::argument_1(regs) as u32);
    // What looks like an opening and is none.
    if (shape == COMMAND && !DUPLICATES.contains(&u64::from(second)))
        || (shape == ONTO && first == second)
        || (shape == CHANGES && first as i32 >= 0)
    {
        return;
    }
    let slot = errno::slot(ret);
    if slot != 0 {
        if let Some(errors) = ERRORS.cell(group, slot) {
            // SAFETY: as above.
            unsafe { *errors += 1 };
        }
        return;
    }
    let Some(cell) = CELLS.cell(group, 0) else { return };
    if let Some(kind) = checked::<{ KINDS.len() }>(usize::from(call & !SHAPE)) {
        // SAFETY: as above.
        unsafe { (*cell).opened[kind] += if shape == TWO { 2 } else { 1 } };
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
