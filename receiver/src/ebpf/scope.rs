//! The scope of a receiver, resolved: which cgroup v2 subtrees its programs count.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use abi::scope::{CGROUP_COUNT, CGROUPS, Cgroup, MAX_CGROUPS};
use anyhow::{Context as _, Result, bail};

use super::globals::Globals;

/// Sets the scope's globals to these cgroup directories; none means every task.
pub fn set(globals: &mut Globals, cgroups: &[PathBuf]) -> Result<()> {
    let mounts = if cgroups.is_empty() { Vec::new() } else { mounts()? };
    let mut table = [Cgroup::NONE; MAX_CGROUPS];
    for (place, path) in table.iter_mut().zip(cgroups) {
        *place = resolve(path, &mounts)
            .with_context(|| format!("cannot scope to cgroup {}", path.display()))?;
    }
    let bytes: Vec<u8> = table
        .iter()
        .flat_map(|c| {
            [c.id.to_ne_bytes().as_slice(), &c.level.to_ne_bytes(), &c.pad.to_ne_bytes()].concat()
        })
        .collect();
    globals.bytes(CGROUPS, bytes);
    globals.number(CGROUP_COUNT, cgroups.len() as u32);
    Ok(())
}

/// Where the cgroup v2 hierarchy is mounted.
fn mounts() -> Result<Vec<PathBuf>> {
    const FILE: &str = "/proc/self/mountinfo";
    let mounts = parse(&fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?);
    if mounts.is_empty() {
        bail!("no cgroup v2 hierarchy is mounted, and a scope by cgroup needs one");
    }
    Ok(mounts)
}

/// proc_pid_mountinfo(5): the mount point is the fifth field, the type the first after ` - `.
fn parse(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?;
            kind.starts_with("cgroup2 ").then(|| PathBuf::from(point))
        })
        .collect()
}

fn resolve(path: &Path, mounts: &[PathBuf]) -> Result<Cgroup> {
    let path = fs::canonicalize(path)?;
    let Some(below) = mounts.iter().find_map(|mount| path.strip_prefix(mount).ok()) else {
        let mounts: Vec<_> = mounts.iter().map(|m| m.display().to_string()).collect();
        bail!("it is not in the cgroup v2 hierarchy, which is mounted at {}", mounts.join(", "));
    };
    let directory = fs::metadata(&path)?;
    if !directory.is_dir() {
        bail!("it is not a directory");
    }
    // The id of a cgroup is the inode number of its directory (kernfs).
    Ok(Cgroup { id: directory.ino(), level: below.components().count() as u32, pad: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_among_the_mounts() {
        let mountinfo = "\
            30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(parse(mountinfo), [PathBuf::from("/sys/fs/cgroup/unified")]);
    }

    #[test]
    fn what_is_no_cgroup_is_refused_with_the_reason() {
        let mounts = [PathBuf::from("/sys/fs/cgroup")];
        let error = |path: &str| resolve(Path::new(path), &mounts).expect_err(path).to_string();
        assert!(error("/no/such/cgroup").contains("No such file or directory"));
        assert!(error("/tmp").contains("not in the cgroup v2 hierarchy"));
    }
}
