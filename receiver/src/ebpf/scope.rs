//! The scope of a receiver: which tasks its programs count. What is known before programs are loaded
//! goes into globals; what can change (a cgroup that is made anew, the processes that a pattern fits)
//! is looked for again at each collection and goes into maps.

mod target;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use abi::scope::{
    ANY_LEVEL, BY_ID, BY_PATTERN, CGROUP_COUNT, Cgroup, Found, MAX_CGROUPS, MAX_NAMES,
    MAX_NAMESPACES, MAX_PROCESSES, NAME_COUNT, NAMES, NAMESPACE_COUNT, NAMESPACES, Name,
    PROCESSES_USED,
};
use anyhow::{Context as _, Result, bail};
use regex::Regex;
use serde::{Deserialize, Serialize};

pub use self::target::Config as TargetConfig;
use self::target::Target;
use super::{globals::Globals, process};
use crate::{cgroup, config::Mistakes};

/// `scope`: what is set must all hold. Empty: every task.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directories in the cgroup v2 hierarchy; tasks in them or below them are counted.
    pub cgroups: Vec<PathBuf>,
    /// Processes whose cgroups are counted, beside those of `cgroups`: what a sidecar watches.
    pub cgroups_of: TargetConfig,
    /// Mount namespaces, as files such as `/proc/1/ns/mnt`.
    pub mount_namespaces: Vec<PathBuf>,
    /// Processes by their id in the initial pid namespace.
    pub pids: Vec<u32>,
    /// Processes by their name.
    pub comm: Comm,
}

/// `scope::comm`: names of processes, any of which will do. A process's name is that of its main thread, of
/// which the kernel keeps 15 bytes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Comm {
    /// Whole names.
    pub exact: Vec<String>,
    /// Beginnings of names.
    pub prefix: Vec<String>,
    /// Regular expressions. Processes that they fit are looked for at each collection: what a process does
    /// before it is found is not counted.
    pub regex: Vec<String>,
}

impl Comm {
    fn is_empty(&self) -> bool {
        let Self { exact, prefix, regex } = self;
        exact.is_empty() && prefix.is_empty() && regex.is_empty()
    }

    /// Reports what is wrong with it, below `key`; the regular expressions.
    fn check(&self, key: &str, wrong: &mut Mistakes) -> Vec<Regex> {
        for (list, names) in [("exact", &self.exact), ("prefix", &self.prefix)] {
            for (i, _) in names.iter().enumerate().filter(|(_, name)| name.is_empty()) {
                wrong.add(format!("{key}::{list}::{i}"), "is empty");
            }
        }
        let mut patterns = Vec::new();
        for (i, pattern) in self.regex.iter().enumerate() {
            match Regex::new(pattern) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    let text = error.to_string();
                    let last = text.lines().last().unwrap_or_default().trim();
                    let reason = last.trim_start_matches("error: ");
                    wrong.add(format!("{key}::regex::{i}"), reason);
                }
            }
        }
        patterns
    }
}

/// The scope, checked.
#[derive(Debug, Default)]
pub struct Scope {
    config: Config,
    patterns: Vec<Regex>,
    target: Option<Target>,
    mounts: Vec<PathBuf>,
}

/// What the scope means at the moment.
#[derive(Debug, Default, PartialEq)]
pub struct Resolved {
    /// Subtrees.
    pub cgroups: Vec<Cgroup>,
    /// The subtrees' directories, by the cgroups' ids.
    pub directories: BTreeMap<u64, PathBuf>,
    /// Processes by their id.
    pub processes: BTreeMap<u64, Found>,
    /// What of the scope does not exist, or not now: nothing is counted for it.
    pub problems: Vec<String>,
}

impl Scope {
    /// Checks what can be checked without looking at the machine.
    pub fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let lengths = [
            ("cgroups", config.cgroups.len(), MAX_CGROUPS),
            ("mount_namespaces", config.mount_namespaces.len(), MAX_NAMESPACES),
            ("comm", config.comm.exact.len() + config.comm.prefix.len(), MAX_NAMES),
            ("pids", config.pids.len(), MAX_PROCESSES as usize),
        ];
        for (key, length, most) in lengths {
            wrong.require(
                length <= most,
                key,
                &format!("has more than the {most} that it may have"),
            );
        }
        for (key, paths) in
            [("cgroups", &config.cgroups), ("mount_namespaces", &config.mount_namespaces)]
        {
            for (i, _) in paths.iter().enumerate().filter(|(_, path)| path.as_os_str().is_empty()) {
                wrong.add(format!("{key}::{i}"), "is empty");
            }
        }
        for (i, _) in config.pids.iter().enumerate().filter(|(_, pid)| **pid == 0) {
            wrong.add(format!("pids::{i}"), "is no process: their ids begin at 1");
        }
        let patterns = config.comm.check("comm", &mut wrong);
        let target = Target::new(&config.cgroups_of).unwrap_or_else(|nested| {
            wrong.nest("cgroups_of", nested);
            None
        });
        wrong.or(Self { config, patterns, target, mounts: Vec::new() })
    }

    /// Looks at the machine for what does not change.
    pub fn open(&mut self) -> Result<()> {
        if self.asks_for_cgroups() {
            self.mounts = mounts()?;
            if self.mounts.is_empty() {
                bail!("no cgroup v2 hierarchy is mounted, and a scope by cgroup needs one");
            }
        }
        Ok(())
    }

    /// Whether it names cgroups, or processes whose cgroups are meant.
    pub fn asks_for_cgroups(&self) -> bool {
        !self.config.cgroups.is_empty() || self.target.is_some()
    }

    /// Whether cgroups are all that it asks for.
    pub fn is_cgroups_alone(&self) -> bool {
        self.asks_for_cgroups() && !self.asks_for_tasks()
    }

    /// Whether it asks for anything.
    pub fn asks(&self) -> bool {
        self.asks_for_cgroups() || self.asks_for_tasks()
    }

    /// Whether it asks for what only a task has.
    pub fn asks_for_tasks(&self) -> bool {
        let Config { mount_namespaces, pids, comm, .. } = &self.config;
        !(mount_namespaces.is_empty() && pids.is_empty() && comm.is_empty())
    }

    /// The kernel's fields without which it cannot be decided.
    pub fn needs(&self) -> Vec<&'static str> {
        const NAMESPACE: [&str; 3] =
            ["task_struct.nsproxy", "nsproxy.mnt_ns", "mnt_namespace.ns.inum"];
        const NAME: [&str; 2] = ["task_struct.group_leader", "task_struct.comm"];
        const PROCESS: [&str; 2] = ["task_struct.group_leader", "task_struct.start_boottime"];
        let Config { mount_namespaces, pids, comm, .. } = &self.config;
        let mut needs = Vec::new();
        if !mount_namespaces.is_empty() {
            needs.extend(NAMESPACE);
        }
        if !comm.exact.is_empty() || !comm.prefix.is_empty() {
            needs.extend(NAME);
        }
        if !pids.is_empty() || !comm.regex.is_empty() {
            needs.extend(PROCESS);
        }
        needs
    }

    /// Sets the globals.
    pub fn set(&self, globals: &mut Globals) -> Result<()> {
        let Config { cgroups, mount_namespaces, pids, comm, .. } = &self.config;
        // How many a target has is known later alone.
        let places = if self.target.is_some() { MAX_CGROUPS } else { cgroups.len() };
        globals.number(CGROUP_COUNT, places as u32);

        let mut namespaces = [0_u32; MAX_NAMESPACES];
        for (place, path) in namespaces.iter_mut().zip(mount_namespaces) {
            let file = fs::metadata(path)
                .with_context(|| format!("cannot scope to mount namespace {}", path.display()))?;
            // Numbers of namespaces are 32 bits wide (`ns_common.inum`).
            *place = u32::try_from(file.ino()).unwrap_or(0);
        }
        globals.bytes(NAMESPACES, namespaces.map(u32::to_ne_bytes).concat());
        globals.number(NAMESPACE_COUNT, mount_namespaces.len() as u32);

        let exact = comm.exact.iter().map(|name| Name::new(name.as_bytes(), true));
        let prefix = comm.prefix.iter().map(|name| Name::new(name.as_bytes(), false));
        let mut names: Vec<Name> = exact.chain(prefix).collect();
        globals.number(NAME_COUNT, names.len() as u32);
        names.resize(MAX_NAMES, Name::NONE);
        let words = names.iter().flat_map(|name| [name.bytes, name.mask].concat());
        globals.bytes(NAMES, words.flat_map(u64::to_ne_bytes).collect::<Vec<u8>>());

        let by_id = if pids.is_empty() { 0 } else { BY_ID };
        let by_pattern = if self.patterns.is_empty() { 0 } else { BY_PATTERN };
        globals.number(PROCESSES_USED, by_id | by_pattern);
        Ok(())
    }

    /// Looks for what it names.
    pub fn resolve(&self) -> Resolved {
        let mut resolved = Resolved::default();
        for path in &self.config.cgroups {
            resolved.cgroup(path, &self.mounts);
        }
        if let Some(target) = &self.target {
            let (directories, problems) = target.find();
            resolved
                .problems
                .extend(problems.iter().map(|problem| format!("cgroups_of: {problem}")));
            for directory in directories {
                resolved.cgroup(&directory, &self.mounts);
            }
            if resolved.cgroups.len() > MAX_CGROUPS {
                resolved.problems.push(format!(
                    "cgroups_of: with it there are {} cgroups, of which {MAX_CGROUPS} are counted",
                    resolved.cgroups.len()
                ));
                for more in resolved.cgroups.drain(MAX_CGROUPS..) {
                    resolved.directories.remove(&more.id);
                }
            }
        }
        for pid in &self.config.pids {
            match process::start_ticks(*pid) {
                Some(start_ticks) => {
                    resolved.found(*pid, start_ticks, BY_ID);
                }
                None => resolved.problems.push(format!("pid {pid}: no such process")),
            }
        }
        if !self.patterns.is_empty() {
            let mut found = 0;
            for pid in process::all() {
                let fits = |name: String| self.patterns.iter().any(|p| p.is_match(&name));
                if let Some(start_ticks) = process::start_ticks(pid)
                    && process::name(pid).is_some_and(fits)
                {
                    found += 1;
                    resolved.found(pid, start_ticks, BY_PATTERN);
                }
            }
            if found == 0 {
                resolved.problems.push("comm::regex: fits no process".to_owned());
            }
            if found > MAX_PROCESSES as usize {
                resolved.problems.push(format!(
                    "comm::regex: fits {found} processes, of which {MAX_PROCESSES} are counted"
                ));
                while resolved.processes.len() > MAX_PROCESSES as usize {
                    resolved.processes.pop_last();
                }
            }
        }
        resolved
    }
}

impl Resolved {
    fn cgroup(&mut self, path: &Path, mounts: &[PathBuf]) {
        match cgroup(path, mounts) {
            Ok(cgroup) => {
                self.directories.insert(cgroup.id, path.to_owned());
                self.cgroups.push(cgroup);
            }
            Err(error) => self.problems.push(format!("cgroup {}: {error:#}", path.display())),
        }
    }

    fn found(&mut self, pid: u32, start_ticks: u64, criterion: u32) {
        let found = Found { start_ticks, criteria: 0, pad: 0 };
        self.processes.entry(pid.into()).or_insert(found).criteria |= criterion;
    }
}

/// Where the cgroup v2 hierarchy is mounted.
pub fn mounts() -> Result<Vec<PathBuf>> {
    const FILE: &str = "/proc/self/mountinfo";
    let mountinfo = fs::read(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let mounts = cgroup::mounts(&String::from_utf8_lossy(&mountinfo));
    Ok(mounts.into_iter().map(|mount| mount.point).collect())
}

fn cgroup(path: &Path, mounts: &[PathBuf]) -> Result<Cgroup> {
    let path = fs::canonicalize(path)?;
    let inside = |mount: &PathBuf| Some((mount.clone(), path.strip_prefix(mount).ok()?.to_owned()));
    let Some((mount, below)) = mounts.iter().find_map(inside) else {
        let mounts: Vec<_> = mounts.iter().map(|m| m.display().to_string()).collect();
        bail!("it is not in the cgroup v2 hierarchy, which is mounted at {}", mounts.join(", "));
    };
    let directory = fs::metadata(&path)?;
    if !directory.is_dir() {
        bail!("it is not a directory");
    }
    // The id of a cgroup is the inode number of its directory (kernfs).
    // Of a mount that does not begin at the root of the hierarchy, only the kernel knows how deep it is.
    let level = match fs::metadata(mount)?.ino() {
        cgroup::ROOT => below.components().count() as u32,
        _ => ANY_LEVEL,
    };
    Ok(Cgroup { id: directory.ino(), level, pad: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cgroup_is_refused_with_the_reason() {
        let mounts = [PathBuf::from("/sys/fs/cgroup")];
        let error = |path: &str| cgroup(Path::new(path), &mounts).expect_err(path).to_string();
        assert!(error("/no/such/cgroup").contains("No such file or directory"));
        assert!(error("/tmp").contains("not in the cgroup v2 hierarchy"));
    }

    #[test]
    fn processes_are_found_by_id_and_by_pattern() {
        let pid = std::process::id();
        let own = process::name(pid).expect("this process has a name");
        let comm = Comm { regex: vec![format!("^{}$", regex::escape(&own))], ..Comm::default() };
        let config = Config { pids: vec![pid], comm, ..Config::default() };
        let resolved = Scope::new(config).expect("it is valid").resolve();
        assert_eq!(
            resolved.processes.get(&pid.into()).map(|f| f.criteria),
            Some(BY_ID | BY_PATTERN)
        );
        assert_eq!(resolved.problems, [""; 0]);

        // The greatest id that a kernel gives out is 4194303.
        let config = Config { pids: vec![4_194_304], ..Config::default() };
        let resolved = Scope::new(config).expect("it is valid").resolve();
        assert_eq!(resolved.problems, ["pid 4194304: no such process"]);
    }

    #[test]
    fn patterns_that_are_none_are_reported() {
        let comm =
            Comm { regex: vec!["a(".to_owned()], exact: vec![String::new()], ..Comm::default() };
        let wrong = Scope::new(Config { comm, ..Config::default() }).expect_err("both are wrong");
        let text = format!("{wrong:?}");
        assert!(text.contains("comm::regex::0") && text.contains("unclosed group"), "{text}");
        assert!(text.contains("comm::exact::0"), "{text}");
    }
}
