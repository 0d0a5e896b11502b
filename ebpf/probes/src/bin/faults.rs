//! Page faults, minor and major, as the kernel itself tells them apart.
#![no_std]
#![no_main]

use abi::faults::Cell;
use aya_ebpf::{
    macros::{fexit, perf_event},
    programs::{FExitContext, PerfEventContext},
};
use probes::group;

probes::program!();

probes::cells! {
    /// One cell: faults.
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; 1]
}

#[inline(always)]
fn fault(field: impl FnOnce(&mut Cell) -> &mut u64) {
    let Some(group) = group::in_scope() else { return };
    if let Some(cell) = CELLS.cell(group, 0) {
        // SAFETY: the pointer is to this CPU's copy, each field of which one program alone writes.
        *field(unsafe { &mut *cell }) += 1;
    }
}

/// Results that say that nothing was mapped, `VM_FAULT_ERROR` of include/linux/mm_types.h: out of memory, SIGBUS,
/// SIGSEGV, poisoned memory, fallback.
const FAILED: u32 = 0x1 | 0x2 | 0x40 | 0x10 | 0x20 | 0x800;
/// `VM_FAULT_RETRY`: the fault will come again, and is accounted then.
const RETRY: u32 = 0x400;
/// `VM_FAULT_MAJOR`.
const MAJOR: u32 = 0x4;
/// `FAULT_FLAG_TRIED` of include/linux/mm_types.h: it comes again.
const TRIED: u32 = 1 << 5;

/// `handle_mm_fault(vma, address, flags, regs)`, judged as its own `mm_account_fault` does (mm/memory.c).
#[fexit(function = "handle_mm_fault")]
pub fn faults_fexit(ctx: FExitContext) -> i32 {
    let flags: u32 = ctx.arg(2);
    // The result stands behind the arguments.
    let ret: u32 = ctx.arg(4);
    if ret & (FAILED | RETRY) != 0 {
        return 0;
    }
    if ret & MAJOR != 0 || flags & TRIED != 0 {
        fault(|cell| &mut cell.major);
    } else {
        fault(|cell| &mut cell.minor);
    }
    0
}

/// `PERF_COUNT_SW_PAGE_FAULTS_MIN`, which the kernel raises where it accounts the fault.
#[perf_event]
pub fn minor_perf(_: PerfEventContext) -> u32 {
    fault(|cell| &mut cell.minor);
    0
}

/// `PERF_COUNT_SW_PAGE_FAULTS_MAJ`: see [`minor_perf`].
#[perf_event]
pub fn major_perf(_: PerfEventContext) -> u32 {
    fault(|cell| &mut cell.major);
    0
}
