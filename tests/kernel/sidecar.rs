//! A sidecar: it finds the container of the process that it watches, as the kubelet lays pods out.

use std::{os::unix::fs::symlink, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    agent::{self, Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::WORKLOAD;

const OWN: &str = "aaaadbb1e1d04b3d6a0d0ecb4ec2ae4e31ac6bf5ac3dd3e9ac5eb1c5b3c3a001";
const TARGET: &str = "bbbbdbb1e1d04b3d6a0d0ecb4ec2ae4e31ac6bf5ac3dd3e9ac5eb1c5b3c3a001";
const OTHER: &str = "ccccdbb1e1d04b3d6a0d0ecb4ec2ae4e31ac6bf5ac3dd3e9ac5eb1c5b3c3a001";

/// Where the kubelet's two cgroup drivers put a pod of each class, and how they name a container.
const LAYOUTS: [(&str, &str, &str); 6] = [
    ("kubepods/pod1f0c6d2a-7b9e-4c55-9d3e-0a1b2c3d4e5f", "", ""),
    ("kubepods/burstable/pod1f0c6d2a-7b9e-4c55-9d3e-0a1b2c3d4e5f", "", ""),
    ("kubepods/besteffort/pod1f0c6d2a-7b9e-4c55-9d3e-0a1b2c3d4e5f", "", ""),
    (
        "kubepods.slice/kubepods-pod1f0c6d2a_7b9e_4c55_9d3e_0a1b2c3d4e5f.slice",
        "cri-containerd-",
        ".scope",
    ),
    (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f0c6d2a_7b9e_4c55_9d3e_0a1b2c3d4e5f.slice",
        "crio-",
        ".scope",
    ),
    (
        "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1f0c6d2a_7b9e_4c55_9d3e_0a1b2c3d4e5f.slice",
        "docker-",
        ".scope",
    ),
];

/// The program under a name that no other process has.
fn target(directory: &tempfile::TempDir) -> Result<(String, PathBuf)> {
    let name = format!("db-{}", std::process::id());
    let program = directory.path().join(&name);
    symlink(agent::built(WORKLOAD)?, &program)?;
    Ok((name, program))
}

/// A process called `program` that reads `count` times in `container`, and is still there.
fn reads(program: &str, container: &Cgroup, count: u64) -> Result<(tempfile::TempDir, Worker)> {
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut random::rng(), 100_000)?;
    let step = Step::new(Call::Pread64, 0, 1_000).times(count);
    let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![vec![step]] };
    let worker = Worker::start(program, &plan)?;
    worker.join(container)?;
    Ok((directory, worker))
}

fn preads(agent: &Agent) -> Result<u64> {
    agent.settled()?.count("ebpf_syscall_calls_total", &[("syscall", "pread64")])
}

/// Waits until the scope's status is this; the reason.
fn status(agent: &Agent, value: f64) -> Result<String> {
    wait_for("the status of the scope", || {
        let scrape = agent.settled()?;
        let status = scrape.all("ebpf_scope_status", &[]).find(|status| status.value == value);
        Ok(status.map(|status| status.labels.get("reason").cloned().unwrap_or_default()))
    })
}

#[test]
fn the_targets_container_is_found_in_every_layout() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (name, program) = target(&directory)?;
    let program = program.to_str().context("its path is text")?;
    for (pod, before, after) in LAYOUTS {
        let top = Cgroup::new()?;
        let above = top.nested(pod)?;
        let pod = above.first().context("a pod")?.path();
        let container = |id| Cgroup::named(pod, &format!("{before}{id}{after}"));
        let (own, target, other) = (container(OWN)?, container(TARGET)?, container(OTHER)?);
        let scope = json!({"cgroups_of": {"comm": {"exact": [name]}, "fallback": "pod"}});
        let (_files, mut worker) = reads(program, &target, 50)?;
        let setup = Setup::only("syscalls", Mode::Auto, &own).with("scope", scope).contained(&own);
        let agent = Agent::start(&setup)?;
        status(&agent, 1.0).with_context(|| pod.display().to_string())?;
        worker.phase()?;
        // Another process of the container, and one of another container.
        let (_files, mut beside) = reads(WORKLOAD, &target, 7)?;
        beside.phase()?;
        let (_files, mut stranger) = reads(WORKLOAD, &other, 1_000)?;
        stranger.phase()?;
        let shown = preads(&agent)?;
        ensure!(shown == 57, "{}: {shown} calls shown", pod.display());
    }
    Ok(())
}

#[test]
fn a_target_that_restarts_is_found_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (name, program) = target(&directory)?;
    let program = program.to_str().context("its path is text")?;
    let top = Cgroup::new()?;
    let above = top.nested(LAYOUTS[4].0)?;
    let pod = above.first().context("a pod")?.path();
    let own = Cgroup::named(pod, &format!("crio-{OWN}.scope"))?;
    let scope = |fallback| json!({"cgroups_of": {"comm": {"exact": [name]}, "fallback": fallback}});
    let start = |fallback| {
        Agent::start(
            &Setup::only("syscalls", Mode::Auto, &own)
                .with("scope", scope(fallback))
                .contained(&own),
        )
    };
    let (nothing, whole) = (start("none")?, start("pod")?);
    let (mut strict, mut wide) = (0, 0);
    for id in [TARGET, OTHER] {
        let reason = status(&nothing, 0.0)?;
        ensure!(reason.contains(&format!("no process with command {name}")), "{reason}");
        let reason = status(&whole, 0.0)?;
        ensure!(reason.contains("counting the whole pod"), "{reason}");
        // While it is not there.
        let sibling = Cgroup::named(pod, "sibling")?;
        let (_files, mut worker) = reads(WORKLOAD, &sibling, 300)?;
        worker.phase()?;
        wide += 300;
        ensure!((preads(&nothing)?, preads(&whole)?) == (strict, wide));

        let container = Cgroup::named(pod, &format!("crio-{id}.scope"))?;
        let (_files, mut worker) = reads(program, &container, 20)?;
        status(&nothing, 1.0)?;
        status(&whole, 1.0)?;
        worker.phase()?;
        let (_files, mut outside) = reads(WORKLOAD, &sibling, 4_000)?;
        outside.phase()?;
        (strict, wide) = (strict + 20, wide + 20);
        ensure!((preads(&nothing)?, preads(&whole)?) == (strict, wide));
    }
    Ok(())
}
