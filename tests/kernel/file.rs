//! The file exporter where disks fill up and processes die.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    collector::{items, items_so_far},
    deadline::wait_for,
    file,
};

/// A file system of its own, gone with the value.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Result<Self> {
        let directory = file::directory()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(directory.path());
        ensure!(mount.status()?.success(), "mount");
        Ok(Self(directory))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still holds it open is in its way no longer than it lives.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_disk_that_fills_up_and_empties_again_holds_whole_lines() -> Result<()> {
    let disk = Disk::new("256k")?;
    let (path, ballast) = (disk.0.path().join("out.json"), disk.0.path().join("ballast"));
    fs::write(&ballast, vec![0; 128 << 10])?;
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", Mode::Auto, &cgroup)
        .with("collection_interval", json!("5ms"))
        .and("file", json!({"path": path}));
    let agent = Agent::start(&setup)?;
    wait_for("the disk to be full", || Ok(agent.log().contains("No space left").then_some(())))?;
    // Lines that do not fit are lost, what stands is whole. The one that is being written is not yet cut off.
    let full = items_so_far(&path)?;
    ensure!(!full.is_empty(), "nothing was written");
    ensure!(agent.settled().is_ok(), "collection has not gone on");
    fs::remove_file(&ballast)?;
    let size = fs::metadata(&path)?.len();
    wait_for("lines again", || Ok((fs::metadata(&path)?.len() > size + 4096).then_some(())))?;
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    let all = items(&path)?;
    ensure!(full.keys().all(|point| all.contains_key(point)), "what was written is gone");
    ensure!(all.values().all(|times| *times == 1), "something was written twice");
    Ok(())
}

/// The kernel ends the write of one who is killed at the end of a page: one line at most breaks off, and the next
/// agent begins another.
#[test]
fn an_agent_that_is_killed_breaks_off_one_line_at_most() -> Result<()> {
    let directory = file::directory()?;
    let path = directory.path().join("out.json");
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("syscalls", Mode::Auto, &cgroup)
        .with("collection_interval", json!("2ms"))
        .and("file", json!({"path": path, "append": true}));
    let mut broken = 0;
    for _ in 0..5 {
        let before = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let agent = Agent::start(&setup)?;
        wait_for("lines", || Ok((fs::metadata(&path)?.len() > before + 100_000).then_some(())))?;
        agent.stop(Signal::SIGKILL)?;
        let text = fs::read_to_string(&path)?;
        broken += usize::from(!text.ends_with('\n'));
        for line in text.lines() {
            ensure!(line.starts_with('{'), "a line that is the end of another: {line}");
        }
        let bad = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
        ensure!(bad == broken, "{bad} lines are no JSON, {broken} broke off at the end");
    }
    Ok(())
}
