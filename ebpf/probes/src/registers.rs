//! System calls as the kernel sees them. The registers have their names of x86-64; what another architecture has
//! in their place, user space knows.
//!
//! At `sys_exit` the saved registers still hold the call's arguments; only the register of the result
//! has been replaced, and its old value is kept beside: on x86-64 the call's number, in `orig_ax`.

use aya_ebpf::helpers::{bpf_get_current_task_btf, bpf_task_pt_regs};

use crate::{
    field::{Memory, Trusted, set},
    task,
};

crate::fields! {
    OFFSET_PT_REGS_ORIG_AX,
    OFFSET_PT_REGS_R10,
    OFFSET_PT_REGS_R8,
    OFFSET_PT_REGS_DI,
    OFFSET_PT_REGS_SI,
    OFFSET_PT_REGS_DX,
    OFFSET_PT_REGS_BP,
    OFFSET_PT_REGS_BX,
    OFFSET_PT_REGS_CX,
    OFFSET_TASK_STRUCT_THREAD_INFO_STATUS,
}

/// The bit that tells a 32-bit caller.
#[unsafe(no_mangle)]
static COMPAT: u32 = 0;

/// The number of the call that a task is leaving. x86-64 saves the register whole, but takes its
/// lower half for the number (`movslq %eax`, arch/x86/entry/entry_64.S): what a caller leaves in
/// the upper half must not hide the call.
#[inline(always)]
pub fn number(regs: impl Memory) -> u64 {
    let lower: u32 = regs.read(&OFFSET_PT_REGS_ORIG_AX);
    u64::from(lower)
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

/// The fifth argument of a call.
#[inline(always)]
pub fn argument_4(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_R8)
}

/// The first argument of a 32-bit call on x86-64.
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

/// The fifth argument of a 32-bit call on x86-64 (arch/x86/entry: bx, cx, dx, si, di, bp).
#[inline(always)]
pub fn compat_argument_4(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_DI)
}

/// The sixth argument of such a call.
#[inline(always)]
pub fn compat_argument_5(regs: impl Memory) -> u64 {
    regs.read(&OFFSET_PT_REGS_BP)
}

/// Whether the current call has a 32-bit caller, whose numbers are others.
#[inline(always)]
pub fn compat() -> bool {
    let status: u32 = task::read(&OFFSET_TASK_STRUCT_THREAD_INFO_STATUS);
    status & set(&COMPAT) != 0
}

/// Whether it has not: 32-bit callers' numbers mean other calls.
#[inline(always)]
pub fn native() -> bool {
    !compat()
}
