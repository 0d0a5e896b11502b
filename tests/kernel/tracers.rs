//! Others who follow the same events: neither side takes anything from the other.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    device::Device,
    file,
    modes::attaches,
    perf::{self, Follower},
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode};

in_each_mode!(["syscalls/timed"] perf_sees_what_the_agent_sees);
in_each_mode!(["block/requests"] what_ends_in_interrupts_is_counted);

/// The event that is raised when a `pread64` returns, by the mechanism that the agent attaches by.
fn event(mode: Mode) -> &'static str {
    match mode {
        Mode::SyscallTracepoint => "syscalls/sys_exit_pread64",
        _ => "raw_syscalls/sys_exit",
    }
}

fn perf_sees_what_the_agent_sees(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 1 << 16)?;
    let count = rng.u64(10_000..20_000);
    let cgroup = Cgroup::new()?;
    let follower = Follower::of(event(mode))?;
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup))?;
    let step = Step::new(Call::Pread64, 0, 1).times(count);
    let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![vec![step]] };
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    worker.join(&cgroup)?;
    let before = follower.count()?;
    worker.phase()?;
    let seen = follower.count()? - before;
    worker.finish()?;
    ensure!(seen >= count, "perf has seen {seen} events, there were {count} at least");
    let scrape = agent.settled()?;
    let shown = scrape.sum("ebpf_syscall_calls_total", &[("syscall", "pread64")])?;
    ensure!(shown <= count, "{shown} calls shown, {count} made");
    scrape.admits("syscalls/timed", count - shown)?;
    // What runs its programs at classic tracepoints has perf do nothing else.
    let own = perf::counted_by(agent.pid())?;
    ensure!(own.iter().all(|count| *count == 0), "perf counts for the agent: {own:?}");
    let classic = matches!(mode, Mode::Tracepoint | Mode::SyscallTracepoint);
    ensure!(!classic || !own.is_empty(), "the agent has no perf events open");
    Ok(())
}

/// What the agent says that its programs take is what the kernel says, and nobody asks unless it is configured.
#[test]
fn the_programs_own_time_is_the_kernels() -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 1 << 16)?;
    let count = rng.u64(10_000..20_000);
    let cgroup = Cgroup::new()?;
    let off =
        ["block", "compaction", "dirty", "fadvise", "io_uring", "kills", "page_cache", "reclaim"];
    let off: serde_json::Map<_, _> =
        off.into_iter().map(|name| (name.to_owned(), json!({"enabled": false}))).collect();
    let setup = Setup::new(Mode::Auto, &cgroup).with("signals", json!(off));
    let agent = Agent::start(&setup.with("run_time", json!(true)))?;
    let step = Step::new(Call::Pread64, 0, 1).times(count);
    let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![vec![step]] };
    crate::work(&plan, &cgroup)?;
    let before = agent.runs()?;
    let scrape = agent.settled()?;
    let after = agent.runs()?;
    // Everyone's calls run them, so both go on.
    for (name, from, to) in [
        ("ebpf_probe_runs_total", before.0, after.0),
        ("ebpf_probe_run_time_nanoseconds_total", before.1, after.1),
    ] {
        let shown = scrape.sum(name, &[("probe", "syscalls/timed")])?;
        ensure!((from..=to).contains(&shown), "{name}: {shown} is not in {from}..={to}");
    }
    ensure!(before.0 >= 2 * count, "{} runs, {count} calls begun and ended", before.0);
    Ok(())
}

/// Does something while a thread on each CPU makes calls without end.
fn while_busy(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism()?.get() {
            scope.spawn(|| {
                let zero = fs::File::open("/dev/zero").expect("it is there everywhere");
                while !over.load(Ordering::Relaxed) {
                    let _ = zero.read_at(&mut [0], 0);
                }
            });
        }
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// Requests that the disk's interrupts end, while every CPU is in the programs of another agent most of the time: those
/// of classic tracepoints, where there are any, are what an event that interrupts them could be lost by.
fn what_ends_in_interrupts_is_counted(mode: Mode) -> Result<()> {
    const BLOCK: u64 = 4_096;
    let mut rng = random::rng();
    let directory = file::directory()?;
    let device = Device::new(directory.path(), 8 << 20)?;
    if !device.pass_through()? {
        println!("not run here: the file system has no direct I/O");
        return Ok(());
    }
    let cgroup = Cgroup::new()?;
    let everything = |mode| Setup::new(mode, &cgroup).with("scope", json!({}));
    let agent = Agent::start(&everything(mode))?;
    let others = if attaches(Mode::Tracepoint)? { Mode::Tracepoint } else { Mode::Auto };
    let other = Agent::start(&everything(others))?;
    let followers = ["raw_syscalls/sys_exit", "block/block_rq_complete"].map(Follower::of);

    let before = device.quiet()?;
    let count = rng.u64(1_000..2_000);
    while_busy(|| {
        let direct = device.direct()?;
        for n in 0..count {
            direct.write(n * BLOCK, BLOCK as usize)?;
        }
        Ok(())
    })?;
    let made = device.quiet()?.writes - before.writes;
    ensure!(made == count, "{made} writes in diskstats, {count} made");
    let labels = [("system_device", device.name()?), ("ebpf_block_operation", "write")];
    for (agent, which) in [(&agent, "the agent"), (&other, "the other")] {
        let scrape = agent.settled()?;
        // The other's mechanism may have no such probe.
        if scrape.sum("ebpf_probe_status", &[("probe", "block/requests")])? == 0 {
            continue;
        }
        let shown = scrape.sum("ebpf_block_operations_total", &labels)?;
        ensure!(shown <= count, "{which}: {shown} writes shown, {count} made");
        scrape.admits("block/requests", count - shown).with_context(|| which)?;
    }
    for follower in followers {
        let seen = follower?.count()?;
        ensure!(seen >= count, "perf has seen {seen} events, there were {count} at least");
    }
    Ok(())
}
