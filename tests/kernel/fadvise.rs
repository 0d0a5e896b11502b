//! Calls of `fadvise64`, by advice and result.

use std::collections::BTreeMap;

use abi::fadvise::{ADVICES, bytes};
use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, PAGE, pipe},
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, work};

in_each_mode!(["fadvise/calls"] every_advice_is_counted_by_name_and_result,
    no_advice_of_many_threads_is_lost,
);

/// Bytes of the file that advice is about.
const SIZE: u64 = 100_000;

fn every_advice_is_counted_by_name_and_result(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let data = file::cold(&directory, &mut rng, SIZE)?;
    let (pipe, _ends) = pipe(&directory)?;
    let files = vec![Open::Read(data), Open::Never, Open::Read(pipe)];
    // What the kernel must say, by file; a bad descriptor is found first, then a pipe, then the advice.
    let advised = |file: usize, advice: i32| match (file, usize::try_from(advice)) {
        (0, Ok(advice)) if advice < ADVICES.len() => None,
        (0, _) => Some(libc::EINVAL),
        (1, _) => Some(libc::EBADF),
        _ => Some(libc::ESPIPE),
    };
    let advices = [0, 1, 2, 3, 4, 5, 6, 99, 4_000, -1, i32::MAX, i32::MIN];
    let mut steps = Vec::new();
    for file in 0..files.len() {
        for advice in advices {
            // In the file, and far behind it.
            let reach = rng.u32(10..40);
            let offset = rng.u64(0..1 << reach);
            let step = Step::advise(file, advice).at(offset);
            let size = if rng.bool() { 0 } else { rng.usize(1..100_000) };
            let step = Step { size, ..step };
            steps.push(step.times(rng.u64(1..60)));
            // Classic tracepoints of one system call do not see a 32-bit program's.
            if mode != Mode::SyscallTracepoint && cfg!(target_arch = "x86_64") {
                let step = Step { call: Call::Fadvise64Compat, ..step };
                steps.push(step.times(rng.u64(1..60)));
            }
        }
    }
    rng.shuffle(&mut steps);

    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("fadvise", mode, &cgroup))?;
    let plan = Plan { threads: 1, files, phases: vec![steps.clone()] };
    let report = work(&plan, &cgroup)?;
    let scrape = agent.settled()?;

    let mut by_advice = BTreeMap::<_, u64>::new();
    let mut by_errno = BTreeMap::<_, u64>::new();
    let mut by_bytes = BTreeMap::<_, u64>::new();
    let (mut calls, mut successes) = (0, 0);
    for step in &steps {
        let name = usize::try_from(step.advice).ok().and_then(|advice| ADVICES.get(advice));
        // An advice that does not exist has no name: such calls are in the total alone.
        if let Some(name) = name {
            *by_advice.entry(*name).or_default() += step.count;
        }
        match advised(step.file, step.advice) {
            Some(errno) => *by_errno.entry(errno).or_default() += step.count,
            None => {
                successes += step.count;
                let bytes = bytes(SIZE as i64, step.offset as i64, step.size as i64);
                *by_bytes.entry(*name.context("a name")?).or_default() += step.count * bytes;
            }
        }
        calls += step.count;
    }
    let mut told = report.of(Call::Fadvise64);
    told.merge(report.of(Call::Fadvise64Compat));
    ensure!(told.errors == by_errno, "the kernel said {:?} instead of {by_errno:?}", told.errors);

    let shown = scrape.count("ebpf_fadvise_calls_total", &[])?;
    ensure!(shown == calls, "{shown} calls shown, {calls} made");
    let shown = scrape.count("ebpf_fadvise_success_total", &[])?;
    ensure!(shown == successes, "{shown} successes shown, {successes} met");
    for (advice, made) in by_advice {
        let shown = scrape.count("ebpf_fadvise_advice_total", &[("advice", advice)])?;
        ensure!(shown == made, "{advice}: {shown} calls shown, {made} made");
    }
    for (advice, about) in by_bytes {
        let shown = scrape.sum("ebpf_fadvise_advised_bytes_total", &[("advice", advice)])?;
        ensure!(shown == about, "{advice}: {shown} bytes shown, {about} advised about");
    }
    let named = scrape.all("ebpf_fadvise_advice_total", &[]).count();
    ensure!(named == ADVICES.len(), "{named} advices shown");
    for (errno, met) in by_errno {
        let name = format!("{:?}", nix::errno::Errno::from_raw(errno));
        let shown = scrape.count("ebpf_fadvise_errors_total", &[("error_type", &name)])?;
        ensure!(shown == met, "{name}: {shown} errors shown, {met} met");
    }
    let shown = scrape.sum("ebpf_fadvise_errors_total", &[])?;
    ensure!(shown == calls - successes, "{shown} errors shown, {} met", calls - successes);
    Ok(())
}

/// All at once, about one file: nobody's count is written over by another's.
fn no_advice_of_many_threads_is_lost(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let files = vec![Open::Read(file::cold(&directory, &mut rng, SIZE)?), Open::Never];
    let (threads, good, bad) = (8, rng.u64(2_000..5_000), rng.u64(500..1_000));
    let steps = vec![Step::advise(0, 2).times(good), Step::advise(1, 2).times(bad)];
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("fadvise", mode, &cgroup))?;
    work(&Plan { threads, files, phases: vec![steps] }, &cgroup)?;
    let scrape = agent.settled()?;
    let shown = |name: &str| scrape.sum(&format!("ebpf_fadvise_{name}_total"), &[]);
    let made = (good + bad) * threads as u64;
    let calls = shown("calls")?;
    let lost = made.checked_sub(calls).with_context(|| format!("{calls} calls of {made}"))?;
    if lost > 0 {
        return scrape.admits("fadvise/calls", lost);
    }
    let (successes, errors) = (shown("success")?, shown("errors")?);
    let (good, bad) = (good * threads as u64, bad * threads as u64);
    ensure!((successes, errors) == (good, bad), "{successes} and {errors}, not {good} and {bad}");
    Ok(())
}

in_each_mode!(["fadvise/dropped"] what_advice_drops_is_counted);

/// Times that a case may be repeated because the kernel dropped pages of its own accord.
const ATTEMPTS: u32 = 5;

fn what_advice_drops_is_counted(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    for attempt in 1..=ATTEMPTS {
        let size = rng.u64(1..4 << 20) + 10 * *PAGE;
        let path = file::cold(&directory, &mut rng, size)?;
        let read = Step::new(Call::Read, 0, size as usize);
        // A part, with pages at its ends of which a part is meant, and then all.
        let (offset, length) = (rng.u64(1..size / 2), rng.usize(1..size as usize / 2));
        let drop = Step::advise(0, libc::POSIX_FADV_DONTNEED);
        let part = Step { size: length, ..drop.at(offset) };
        // Other advice drops nothing.
        let other = Step::advise(0, libc::POSIX_FADV_SEQUENTIAL);
        let phases = vec![vec![read, other], vec![part], vec![drop.times(3)]];
        let plan = Plan { threads: 1, files: vec![Open::Read(path.clone())], phases };
        let cgroup = Cgroup::new()?;
        let agent = Agent::start(&Setup::only("fadvise", mode, &cgroup))?;
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.phase()?;
        let mut there = file::resident(&path)?;
        let whole = there == file::pages(&path)?;
        let mut dropped = 0;
        for _ in 0..2 {
            worker.phase()?;
            let left = file::resident(&path)?;
            dropped += there - left;
            there = left;
        }
        worker.finish()?;
        let shown = agent.settled()?.count("ebpf_fadvise_dropped_total", &[])?;
        if !whole || there != 0 || shown < dropped {
            println!("attempt {attempt}: the kernel dropped pages of its own accord, or kept some");
            continue;
        }
        ensure!(shown == dropped, "{shown} pages shown, {dropped} dropped");
        return Ok(());
    }
    bail!("the kernel dropped pages of its own accord in {ATTEMPTS} attempts");
}
