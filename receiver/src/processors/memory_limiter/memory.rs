//! How much memory the agent uses, and how much there is.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::cgroup::{Relative, memberships, mounts};

/// `/proc/self/statm`, held open: a process without a free file descriptor must still shed.
pub struct Usage {
    statm: File,
    page: u64,
}

impl Usage {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let path = "/proc/self/statm";
        let statm = File::open(path).with_context(|| format!("cannot open {path}"))?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
        let page = page.context("the kernel does not say how large a page is")?;
        Ok(Self { statm, page: u64::try_from(page)? })
    }

    /// Resident memory in bytes.
    pub fn read(&self) -> io::Result<u64> {
        let mut text = [0; 128];
        let length = self.statm.read_at(&mut text, 0)?;
        let pages = std::str::from_utf8(&text[..length])
            .ok()
            .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/statm"))?;
        Ok(pages.saturating_mul(self.page))
    }
}

/// The memory there is: the least limit of the agent's cgroups, or that of the machine.
pub fn total() -> Result<u64> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let machine = machine(&read("/proc/meminfo")?).context("/proc/meminfo has no MemTotal")?;
    // Without cgroups there is no limit of one.
    let (Ok(cgroup), Ok(mountinfo)) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"))
    else {
        return Ok(machine);
    };
    Ok(limit(&cgroup, &mountinfo).map_or(machine, |limit| limit.min(machine)))
}

/// `MemTotal`, in bytes.
fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit on the way from the process's cgroup up to the root that it sees.
fn limit(cgroup: &str, mountinfo: &str) -> Option<u64> {
    let unified = memberships(cgroup)
        .filter(|m| m.controllers.is_empty())
        .flat_map(|m| {
            let own = Relative::new(m.path);
            mounts(mountinfo).into_iter().filter_map(move |mount| {
                let below = own.below(&Relative::new(&mount.root), None)?;
                Some((mount.point.clone(), mount.point.join(below)))
            })
        })
        .filter_map(|(top, own)| least(&top, &own, "memory.max"));
    let memory = memberships(cgroup)
        .filter(|m| m.controllers.split(',').any(|name| name == "memory"))
        .filter_map(|m| {
            let top = Path::new("/sys/fs/cgroup/memory");
            // In a container the mount shows the container's own cgroup as its root.
            let own = top.join(m.path.trim_start_matches('/'));
            least(top, if own.is_dir() { &own } else { top }, "memory.limit_in_bytes")
        });
    unified.chain(memory).min()
}

/// The least number in the files called `name`, from the directory `own` up to `top`. A cgroup
/// without a limit says `max`, or a number that no machine reaches.
fn least(top: &Path, own: &Path, name: &str) -> Option<u64> {
    own.ancestors()
        .take_while(|directory| directory.starts_with(top))
        .filter_map(|directory| fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_memory_is_read() {
        let meminfo = "MemTotal:       16314664 kB\nMemFree:         1024 kB\n";
        assert_eq!(machine(meminfo), Some(16_314_664 * 1024));
        assert_eq!(machine("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join("pod/container");
        fs::create_dir_all(&own).expect("made");
        assert_eq!(least(dir.path(), &own, "memory.max"), None);
        fs::write(own.join("memory.max"), "max\n").expect("written");
        fs::write(dir.path().join("pod/memory.max"), "300\n").expect("written");
        fs::write(dir.path().join("memory.max"), "4000\n").expect("written");
        assert_eq!(least(dir.path(), &own, "memory.max"), Some(300));
        assert_eq!(least(&own, &own, "memory.max"), None, "what is above is not seen");
    }

    #[test]
    fn a_limit_is_found_through_the_mount_table() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join("agent");
        fs::create_dir(&own).expect("made");
        fs::write(own.join("memory.max"), "12345\n").expect("written");
        let mountinfo = format!("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", dir.path().display());
        assert_eq!(limit("0::/agent\n", &mountinfo), Some(12_345));
        assert_eq!(limit("0::/other\n", &mountinfo), None);
    }

    #[test]
    fn what_the_agent_uses_grows_with_what_it_holds() {
        let usage = Usage::open().expect("there is /proc");
        // Other tests of this process may free as much at the same time.
        let grows = || {
            let before = usage.read().expect("readable");
            let held = vec![1_u8; 64 << 20];
            let after = usage.read().expect("still readable");
            assert!(total().expect("known") > after);
            drop(std::hint::black_box(held));
            after >= before + (32 << 20)
        };
        assert!((0..20).any(|_| grows()));
    }
}
