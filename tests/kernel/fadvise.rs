//! Calls of `fadvise64`, by advice and result.

use std::collections::BTreeMap;

use abi::fadvise::ADVICES;
use anyhow::{Result, ensure};
use nix::libc;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, pipe},
    plan::{Call, Open, Plan, Step},
    random,
};

use crate::{in_each_mode, work};

in_each_mode!(["fadvise/calls"] every_advice_is_counted_by_name_and_result);

fn every_advice_is_counted_by_name_and_result(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let data = file::cold(&directory, &mut rng, 100_000)?;
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
            let step = Step::advise(file, advice).at(rng.u64(0..1 << 40));
            steps.push(Step { size: rng.usize(1..100_000), ..step }.times(rng.u64(1..60)));
            // Classic tracepoints of one system call do not see a 32-bit program's.
            if mode != Mode::SyscallTracepoint && cfg!(target_arch = "x86_64") {
                let step = Step { call: Call::Fadvise64Compat, ..step };
                steps.push(step.times(rng.u64(1..60)));
            }
        }
    }
    rng.shuffle(&mut steps);

    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::new(mode, &cgroup))?;
    let plan = Plan { threads: 1, files, phases: vec![steps.clone()] };
    let report = work(&plan, &cgroup)?;
    let scrape = agent.settled()?;

    let mut by_advice = BTreeMap::<_, u64>::new();
    let mut by_errno = BTreeMap::<_, u64>::new();
    let (mut calls, mut successes) = (0, 0);
    for step in &steps {
        let name = usize::try_from(step.advice).ok().and_then(|advice| ADVICES.get(advice));
        // An advice that does not exist has no name: such calls are in the total alone.
        if let Some(name) = name {
            *by_advice.entry(*name).or_default() += step.count;
        }
        match advised(step.file, step.advice) {
            Some(errno) => *by_errno.entry(errno).or_default() += step.count,
            None => successes += step.count,
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
