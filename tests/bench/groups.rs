//! The agent's own time and memory for a collection, by the number of groups: with all that comes of it, with the points
//! dropped before the exporter, which leaves the readout and the making of the points, and the readout alone.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use fathom::ebpf::table::Table;
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
};

const COLLECTIONS: u32 = 5;

/// One cgroup for each group, all of which have made a call.
pub(crate) fn measure() -> Result<()> {
    println!("\nA collection, one watched call, by cgroup:");
    println!(
        "  {:>7}  {:>12}  {:>14}  {:>12}  {:>9}  {:>15}",
        "groups", "CPU", "to the points", "readout", "RSS", "of it anonymous"
    );
    for groups in [1_usize, 100, 8_192, 65_536] {
        let parent = Cgroup::new()?;
        let all = agent(&parent, None)?;
        let points = agent(&parent, Some(r#"IsMatch(name, "ebpf[.]syscall.*")"#))?;
        let children = (0..groups).map(|_| parent.child()).collect::<Result<Vec<_>>>()?;
        let own = Pid::this();
        let file = fs::File::open("/proc/self/exe")?;
        // Twice, since of a burst of new groups the first calls may go to the overflow.
        for child in children.iter().chain(&children) {
            child.add(own)?;
            std::os::unix::fs::FileExt::read_at(&file, &mut [0; 1], 0)?;
        }
        parent.leave(own)?;
        let (all, memory) = collections(&all)?;
        let readout = readout(&points, groups)?;
        let (points, _) = collections(&points)?;
        println!(
            "  {groups:>7}  {:>9.2} ms  {:>11.2} ms  {:>9.2} ms  {:>5} MiB  {:>11} MiB",
            all.as_secs_f64() * 1e3,
            points.as_secs_f64() * 1e3,
            readout.as_secs_f64() * 1e3,
            memory.resident,
            memory.anonymous
        );
    }
    Ok(())
}

/// Counts in what is below `parent`, and drops the metrics for which a condition holds.
fn agent(parent: &Cgroup, dropped: Option<&str>) -> Result<Agent> {
    let mut setup = Setup::new(Mode::TpBtf, parent);
    setup.iomonitor = json!({
        "mode": "tp_btf",
        "collection_interval": "1s",
        "initial_delay": "0s",
        "group_by": "cgroup",
        "max_groups": 65_536,
        "memory_budget_mib": 8_192,
        "scope": {"cgroups": [parent.path()]},
        "signals": {
            "block": {"enabled": false}, "compaction": {"enabled": false},
            "dirty": {"enabled": false}, "fadvise": {"enabled": false}, "kills": {"enabled": false},
            "io_uring": {"enabled": false}, "page_cache": {"enabled": false}, "reclaim": {"enabled": false},
            "syscalls": {"calls": ["pread64"]},
        },
        "metrics": {"ebpf.syscall.duration": {"enabled": false}},
    });
    if let Some(condition) = dropped {
        setup = setup.process("filter", json!({"metrics": {"metric": [condition]}}));
    }
    Agent::start(&setup)
}

/// What it takes to read the cells of all groups, and to add up those of all CPUs: the agent's code, at the agent's map.
fn readout(agent: &Agent, groups: usize) -> Result<Duration> {
    let maps = agent.maps("CELLS_BY_GROUP")?;
    let map = maps.first().context("the agent has no cells by group")?;
    let mut times = Vec::new();
    for _ in 0..21 {
        let before = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        let table = Table::of_hash(map)?;
        let after = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        ensure!(table.keys.len() == groups, "{} of {groups} groups read", table.keys.len());
        times.push(Duration::from(after - before));
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// In MiB.
struct Memory {
    resident: u64,
    anonymous: u64,
}

/// What a collection takes, and what the agent has come to have.
fn collections(agent: &Agent) -> Result<(Duration, Memory)> {
    agent.settled()?;
    thread::sleep(Duration::from_secs(1));
    let before = cpu(agent.pid())?;
    thread::sleep(Duration::from_secs(1) * COLLECTIONS);
    let spent = (cpu(agent.pid())? - before) / COLLECTIONS;
    // The least of a second: what is there between two collections.
    let mut least = Memory { resident: u64::MAX, anonymous: u64::MAX };
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(50));
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
        let mib = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).context("status")?;
            let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
            Ok(kib.parse::<u64>()? >> 10)
        };
        least.resident = least.resident.min(mib("VmRSS")?);
        least.anonymous = least.anonymous.min(mib("RssAnon")?);
    }
    Ok((spent, least))
}

/// The CPU time of a process, to the nanosecond (`/proc/PID/schedstat` of each thread).
fn cpu(pid: Pid) -> Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text.split(' ').next().context("schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}
