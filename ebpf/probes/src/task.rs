//! The current task.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task};

use crate::field::probe;

crate::fields! {
    OFFSET_TASK_STRUCT_PENDING_SIGNAL_SIG,
}

/// The thread, as the address of its task: the key of what is remembered about it. Not its id,
/// which changes while it lives: a thread that calls `execve` takes over the id of its process's
/// first thread, and an entry under the old id would stay for ever.
#[inline(always)]
pub fn thread() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// The process's id in the initial pid namespace.
#[inline(always)]
pub fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Whether the thread is being killed. The kernel hands SIGKILL to every thread of a process that
/// dies of a signal (`complete_signal` in kernel/signal.c).
#[inline(always)]
pub fn killed() -> bool {
    const SIGKILL: u64 = 1 << 8;
    let pending: u64 = probe(thread(), &OFFSET_TASK_STRUCT_PENDING_SIGNAL_SIG);
    pending & SIGKILL != 0
}
