//! The process that a test watches. It makes the calls of its plan and no other that is counted:
//! everything else, such as opening files and reporting, happens while it is outside the cgroup.
//! Where it must be moved it stops itself with SIGSTOP, which no pipe and no file is needed for.

mod descriptors;
mod memory;
mod raw;
mod ring;
mod wait;

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    sync::{Barrier, mpsc},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use nix::{
    libc,
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, raise},
    },
};
use tests::plan::{Call, Open, Plan, Report, Step, Tally};

/// What direct I/O must be aligned to, at most.
const ALIGNED: usize = 4096;

/// No process has that many descriptors.
const NEVER_OPENED: i32 = i32::MAX;

fn main() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Each thread has files of its own.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let plan: Plan = serde_json::from_reader(io::stdin().lock()).context("the plan")?;
    let mut actors = (0..plan.threads).map(|_| Actor::new(&plan)).collect::<Result<Vec<_>>>()?;
    let total = match &mut actors[..] {
        [alone] => {
            // No other thread, so no call for the sake of one.
            raise(Signal::SIGSTOP)?;
            for phase in &plan.phases {
                phase.iter().for_each(|step| alone.take(step));
                raise(Signal::SIGSTOP)?;
            }
            std::mem::take(&mut alone.report)
        }
        _ => together(&plan, actors)?,
    };
    serde_json::to_writer(io::stdout(), &total)?;
    Ok(())
}

/// Each actor in a thread of its own.
fn together(plan: &Plan, actors: Vec<Actor>) -> Result<Report> {
    // One more than the threads: this one opens and closes every phase.
    let barrier = Barrier::new(plan.threads + 1);
    let (reports, reported) = mpsc::sync_channel(plan.threads);
    thread::scope(|scope| {
        for mut actor in actors {
            let (barrier, reports) = (&barrier, reports.clone());
            scope.spawn(move || {
                for phase in &plan.phases {
                    barrier.wait();
                    phase.iter().for_each(|step| actor.take(step));
                    barrier.wait();
                }
                reports.send(actor.report)
            });
        }
        raise(Signal::SIGSTOP)?;
        for _ in &plan.phases {
            barrier.wait();
            barrier.wait();
            raise(Signal::SIGSTOP)?;
        }
        anyhow::Ok(())
    })?;
    drop(reports);
    let mut total = Report::default();
    for (call, tally) in reported.into_iter().flat_map(|report: Report| report.tallies) {
        total.tallies.entry(call).or_default().merge(tally);
    }
    Ok(total)
}

/// One thread's files, buffer and tallies.
struct Actor {
    files: Vec<Option<OwnedFd>>,
    buffer: Vec<u8>,
    /// Where the aligned part of the buffer begins.
    first: usize,
    report: Report,
}

impl Actor {
    /// Allocates and opens all that the steps need.
    fn new(plan: &Plan) -> Result<Self> {
        let open = |file: &Open| -> Result<Option<OwnedFd>> {
            let mut options = fs::OpenOptions::new();
            Ok(match file {
                Open::Read(path) => Some(fs::File::open(path)?.into()),
                Open::Write(path) => Some(options.write(true).open(path)?.into()),
                Open::Direct(path) => {
                    let direct = options.read(true).write(true).custom_flags(libc::O_DIRECT);
                    Some(direct.open(path)?.into())
                }
                Open::Never => None,
                Open::Epoll(ready) => Some(wait::epoll(*ready)?),
            })
        };
        let files = plan.files.iter().map(open).collect::<Result<_>>()?;
        let steps = || plan.phases.iter().flatten();
        let mut report = Report::default();
        for step in steps() {
            let tally: &mut Tally = report.tallies.entry(step.call).or_default();
            tally.nanos.reserve(step.count as usize);
        }
        let size = steps().map(|step| step.size).max().unwrap_or_default();
        // Not zeros: the pages must be there before the work starts.
        let buffer = vec![0x5a; size + ALIGNED];
        let first = buffer.as_ptr().align_offset(ALIGNED);
        Ok(Self { files, buffer, first, report })
    }

    fn take(&mut self, step: &Step) {
        let fd = self.files[step.file].as_ref().map_or(NEVER_OPENED, AsRawFd::as_raw_fd);
        let tally = self.report.tallies.entry(step.call).or_default();
        let buffer = &mut self.buffer[self.first..][..step.size];
        for _ in 0..step.count {
            let before = Instant::now();
            let result = match step.call {
                _ if step.forked => raw::forked(fd, step, buffer),
                Call::Fadvise64Compat => raw::fadvise64_compat(fd, step),
                _ => raw::call(fd, step, buffer),
            };
            tally.nanos.push(before.elapsed().as_nanos() as u64);
            tally.calls += 1;
            match result {
                Ok(bytes) => tally.bytes += bytes,
                Err(errno) => *tally.errors.entry(errno as i32).or_default() += 1,
            }
        }
    }
}
