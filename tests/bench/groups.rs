//! The agent's own time and memory for a collection, by the number of groups.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::{Pid, getppid};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
};

const COLLECTIONS: u32 = 5;

/// One cgroup for each group, all of which have made a call.
pub(crate) fn measure() -> Result<()> {
    println!("\nA collection, one watched call, by cgroup:");
    println!("  {:>7}  {:>12}  {:>9}  {:>15}", "groups", "CPU", "RSS", "of it anonymous");
    for groups in [1_usize, 100, 8_192] {
        let parent = Cgroup::new()?;
        let mut setup = Setup::new(Mode::TpBtf, &parent);
        setup.iomonitor = json!({
            "mode": "tp_btf",
            "collection_interval": "1s",
            "initial_delay": "0s",
            "group_by": "cgroup",
            "max_groups": 16_384,
            "memory_budget_mib": 2_048,
            "scope": {"cgroups": [parent.path()]},
            "signals": {
                "block": {"enabled": false},
                "dirty": {"enabled": false}, "fadvise": {"enabled": false},
                "page_cache": {"enabled": false}, "reclaim": {"enabled": false},
                "syscalls": {"calls": ["pread64"]},
            },
            "metrics": {"ebpf.syscall.duration": {"enabled": false}},
        });
        let agent = Agent::start(&setup)?;
        let children = (0..groups).map(|_| parent.child()).collect::<Result<Vec<_>>>()?;
        let own = Pid::this();
        let file = fs::File::open("/proc/self/exe")?;
        for child in &children {
            child.add(own)?;
            std::os::unix::fs::FileExt::read_at(&file, &mut [0; 1], 0)?;
        }
        parent.leave(own)?;
        let _ = getppid();
        agent.settled()?;
        thread::sleep(Duration::from_secs(1));
        let before = cpu(agent.pid())?;
        thread::sleep(Duration::from_secs(1) * COLLECTIONS);
        let spent = (cpu(agent.pid())? - before) / COLLECTIONS;
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
        let kib = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).context("status")?;
            Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
        };
        println!(
            "  {groups:>7}  {:>9.2} ms  {:>5} MiB  {:>11} MiB",
            spent.as_secs_f64() * 1e3,
            kib("VmRSS")? >> 10,
            kib("RssAnon")? >> 10
        );
    }
    Ok(())
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
