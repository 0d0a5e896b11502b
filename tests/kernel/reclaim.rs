//! A cgroup that must reclaim memory to read a file larger than its limit.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tests::{
    agent::{Agent, Mode, Setup},
    deadline::wait_for,
    file,
    memory::{Limited, Reclaimed},
    modes::hole,
    plan::{Call, Open, Plan, Step},
    random,
    scrape::Scrape,
    tracefs::Witness,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode};

in_each_mode!(["reclaim/shrink", "reclaim/direct", "reclaim/memcg"] what_a_memory_limit_reclaims_is_counted);

/// What is shown, while the machine reclaims nothing: the truth at the same time.
fn at_rest(agent: &Agent) -> Result<(Scrape, Reclaimed)> {
    wait_for("a moment without reclaim", || {
        let before = Reclaimed::now()?;
        let scrape = agent.settled()?;
        Ok((Reclaimed::now()? == before).then_some((scrape, before)))
    })
}

fn what_a_memory_limit_reclaims_is_counted(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let limit = rng.u64(16 << 20..24 << 20);
    let limited = Limited::new(limit)?;
    let agent = Agent::start(&Setup::only("reclaim", mode, limited.scope()))?;

    // Each process reads a file of its own that is larger than the limit: each has to reclaim.
    let mut workers = Vec::new();
    for _ in 0..rng.usize(2..5) {
        let size = limit * rng.u64(2..4) + rng.u64(0..1 << 20);
        let chunk = rng.usize(100_000..1 << 20);
        let path = file::cold(&directory, &mut rng, size)?;
        let read = Step::new(Call::Read, 0, chunk).times(size.div_ceil(chunk as u64));
        let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![vec![read]] };
        let worker = Worker::start(WORKLOAD, &plan)?;
        limited.add(worker.pid())?;
        workers.push(worker);
    }
    let mut pids = Vec::new();
    for worker in &workers {
        pids.extend(worker.threads()?.into_iter().map(nix::unistd::Pid::from_raw));
    }
    let begins = Witness::new("vmscan/mm_vmscan_memcg_reclaim_begin", &pids)?;
    let throttled = hole("reclaim/throttled", mode)?.is_none();
    let throttles =
        throttled.then(|| Witness::new("vmscan/mm_vmscan_throttled", &pids)).transpose()?;
    let started = Instant::now();
    let (before, reclaimed_before) = at_rest(&agent)?;
    for worker in &mut workers {
        worker.begin()?;
    }
    for worker in &workers {
        worker.stopped()?;
    }
    let took = started.elapsed();
    let (after, reclaimed) = at_rest(&agent)?;
    // Before they end, for which they may need another page.
    let traced = begins.count()?;
    let throttled = throttles.as_ref().map(Witness::count).transpose()?;
    let processes = workers.len() as u64;
    for worker in workers {
        worker.finish()?;
    }

    let shown = |name: &str| -> Result<u64> {
        after.sum(name, &[])?.checked_sub(before.sum(name, &[])?).context("went back")
    };
    let scanned = shown("ebpf_memory_lru_pages_scanned_total")?;
    let truth = reclaimed.scanned - reclaimed_before.scanned;
    ensure!(truth > 0, "nothing had to be reclaimed");
    let missed = |scrape: &Scrape| -> Result<u64> {
        let of = |probe| scrape.sum("ebpf_probe_missed_total", &[("probe", probe)]);
        Ok(of("reclaim/shrink")? + of("reclaim/direct")? + of("reclaim/memcg")?)
    };
    let missed = missed(&after)? - missed(&before)?;
    if missed > 0 {
        // A kernel that may stop a program in its middle runs none for other tasks on that CPU meanwhile, and says so.
        // In the modes that lose nothing, it must not have.
        ensure!(matches!(mode, Mode::TpBtf | Mode::RawTp), "{missed} events missed");
        println!("not compared: {missed} events missed");
        ensure!(scanned <= truth, "{scanned} pages scanned shown, {truth} in vmstat");
        return Ok(());
    }
    ensure!(scanned == truth, "{scanned} pages scanned shown, {truth} in vmstat");
    let freed = shown("ebpf_memory_lru_pages_reclaimed_total")?;
    let truth = reclaimed.freed - reclaimed_before.freed;
    ensure!(freed == truth, "{freed} pages reclaimed shown, {truth} in vmstat");

    // By whom: neither a task for the machine nor kswapd; what is left is a memory cgroup's.
    let by = |kind| -> Result<u64> {
        let (name, label) = ("ebpf_memory_lru_pages_scanned_total", [("reclaim_type", kind)]);
        Ok(after.count(name, &label)? - before.count(name, &label)?)
    };
    let (global, memcg, kswapd) = (by("global")?, by("memcg")?, by("kswapd")?);
    let truth = reclaimed.kswapd - reclaimed_before.kswapd;
    ensure!(kswapd == truth, "kswapd: {kswapd} pages scanned shown, {truth} in vmstat");
    // Newer kernels add what cgroups reclaim to it.
    let truth = reclaimed.direct - reclaimed_before.direct;
    ensure!(
        truth == global || truth == global + memcg,
        "{global} pages scanned for the machine and {memcg} for cgroups shown, {truth} in vmstat"
    );
    ensure!(memcg > 0, "no page was scanned for a memory cgroup");

    let begun =
        after.count("ebpf_memory_direct_reclaim_begins_total", &[("reclaim_type", "memcg")])?;
    ensure!(begun == traced, "{begun} begins shown, {traced} traced");
    let lasted = "ebpf_memory_direct_reclaim_duration_seconds";
    let timed = after.count(&format!("{lasted}_count"), &[("reclaim_type", "memcg")])?;
    ensure!(timed == traced, "{timed} durations shown of {traced} reclaims");
    let seconds = after.one(&format!("{lasted}_sum"), &[("reclaim_type", "memcg")])?.value;
    let most = took.as_secs_f64() * processes as f64;
    ensure!(seconds > 0.0 && seconds <= most, "{seconds} s shown of {most} s");
    if let Some(truth) = throttled {
        let shown = after.sum("ebpf_memory_reclaim_throttle_duration_seconds_count", &[])?;
        ensure!(shown == truth, "{shown} waits shown, {truth} traced");
    }
    let shown = shown("ebpf_memory_direct_reclaim_processes")?;
    ensure!(shown == processes, "{shown} processes shown, {processes} had to reclaim");
    Ok(())
}
