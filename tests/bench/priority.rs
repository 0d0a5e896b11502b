//! Priority over what else the machine does. What the bench starts does not inherit it.
#![expect(unsafe_code, reason = "nothing wraps what sets a process's priority")]

use std::{
    fs,
    process::{Command, Stdio, id},
};

use anyhow::Result;
use nix::{libc, unistd::Pid};

/// Takes it; says so if it cannot be had.
pub(crate) fn raise() {
    if !set(&["--reset-on-fork", "--fifo"], "1") {
        println!(
            "no priority (chrt of util-linux, as root): figures scatter on a machine that has other work"
        );
    }
}

/// Gives it back.
pub(crate) fn lower() {
    set(&["--other"], "0");
}

/// Gives a child, which has to do its part of the work, the same.
pub(crate) fn share(child: Pid) {
    // SAFETY: it is a structure of numbers.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the calls read and write what they are handed, and no more. A child that they fail for waits longer.
    unsafe {
        libc::sched_getparam(0, &mut parameters);
        let policy = libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK;
        libc::sched_setscheduler(child.as_raw(), policy, &parameters);
    }
}

/// Has the kernel's own work that is bound to no CPU done on the bench's, until it is dropped: else, who waits for it takes
/// as long as another CPU needs to wake up, which in a virtual machine is much longer than all that is measured.
pub(crate) struct OneCpu(String);

impl OneCpu {
    const CPUS: &str = "/sys/devices/virtual/workqueue/cpumask";

    pub(crate) fn new() -> Result<Self> {
        let before = Self(fs::read_to_string(Self::CPUS)?);
        // The first, to which the bench is bound.
        fs::write(Self::CPUS, "1")?;
        Ok(before)
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::CPUS, self.0.trim()) {
            println!("{} keeps its value of the bench: {error}", Self::CPUS);
        }
    }
}

fn set(policy: &[&str], priority: &str) -> bool {
    let mut command = Command::new("chrt");
    command.args(policy).args(["--pid", priority, &id().to_string()]);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
