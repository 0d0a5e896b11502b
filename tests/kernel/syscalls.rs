//! Calls, bytes, errors and durations of system calls.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Context as _, Result, ensure};
use nix::{errno::Errno, libc};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, pipe},
    plan::{Call, Open, Plan, Report, Step, Tally},
    random,
    scrape::Scrape,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, work};

in_each_mode!(["syscalls/timed"] every_call_is_counted,
    every_error_is_counted_by_its_number,
    no_call_of_many_threads_is_lost,
    sums_are_exact_beyond_24_bits,
    a_call_that_never_returns_is_none,
    a_call_belongs_to_the_cgroup_where_it_began,
    what_is_turned_off_is_absent_and_the_rest_exact,
);

const CALLS: [Call; 6] =
    [Call::Read, Call::Pread64, Call::Write, Call::Pwrite64, Call::Fsync, Call::Fdatasync];

/// Asserts that `scrape` shows what the kernel told the workload, call by call.
pub(crate) fn equal(scrape: &Scrape, report: &Report) -> Result<()> {
    for call in CALLS {
        counts(scrape, call, &report.of(call))?;
        durations(scrape, call, &report.of(call).nanos)?;
    }
    Ok(())
}

/// Whether every call is shown. On a kernel that may stop a program in its middle, it runs none for other tasks on
/// that CPU meanwhile: where it says that it did not for so many, they need not be.
fn all_shown(scrape: &Scrape, shown: u64, made: u64) -> Result<bool> {
    let lost = made.checked_sub(shown).with_context(|| format!("{shown} shown, {made} made"))?;
    if lost > 0 {
        let probes = ["syscalls/timed", "syscalls/counted"];
        let probe = probes.iter().find(|probe| {
            scrape.all("ebpf_probe_status", &[("probe", probe)]).any(|status| status.value == 1.0)
        });
        scrape.admits(probe.context("nothing counts calls")?, lost)?;
    }
    Ok(lost == 0)
}

pub(crate) fn counts(scrape: &Scrape, call: Call, told: &Tally) -> Result<()> {
    let name = [("syscall", call.name())];
    let calls = scrape.count("ebpf_syscall_calls_total", &name)?;
    if !all_shown(scrape, calls, told.calls).with_context(|| format!("{call:?}"))? {
        return Ok(());
    }
    if call.moves_bytes() {
        let bytes = scrape.count("ebpf_syscall_io_bytes_total", &name)?;
        ensure!(bytes == told.bytes, "{call:?}: {bytes} bytes shown, {} moved", told.bytes);
    }
    let errors = scrape.sum("ebpf_syscall_errors_total", &name)?;
    let failed = told.errors.values().sum::<u64>();
    ensure!(errors == failed, "{call:?}: {errors} errors shown, {failed} met");
    for (number, failed) in &told.errors {
        let errno = format!("{:?}", Errno::from_raw(*number));
        let labels = [name[0], ("error_type", &*errno)];
        let errors = scrape.count("ebpf_syscall_errors_total", &labels)?;
        ensure!(errors == *failed, "{call:?}: {errors} {errno} shown, {failed} met");
    }
    Ok(())
}

/// The histogram of `call` against what its callers measured: the kernel's time lies inside theirs.
pub(crate) fn durations(scrape: &Scrape, call: Call, measured: &[u64]) -> Result<()> {
    let name = [("syscall", call.name())];
    let total = measured.len() as u64;
    let count = scrape.sum("ebpf_syscall_duration_seconds_count", &name)?;
    if !all_shown(scrape, count, total).with_context(|| format!("{call:?}"))? {
        return Ok(());
    }
    let sum: f64 =
        scrape.all("ebpf_syscall_duration_seconds_sum", &name).map(|sample| sample.value).sum();
    let limit = measured.iter().sum::<u64>() as f64 / 1e9;
    ensure!(sum <= limit, "{call:?}: {sum} s in the kernel, {limit} s for the caller");
    ensure!((sum > 0.0) == (total > 0), "{call:?}: {sum} s for {total} calls");
    for bucket in scrape.all("ebpf_syscall_duration_seconds_bucket", &name) {
        let bound: f64 = bucket.labels["le"].parse()?;
        let least = measured.iter().filter(|nanos| **nanos as f64 / 1e9 <= bound).count();
        let shown = bucket.value;
        ensure!(shown >= least as f64, "{call:?}: {shown} within {bound} s, at least {least} were");
        ensure!(shown <= total as f64, "{call:?}: {shown} within {bound} s, {total} were made");
    }
    Ok(())
}

fn every_call_is_counted(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let files = vec![
        Open::Read(file::cold(&directory, &mut rng, 1 << 20)?),
        Open::Write(file::cold(&directory, &mut rng, 1 << 20)?),
    ];
    let mut size = || rng.usize(1..20_000);
    let steps = [
        Step::new(Call::Read, 0, size()),
        Step::new(Call::Pread64, 0, size()).at(777),
        Step::new(Call::Write, 1, size()),
        Step::new(Call::Pwrite64, 1, size()).at(12_345),
        Step::new(Call::Fsync, 1, 0),
        Step::new(Call::Fdatasync, 1, 0),
    ];
    let mut steps = steps.map(|step| match step.call {
        Call::Fsync | Call::Fdatasync => step.times(rng.u64(1..20)),
        // Reads stay inside the file.
        Call::Read => step.times(rng.u64(1..50)),
        _ => step.times(rng.u64(1_000..5_000)),
    });
    rng.shuffle(&mut steps);
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup))?;

    let report = work(&Plan { threads: 1, files, phases: vec![steps.to_vec()] }, &cgroup)?;
    for step in steps {
        let told = report.of(step.call);
        ensure!(told.calls == step.count && told.errors.is_empty(), "{step:?}: {told:?}");
        let bytes = step.count * step.size as u64;
        ensure!(told.bytes == bytes, "{step:?}: {} bytes instead of {bytes}", told.bytes);
    }
    equal(&agent.settled()?, &report)
}

fn every_error_is_counted_by_its_number(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let data = file::cold(&directory, &mut rng, 10_000)?;
    let (pipe, _ends) = pipe(&directory)?;
    let files = vec![
        Open::Never,
        Open::Read(data.clone()),
        Open::Write(data),
        Open::Read(directory.path().to_owned()),
        Open::Read(pipe.clone()),
        Open::Write("/dev/full".into()),
    ];
    let [never, reading, writing, folder, pipe, full] = [0, 1, 2, 3, 4, 5];
    let mut steps = vec![
        (Step::new(Call::Read, writing, 10), libc::EBADF),
        (Step::new(Call::Read, folder, 10), libc::EISDIR),
        (Step::new(Call::Pread64, pipe, 10), libc::ESPIPE),
        // A negative position.
        (Step::new(Call::Pread64, reading, 10).at(1 << 63), libc::EINVAL),
        (Step::new(Call::Write, reading, 10), libc::EBADF),
        (Step::new(Call::Write, full, 10), libc::ENOSPC),
        (Step::new(Call::Pwrite64, reading, 10), libc::EBADF),
        (Step::new(Call::Pwrite64, writing, 10).at(1 << 63), libc::EINVAL),
        (Step::new(Call::Fsync, pipe, 0), libc::EINVAL),
        (Step::new(Call::Fdatasync, full, 0), libc::EINVAL),
    ];
    steps.extend(CALLS.map(|call| (Step::new(call, never, 10), libc::EBADF)));
    for (step, _) in &mut steps {
        step.count = rng.u64(1..300);
    }
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup))?;

    let mut phase: Vec<_> = steps.iter().map(|(step, _)| *step).collect();
    // Successes between the failures.
    phase.insert(7, Step::new(Call::Pread64, reading, 100).times(rng.u64(1..300)));
    let report = work(&Plan { threads: 1, files, phases: vec![phase] }, &cgroup)?;
    for call in CALLS {
        let mut expected = BTreeMap::new();
        for (step, errno) in steps.iter().filter(|(step, _)| step.call == call) {
            *expected.entry(*errno).or_default() += step.count;
        }
        let met = report.of(call).errors;
        ensure!(met == expected, "{call:?}: {met:?} instead of {expected:?}");
    }
    equal(&agent.settled()?, &report)
}

fn no_call_of_many_threads_is_lost(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let files = vec![
        Open::Read(file::cold(&directory, &mut rng, 100_000)?),
        Open::Write(file::cold(&directory, &mut rng, 100_000)?),
    ];
    let phase = (0..20)
        .flat_map(|_| {
            let size = rng.usize(1..500);
            [
                Step::new(Call::Pread64, 0, size).times(rng.u64(100..1_000)),
                Step::new(Call::Read, 0, size).times(rng.u64(1..100)),
                Step::new(Call::Pwrite64, 1, size).times(rng.u64(1..100)),
            ]
        })
        .collect();
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup))?;
    let report = work(&Plan { threads: 8, files, phases: vec![phase] }, &cgroup)?;
    let scrape = agent.settled()?;
    let shown = scrape.sum("ebpf_syscall_calls_total", &[])?;
    let made: u64 = report.tallies.values().map(|tally| tally.calls).sum();
    if shown == made {
        return equal(&scrape, &report);
    }
    let lost = made.checked_sub(shown).with_context(|| format!("{shown} calls of {made}"))?;
    scrape.admits("syscalls/timed", lost)
}

/// More than a number of 32 bits with a point can hold, and odd.
fn sums_are_exact_beyond_24_bits(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let files = vec![Open::Read(file::cold(&directory, &mut rng, 1 << 20)?)];
    let (size, count) = ((1 << 20) - 1, 2 * rng.u64(9..50) + 1);
    let step = Step::new(Call::Pread64, 0, size).times(count);
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup))?;
    work(&Plan { threads: 1, files, phases: vec![vec![step]] }, &cgroup)?;
    let bytes = size as u64 * count;
    ensure!(bytes > 1 << 24 && bytes % 2 == 1, "{bytes} bytes are no such number");
    let shown = agent.settled()?.count("ebpf_syscall_io_bytes_total", &[("syscall", "pread64")])?;
    ensure!(shown == bytes, "{shown} bytes shown, {bytes} read");
    Ok(())
}

fn a_call_that_never_returns_is_none(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let (path, mut ends) = pipe(&directory)?;
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", mode, &cgroup);
    let agent = Agent::start(&setup)?;

    // Threads that are killed in the middle of their reads …
    let blocked = Plan {
        threads: rng.usize(1..8),
        files: vec![Open::Read(path.clone())],
        phases: vec![vec![Step::new(Call::Read, 0, 10)]],
    };
    let mut worker = Worker::start(WORKLOAD, &blocked)?;
    worker.join(&cgroup)?;
    worker.begin()?;
    worker.inside(libc::SYS_read, blocked.threads)?;
    let killed = worker.threads()?;
    worker.kill()?;
    equal(&agent.settled()?, &Report::default())?;

    // … leave nothing behind for the next threads of the same ids, whose first reads begin outside.
    let size = rng.usize(1..100);
    let next = Plan {
        threads: blocked.threads,
        files: vec![Open::Read(path), Open::Read(file::cold(&directory, &mut rng, 50_000)?)],
        phases: vec![
            vec![Step::new(Call::Read, 0, 1)],
            vec![Step::new(Call::Read, 1, size).times(rng.u64(1..400))],
        ],
    };
    let mut worker = Worker::start_as(WORKLOAD, &next, &killed)?;
    worker.begin()?;
    worker.inside(libc::SYS_read, next.threads)?;
    worker.join(&cgroup)?;
    ends.write_all(&vec![b'x'; next.threads])?;
    worker.stopped()?;
    equal(&agent.settled()?, &Report::default())?;
    worker.phase()?;
    worker.finish()?;
    let scrape = agent.settled()?;
    let expected = next.phases[1][0].count * next.threads as u64;
    let read = [("syscall", "read")];
    let calls = scrape.count("ebpf_syscall_calls_total", &read)?;
    all_shown(&scrape, calls, expected)?;
    ensure!(scrape.count("ebpf_syscall_duration_seconds_count", &read)? == calls);
    ensure!(scrape.count("ebpf_syscall_io_bytes_total", &read)? == calls * size as u64);
    Ok(())
}

fn a_call_belongs_to_the_cgroup_where_it_began(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    let (path, mut ends) = pipe(&directory)?;
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup))?;
    let plan = Plan {
        threads: 1,
        files: vec![Open::Read(path)],
        phases: vec![vec![Step::new(Call::Read, 0, 1)]],
    };
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    worker.join(&cgroup)?;
    worker.begin()?;
    worker.inside(libc::SYS_read, 1)?;
    worker.leave()?;
    ends.write_all(b"x")?;
    worker.stopped()?;
    equal(&agent.settled()?, &worker.finish()?)
}

fn what_is_turned_off_is_absent_and_the_rest_exact(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let files = vec![Open::Read(file::cold(&directory, &mut rng, 100_000)?), Open::Never];
    let steps = vec![
        Step::new(Call::Read, 0, 10).times(rng.u64(1..1_000)),
        Step::new(Call::Pread64, 0, rng.usize(1..5_000)).times(rng.u64(1..1_000)),
        Step::new(Call::Pread64, 1, 10).times(rng.u64(1..1_000)),
        Step::advise(0, 1),
    ];
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", mode, &cgroup)
        .with("metrics", json!({"ebpf.syscall.duration": {"enabled": false}}))
        .signal("syscalls", json!({"calls": ["pread64"]}));
    let agent = Agent::start(&setup)?;
    let report = work(&Plan { threads: 3, files, phases: vec![steps] }, &cgroup)?;
    let scrape = agent.settled()?;
    // Without durations the programs are others.
    counts(&scrape, Call::Pread64, &report.of(Call::Pread64))?;
    let absent = |sample: &&tests::scrape::Sample| {
        sample.labels.get("syscall").is_some_and(|syscall| syscall != "pread64")
            || sample.name.starts_with("ebpf_syscall_duration")
            || sample.name.starts_with("ebpf_fadvise")
    };
    let shown: Vec<_> = scrape.samples().iter().filter(absent).collect();
    ensure!(shown.is_empty(), "turned off, but shown: {shown:?}");
    Ok(())
}
