//! A turn on the CPU that nobody takes away.
//!
//! While a task is inside bpf(2) with a map, the kernel runs no classic tracepoint program on that CPU
//! (`bpf_disable_instrumentation`), lest one wait for what the other holds. Where the kernel is preemptible,
//! another task may get the CPU in the middle, and what it does is not counted until the first goes on.
#![expect(unsafe_code, reason = "scheduling policies have no safe wrapper here")]

use nix::libc;

/// While it lives, the thread runs until it sleeps: of the real-time policies, the least priority.
#[derive(Debug)]
pub struct Turn {
    taken: bool,
}

impl Turn {
    /// Takes it. Without CAP_SYS_NICE nothing changes; what is lost then is in the programs' misses.
    pub fn take() -> Self {
        Self { taken: schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.taken {
            schedule(libc::SCHED_OTHER, 0);
        }
    }
}

/// Sets the policy of this thread.
fn schedule(policy: libc::c_int, priority: libc::c_int) -> bool {
    // SAFETY: a `sched_param` of the kernel is the priority alone, and it lives as long as the call. (The function
    // of that name does nothing in musl.)
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) == 0 }
}
