//! Events for which the kernel ran no program: no fault of the agent's, and known from the kernel alone.

use std::{cell::Cell, fs};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use crate::{modes::Mode, scrape::Scrape, tracefs::Witness};

thread_local! {
    /// Events that the kernel admits to have missed, by the newest scrape of this thread's test that has any.
    static MISSED: Cell<u64> = const { Cell::new(0) };
}

/// Remembers what `scrape` says that the kernel missed.
pub(crate) fn remember(scrape: &Scrape) {
    let missed: f64 = scrape.all("ebpf_probe_missed_total", &[]).map(|sample| sample.value).sum();
    if missed > 0.0 {
        MISSED.set(missed as u64);
    }
}

/// Runs `test`, and again if it fails and the kernel says that it ran no program for something meanwhile: three times at
/// most. Nothing else excuses a failure.
pub fn run(probes: &[&str], mode: Mode, test: impl Fn(Mode) -> Result<()>) -> Result<()> {
    let in_interrupts = probes.iter().any(|probe| probe.starts_with("block/"));
    for _ in 0..3 {
        MISSED.set(0);
        let hidden = in_interrupts.then(Hidden::watch).transpose()?;
        let Err(error) = test(mode) else { return Ok(()) };
        let missed = if may_miss(mode) { MISSED.get() } else { 0 };
        let hidden = hidden.map_or(Ok(0), |hidden| hidden.0.count())?;
        if (missed, hidden) == (0, 0) {
            return Err(error);
        }
        println!("again, since {missed} events were missed and {hidden} hidden: {error:#}");
    }
    test(mode)
}

/// Whether a program may be preempted by another task, whose events the kernel then misses on that CPU.
fn may_miss(mode: Mode) -> bool {
    matches!(mode, Mode::TpBtf | Mode::RawTp | Mode::Fentry)
}

/// Requests that end in an interrupt of PID 1. A kernel that is hardened to hide PID 1 from BPF runs no program then,
/// and its own tracer is the one to tell.
#[derive(Debug)]
struct Hidden(Witness);

impl Hidden {
    fn watch() -> Result<Self> {
        let mut threads = Vec::new();
        for entry in fs::read_dir("/proc/1/task").context("the threads of PID 1")? {
            threads.push(Pid::from_raw(entry?.file_name().to_string_lossy().parse()?));
        }
        Witness::new("block/block_rq_complete", &threads).map(Self)
    }
}
