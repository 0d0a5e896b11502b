//! Counts by cgroup and by process: each group's own, and together all that was done.

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    plan::{Call, Open, Plan, Step},
    random,
    scrape::Scrape,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, work};

in_each_mode!(["syscalls/timed"] cgroups_have_their_own, processes_have_their_own);

const CALLS: &str = "ebpf_syscall_calls_total";
const PREADS: (&str, &str) = ("syscall", "pread64");

fn plan(threads: usize, count: u64) -> Result<(tempfile::TempDir, Plan)> {
    let directory = file::directory()?;
    let mut rng = random::rng();
    let path = file::cold(&directory, &mut rng, 300_000)?;
    let step = Step::new(Call::Pread64, 0, rng.usize(1..5_000)).times(count);
    let wrong = Step::new(Call::Pread64, 1, 1).times(3);
    let files = vec![Open::Read(path), Open::Never];
    Ok((directory, Plan { threads, files, phases: vec![vec![step, wrong]] }))
}

/// Calls of all series together.
fn total(scrape: &Scrape) -> Result<u64> {
    scrape.sum(CALLS, &[PREADS])
}

fn cgroups_have_their_own(mode: Mode) -> Result<()> {
    let parent = Cgroup::new()?;
    let setup = Setup::only("syscalls", mode, &parent).with("group_by", json!("cgroup"));
    let agent = Agent::start(&setup)?;
    let (first, second) = (parent.child()?, parent.child()?);
    let mut rng = random::rng();
    let mut all = 0;
    let mut of = Vec::new();
    for (cgroup, threads) in [(&first, 1), (&second, 3), (&parent, 2)] {
        let count = rng.u64(1..2_000);
        let (_directory, plan) = plan(threads, count)?;
        work(&plan, cgroup)?;
        let made = (count + 3) * threads as u64;
        all += made;
        of.push((cgroup.id()?, made, 3 * threads as u64));
    }
    let scrape = agent.settled()?;
    let missed = all - total(&scrape)?.min(all);
    scrape.admits("syscalls/timed", missed)?;
    for (id, made, failed) in of.iter().filter(|_| missed == 0) {
        let shown = scrape.count(CALLS, &[PREADS, ("cgroup_id", id)])?;
        ensure!(shown == *made, "cgroup {id}: {shown} calls shown, {made} made");
        let errors = scrape.count(
            "ebpf_syscall_errors_total",
            &[PREADS, ("cgroup_id", id), ("error_type", "EBADF")],
        )?;
        ensure!(errors == *failed, "cgroup {id}: {errors} errors shown, {failed} met");
        let timed =
            scrape.count("ebpf_syscall_duration_seconds_count", &[PREADS, ("cgroup_id", id)])?;
        ensure!(timed == *made, "cgroup {id}: {timed} durations shown, {made} made");
    }
    let all = all - missed;
    ensure!(total(&scrape)? == all, "{} calls in all series, {all} made", total(&scrape)?);

    // A cgroup that ends leaves its counts to the others.
    drop(second);
    let gone = &of[1].0;
    let made = scrape.count(CALLS, &[PREADS, ("cgroup_id", gone)])?;
    wait_for("the ended cgroup to be folded", || {
        let scrape = agent.settled()?;
        ensure!(total(&scrape)? == all, "{} calls in all series, {all} made", total(&scrape)?);
        let own = scrape.all(CALLS, &[PREADS, ("cgroup_id", gone)]).count();
        Ok((own == 0).then_some(()))
    })?;
    let other = agent.settled()?.count(CALLS, &[PREADS, ("ebpf_group", "other")])?;
    ensure!(other == made, "{other} calls of ended cgroups shown, {made} made");
    Ok(())
}

fn processes_have_their_own(mode: Mode) -> Result<()> {
    let cgroup = Cgroup::new()?;
    let agent =
        Agent::start(&Setup::only("syscalls", mode, &cgroup).with("group_by", json!("process")))?;
    let mut rng = random::rng();
    let mut all = 0;
    let mut workers = Vec::new();
    for threads in [1, 4, 2] {
        let count = rng.u64(1..2_000);
        let (directory, plan) = plan(threads, count)?;
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.phase()?;
        let made = (count + 3) * threads as u64;
        all += made;
        workers.push((directory, worker, made));
    }
    let scrape = agent.settled()?;
    let missed = all - total(&scrape)?.min(all);
    scrape.admits("syscalls/timed", missed)?;
    let all = all - missed;
    for (_, worker, made) in workers.iter().filter(|_| missed == 0) {
        let pid = worker.pid().to_string();
        let shown = scrape.count(CALLS, &[PREADS, ("process_pid", &pid)])?;
        ensure!(shown == *made, "process {pid}: {shown} calls shown, {made} made");
        let point = scrape.all(CALLS, &[PREADS, ("process_pid", &pid)]).next().context("shown")?;
        ensure!(point.labels.contains_key("process_creation_time"), "{point:?}");
    }
    ensure!(total(&scrape)? == all, "{} calls in all series, {all} made", total(&scrape)?);
    for (_, worker, _) in workers {
        worker.finish()?;
    }
    wait_for("the ended processes to be folded", || {
        let scrape = agent.settled()?;
        ensure!(total(&scrape)? == all, "{} calls in all series, {all} made", total(&scrape)?);
        let own = scrape.all(CALLS, &[PREADS]).filter(|s| s.labels.contains_key("process_pid"));
        Ok((own.count() == 0).then_some(()))
    })?;
    let other = agent.settled()?.count(CALLS, &[PREADS, ("ebpf_group", "other")])?;
    ensure!(other == all, "{other} calls of ended processes shown, {all} made");
    Ok(())
}

/// More processes than there is room for: those that find none are counted together.
#[test]
fn what_finds_no_place_is_in_the_overflow() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", Mode::Auto, &cgroup)
        .with("group_by", json!("process"))
        .with("max_groups", json!(1));
    let agent = Agent::start(&setup)?;
    let (_directory, plan) = plan(1, 400)?;
    let mut workers = Vec::new();
    for _ in 0..30 {
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.phase()?;
        workers.push(worker);
    }
    let made = workers.len() as u64 * 403;
    let scrape = agent.settled()?;
    ensure!(total(&scrape)? == made, "{} calls in all series, {made} made", total(&scrape)?);
    let overflow = scrape.count(CALLS, &[PREADS, ("otel_metric_overflow", "true")])?;
    ensure!(overflow > 0 && overflow < made, "{overflow} of {made} calls found no place");
    for worker in workers {
        worker.finish()?;
    }
    Ok(())
}

#[test]
fn maps_over_the_budget_are_refused_with_the_key_to_lower() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", Mode::Auto, &cgroup)
        .with("group_by", json!("process"))
        .with("max_groups", json!(1_000_000));
    let ended = Agent::refused(&setup)?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(ended.log.contains("lower max_groups (to some "), "{ended:?}");
    Ok(())
}

/// Tasks that take turns on one CPU, in the middle of whatever they do: by default nothing is lost, whichever
/// mechanism that takes.
#[test]
fn tasks_that_contend_for_a_cpu_lose_nothing() -> Result<()> {
    for by in ["host", "cgroup", "process"] {
        let cgroup = Cgroup::new()?;
        let setup = Setup::only("syscalls", Mode::Auto, &cgroup).with("group_by", json!(by));
        let agent = Agent::start(&setup.with("collection_interval", json!("20ms")))?;
        let (_directory, plan) = plan(1, 20_000)?;
        let (all, mut one) = (sched_getaffinity(Pid::this())?, CpuSet::new());
        one.set(0)?;
        // The workers inherit it.
        sched_setaffinity(Pid::from_raw(0), &one)?;
        let workers = (0..4).map(|_| Worker::start(WORKLOAD, &plan)).collect::<Result<Vec<_>>>();
        sched_setaffinity(Pid::from_raw(0), &all)?;
        let mut workers = workers?;
        for worker in &mut workers {
            worker.join(&cgroup)?;
            worker.begin()?;
        }
        for worker in &workers {
            worker.stopped()?;
        }
        let scrape = agent.settled()?;
        let (shown, made) = (total(&scrape)?, 4 * 20_003);
        let missed = scrape.sum("ebpf_probe_missed_total", &[("probe", "syscalls/timed")])?;
        ensure!(shown == made, "by {by}: {shown} calls shown, {made} made, {missed} missed");
    }
    Ok(())
}
