//! In which cgroup directory a process is: what a sidecar scopes to.
//!
//! `/proc/<pid>/cgroup` says the path from the root of the reader's cgroup namespace, and
//! `/proc/self/mountinfo` says, from the same root, what is mounted where. An agent in a container may
//! see neither the host's root nor its own place below it, so both are put together here, and what
//! cannot be reached is said instead of guessed.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use regex::Regex;

use super::{
    Identity,
    mount::{self, Mount, Relative},
};

/// The length that the kernel cuts a command's name to.
const COMM: usize = 15;

/// Which processes are meant. The agent itself never is.
#[derive(Clone, Debug)]
pub enum Rule {
    /// The one with this number, as `/proc` has it.
    Pid(u32),
    /// Those whose command (`/proc/<pid>/comm`) is this, as far as the kernel keeps it.
    Comm(String),
    /// Those whose command begins so.
    Prefix(String),
    /// Those whose command matches.
    Regex(Regex),
}

impl Rule {
    fn matches(&self, pid: u32, comm: &str) -> bool {
        // The kernel cuts by bytes; what was cut inside a character was replaced when it was read.
        let cut =
            |name: &str| String::from_utf8_lossy(&name.as_bytes()[..name.len().min(COMM)]) == comm;
        match self {
            Self::Pid(wanted) => *wanted == pid,
            Self::Comm(name) => cut(name),
            Self::Prefix(prefix) if prefix.len() > COMM => cut(prefix),
            Self::Prefix(prefix) => comm.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.is_match(comm),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "with pid {pid}"),
            Self::Comm(name) => write!(f, "with command {name}"),
            Self::Prefix(prefix) => write!(f, "with command {prefix}…"),
            Self::Regex(regex) => write!(f, "with command matching /{regex}/"),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// The directories to scope to; none is below another.
    pub directories: Vec<PathBuf>,
    /// The processes in them.
    pub pids: Vec<u32>,
    /// Processes that the rule means too, but whose directories cannot be scoped to.
    pub missed: Vec<NotFound>,
}

/// Why there is no directory to scope to.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// `/proc` or what is in it cannot be read.
    #[error("cannot read {}", .0.display())]
    Proc(PathBuf, #[source] io::Error),
    /// No process is meant.
    #[error(
        "no process {rules} among the {seen} in {}; in a container, others are visible only with hostPID or \
         shareProcessNamespace",
        .proc.display()
    )]
    Process {
        /// The rules, as a reader says them.
        rules: String,
        /// How many processes there were.
        seen: usize,
        /// Where.
        proc: PathBuf,
    },
    /// There is no version 2 of cgroups here.
    #[error("no cgroup v2 hierarchy is mounted, and a scope by cgroup needs one")]
    Hierarchy,
    /// The kernel knows no version 2.
    #[error("process {0} is in no cgroup v2 hierarchy")]
    Unified(u32),
    /// A directory that is not mounted here.
    #[error(
        "process {pid} is in cgroup {path}, which no mount of the cgroup v2 hierarchy shows here; mount the \
         host's /sys/fs/cgroup, or share the host's cgroup namespace"
    )]
    Unreachable {
        /// The process.
        pid: u32,
        /// Its path, relative to the root of the agent's cgroup namespace.
        path: String,
    },
    /// The root of all.
    #[error("process {0} is in the root cgroup, and a scope to that would be every task")]
    Root(u32),
    /// The agent runs in no pod.
    #[error("cgroup {} is in no Kubernetes pod, as far as mounts of the hierarchy show it here", .0.display())]
    Pod(PathBuf),
}

/// What the agent sees of processes and cgroups.
pub struct View {
    proc: PathBuf,
    pid: u32,
}

impl Default for View {
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl View {
    /// Through the procfs mounted at `proc`.
    pub fn new(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into(), pid: std::process::id() }
    }

    /// The directories of the processes that any of the rules means.
    pub fn find(&self, rules: &[Rule]) -> Result<Found, NotFound> {
        let mut seen = 0;
        let mut pids = Vec::new();
        for pid in self.pids()? {
            // A process may end while it is looked at: then it is no target.
            let Ok(comm) = fs::read(self.proc.join(format!("{pid}/comm"))) else { continue };
            seen += 1;
            let comm = String::from_utf8_lossy(&comm);
            let comm = comm.strip_suffix('\n').unwrap_or(&comm);
            if rules.iter().any(|rule| rule.matches(pid, comm)) {
                pids.push(pid);
            }
        }
        let hierarchy = self.hierarchy()?;
        let mut found = Found { directories: Vec::new(), pids: Vec::new(), missed: Vec::new() };
        for pid in pids {
            match hierarchy.place(pid, &self.proc.join(pid.to_string())) {
                Ok(place) => {
                    found.directories.push(place.directory());
                    found.pids.push(pid);
                }
                Err(NotFound::Proc(..)) => {}
                Err(reason) => found.missed.push(reason),
            }
        }
        if found.directories.is_empty() {
            let rules: Vec<_> = rules.iter().map(Rule::to_string).collect();
            let process =
                NotFound::Process { rules: rules.join(" or "), seen, proc: self.proc.clone() };
            return Err(found.missed.into_iter().next().unwrap_or(process));
        }
        found.directories.sort();
        // Sorted by component, what is above comes first; a scope to it holds what is below.
        found.directories.dedup_by(|below, above| below.starts_with(above));
        Ok(found)
    }

    /// The directory of the pod that the agent runs in, which holds its sibling containers.
    pub fn pod(&self) -> Result<PathBuf, NotFound> {
        let place = self.hierarchy()?.place(self.pid, &self.proc.join("self"))?;
        place
            .below
            .ancestors()
            .find(|above| {
                let identity = Identity::of_path(&above.to_string_lossy());
                identity.pod.is_some() && identity.container.is_none()
            })
            .map(|pod| place.mount.join(pod))
            .ok_or_else(|| NotFound::Pod(place.directory()))
    }

    /// Every process but the agent, in order.
    fn pids(&self) -> Result<Vec<u32>, NotFound> {
        // In a foreign procfs the agent has another number; `self` knows it.
        let own = fs::read_link(self.proc.join("self")).ok();
        let own = own.and_then(|link| link.to_str()?.parse().ok()).unwrap_or(self.pid);
        let entries = fs::read_dir(&self.proc).map_err(|e| NotFound::Proc(self.proc.clone(), e))?;
        let mut pids: Vec<u32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own)
            .collect();
        pids.sort_unstable();
        Ok(pids)
    }

    fn hierarchy(&self) -> Result<Hierarchy, NotFound> {
        let mountinfo = read(&self.proc.join("self/mountinfo"))?;
        let cgroup = read(&self.proc.join("self/cgroup"))?;
        let mounts = mount::mounts(&mountinfo);
        if mounts.is_empty() {
            return Err(NotFound::Hierarchy);
        }
        let own = mount::unified(&cgroup).map(Relative::new);
        let mounts = mounts
            .into_iter()
            .map(|mount| {
                let base = own.as_ref().and_then(|own| base(&mount, own, self.pid));
                (mount, base)
            })
            .collect();
        Ok(Hierarchy { mounts })
    }
}

/// The mounts of the v2 hierarchy, each with the way from its root to that of the agent's cgroup
/// namespace, if that is below and could be found out.
struct Hierarchy {
    mounts: Vec<(Mount, Option<PathBuf>)>,
}

/// A directory below a mount.
struct Place {
    mount: PathBuf,
    below: PathBuf,
}

impl Place {
    fn directory(&self) -> PathBuf {
        // Not `join`, which ends in a slash if nothing follows.
        self.mount.components().chain(self.below.components()).collect()
    }
}

impl Hierarchy {
    /// Where the process is whose directory in procfs this is.
    fn place(&self, pid: u32, proc: &Path) -> Result<Place, NotFound> {
        let cgroup = read(&proc.join("cgroup"))?;
        let path = mount::unified(&cgroup).ok_or(NotFound::Unified(pid))?;
        let way = Relative::new(path);
        let place = self
            .mounts
            .iter()
            .filter_map(|(mount, base)| {
                let below = way.below(&Relative::new(&mount.root), base.as_deref())?;
                Some(Place { mount: mount.point.clone(), below })
            })
            .find(|place| place.directory().is_dir())
            .ok_or_else(|| NotFound::Unreachable { pid, path: path.to_owned() })?;
        // cgroups(7): every cgroup but the root has this file.
        if !place.directory().join("cgroup.type").exists() {
            return Err(NotFound::Root(pid));
        }
        Ok(place)
    }
}

/// The way from a mount's root down to the root of the agent's cgroup namespace. No file says it, but
/// the agent is below that root, and the kernel lists it where it is.
fn base(mount: &Mount, own: &Relative<'_>, pid: u32) -> Option<PathBuf> {
    let root = Relative::new(&mount.root);
    if root.up == 0 || !root.down.is_empty() || own.up > 0 {
        return None;
    }
    let directory = holding(&mount.point, root.up + own.down.len(), pid)?;
    let way = directory.strip_prefix(&mount.point).ok()?;
    way.ends_with(own.down.iter().collect::<PathBuf>()).then(|| way.iter().take(root.up).collect())
}

/// The cgroup, so many levels below, that lists the process.
fn holding(directory: &Path, levels: usize, pid: u32) -> Option<PathBuf> {
    if levels == 0 {
        let listed = fs::read_to_string(directory.join("cgroup.procs")).ok()?;
        let pid = pid.to_string();
        return listed.lines().any(|line| line == pid).then(|| directory.to_owned());
    }
    fs::read_dir(directory)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| holding(&entry.path(), levels - 1, pid))
}

fn read(path: &Path) -> Result<String, NotFound> {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|error| NotFound::Proc(path.to_owned(), error))
}

#[cfg(test)]
mod tests;
