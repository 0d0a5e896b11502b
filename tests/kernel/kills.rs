//! Processes that a signal ends: counted, and told one by one.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use abi::kills::{BUFFER, Event};
use anyhow::{Context as _, Result, ensure};
use nix::{libc, unistd::Pid};
use serde_json::Value;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    memory::Limited,
    plan::{Call, Open, Plan, Step},
    random,
    shell::Shell,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode};

in_each_mode!(["kills/ended"] who_is_killed_is_told, who_runs_out_of_memory_is_told);

/// The log records of a file of OTLP lines.
fn records(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut records = Vec::new();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let line: Value = serde_json::from_str(line)?;
        for resource in line["resourceLogs"].as_array().context("no logs")? {
            for scope in resource["scopeLogs"].as_array().context("no scope")? {
                records.extend(scope["logRecords"].as_array().context("no records")?.clone());
            }
        }
    }
    Ok(records)
}

/// An attribute, as text.
fn attribute(record: &Value, name: &str) -> Option<String> {
    let attribute = record["attributes"].as_array()?.iter().find(|a| a["key"] == name)?;
    let value = attribute["value"].as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn who_is_killed_is_told(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = directory.path().join("events.json");
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("kills", mode, &cgroup).logs_to(path.clone()))?;
    let signals = [
        ("TERM", libc::SIGTERM),
        ("KILL", libc::SIGKILL),
        ("SEGV", libc::SIGSEGV),
        // One that nobody ignores, as nohup does another for all that it starts.
        ("USR1", libc::SIGUSR1),
    ];
    let mut killed = BTreeMap::new();
    for _ in 0..rng.usize(3..12) {
        let (name, number) = signals[rng.usize(..signals.len())];
        let shell = Shell::new(&format!("kill -{name} $$"))?;
        let pid = shell.pid();
        cgroup.add(pid)?;
        ensure!(shell.finish()?.signal() == Some(number), "the shell has survived");
        killed.insert(pid.to_string(), format!("SIG{name}"));
    }
    // Who ends by itself, and who is killed elsewhere, is none of them.
    let ends = Shell::new("exit 9")?;
    cgroup.add(ends.pid())?;
    ensure!(ends.finish()?.code() == Some(9), "the shell has not ended as it should");
    Shell::new("kill -KILL $$")?.finish()?;

    let scrape = agent.settled()?;
    let mut by_signal = BTreeMap::<_, u64>::new();
    killed.values().for_each(|signal| *by_signal.entry(signal).or_default() += 1);
    for (signal, truth) in &by_signal {
        let shown = scrape.count("ebpf_process_killed_total", &[("signal_name", signal)])?;
        ensure!(shown == *truth, "{signal}: {shown} shown, {truth} killed");
    }
    let shown = scrape.sum("ebpf_process_killed_total", &[])?;
    ensure!(shown == killed.len() as u64, "{shown} shown, {killed:?}");
    ensure!(scrape.count("ebpf_memory_oom_kills_total", &[])? == 0, "memory was not short");

    let told = wait_for("an event for each", || {
        let told = records(&path)?;
        Ok((told.len() >= killed.len()).then_some(told))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut shown = BTreeMap::new();
    for record in &told {
        ensure!(record["eventName"] == "ebpf.process.killed", "{record}");
        ensure!(attribute(record, "process.executable.name").as_deref() == Some("sh"), "{record}");
        let time = record["timeUnixNano"].as_str().context("no time")?.parse()?;
        let age = now.checked_sub(Duration::from_nanos(time)).context("an event of the future")?;
        ensure!(age < Duration::from_secs(600), "{age:?} old: {record}");
        let pid = attribute(record, "process.pid").context("no pid")?;
        shown.insert(pid, attribute(record, "signal.name").context("no signal")?);
    }
    ensure!(shown == killed, "{shown:?} told, {killed:?} killed");
    Ok(())
}

/// The most bytes that a process has had in memory.
fn peak(pid: Pid) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(1024 * line.trim().trim_end_matches(" kB").parse::<u64>()?)
}

fn who_runs_out_of_memory_is_told(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = directory.path().join("events.json");
    let limit = rng.u64(16 << 20..24 << 20);
    let limited = Limited::new(limit)?;
    let agent = Agent::start(&Setup::only("kills", mode, limited.scope()).logs_to(path.clone()))?;
    // Threads that die at the same time are one process.
    let threads = rng.usize(1..5);
    let step = Step::new(Call::Touch, 0, 4 * limit as usize);
    let plan = Plan { threads, files: vec![Open::Never], phases: vec![vec![step]] };
    let kills = tests::memory::oom_kills()?;
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    let pid = worker.pid();
    limited.add(pid)?;
    let most_before = peak(pid)?;
    worker.begin()?;
    ensure!(worker.died()?.signal() == Some(libc::SIGKILL), "the workload was not killed");
    let truth = tests::memory::oom_kills()? - kills;
    ensure!(truth == 1, "{truth} processes were killed");

    let scrape = agent.settled()?;
    let shown = scrape.count("ebpf_memory_oom_kills_total", &[])?;
    ensure!(shown == 1, "{shown} kills shown");
    let shown = scrape.count("ebpf_process_killed_total", &[("signal_name", "SIGKILL")])?;
    ensure!(shown == 1, "{shown} killed shown");
    let told = wait_for("an event", || {
        let told = records(&path)?;
        Ok((!told.is_empty()).then_some(told))
    })?;
    ensure!(told.len() == 1, "{told:?}");
    let of = |name| attribute(&told[0], name).with_context(|| format!("no {name}: {}", told[0]));
    ensure!(told[0]["eventName"] == "ebpf.process.oom_killed", "{}", told[0]);
    ensure!(of("process.pid")? == pid.to_string(), "{}", told[0]);
    ensure!(of("process.executable.name")? == WORKLOAD, "{}", told[0]);
    // What it had before it was limited, and up to as much as the limit on top; the kernel's counts are some pages
    // off for each of its CPUs.
    let most: u64 = of("process.memory.max_rss")?.parse()?;
    let allowed = most_before - (1 << 20)..most_before + limit + (1 << 20);
    ensure!(allowed.contains(&most), "{most} bytes at most, not in {allowed:?}");
    Ok(())
}

/// More than the kernel's buffer has room for, and no pipeline that wants to be told.
#[test]
fn events_that_nobody_asks_for_are_not_lost() -> Result<()> {
    let most = usize::try_from(BUFFER)? / size_of::<Event>();
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("kills", Mode::Auto, &cgroup))?;
    // Each a process that runs no program of its own: emulated machines would take minutes.
    let each = "(while :; do :; done) & kill -KILL $!; wait $!";
    let script = format!("i=0; while [ $i -lt {most} ]; do {each}; i=$((i + 1)); done");
    let shell = Shell::new(&script)?;
    cgroup.add(shell.pid())?;
    shell.finish()?;
    let scrape = agent.settled()?;
    let killed = scrape.sum("ebpf_process_killed_total", &[])?;
    ensure!(killed == most as u64, "{killed} shown, {most} killed");
    let lost = scrape.count("ebpf_probe_dropped_total", &[("probe", "kills/ended")])?;
    ensure!(lost == 0, "{lost} events lost that nobody asked for");
    Ok(())
}
