//! System calls as the kernel sees them on this architecture: x86-64.
//!
//! At `sys_exit` the saved registers still hold the call's arguments; only the accumulator has been
//! replaced, and its old value, the call's number, is kept in `orig_ax`.

use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_task_pt_regs};

use crate::{
    field::{Memory, Trusted},
    task,
};

crate::fields! {
    OFFSET_PT_REGS_ORIG_AX,
    OFFSET_PT_REGS_R10,
    OFFSET_PT_REGS_DI,
    OFFSET_PT_REGS_SI,
    OFFSET_PT_REGS_DX,
    OFFSET_PT_REGS_BP,
    OFFSET_PT_REGS_BX,
    OFFSET_PT_REGS_CX,
    OFFSET_TASK_STRUCT_THREAD_INFO_STATUS,
}

/// `fadvise64(fd, offset_low, offset_high, length, advice)` of 32-bit callers
/// (arch/x86/entry/syscalls/syscall_32.tbl).
pub const COMPAT_FADVISE64: u64 = 250;
/// `fadvise64_64(fd, offset_low, offset_high, length_low, length_high, advice)` of 32-bit callers.
pub const COMPAT_FADVISE64_64: u64 = 272;

/// The number of the call that a task is leaving. The register is saved whole, but the kernel takes
/// its lower half for the number (`movslq %eax`, arch/x86/entry/entry_64.S): what a caller leaves in
/// the upper half must not hide the call.
#[inline(always)]
pub fn number(regs: impl Memory) -> u64 {
    let saved: u64 = regs.read(&OFFSET_PT_REGS_ORIG_AX);
    u64::from(saved as u32)
}

/// The registers of the call that the current task is in. Since Linux 5.15.
#[inline(always)]
pub fn current() -> Trusted {
    // SAFETY: the helpers have no preconditions: the current task has registers.
    Trusted::new(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8)
}

/// The first argument of a call.
#[inline(always)]
pub fn argument_0(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_DI)
}

/// The second argument of a call.
#[inline(always)]
pub fn argument_1(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_SI)
}

/// The third argument of a call.
#[inline(always)]
pub fn argument_2(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_DX)
}

/// The fourth argument of a call (arch/x86/entry/entry_64.S: di, si, dx, r10, r8, r9).
#[inline(always)]
pub fn argument_3(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_R10)
}

/// The first argument of a 32-bit call.
#[inline(always)]
pub fn compat_argument_0(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_BX)
}

/// The second argument of a 32-bit call.
#[inline(always)]
pub fn compat_argument_1(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_CX)
}

/// The third argument of a 32-bit call.
#[inline(always)]
pub fn compat_argument_2(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_DX)
}

/// The fourth argument of a 32-bit call.
#[inline(always)]
pub fn compat_argument_3(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_SI)
}

/// The fifth argument of a 32-bit call (arch/x86/entry: bx, cx, dx, si, di, bp).
#[inline(always)]
pub fn compat_argument_4(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_DI)
}

/// The sixth argument of a 32-bit call.
#[inline(always)]
pub fn compat_argument_5(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_BP)
}

/// Whether the current call has a 32-bit caller, whose numbers are others: `TS_COMPAT` of
/// arch/x86/include/asm/thread_info.h.
#[inline(always)]
pub fn compat() -> bool {
    const TS_COMPAT: u32 = 2;
    let status: u32 = task::read(&OFFSET_TASK_STRUCT_THREAD_INFO_STATUS);
    status & TS_COMPAT != 0
}
