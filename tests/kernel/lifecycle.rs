//! How the agent starts, ends, and what it leaves behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup, binary, free_address},
    cgroup::Cgroup,
    deadline::{SLOWDOWN, on_this_machine, wait_for},
    file,
    modes::{attaches, hole},
    otlp::{OtlpServer, Reading},
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, syscalls::equal, work};

in_each_mode!(["syscalls/timed"] the_last_collection_is_sent_before_the_end, two_agents_count_the_same,
    an_agent_that_is_killed_takes_nothing_along, what_the_kernel_missed_is_shown);

fn preads(rng: &mut fastrand::Rng, directory: &tempfile::TempDir) -> Result<Plan> {
    let path = file::cold(directory, rng, 1 << 20)?;
    let step = Step::new(Call::Pread64, 0, rng.usize(1..5_000)).times(rng.u64(1..5_000));
    Ok(Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![vec![step]] })
}

fn the_last_collection_is_sent_before_the_end(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = OtlpServer::start()?;
        let cgroup = Cgroup::new()?;
        let setup = Setup::only("syscalls", mode, &cgroup)
            .with("collection_interval", json!("1h"))
            .export_to(server.address());
        let agent = Agent::start(&setup)?;
        let plan = preads(&mut rng, &directory)?;
        work(&plan, &cgroup)?;
        let asked = Instant::now();
        let ended = agent.stop(signal)?;
        ensure!(ended.status.success(), "{signal}: {ended:?}");
        let most = on_this_machine(Duration::from_secs(5));
        ensure!(asked.elapsed() < most, "{signal}: {:?}", asked.elapsed());

        let made = plan.phases[0][0].count;
        let sent = server.points("ebpf.syscall.calls")?;
        let sent: Vec<_> = sent
            .iter()
            .filter(|point| point.attributes["syscall"] == "pread64")
            .map(|point| match point.value {
                Reading::Counter(calls) => calls,
                _ => u64::MAX,
            })
            .collect();
        ensure!(sent == [0, made], "{signal}: {sent:?} sent, {made} calls made");
    }
    Ok(())
}

fn two_agents_count_the_same(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", mode, &cgroup);
    let agents = [Agent::start(&setup)?, Agent::start(&setup)?];
    let report = work(&preads(&mut rng, &directory)?, &cgroup)?;
    for agent in &agents {
        equal(&agent.settled()?, &report)?;
    }
    let [first, second] = agents;
    ensure!(first.stop(Signal::SIGTERM)?.status.success());
    // The one that is left goes on as if nothing had happened.
    let mut report = report;
    let more = work(&preads(&mut rng, &directory)?, &cgroup)?;
    for (call, tally) in more.tallies {
        report.tallies.entry(call).or_default().merge(tally);
    }
    equal(&second.settled()?, &report)
}

/// Two agents count the same work, and one of them is killed in the middle of it.
fn an_agent_that_is_killed_takes_nothing_along(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 1 << 16)?;
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", mode, &cgroup);
    let [killed, other] = [Agent::start(&setup)?, Agent::start(&setup)?];
    let count = 2_000_000 / *SLOWDOWN;
    let step = Step::new(Call::Pread64, 0, 1).times(count);
    let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![vec![step]] };
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    worker.join(&cgroup)?;
    worker.begin()?;
    let shown =
        |agent: &Agent| agent.scrape()?.sum("ebpf_syscall_calls_total", &[("syscall", "pread64")]);
    let (before, seen) = wait_for("the work to be under way", || {
        let both = (shown(&killed)?, shown(&other)?);
        Ok((both.0 > 0 && both.1 > 0).then_some(both))
    })?;
    ensure!(before < count && seen < count, "the work was over before the kill");
    let _ = killed.stop(Signal::SIGKILL)?;
    worker.stopped()?;
    equal(&other.settled()?, &worker.finish()?)
}

#[test]
fn a_forced_mode_holds_and_what_it_cannot_count_is_absent() -> Result<()> {
    for mode in Mode::EACH {
        let cgroup = Cgroup::new()?;
        if !attaches(mode)? {
            let ended = Agent::refused(
                &Setup::new(mode, &cgroup).signal("faults", json!({"enabled": true})),
            )?;
            ensure!(ended.log.contains("no probe attached"), "{mode:?}: {ended:?}");
            continue;
        }
        // The one that a mode of its own is for.
        let agent =
            Agent::start(&Setup::new(mode, &cgroup).signal("faults", json!({"enabled": true})))?;
        let scrape = agent.settled()?;
        ensure!(scrape.all("ebpf_probe_status", &[]).count() > 5, "{mode:?}: {}", agent.log());
        for probe in scrape.all("ebpf_probe_status", &[]) {
            let refused = hole(&probe.labels["probe"], mode)?.is_some();
            let (attached, by) = if refused { (0.0, "") } else { (1.0, mode.name()) };
            // An empty label is none.
            let label = |name| probe.labels.get(name).map_or("", String::as_str);
            ensure!(probe.value == attached && label("mode") == by, "{mode:?}: {probe:?}");
            // One that attached may have been refused at a function that other kernels have.
            ensure!(!refused || !label("reason").is_empty(), "{mode:?}: {probe:?}");
        }
        let series = scrape.all("ebpf_cache_read_attempts_total", &[]).count();
        let counted = hole("page_cache/lookups", mode)?.is_none();
        ensure!(series == usize::from(counted), "{mode:?}: {series} series of lookups");
    }
    Ok(())
}

/// The kernel's ids of the programs that a process holds.
pub fn programs(pid: Pid) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed in between.
        let Ok(info) = fs::read_to_string(fd?.path()) else { continue };
        let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.map(|id| id.trim().parse::<u32>()).transpose()?);
    }
    Ok(ids)
}

/// By program, how often the kernel did not run it; empty where it does not count that.
pub fn missed(pid: Pid) -> Result<BTreeMap<u32, u64>> {
    let mut missed = BTreeMap::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(info) = fs::read_to_string(fd?.path()) else { continue };
        let number = |key| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        // A link shows its program's id too, without the count.
        if let (Some(id), Some(count)) = (number("prog_id:"), number("recursion_misses:")) {
            missed.insert(id.parse()?, count.parse()?);
        }
    }
    Ok(missed)
}

fn what_the_kernel_missed_is_shown(mode: Mode) -> Result<()> {
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::new(mode, &cgroup))?;
    let before = missed(agent.pid())?;
    let scrape = agent.settled()?;
    let after = missed(agent.pid())?;
    let attached = scrape.all("ebpf_probe_status", &[]).filter(|s| s.value == 1.0).count();
    let probes = scrape.all("ebpf_probe_missed_total", &[]).count();
    ensure!(attached > 0 && probes == if before.is_empty() { 0 } else { attached });
    let shown = scrape.sum("ebpf_probe_missed_total", &[])?;
    let (before, after): (u64, u64) = (before.values().sum(), after.values().sum());
    ensure!((before..=after).contains(&shown), "{shown} shown, {before} before, {after} after");
    Ok(())
}

/// What a process holds in the kernel, by kind and id.
fn held(pid: Pid) -> Result<BTreeSet<(&'static str, u32)>> {
    let mut held = BTreeSet::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(info) = fs::read_to_string(fd?.path()) else { continue };
        for key in ["prog_id:", "map_id:", "link_id:"] {
            let id = info.lines().find_map(|line| line.strip_prefix(key));
            held.extend(id.map(|id| anyhow::Ok((key, id.trim().parse()?))).transpose()?);
        }
    }
    Ok(held)
}

/// What there is in the kernel. Those of other processes may go while the lists are read.
fn loaded() -> BTreeSet<(&'static str, u32)> {
    let programs = loaded_programs().flatten().map(|program| ("prog_id:", program.id()));
    let maps = loaded_maps().flatten().map(|map| ("map_id:", map.id()));
    let links = loaded_links().flatten().map(|link| ("link_id:", link.id()));
    programs.chain(maps).chain(links).collect()
}

#[test]
fn a_kill_leaves_nothing_in_the_kernel() -> Result<()> {
    for mode in Mode::EACH {
        if !attaches(mode)? {
            continue;
        }
        let cgroup = Cgroup::new()?;
        let agent =
            Agent::start(&Setup::new(mode, &cgroup).signal("faults", json!({"enabled": true})))?;
        let held = held(agent.pid())?;
        for kind in ["prog_id:", "map_id:"] {
            ensure!(held.iter().any(|(k, _)| *k == kind), "{mode:?}: no {kind} in {held:?}");
        }
        let missing: Vec<_> = held.difference(&loaded()).copied().collect();
        ensure!(missing.is_empty(), "{mode:?}: {missing:?} not found");
        let _ = agent.stop(Signal::SIGKILL)?;
        // The kernel frees them when no CPU can be running one.
        wait_for("nothing left", || Ok(held.is_disjoint(&loaded()).then_some(())))?;
    }
    Ok(())
}

#[test]
fn without_capabilities_it_says_what_it_needs() -> Result<()> {
    let nobody = 65_534;
    // Where that user can reach it.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let program = directory.path().join("fathom");
    fs::copy(binary()?, &program)?;
    let output = Command::new(&program)
        .args(["--set", "exporters.prometheus.endpoint=127.0.0.1:0"])
        .args(["--set", "service.telemetry.metrics.level=none"])
        .uid(nobody)
        .gid(nobody)
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    let errors = said.lines().filter(|line| line.contains("CAP_BPF")).collect::<Vec<_>>();
    let [error] = errors[..] else { bail!("not one message: {said}") };
    for part in ["CAP_PERFMON", "setcap", &*program.to_string_lossy()] {
        ensure!(error.contains(part), "no {part} in {error:?}");
    }
    Ok(())
}

#[test]
fn the_quickstart_says_within_two_seconds_what_it_attached_and_where_to_look() -> Result<()> {
    let address = free_address()?;
    let began = Instant::now();
    let set = format!("exporters.prometheus.endpoint={address}");
    let mut agent =
        Agent::run(address, &["--set", &set, "--set", "service.telemetry.metrics.level=none"])?;
    agent.ready()?;
    let log = agent.log();
    let most = on_this_machine(Duration::from_secs(2));
    ensure!(began.elapsed() < most, "{:?}: {log}", began.elapsed());
    ensure!(log.contains(&format!("http://{address}/metrics")), "{log}");
    for probe in ["syscalls", "page_cache", "fadvise", "reclaim"] {
        ensure!(
            log.lines().any(|line| line.contains(probe) && line.contains("\"mode\": ")),
            "{log}"
        );
    }
    Ok(())
}

#[test]
fn probes_are_shown_without_running() -> Result<()> {
    let output = Command::new(binary()?).arg("probes").output()?;
    let shown = String::from_utf8(output.stdout)?;
    // A script can ask whether all attach.
    let all = shown.lines().skip(1).all(|line| line.split_whitespace().nth(1) != Some("-"));
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() == all, "{}: {shown}{said}", output.status);
    for part in ["syscalls", "page_cache", "fadvise", "reclaim"] {
        ensure!(shown.contains(part), "no {part} in {shown}");
    }
    Ok(())
}

/// A thread's permitted, effective, inheritable and ambient capabilities.
fn capabilities(status: &Path) -> Result<[u64; 4]> {
    let status = fs::read_to_string(status)?;
    let mut sets = [0; 4];
    for (set, key) in sets.iter_mut().zip(["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"]) {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).context(key)?;
        *set = u64::from_str_radix(line.trim(), 16)?;
    }
    Ok(sets)
}

/// Every thread of the agent can do what running takes and no more, and can take up what attaching takes.
#[test]
fn it_gives_up_what_it_does_not_need() -> Result<()> {
    // Bits of include/uapi/linux/capability.h.
    let [read, bind, ptrace, admin, nice, resource, perfmon, bpf] =
        [2, 10, 19, 21, 23, 24, 38, 39].map(|bit| 1_u64 << bit);
    let cgroup = Cgroup::new()?;
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")?;
    let always = if level.trim().parse::<i32>()? > 2 { admin } else { 0 };
    for (run_time, more) in [(false, always), (true, admin)] {
        let setup = Setup::new(Mode::Auto, &cgroup).with("run_time", json!(run_time));
        let agent = Agent::start(&setup)?;
        // Not even root has all of them everywhere.
        let had = capabilities("/proc/self/status".as_ref())?[0];
        let running = had & (bind | nice | bpf);
        let all = running | had & (read | ptrace | resource | perfmon | more);
        let mut threads = 0;
        for task in fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
            let has = capabilities(&task?.path().join("status"))?;
            ensure!(has == [all, running, 0, 0], "{has:x?}");
            threads += 1;
        }
        ensure!(threads > 1, "its threads are looked at");
    }
    Ok(())
}

/// What the records of tracepoints say suffices for most of it.
#[test]
fn a_kernel_without_types_is_counted_by_its_records() -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let pages = rng.u64(50..200);
    let path = file::cold(&directory, &mut rng, pages * 4_096)?;
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::new(Mode::Auto, &cgroup).without_types())?;
    let steps = vec![
        Step::new(Call::Read, 0, 4_096).times(pages),
        Step::new(Call::Pread64, 1, 1).times(rng.u64(1..100)),
        Step::advise(0, 4),
    ];
    let files = vec![Open::Read(path), Open::Never];
    let report = work(&Plan { threads: 1, files, phases: vec![steps] }, &cgroup)?;
    let scrape = agent.settled()?;
    equal(&scrape, &report)?;
    for name in ["ebpf_page_cache_adds_total", "ebpf_page_cache_deletes_total"] {
        let shown = scrape.count(name, &[])?;
        ensure!(shown == pages, "{name}: {shown} of {pages} pages");
    }
    ensure!(scrape.count("ebpf_fadvise_calls_total", &[])? == 1);
    let lookups = scrape.one("ebpf_probe_status", &[("probe", "page_cache/lookups")])?;
    ensure!(lookups.value == 0.0 && lookups.labels["reason"].contains("BTF"), "{lookups:?}");
    Ok(())
}
