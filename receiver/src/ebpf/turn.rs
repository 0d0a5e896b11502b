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
    /// Takes it. Without CAP_SYS_NICE nothing changes; what is lost then is in the programs' misses. Nor does it where
    /// an operator has chosen a policy.
    pub fn take() -> Self {
        // SAFETY: no argument is a pointer.
        let usual = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) } == USUAL;
        Self { taken: usual && schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1) }
    }
}

const USUAL: libc::c_long = libc::SCHED_OTHER as libc::c_long;

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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn policy() -> libc::c_long {
        // SAFETY: no argument is a pointer.
        unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) }
    }

    /// A thread's own: the tests beside it go on as they are.
    #[test]
    fn a_turn_ends_and_a_chosen_policy_stays() {
        let took = thread::spawn(|| {
            let turn = Turn::take();
            assert_eq!(turn.taken, policy() != USUAL);
            drop(turn);
            assert_eq!(policy(), USUAL);

            assert!(schedule(libc::SCHED_BATCH, 0), "anyone may");
            let turn = Turn::take();
            assert!(!turn.taken);
            drop(turn);
            assert_eq!(policy(), libc::c_long::from(libc::SCHED_BATCH));
        });
        took.join().expect("no assertion fails");
    }
}
