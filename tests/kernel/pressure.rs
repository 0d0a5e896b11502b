//! Pressure: what the kernel's own files have come to.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    scrape::Scrape,
};

const STALL: &str = "ebpf_pressure_stall_time_seconds_total";

/// The total of a line of a file, in seconds; `None` if this kernel has no such file or line.
fn total(file: &Path, share: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(share))?;
    let total: u64 = line.split_once("total=")?.1.trim().parse().ok()?;
    Some(total as f64 / 1e6)
}

/// A process that does nothing but run.
struct Busy(Child);

impl Busy {
    fn start() -> Result<Self> {
        let busy = ["-c", "while :; do :; done"];
        Ok(Self(Command::new("sh").args(busy).stdin(Stdio::null()).spawn()?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shown(scrape: &Scrape, labels: &[(&str, &str)]) -> Result<f64> {
    Ok(scrape.one(STALL, labels)?.value)
}

#[test]
fn a_cgroups_pressure_is_what_its_files_say() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let file = cgroup.path().join("cpu.pressure");
    if total(&file, "some").is_none() {
        println!("not run here: {} cannot be read", file.display());
        return Ok(());
    }
    let idle = Cgroup::new()?;
    let scope = json!({"cgroups": [cgroup.path(), idle.path()]});
    let agent = Agent::start(&Setup::new(Mode::Auto, &cgroup).with("scope", scope))?;
    let id = fs::metadata(cgroup.path())?.ino().to_string();
    let labels =
        [("cgroup_id", &*id), ("ebpf_pressure_resource", "cpu"), ("ebpf_pressure_share", "some")];

    // More that run than there are CPUs: some must wait.
    let cpus = thread::available_parallelism()?.get();
    let busy = (0..2 * cpus).map(|_| Busy::start()).collect::<Result<Vec<_>>>()?;
    for process in &busy {
        cgroup.add(Pid::from_raw(process.0.id() as i32))?;
    }
    thread::sleep(Duration::from_secs(1));
    let before = total(&file, "some").context("it was there")?;
    let seen = shown(&agent.settled()?, &labels)?;
    let after = total(&file, "some").context("it was there")?;
    // Nothing was before the agent.
    ensure!((before..=after).contains(&seen), "{seen} s shown, {before} s to {after} s counted");
    ensure!(seen > 0.1, "{seen} s of pressure, with twice as many tasks as CPUs");
    drop(busy);
    let id = fs::metadata(idle.path())?.ino().to_string();
    let all = agent.settled()?;
    for share in ["some", "full"] {
        let labels = [("cgroup_id", &*id), ("ebpf_pressure_share", share)];
        ensure!(all.all(STALL, &labels).all(|sample| sample.value == 0.0), "{share}");
    }
    Ok(())
}

#[test]
fn the_hosts_pressure_counts_from_the_start() -> Result<()> {
    let file = Path::new("/proc/pressure/cpu");
    let Some(before) = total(file, "some") else {
        println!("not run here: {} cannot be read", file.display());
        return Ok(());
    };
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::new(Mode::Auto, &cgroup).with("scope", json!({})))?;
    let started = total(file, "some").context("it was there")?;
    let cpus = thread::available_parallelism()?.get();
    let _busy = (0..2 * cpus).map(|_| Busy::start()).collect::<Result<Vec<_>>>()?;
    thread::sleep(Duration::from_millis(500));
    let least = total(file, "some").context("it was there")? - started;
    let labels = [("ebpf_pressure_resource", "cpu"), ("ebpf_pressure_share", "some")];
    let seen = shown(&agent.settled()?, &labels)?;
    let most = total(file, "some").context("it was there")? - before;
    // Both are differences of numbers that are exact to the microsecond.
    let rounding = 1e-6;
    ensure!(
        least - rounding <= seen && seen <= most + rounding,
        "{seen} s shown, {least} s to {most} s counted"
    );
    ensure!(least > 0.0, "nothing waited for a CPU");
    Ok(())
}
