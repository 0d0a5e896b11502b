//! The agent under test: the real binary, as a user starts it.
#![expect(
    unsafe_code,
    reason = "between fork and exec: what makes a container of a process is asked for by the process itself"
)]

use std::{
    ffi::{CString, OsStr},
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::NamedTempFile;

use crate::{
    deadline::wait_for,
    scrape::{self, Scrape},
    unseen,
};
pub use crate::{modes::Mode, setup::Setup};

/// The agent's binary.
pub fn binary() -> Result<PathBuf> {
    built("fathom")
}

/// A binary that `cargo build` puts beside the directory of the test programs.
///
/// Found when the test runs, since it may run on another machine than the one that built it.
pub fn built(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory = program.ancestors().nth(2).context("the test program lies in no directory")?;
    let binary = directory.join(name);
    ensure!(binary.is_file(), "no {}: build it first, or use `cargo xtask test`", binary.display());
    Ok(binary)
}

/// What stands behind a key in the text of a `/proc/PID/fdinfo`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// A running agent; it is killed with the value, if it still runs.
pub struct Agent {
    child: Child,
    metrics: SocketAddr,
    log: Arc<Mutex<String>>,
    logging: Option<JoinHandle<()>>,
    /// Removed with the value.
    config: Option<NamedTempFile>,
}

/// How an agent ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it logged.
    pub log: String,
}

impl Agent {
    /// Starts it and waits until it has attached and shows its first collection.
    pub fn start(setup: &Setup) -> Result<Self> {
        let mut agent = Self::spawn(setup)?;
        agent.ready()?;
        Ok(agent)
    }

    /// Waits until it shows its first collection.
    pub fn ready(&mut self) -> Result<()> {
        wait_for("first collection", || {
            let status = self.child.try_wait()?;
            ensure!(status.is_none(), "the agent ended: {status:?}\n{}", self.log());
            // Nothing listens yet at first.
            let Ok(text) = scrape::get(self.metrics, "/metrics") else { return Ok(None) };
            let scrape = Scrape::parse(&text)?;
            Ok((scrape.all("ebpf_probe_status", &[]).count() > 0).then_some(()))
        })
    }

    /// Starts one that must refuse, and waits until it has ended.
    pub fn refused(setup: &Setup) -> Result<Ended> {
        Self::spawn(setup)?.ended()
    }

    /// Starts one with these arguments, which make it serve Prometheus on `metrics`.
    pub fn run<A: AsRef<OsStr>>(metrics: SocketAddr, arguments: &[A]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(arguments);
        Self::start_command(metrics, command)
    }

    fn start_command(metrics: SocketAddr, mut command: Command) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("start fathom")?;
        let stderr = BufReader::new(child.stderr.take().context("stderr")?);
        let log = Arc::new(Mutex::new(String::new()));
        let logging = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        Ok(Self { child, metrics, log, logging: Some(logging), config: None })
    }

    fn spawn(setup: &Setup) -> Result<Self> {
        let metrics = free_address()?;
        let config = setup.file(metrics)?;
        let mut command = match setup.descriptors {
            None => Command::new(binary()?),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {most}; exec \"$0\" \"$@\"")).arg(binary()?);
                shell
            }
        };
        command.arg("--config").arg(config.path());
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        if let Some(container) = &setup.container {
            contain(&mut command, container)?;
        }
        if !setup.hidden.is_empty() {
            hide(&mut command, &setup.hidden)?;
        }
        let mut agent = Self::start_command(metrics, command)?;
        agent.config = Some(config);
        Ok(agent)
    }

    /// Makes it read another configuration, and returns what it has said about that.
    pub fn reload(&self, setup: &Setup) -> Result<String> {
        self.reload_text(&setup.yaml(self.metrics)?)
    }

    /// As [`Agent::reload`], with a configuration that need not be one.
    pub fn reload_text(&self, text: &str) -> Result<String> {
        let config = self.config.as_ref().context("it was started without a file")?;
        fs::write(config.path(), text)?;
        let before = self.log().len();
        kill(self.pid(), Signal::SIGHUP)?;
        wait_for("the reload", || {
            let said = self.log().split_off(before);
            let line = ["Configuration reloaded", "Configuration not reloaded"];
            Ok(line.iter().any(|line| said.contains(line)).then_some(said))
        })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Its resident memory that is no file's, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("RssAnon")?;
        Ok(kib.parse::<u64>()? << 10)
    }

    /// Entries of its hashes `name` in the kernel whose keys and values are one word.
    pub fn entries(&self, name: &str) -> Result<usize> {
        self.entries_of::<u64>(name)
    }

    /// Entries of its hashes `name` in the kernel whose keys are one word and whose values are such.
    fn entries_of<V: Pod>(&self, name: &str) -> Result<usize> {
        let (mut maps, mut entries) = (0, 0);
        for map in self.maps(name)? {
            if map.info()?.value_size() as usize == size_of::<V>() {
                let map: HashMap<_, u64, V> = Map::HashMap(map).try_into()?;
                entries += map.keys().collect::<Result<Vec<_>, _>>()?.len();
                maps += 1;
            }
        }
        ensure!(maps > 0, "the agent has no map {name}");
        Ok(entries)
    }

    /// Its maps of a name, of which the kernel keeps 15 bytes.
    pub fn maps(&self, name: &str) -> Result<Vec<MapData>> {
        let mut maps = Vec::new();
        for text in self.descriptors()? {
            let Some(id) = value(&text, "map_id:") else { continue };
            let map = MapData::from_id(id.parse()?)?;
            if map.info()?.name_as_str() == Some(name) {
                maps.push(map);
            }
        }
        Ok(maps)
    }

    /// What the kernel says of its programs: how often they have run, and for how many ns.
    pub fn runs(&self) -> Result<(u64, u64)> {
        let (mut runs, mut nanos) = (0, 0);
        for text in self.descriptors()? {
            if let (Some(more), Some(time)) =
                (value(&text, "run_cnt:"), value(&text, "run_time_ns:"))
            {
                runs += more.parse::<u64>()?;
                nanos += time.parse::<u64>()?;
            }
        }
        Ok((runs, nanos))
    }

    /// The instructions that the verifier looked at in each of its programs; `None` of each where the kernel does not say
    /// (before Linux 5.16).
    pub fn verified(&self) -> Result<Vec<Option<u64>>> {
        let descriptors = self.descriptors()?;
        let programs = descriptors.iter().filter(|text| value(text, "prog_jited:").is_some());
        let verified = programs.map(|text| value(text, "verified_insns:"));
        verified.map(|count| Ok(count.map(str::parse).transpose()?)).collect()
    }

    /// What the kernel says of each of its descriptors.
    fn descriptors(&self) -> Result<Vec<String>> {
        let files = fs::read_dir(format!("/proc/{}/fdinfo", self.pid()))?;
        // A descriptor may be closed meanwhile.
        Ok(files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok()).collect())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the endpoint shows now.
    pub fn scrape(&self) -> Result<Scrape> {
        let scrape = Scrape::parse(&scrape::get(self.metrics, "/metrics")?)?;
        unseen::remember(&scrape);
        Ok(scrape)
    }

    /// What the endpoint shows when all that has happened until now must be in it.
    pub fn settled(&self) -> Result<Scrape> {
        let mut last = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        // The first collection with a later time may have read the maps before now; the second has
        // not; the third shows that the second is complete.
        let mut shown = self.later(last)?;
        for _ in 0..2 {
            last = shown.time().context("the endpoint shows no timestamps")?;
            shown = self.later(last)?;
        }
        Ok(shown)
    }

    fn later(&self, last: i64) -> Result<Scrape> {
        wait_for("a further collection", || {
            let scrape = self.scrape()?;
            // One that a reload has just started shows nothing yet.
            Ok(scrape.time().is_some_and(|time| time > last).then_some(scrape))
        })
    }

    /// Sends it `signal` and waits until it has ended.
    pub fn stop(self, signal: Signal) -> Result<Ended> {
        kill(self.pid(), signal)?;
        self.ended()
    }

    fn ended(mut self) -> Result<Ended> {
        let status = wait_for("the agent's end", || Ok(self.child.try_wait()?))?;
        if let Some(logging) = self.logging.take() {
            // Ends with the pipe, and only panics if it must.
            let _ = logging.join();
        }
        Ok(Ended { status, log: self.log() })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Shown only when the test fails.
        println!("log of the agent:\n{}", self.log());
    }
}

/// Makes the process join the cgroup before it starts, and see nothing above it.
fn contain(command: &mut Command, cgroup: &Path) -> Result<()> {
    let mut procs = OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"))?;
    let enter = move || {
        // cgroups(7): 0 is the process that writes.
        procs.write_all(b"0")?;
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(io::Error::from)
    };
    // SAFETY: two system calls, and no memory is allocated.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Gives the process a view of the file system in which these directories are empty.
fn hide(command: &mut Command, directories: &[PathBuf]) -> Result<()> {
    let paths = directories.iter().map(|path| CString::new(path.as_os_str().as_bytes()));
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    let hide = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let (nothing, none) = (None::<&str>, MsFlags::empty());
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        for path in &paths {
            mount(Some("none"), path.as_c_str(), Some("tmpfs"), none, nothing)?;
        }
        Ok(())
    };
    // SAFETY: system calls alone; the paths are of a form, or short enough, that needs no allocation.
    unsafe { command.pre_exec(hide) };
    Ok(())
}

/// An address of the loopback that nothing listens on.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
