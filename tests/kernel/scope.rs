//! What is counted is what happens inside the scope, no more and no less.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    modes::hole,
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, syscalls::equal, work};

in_each_mode!(["syscalls/timed"] the_scope_is_its_subtrees);

fn the_scope_is_its_subtrees(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 100_000)?;
    let mut plan = |count| Plan {
        threads: 1,
        files: vec![Open::Read(path.clone())],
        phases: vec![vec![
            Step::new(Call::Pread64, 0, rng.usize(1..5_000)).times(count),
            Step::advise(0, 1),
        ]],
    };
    let (first, second, outside) = (Cgroup::new()?, Cgroup::new()?, Cgroup::new()?);
    let (child, stranger) = (first.child()?, outside.child()?);
    let grandchild = child.child()?;
    let setup =
        Setup::new(mode, &first).with("scope", json!({"cgroups": [first.path(), second.path()]}));
    let agent = Agent::start(&setup)?;
    let inner = Agent::start(&Setup::new(mode, &child))?;

    work(&plan(1_000), &outside)?;
    work(&plan(2_000), &stranger)?;
    let scrape = agent.settled()?;
    equal(&scrape, &Default::default())?;
    // Not every mechanism has every probe.
    let advice = hole("fadvise/calls", mode)?.is_none();
    ensure!(!advice || scrape.count("ebpf_fadvise_calls_total", &[])? == 0);
    let adds = hole("page_cache/adds", mode)?.is_none();
    ensure!(!adds || scrape.count("ebpf_page_cache_adds_total", &[])? == 0);

    let mut total = tests::plan::Report::default();
    let mut below = tests::plan::Report::default();
    for (cgroup, count) in [(&first, 111), (&second, 2_222), (&child, 33), (&grandchild, 4)] {
        let report = work(&plan(count), cgroup)?;
        for (call, tally) in report.tallies {
            if cgroup.path().starts_with(child.path()) {
                below.tallies.entry(call).or_default().merge(tally.clone());
            }
            total.tallies.entry(call).or_default().merge(tally);
        }
    }
    let scrape = agent.settled()?;
    equal(&scrape, &total)?;
    ensure!(!advice || scrape.count("ebpf_fadvise_calls_total", &[])? == 4);
    // The second agent, at the same time and from its own scope.
    let scrape = inner.settled()?;
    equal(&scrape, &below)?;
    ensure!(!advice || scrape.count("ebpf_fadvise_calls_total", &[])? == 2);
    Ok(())
}

/// A plan of `count` calls of `pread64`.
fn preads(count: u64) -> Result<(tempfile::TempDir, Plan)> {
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut random::rng(), 100_000)?;
    let step = Step::new(Call::Pread64, 0, 1_000).times(count);
    let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![vec![step]] };
    Ok((directory, plan))
}

const CALLS: &str = "ebpf_syscall_calls_total";
const PREADS: &[(&str, &str)] = &[("syscall", "pread64")];

#[test]
fn a_cgroup_that_comes_later_is_found_and_found_again() -> Result<()> {
    let parent = Cgroup::new()?;
    let path = parent.path().join("later");
    let setup =
        Setup::only("syscalls", Mode::Auto, &parent).with("scope", json!({"cgroups": [path]}));
    let agent = Agent::start(&setup)?;
    let (_directory, plan) = preads(100)?;
    work(&plan, &parent)?;
    let scrape = agent.settled()?;
    let status = scrape.all("ebpf_scope_status", &[]).next().context("no status of the scope")?;
    ensure!(status.value == 0.0, "{status:?}");
    ensure!(status.labels["reason"].contains("later"), "{status:?}");
    ensure!(scrape.count(CALLS, PREADS)? == 0, "what is outside of every cgroup was counted");

    let mut total = 0;
    for count in [20, 3] {
        let cgroup = Cgroup::named(parent.path(), "later")?;
        // The agent looks once per collection.
        wait_for("the scope to be whole", || {
            Ok((agent.settled()?.all("ebpf_scope_status", &[]).any(|s| s.value == 1.0))
                .then_some(()))
        })?;
        let (_directory, plan) = preads(count)?;
        work(&plan, &cgroup)?;
        total += count;
        let shown = agent.settled()?.count(CALLS, PREADS)?;
        ensure!(shown == total, "{shown} calls shown, {total} made");
        drop(cgroup);
        wait_for("the scope to be degraded", || {
            Ok((agent.settled()?.all("ebpf_scope_status", &[]).any(|s| s.value == 0.0))
                .then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn processes_are_told_by_name_by_id_and_by_namespace() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let here = std::fs::read_link("/proc/self/ns/mnt")?;
    ensure!(here.to_string_lossy().starts_with("mnt:"), "{}", here.display());
    // The workload's name is `workload`; all must hold.
    let cases = [
        (json!({"comm": {"exact": ["workload"]}}), true),
        (json!({"comm": {"exact": ["workloa"]}}), false),
        (json!({"comm": {"prefix": ["wor"]}}), true),
        (json!({"comm": {"prefix": ["orkload"], "exact": ["x"]}}), false),
        (json!({"comm": {"regex": ["^w.*d$"]}}), true),
        (json!({"comm": {"regex": ["^w$"]}}), false),
        (json!({"comm": {"regex": ["^x$"], "exact": ["workload"]}}), true),
        (json!({"mount_namespaces": ["/proc/self/ns/mnt"]}), true),
        (json!({"mount_namespaces": ["/proc/self/ns/mnt"], "comm": {"exact": ["no"]}}), false),
        (json!({"pids": [1]}), false),
    ];
    for (mut scope, counted) in cases {
        scope["cgroups"] = json!([cgroup.path()]);
        let text = scope.to_string();
        let agent =
            Agent::start(&Setup::only("syscalls", Mode::Auto, &cgroup).with("scope", scope))?;
        let (_directory, plan) = preads(77)?;
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        // Patterns are looked for once per collection.
        agent.settled()?;
        agent.settled()?;
        worker.phase()?;
        worker.finish()?;
        let shown = agent.settled()?.count(CALLS, PREADS)?;
        ensure!(shown == if counted { 77 } else { 0 }, "{text}: {shown} calls shown");
    }
    // Its own id, which is known when it runs.
    let (_directory, plan) = preads(77)?;
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    let scope = json!({"cgroups": [cgroup.path()], "pids": [worker.pid().as_raw()]});
    let agent = Agent::start(&Setup::only("syscalls", Mode::Auto, &cgroup).with("scope", scope))?;
    worker.join(&cgroup)?;
    worker.phase()?;
    let (_other, other) = preads(5)?;
    work(&other, &cgroup)?;
    worker.finish()?;
    let shown = agent.settled()?.count(CALLS, PREADS)?;
    ensure!(shown == 77, "{shown} calls shown");
    Ok(())
}

/// A process that fits by its name alone is another's: of another pod, say.
#[test]
fn what_fits_by_name_but_is_outside_is_not_counted() -> Result<()> {
    let (inside, outside) = (Cgroup::new()?, Cgroup::new()?);
    for comm in [json!({"exact": ["workload"]}), json!({"regex": ["^workload$"]})] {
        let scope = json!({"cgroups": [inside.path()], "comm": comm});
        let agent =
            Agent::start(&Setup::only("syscalls", Mode::Auto, &inside).with("scope", scope))?;
        let mut workers = Vec::new();
        for (cgroup, count) in [(&inside, 12), (&outside, 345)] {
            let (directory, plan) = preads(count)?;
            let worker = Worker::start(WORKLOAD, &plan)?;
            worker.join(cgroup)?;
            workers.push((directory, worker));
        }
        // Patterns are looked for once per collection.
        agent.settled()?;
        agent.settled()?;
        for (_, worker) in &mut workers {
            worker.phase()?;
        }
        let shown = agent.settled()?.count(CALLS, PREADS)?;
        ensure!(shown == 12, "{comm}: {shown} calls shown, 12 made inside");
    }
    Ok(())
}

/// Many processes, each found by its name again and again while it works: none is missing, and none of its calls.
#[test]
fn looking_for_processes_again_leaves_no_gap() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let scope = json!({"cgroups": [cgroup.path()], "comm": {"regex": ["^workload$"]}});
    let setup = Setup::only("syscalls", Mode::Auto, &cgroup).with("scope", scope);
    let agent = Agent::start(&setup.with("collection_interval", json!("10ms")))?;
    let (processes, each) = (80, 5_000);
    let (_directory, plan) = preads(each)?;
    let mut workers = Vec::new();
    for _ in 0..processes {
        let worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        workers.push(worker);
    }
    agent.settled()?;
    agent.settled()?;
    let time = || Ok::<_, anyhow::Error>(agent.scrape()?.time().unwrap_or_default());
    let before = time()?;
    for worker in &mut workers {
        worker.begin()?;
    }
    for worker in &workers {
        worker.stopped()?;
    }
    ensure!(time()? > before, "it has not looked again");
    let scrape = agent.settled()?;
    let (shown, made) = (scrape.count(CALLS, PREADS)?, processes * each);
    let timed = scrape.count("ebpf_syscall_duration_seconds_count", PREADS)?;
    ensure!((shown, timed) == (made, made), "{shown} calls and {timed} times shown, {made} made");
    Ok(())
}
