//! One program: loaded, and attached where its type attaches.

use std::{
    fs,
    io::ErrorKind,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    programs::{
        Program, ProgramError,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util::online_cpus,
};

use super::{event, kernel::Kernel, tracefs};

/// Loads a program and attaches it to each of `targets`. It stays attached while it is loaded and what is returned is
/// kept.
pub(super) fn attach(
    program: &mut Program,
    targets: &[String],
    kernel: &Kernel,
) -> Result<Vec<OwnedFd>> {
    let first = targets.first().context("it has nowhere to attach")?;
    match program {
        Program::BtfTracePoint(program) => {
            let btf = kernel.btf()?;
            load(|| program.load(first, btf))?;
            program.attach().map_err(explain)?;
        }
        Program::RawTracePoint(program) => {
            load(|| program.load())?;
            program.attach(first).map_err(explain)?;
        }
        Program::TracePoint(program) => {
            for target in targets {
                tracefs::event(target)?;
            }
            load(|| program.load())?;
            let fd = program.fd()?;
            return targets.iter().map(|target| event::attach(fd.as_fd(), target)).collect();
        }
        Program::FEntry(program) => {
            let btf = kernel.btf()?;
            load(|| program.load(first, btf))?;
            program.attach().map_err(explain)?;
        }
        Program::FExit(program) => {
            let btf = kernel.btf()?;
            load(|| program.load(first, btf))?;
            program.attach().map_err(explain)?;
        }
        Program::KProbe(program) => {
            // Without them the kernel's own error would say nothing.
            let supported = fs::exists("/sys/bus/event_source/devices/kprobe").unwrap_or(false);
            if !supported {
                bail!("this kernel has no kprobes");
            }
            load(|| program.load())?;
            program.attach(first.as_str(), 0).map_err(explain)?;
        }
        Program::PerfEvent(program) => {
            let event = match first.as_str() {
                "minor-faults" => SoftwareEvent::PageFaultsMin,
                "major-faults" => SoftwareEvent::PageFaultsMaj,
                other => bail!("perf has no event {other}"),
            };
            load(|| program.load())?;
            let cpus =
                online_cpus().map_err(|(path, error)| anyhow!("cannot read {path}: {error}"))?;
            for cpu in cpus {
                let everyone = PerfEventScope::AllProcessesOneCpu { cpu };
                let event = PerfEventConfig::Software(event);
                program.attach(event, everyone, SamplePolicy::Period(1), false).map_err(explain)?;
            }
        }
        _ => bail!("it is of a type that the ladder does not know"),
    }
    Ok(Vec::new())
}

/// How often a program is tried whose verification something interrupts.
const TRIES: usize = 5;

/// Loads a program; again if the verifier was interrupted: who stops or freezes the process does so whatever signals it
/// holds back.
fn load(load: impl FnMut() -> Result<(), ProgramError>) -> Result<()> {
    again(load, was_interrupted).map_err(explain)
}

fn again<E>(
    mut load: impl FnMut() -> Result<(), E>,
    was_interrupted: impl Fn(&E) -> bool,
) -> Result<(), E> {
    for _ in 1..TRIES {
        match load() {
            Err(error) if was_interrupted(&error) => {}
            done => return done,
        }
    }
    load()
}

fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == ErrorKind::WouldBlock)
}

/// Detaches a program and lets go of it.
pub(super) fn unload(program: &mut Program) {
    let unloaded = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::PerfEvent(program) => program.unload(),
        _ => return,
    };
    // One that was never loaded has nothing to unload.
    let _: Result<(), ProgramError> = unloaded;
}

/// The kernel's reason, in a line: what the verifier said last, not the whole of its log.
fn explain(error: ProgramError) -> anyhow::Error {
    const LINES: usize = 3;
    let ProgramError::LoadError { io_error, verifier_log } = &error else {
        return anyhow!("{}", chain(&error));
    };
    let log = verifier_log.to_string();
    let said: Vec<_> = log
        .lines()
        .map(str::trim)
        // Statistics follow the reason; they end every log.
        .filter(|l| !l.is_empty() && !STATISTICS.iter().any(|s| l.starts_with(s)))
        .collect();
    let last = said[said.len().saturating_sub(LINES)..].join(" | ");
    match last.is_empty() {
        true => anyhow!("the kernel refuses it: {io_error}"),
        false => anyhow!("the verifier refuses it: {io_error}: {last}"),
    }
}

/// How the lines begin that the verifier ends every log with.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// An error with its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it loads in the end, and how often it was tried, if the first `failures` tries fail.
    fn tried(failures: usize, interrupted: bool) -> (bool, usize) {
        let mut tries = 0;
        let load = || {
            tries += 1;
            if tries > failures { Ok(()) } else { Err(interrupted) }
        };
        (again(load, |interrupted| *interrupted).is_ok(), tries)
    }

    #[test]
    fn what_was_interrupted_is_tried_again() {
        assert_eq!(tried(0, true), (true, 1));
        assert_eq!(tried(TRIES - 1, true), (true, TRIES));
        assert_eq!(tried(TRIES, true), (false, TRIES));
        assert_eq!(tried(1, false), (false, 1));
    }
}
