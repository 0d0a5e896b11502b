//! Much at once: many events from many threads, many processes that come and go.

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::{SLOWDOWN, wait_for},
    file,
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, work};

const CALLS: &str = "ebpf_syscall_calls_total";
const PREADS: (&str, &str) = ("syscall", "pread64");
const THREADS: usize = 64;
const PHASES: usize = 12;

/// Threads that read `count` bytes each, one at a time.
fn plan(threads: usize, step: Step) -> Result<(tempfile::TempDir, Plan)> {
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut random::rng(), 1 << 16)?;
    let plan = Plan { threads, files: vec![Open::Read(path)], phases: vec![vec![step]] };
    Ok((directory, plan))
}

fn by_process(cgroup: &Cgroup) -> Setup {
    Setup::only("syscalls", Mode::Auto, cgroup).with("group_by", json!("process"))
}

#[test]
fn ten_million_calls_of_many_threads_are_counted() -> Result<()> {
    let count = 10_000_000 / THREADS as u64 / SLOWDOWN.pow(2);
    for by in ["host", "process"] {
        let cgroup = Cgroup::new()?;
        let agent = Agent::start(&by_process(&cgroup).with("group_by", json!(by)))?;
        let (_directory, plan) = plan(THREADS, Step::new(Call::Pread64, 0, 1).times(count))?;
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.phase()?;
        let scrape = agent.settled()?;
        let made = count * THREADS as u64;
        let shown = scrape.sum(CALLS, &[PREADS])?;
        let missed = scrape.sum("ebpf_probe_missed_total", &[("probe", "syscalls/timed")])?;
        ensure!(shown == made, "by {by}: {shown} calls shown, {made} made, {missed} missed");
        let bytes = scrape.sum("ebpf_syscall_io_bytes_total", &[PREADS])?;
        ensure!(bytes == made, "by {by}: {bytes} bytes shown, {made} read");
        let timed = scrape.sum("ebpf_syscall_duration_seconds_count", &[PREADS])?;
        ensure!(timed == made, "by {by}: {timed} durations shown, {made} calls made");
        let in_flight = agent.entries("IN_FLIGHT")?;
        // Those that have ended already have none.
        ensure!(in_flight <= THREADS, "{in_flight} entries for {THREADS} threads");
        worker.finish()?;
        let left = agent.entries("IN_FLIGHT")?;
        ensure!(left == 0, "{left} entries left of threads that have ended");
    }
    Ok(())
}

/// There are 16,384 seats for what a thread has begun: that no two of so many threads want the same one has a
/// chance of one in 10^29.
#[test]
fn threads_that_want_one_seat_are_told_apart() -> Result<()> {
    const CROWD: usize = 1_500;
    let each = 20;
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&by_process(&cgroup))?;
    let (_directory, plan) = plan(CROWD, Step::new(Call::Pread64, 0, 1).times(each))?;
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    worker.join(&cgroup)?;
    worker.phase()?;
    let scrape = agent.settled()?;
    let made = each * CROWD as u64;
    for metric in [CALLS, "ebpf_syscall_duration_seconds_count"] {
        let shown = scrape.sum(metric, &[PREADS])?;
        ensure!(shown == made, "{metric}: {shown} shown, {made} made");
    }
    worker.finish()?;
    let left = agent.entries("IN_FLIGHT")?;
    ensure!(left == 0, "{left} entries left of threads that have ended");
    Ok(())
}

/// As many processes as a busy host starts in an hour.
#[test]
fn processes_that_come_and_go_leave_nothing_behind() -> Result<()> {
    let threads = 4;
    let each = 2_000 / *SLOWDOWN;
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&by_process(&cgroup))?;
    let (mut made, mut memory) = (0, Vec::new());
    for _ in 0..PHASES {
        let step = Step::new(Call::Pread64, 0, 1).times(each / threads as u64).forked();
        let (_directory, plan) = plan(threads, step)?;
        let report = work(&plan, &cgroup)?;
        ensure!(
            report.of(Call::Pread64).errors.is_empty(),
            "{:?}",
            report.of(Call::Pread64).errors
        );
        made += each / threads as u64 * threads as u64;
        let scrape = agent.settled()?;
        let shown = scrape.sum(CALLS, &[PREADS])?;
        ensure!(shown == made, "{shown} calls shown, {made} processes made one each");
        memory.push(agent.memory()?);
    }
    // Every process has ended, and is in the series of those that have.
    wait_for("the ended processes to be folded", || {
        let scrape = agent.settled()?;
        let other = scrape.sum(CALLS, &[PREADS, ("ebpf_group", "other")])?;
        // When many begin at once, the kernel may be out of room for a moment.
        let overflow = [PREADS, ("otel_metric_overflow", "true")];
        let series = 1 + scrape.all(CALLS, &overflow).count();
        let all = scrape.all(CALLS, &[PREADS]).count();
        Ok((all == series && other + scrape.sum(CALLS, &overflow)? == made).then_some(()))
    })?;
    let left = agent.entries("IN_FLIGHT")?;
    ensure!(left == 0, "{left} entries left of processes that have ended");
    let most = |memory: &[u64]| memory.iter().max().copied().unwrap_or_default();
    // What a collection takes is handed back a little later: what stays is what the last of them agree on.
    let stays = memory[PHASES - 3..].iter().min().copied().unwrap_or_default();
    let first = most(&memory[..PHASES / 2]);
    ensure!(stays < first + (6 << 20), "memory grows with the processes that were: {memory:?}");
    ensure!(most(&memory) < 32 << 20, "too much memory: {memory:?}");
    println!("memory in bytes after each {} processes: {memory:?}", made / PHASES as u64);
    Ok(())
}

#[test]
fn threads_that_are_killed_in_a_call_leave_nothing_behind() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&by_process(&cgroup))?;
    let directory = file::directory()?;
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)?;
    // Keeps it open, so that reads wait.
    let _writer = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let step = Step::new(Call::Read, 0, 1);
    let plan = Plan { threads: THREADS, files: vec![Open::Read(path)], phases: vec![vec![step]] };
    for _ in 0..3 {
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.begin()?;
        worker.inside(libc::SYS_read, THREADS)?;
        ensure!(agent.entries("IN_FLIGHT")? == THREADS, "each thread has an entry");
        worker.kill()?;
        let left = agent.entries("IN_FLIGHT").context("after they are killed")?;
        ensure!(left == 0, "{left} entries left of threads that were killed");
    }
    Ok(())
}
