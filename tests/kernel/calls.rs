//! Calls that are watched if somebody asks: each by itself, successes, failures and waiting.

use std::fs;

use anyhow::{Result, ensure};
use nix::libc;
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, pipe},
    plan::{Call, Open, Plan, Step, Tally},
    random,
    scrape::Scrape,
};

use crate::{in_each_mode, syscalls, work};

in_each_mode!(["syscalls/timed"] every_call_that_can_be_watched_is_counted);

/// How long a call that waits does so.
const WAIT: u64 = 20_000_000;

fn every_call_that_can_be_watched_is_counted(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let data = file::cold(&directory, &mut rng, 1 << 20)?;
    let (pipe, _ends) = pipe(&directory)?;
    let files = vec![
        Open::Never,
        Open::Read(data.clone()),
        Open::Write(data),
        Open::Read(pipe),
        Open::Epoll(0),
        Open::Epoll(3),
    ];
    let [never, reading, writing, pipe, idle, ready] = [0, 1, 2, 3, 4, 5];
    let flags = |step: Step, flags: i32| Step { advice: flags, ..step };
    let mut size = || rng.usize(1..20_000);
    let (readv, preadv, preadv2) = (Call::Readv, Call::Preadv, Call::Preadv2);
    let (writev, pwritev, pwritev2) = (Call::Writev, Call::Pwritev, Call::Pwritev2);
    let (range, msync, mmap) = (Call::SyncFileRange, Call::Msync, Call::Mmap);
    let (futex, uring) = (Call::Futex, Call::IoUringEnter);
    let mut steps = vec![
        Step::new(Call::Read, reading, size()),
        Step::new(Call::Pread64, reading, size()).at(777),
        Step::new(Call::Write, writing, size()),
        Step::new(Call::Pwrite64, writing, size()).at(12_345),
        Step::new(Call::Fsync, writing, 0),
        Step::new(Call::Fdatasync, writing, 0),
        // Without a position, the next read goes on where the last has ended; it ends with the file.
        Step::new(readv, reading, size()),
        Step::new(readv, never, size()),
        Step::new(preadv, reading, size()).at(333),
        Step::new(preadv, pipe, size()),
        Step::new(preadv2, reading, size()).at(4_444),
        flags(Step::new(preadv2, reading, size()), i32::MIN),
        Step::new(writev, writing, size()),
        Step::new(writev, reading, size()),
        Step::new(pwritev, writing, size()).at(99),
        Step::new(pwritev, writing, size()).at(1 << 63),
        flags(Step::new(pwritev2, writing, size()).at(10), libc::RWF_DSYNC),
        flags(Step::new(pwritev2, writing, size()).at(10), i32::MIN),
        flags(Step::new(range, writing, size()), libc::SYNC_FILE_RANGE_WRITE as i32),
        flags(Step::new(range, writing, size()), 1 << 20),
        Step::new(range, pipe, 1),
        flags(Step::new(msync, never, 1), libc::MS_SYNC),
        flags(Step::new(msync, never, 1), libc::MS_SYNC | libc::MS_ASYNC),
        flags(Step::new(msync, never, 4096).at(1 << 46), libc::MS_ASYNC),
        Step::new(mmap, never, size()),
        Step::new(mmap, reading, size()).at(8192),
        Step::new(mmap, never, 0),
        Step::new(mmap, never, size()).at(4096),
        flags(Step::new(futex, never, 1), libc::FUTEX_WAKE),
        flags(Step::new(futex, never, 1).at(WAIT), libc::FUTEX_WAIT),
        flags(Step::new(futex, never, 0), 99),
        flags(Step::new(uring, never, 0), 0),
        flags(Step::new(uring, reading, 0), 0),
    ];
    for call in [Call::EpollWait, Call::EpollPwait, Call::EpollPwait2] {
        steps.push(Step::new(call, ready, 5).at(WAIT));
        steps.push(Step::new(call, never, 1));
        steps.push(Step::new(call, reading, 1));
        steps.push(Step::new(call, idle, 0));
    }
    steps.iter_mut().for_each(|step| step.count = rng.u64(1..200));
    // These wait until their time is over.
    let waiting = [
        flags(Step::new(futex, never, 0).at(WAIT), libc::FUTEX_WAIT),
        Step::new(Call::EpollWait, idle, 1).at(WAIT),
        Step::new(Call::EpollPwait, idle, 1).at(WAIT),
        Step::new(Call::EpollPwait2, idle, 1).at(WAIT),
    ];
    let waits = rng.u64(1..4);
    steps.extend(waiting.map(|step| step.times(waits)));
    rng.shuffle(&mut steps);
    // A call that this kernel does not have has no tracepoint of its own.
    let kernel = fs::read_to_string("/proc/kallsyms")?;
    if mode == Mode::SyscallTracepoint && !kernel.contains("_sys_epoll_pwait2\n") {
        steps.retain(|step| step.call != Call::EpollPwait2);
    }
    // Younger architectures never had the oldest.
    if cfg!(not(target_arch = "x86_64")) {
        steps.retain(|step| step.call != Call::EpollWait);
    }
    let mut calls: Vec<_> = steps.iter().map(|step| step.call).collect();
    calls.sort_unstable();
    calls.dedup();
    let names: Vec<_> = calls.iter().map(|call| call.name()).collect();
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", mode, &cgroup).signal("syscalls", json!({"calls": names}));
    let agent = Agent::start(&setup)?;
    let report = work(&Plan { threads: 1, files, phases: vec![steps.clone()] }, &cgroup)?;
    let scrape = agent.settled()?;
    for call in calls {
        let told = report.of(call);
        let made: u64 = steps.iter().filter(|s| s.call == call).map(|s| s.count).sum();
        ensure!(told.calls == made, "{call:?}: {} calls told, {made} made", told.calls);
        // Nothing went as planned if all went well, or nothing did.
        let failed: u64 = told.errors.values().sum();
        let simple = matches!(call, Call::Read | Call::Pread64 | Call::Write | Call::Pwrite64);
        let simple = simple || matches!(call, Call::Fsync | Call::Fdatasync);
        ensure!(simple || failed > 0, "{call:?}: nothing failed");
        // Newer than the oldest kernel.
        let unknown = told.errors.get(&nix::libc::ENOSYS) == Some(&made);
        ensure!(failed < made || call == uring || unknown, "{call:?}: everything failed: {told:?}");
        syscalls::counts(&scrape, call, &told)?;
        syscalls::durations(&scrape, call, &told.nanos)?;
        waited(&scrape, call, waits, &told)?;
    }
    Ok(())
}

/// Fails if the durations of a call that has waited so often do not have that in them.
fn waited(scrape: &Scrape, call: Call, waits: u64, told: &Tally) -> Result<()> {
    let waiting = [Call::Futex, Call::EpollWait, Call::EpollPwait, Call::EpollPwait2];
    // Linux 5.10 does not have the youngest of them.
    if !waiting.contains(&call) || told.errors.contains_key(&libc::ENOSYS) && call != Call::Futex {
        return Ok(());
    }
    let name = [("syscall", call.name())];
    let sum = scrape.one("ebpf_syscall_duration_seconds_sum", &name)?.value;
    let least = (waits * WAIT) as f64 / 1e9;
    ensure!(sum >= least, "{call:?}: {sum} s shown, at least {least} s were waited");
    let short = scrape
        .all("ebpf_syscall_duration_seconds_bucket", &name)
        .filter(|bucket| bucket.labels["le"].parse::<f64>().is_ok_and(|le| le < WAIT as f64 / 1e9))
        .map(|bucket| bucket.value as u64)
        .max();
    let most = told.calls - waits;
    ensure!(short <= Some(most), "{call:?}: {short:?} of {most} did not wait");
    Ok(())
}
