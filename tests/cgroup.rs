//! A cgroup of one test's own, gone when the test is, however it ends.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::deadline::wait_for;

/// A directory of a cgroup hierarchy that this process made.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A new cgroup at the top of the v2 hierarchy.
    pub fn new() -> Result<Self> {
        Self::below(&hierarchy("cgroup2", "")?)
    }

    /// A new cgroup inside this one.
    pub fn child(&self) -> Result<Self> {
        Self::below(&self.path)
    }

    /// A new cgroup in the directory `parent`.
    pub(crate) fn below(parent: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("fathom-test-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self::named(parent, &name)
    }

    /// A new cgroup in the directory `parent`, called as a runtime would call it.
    pub fn named(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| format!("cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// New cgroups below this one, each in the one before, as in `a/b/c`; the innermost first, which is the order
    /// in which they can go.
    pub fn nested(&self, path: &str) -> Result<Vec<Self>> {
        let mut nested = Vec::<Self>::new();
        for name in path.split('/') {
            let parent = nested.last().map_or(&self.path, |cgroup| &cgroup.path).clone();
            nested.push(Self::named(&parent, name)?);
        }
        nested.reverse();
        Ok(nested)
    }

    /// Whether `controller` tells it apart from others.
    pub fn controlled(&self, controller: &str) -> Result<bool> {
        let own = fs::read_to_string(self.path.join("cgroup.controllers"))?;
        Ok(own.split_whitespace().any(|own| own == controller))
    }

    /// Has `controller` tell its children apart.
    pub fn control(&self, controller: &str) -> Result<()> {
        fs::write(self.path.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("control {controller} in {}", self.path.display()))
    }

    /// Its id, as metrics have it: the inode number of its directory.
    pub fn id(&self) -> Result<String> {
        Ok(fs::metadata(&self.path)?.ino().to_string())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process, with all its threads, into it.
    pub fn add(&self, pid: Pid) -> Result<()> {
        move_to(&self.path, pid)
    }

    /// Moves a process out of it, to the top of the hierarchy.
    pub fn leave(&self, pid: Pid) -> Result<()> {
        move_to(&hierarchy("cgroup2", "")?, pid)
    }
}

/// Moves a process into the cgroup of this directory.
pub(crate) fn move_to(cgroup: &Path, pid: Pid) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).with_context(|| format!("move {pid} to {}", procs.display()))
}

/// Where the hierarchy of type `kind` is mounted whose options name `controller` (any if empty).
pub fn hierarchy(kind: &str, controller: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .find_map(|line| {
            // proc(5): … (5) mount point … - type source options
            let (fields, end) = line.split_once(" - ")?;
            let mut end = end.split(' ');
            let (found, options) = (end.next()?, end.nth(1)?);
            let fits = controller.is_empty() || options.split(',').any(|o| o == controller);
            (found == kind && fits).then(|| fields.split(' ').nth(4).map(PathBuf::from))?
        })
        .with_context(|| format!("no {kind} hierarchy {controller} is mounted"))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A failing test leaves its workload behind; it dies here, and the cgroup is empty when
        // the dead have been waited for.
        let emptied = wait_for("cgroup empty", || {
            let left = fs::read_to_string(self.path.join("cgroup.procs"))?;
            for pid in left.lines().filter_map(|line| line.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            Ok(fs::remove_dir(&self.path).ok())
        });
        if let Err(error) = emptied {
            eprintln!("{} is left behind: {error:#}", self.path.display());
        }
    }
}
