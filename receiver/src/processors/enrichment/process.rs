//! What a process is called, from `/proc`, once per process.
//!
//! A number alone is no identity: the kernel gives it again when its process has died, and a process
//! becomes another program with execve. So an identity belongs to a number and a start time, and is
//! read again when the command has changed.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use regex::Regex;

use crate::{
    cgroup::{Cache, Identity},
    metric::pairs,
};

/// The attributes that a process gives, besides those of its cgroup.
pub const ATTRIBUTES: [&str; 4] =
    ["process.command", "process.executable.name", "process.executable.path", "process.owner"];

/// Its arguments.
pub const COMMAND_LINE: &str = "process.command_line";

/// Bytes of arguments that are read.
const LONGEST: u64 = 4096;

/// How far apart two clocks' words for the same start may be: the kernel counts it in ticks, and the
/// time of its boot is known to us through a clock that may be adjusted meanwhile.
const SAME: Duration = Duration::from_secs(1);

/// How long a process that is known by its start time is believed to still run the same program.
const PROGRAM: Duration = Duration::from_secs(30);

/// What stands for a secret.
const REDACTED: &str = "****";

/// Reads processes.
pub struct Reader {
    proc: PathBuf,
    passwd: PathBuf,
    /// Where the names in `passwd` are those of the users.
    home: Place,
    ticks: u64,
    /// What is redacted; `None`: arguments are not read.
    redact: Option<Vec<Regex>>,
}

/// What decides whether a user's number means the same in two processes.
#[derive(PartialEq, Eq)]
struct Place {
    users: Option<PathBuf>,
    cgroups: Option<PathBuf>,
    container: Option<String>,
}

/// What tells one process from another, and one program of it from the next.
#[derive(Clone, PartialEq, Eq)]
struct Stat {
    comm: String,
    /// In ticks since the machine's boot.
    start: u64,
}

impl Reader {
    /// For the machine whose root is at `root`.
    pub fn new(root: &Path, redact: Option<Vec<Regex>>) -> Self {
        let proc = root.join("proc");
        // The names are in the file that stands here, which is the agent's own or its machine's.
        let user = proc.join(if root == Path::new("/") { "self" } else { "1" });
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
        Self {
            home: place(&user),
            passwd: root.join("etc/passwd"),
            proc,
            ticks: ticks.ok().flatten().and_then(|t| t.try_into().ok()).unwrap_or(100),
            redact,
        }
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        let stat = text(&self.proc.join(format!("{pid}/stat"))).ok()?;
        // proc_pid_stat(5): the command stands in parentheses and may hold some itself.
        let (before, after) = stat.rsplit_once(')')?;
        let comm = before.split_once('(')?.1.to_owned();
        // The start is field 22; the one after the command is field 3.
        let start = after.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Stat { comm, start })
    }

    /// When the machine was started, by today's clock.
    fn boot(&self) -> Option<SystemTime> {
        let uptime = text(&self.proc.join("uptime")).ok()?;
        let seconds: f64 = uptime.split(' ').next()?.parse().ok()?;
        SystemTime::now().checked_sub(Duration::try_from_secs_f64(seconds).ok()?)
    }

    /// Whether a process that started at these ticks is the one created then.
    fn began(&self, stat: &Stat, created: SystemTime) -> bool {
        let since = Duration::from_millis(stat.start.saturating_mul(1000) / self.ticks.max(1));
        let began = self.boot().and_then(|boot| boot.checked_add(since));
        began.is_some_and(|began| {
            let apart = began.duration_since(created).or_else(|_| created.duration_since(began));
            apart.is_ok_and(|apart| apart <= SAME)
        })
    }

    /// Everything about a process; `None` if it ended meanwhile.
    fn read(&self, pid: u32, stat: &Stat) -> Option<Arc<[KeyValue]>> {
        let directory = self.proc.join(pid.to_string());
        let executable = fs::read_link(directory.join("exe")).ok();
        let executable = executable.as_deref().map(Path::to_string_lossy);
        // The kernel's mark of a file that has been replaced, as by an update.
        let executable = executable.as_deref().map(|e| e.strip_suffix(" (deleted)").unwrap_or(e));
        let mut said = Vec::new();
        if let Some(path) = executable {
            said.push(("process.executable.path", path.to_owned()));
            if let Some(name) = path.rsplit('/').next() {
                said.push(("process.executable.name", name.to_owned()));
            }
        }
        let arguments = self.arguments(&directory.join("cmdline"));
        if let Some(command) = arguments.first() {
            said.push(("process.command", command.clone()));
            if let Some(redact) = &self.redact {
                said.push((COMMAND_LINE, redacted(arguments.join(" "), redact)));
            }
        }
        said.extend(self.owner(&directory).map(|owner| ("process.owner", owner)));
        let cgroup = text(&directory.join("cgroup")).unwrap_or_default();
        let identity = Identity::of_process(&cgroup);
        said.extend(identity.attributes().map(|(key, value)| (key, value.to_owned())));
        // What was read belongs together only if it was the same process and program throughout.
        if self.stat(pid).as_ref() != Some(stat) {
            return None;
        }
        let said: Vec<_> = said.iter().map(|(key, value)| (*key, value.as_str())).collect();
        Some(pairs(&said).into())
    }

    fn arguments(&self, cmdline: &Path) -> Vec<String> {
        let mut bytes = Vec::new();
        let read = fs::File::open(cmdline).and_then(|f| f.take(LONGEST).read_to_end(&mut bytes));
        // A kernel thread has none; a program that renames itself may leave zeros at the end.
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        if read.is_err() || end == 0 {
            return Vec::new();
        }
        bytes[..end].split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
    }

    /// The name of the effective user, where it can be known: a container has users of its own.
    fn owner(&self, directory: &Path) -> Option<String> {
        if place(directory) != self.home {
            return None;
        }
        let status = text(&directory.join("status")).ok()?;
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let id = ids.split_ascii_whitespace().nth(1)?;
        let passwd = text(&self.passwd).ok()?;
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == id).then(|| name.to_owned())
        })
    }
}

fn place(directory: &Path) -> Place {
    let namespace = |name| fs::read_link(directory.join("ns").join(name)).ok();
    let cgroup = text(&directory.join("cgroup")).unwrap_or_default();
    Place {
        users: namespace("user"),
        cgroups: namespace("cgroup"),
        container: Identity::of_process(&cgroup).container.map(|container| container.id),
    }
}

fn redacted(line: String, patterns: &[Regex]) -> String {
    patterns.iter().fold(line, |line, p| p.replace_all(&line, REDACTED).into_owned())
}

/// A file of the kernel's, which may hold any bytes.
fn text(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Names processes, and remembers.
pub struct Processes {
    reader: Reader,
    known: Cache<Key, Entry>,
    hits: u64,
    misses: u64,
}

/// A process's number, and when it was created, if the data says so.
type Key = (u32, Option<SystemTime>);

struct Entry {
    /// `None`: no such process is there.
    process: Option<(Stat, Arc<[KeyValue]>)>,
    checked: Instant,
}

impl Processes {
    /// Remembers at most `capacity` processes, and each for `stale_after` since it was last asked for.
    pub fn new(reader: Reader, capacity: usize, stale_after: Duration) -> Self {
        Self { reader, known: Cache::new(capacity, stale_after), hits: 0, misses: 0 }
    }

    /// Answers from memory, questions that it could not answer, and what was forgotten for want of
    /// room: so far.
    pub fn counts(&self) -> [u64; 3] {
        [self.hits, self.misses, self.known.evicted()]
    }

    /// Forgets what nobody has asked for in a while.
    pub fn expire(&mut self, now: Instant) {
        self.known.expire(now);
    }

    /// The attributes of a process, or none. Everything asked for at the same `now` is answered from
    /// one look.
    pub fn get(
        &mut self,
        pid: u32,
        created: Option<SystemTime>,
        now: Instant,
    ) -> Option<Arc<[KeyValue]>> {
        if let Some(entry) = self.known.get((pid, created), now) {
            let age = now.saturating_duration_since(entry.checked);
            let due = match (&entry.process, created) {
                // By its number alone, it may be another one each time.
                (_, None) => !age.is_zero(),
                (Some(_), Some(_)) => age >= PROGRAM,
                // What was not there under this start time will not come back.
                (None, Some(_)) => false,
            };
            let unchanged = due && {
                entry.checked = now;
                match (&entry.process, self.reader.stat(pid)) {
                    // It has died, or its number is another's by now: it keeps its name.
                    (Some(_), None) => true,
                    (Some((old, _)), Some(new)) => {
                        *old == new || created.is_some() && old.start != new.start
                    }
                    (None, new) => new.is_none(),
                }
            };
            if !due || unchanged {
                self.hits += 1;
                return entry.process.as_ref().map(|(_, attributes)| attributes.clone());
            }
        }
        self.misses += 1;
        let stat = self
            .reader
            .stat(pid)
            .filter(|stat| created.is_none_or(|created| self.reader.began(stat, created)));
        let process = match stat {
            // Changed while it was read: the next question finds it in peace.
            Some(stat) => Some((stat.clone(), self.reader.read(pid, &stat)?)),
            None => None,
        };
        let attributes = process.as_ref().map(|(_, attributes)| attributes.clone());
        self.known.insert((pid, created), Entry { process, checked: now }, now);
        attributes
    }
}
