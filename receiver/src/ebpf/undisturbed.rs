//! Loading that no signal disturbs.
//!
//! The verifier gives up with EAGAIN while a signal is pending for the thread that loads, and what finds out by a trial
//! what the kernel can do takes that for a refusal.

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, SigmaskHow};

/// While it lives, signals to the process go to its other threads, or wait.
pub struct Undisturbed {
    before: SigSet,
}

impl Undisturbed {
    /// Of this thread.
    pub fn new() -> Result<Self> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        Ok(Self { before: before.context("cannot hold signals back")? })
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // It can only fail for arguments that are wrong.
        let _: nix::Result<()> = self.before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::signal::Signal;

    use super::*;

    /// A thread's own: the tests beside it go on as they are.
    #[test]
    fn what_was_held_back_before_still_is_and_nothing_else() {
        let done = thread::spawn(|| {
            let of_thread = || SigSet::thread_get_mask().expect("a mask");
            SigSet::from_iter([Signal::SIGHUP]).thread_block().expect("it is blocked");
            let undisturbed = Undisturbed::new().expect("signals are held back");
            assert!(of_thread().contains(Signal::SIGTERM) && of_thread().contains(Signal::SIGHUP));
            drop(undisturbed);
            assert!(!of_thread().contains(Signal::SIGTERM) && of_thread().contains(Signal::SIGHUP));
        });
        done.join().expect("no assertion fails");
    }
}
