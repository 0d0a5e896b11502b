//! The current task.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;

/// The thread's id in the initial pid namespace.
#[inline(always)]
pub fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// The process's id in the initial pid namespace.
#[inline(always)]
pub fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
