//! Grace periods: that every program which ran at a moment has ended.
//!
//! Programs run within what RCU calls a critical section, and `MEMBARRIER_CMD_GLOBAL` waits for all of those
//! (kernel/sched/membarrier.c), which takes some ten milliseconds: a thread of its own does, now and then.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{libc, unistd::SysconfVar};

/// The time between two waits.
const PATIENCE: Duration = Duration::from_secs(1);

struct Waited {
    /// When the last wait that has ended began.
    last: Option<Instant>,
    /// A thread waits.
    waiting: bool,
    /// The kernel cannot wait.
    refused: bool,
}

static WAITED: Mutex<Waited> = Mutex::new(Waited { last: None, waiting: false, refused: false });

fn waited() -> MutexGuard<'static, Waited> {
    WAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it can be known. Where there is one CPU alone, the kernel does not wait.
pub(super) fn can_wait() -> bool {
    let cpus = nix::unistd::sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    cpus.is_some_and(|cpus| cpus > 1) && !waited().refused
}

/// Whether every program that ran at a moment has ended, as far as is known. If it is not, somebody finds out, for who asks
/// again.
pub(super) fn nothing_runs_since(moment: Instant) -> bool {
    let can_wait = can_wait();
    let mut waited = waited();
    if waited.last.is_some_and(|last| last > moment) {
        return true;
    }
    let soon = waited.last.is_some_and(|last| last.elapsed() < PATIENCE);
    if can_wait && !soon && !waited.waiting {
        let thread = thread::Builder::new().name("grace".to_owned()).stack_size(64 << 10);
        waited.waiting = thread.spawn(wait).is_ok();
    }
    false
}

fn wait() {
    let began = Instant::now();
    let result = barrier();
    let mut waited = waited();
    waited.waiting = false;
    match result {
        Ok(()) => waited.last = Some(began),
        Err(_) => waited.refused = true,
    }
}

#[expect(unsafe_code, reason = "a system call that no library has")]
fn barrier() -> io::Result<()> {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_has_ended_soon() {
        let moment = Instant::now();
        if can_wait() {
            while !nothing_runs_since(moment) {
                assert!(moment.elapsed() < Duration::from_secs(60), "no grace period has passed");
                thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(!nothing_runs_since(Instant::now()));
    }
}
