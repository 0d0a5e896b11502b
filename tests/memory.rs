//! A cgroup with a memory limit, in whichever hierarchy has the memory controller, and what the
//! kernel counts when it reclaims.

use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use tempfile::{NamedTempFile, TempPath};

use crate::cgroup::{Cgroup, hierarchy, move_to};

/// A cgroup whose processes may use so much memory and no more.
#[derive(Debug)]
pub struct Limited {
    scope: Cgroup,
    /// Where the limit is, if the memory controller has a hierarchy (v1) of its own.
    limit: Option<Cgroup>,
}

impl Limited {
    /// A new cgroup, limited to `bytes`, nothing of which is swapped.
    pub fn new(bytes: u64) -> Result<Self> {
        let limited = Self::made(bytes, "memory.max")?;
        // Neither is there if swap is not accounted to cgroups.
        for (file, value) in [("memory.memsw.limit_in_bytes", bytes), ("memory.swap.max", 0)] {
            let path = limited.charged().join(file);
            if path.exists() {
                set(&path, value)?;
            }
        }
        Ok(limited)
    }

    /// A new cgroup, limited to `bytes`, whose memory may be swapped. Where the kernel can, it slows those down who want
    /// more: a slow disk is no reason to kill them.
    pub fn swapping(bytes: u64) -> Result<Self> {
        Self::made(bytes, "memory.high")
    }

    fn made(bytes: u64, limit_of_v2: &str) -> Result<Self> {
        if let Ok(memory) = hierarchy("cgroup", "memory") {
            let limit = Cgroup::below(&memory)?;
            set(&limit.path().join("memory.limit_in_bytes"), bytes)?;
            return Ok(Self { scope: Cgroup::new()?, limit: Some(limit) });
        }
        set(&hierarchy("cgroup2", "")?.join("cgroup.subtree_control"), "+memory")?;
        let scope = Cgroup::new()?;
        set(&scope.path().join(limit_of_v2), bytes)?;
        Ok(Self { scope, limit: None })
    }

    /// The v2 cgroup, which an agent can be scoped to.
    pub fn scope(&self) -> &Cgroup {
        &self.scope
    }

    /// Pages of a kind, `file` or `anon`, that have come back to it after they had been reclaimed, as its
    /// `memory.stat` says: before Linux 5.13 (`MEMCG_CHARGE_BATCH`) without the last 32 of each CPU.
    pub fn refaults(&self, kind: &str) -> Result<RangeInclusive<u64>> {
        let path = self.charged().join("memory.stat");
        let stat = fs::read_to_string(&path)?;
        // Before Linux 5.9 the kernel did not tell pages of files from others.
        let name = format!("workingset_refault_{kind} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name));
        let count = line.with_context(|| format!("{} has no {name}", path.display()))?;
        let told = count.parse()?;
        let behind = match release()? < (5, 13) {
            true => 32 * thread::available_parallelism()?.get() as u64,
            false => 0,
        };
        Ok(told..=told + behind)
    }

    /// Pages that it has swapped, as its `memory.stat` says; `None` if that does not say.
    pub fn swapped(&self) -> Result<Option<Swapped>> {
        let path = self.scope.path().join("memory.stat");
        Ok(fs::read_to_string(path).ok().and_then(|stat| Swapped::parse(&stat)))
    }

    /// The cgroup that its memory is charged to.
    fn charged(&self) -> &Path {
        self.limit.as_ref().unwrap_or(&self.scope).path()
    }

    /// Moves a process into it.
    pub fn add(&self, pid: Pid) -> Result<()> {
        if let Some(limit) = &self.limit {
            limit.add(pid)?;
        }
        self.scope.add(pid)
    }

    /// Moves a process out of it, to the top of each hierarchy.
    pub fn leave(&self, pid: Pid) -> Result<()> {
        if self.limit.is_some() {
            move_to(&hierarchy("cgroup", "memory")?, pid)?;
        }
        self.scope.leave(pid)
    }
}

fn set(path: &Path, value: impl ToString) -> Result<()> {
    fs::write(path, value.to_string()).with_context(|| path.display().to_string())
}

/// What the machine swaps to, as long as the value lives.
#[derive(Debug)]
pub struct Swap {
    path: PathBuf,
    behind: Behind,
}

/// What a machine can swap to.
#[derive(Debug)]
enum Behind {
    /// A file, gone with the value.
    File(#[expect(dead_code, reason = "it is kept until the end")] TempPath),
    /// Memory in which pages lie compressed: a zram device of this number.
    Memory(u32),
}

impl Swap {
    /// Room for `bytes`, in a file of `directory`. `None` if this machine cannot swap.
    pub fn new(directory: &Path, bytes: u64) -> Result<Option<Self>> {
        let file = NamedTempFile::new_in(directory)?;
        // The kernel wants one without holes.
        io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file.as_file())?;
        file.as_file().sync_all()?;
        let file = file.into_temp_path();
        Ok(Self { path: file.to_owned(), behind: Behind::File(file) }.on())
    }

    /// Room for `bytes` in a zram device. `None` if this machine has none, or cannot swap.
    pub fn compressed(bytes: u64) -> Result<Option<Self>> {
        // Reading it makes a device.
        let Ok(number) = fs::read_to_string(ZRAM.to_owned() + "hot_add") else { return Ok(None) };
        let number = number.trim().parse()?;
        let swap =
            Self { path: format!("/dev/zram{number}").into(), behind: Behind::Memory(number) };
        set(Path::new(&format!("/sys/block/zram{number}/disksize")), bytes)?;
        Ok(swap.on())
    }

    /// The device's name, if it is one.
    pub fn device(&self) -> Option<String> {
        match self.behind {
            Behind::File(_) => None,
            Behind::Memory(number) => Some(format!("zram{number}")),
        }
    }

    fn on(self) -> Option<Self> {
        let runs = |command: &str| {
            let output = Command::new(command).arg(&self.path).output();
            output.is_ok_and(|output| output.status.success())
        };
        (runs("mkswap") && runs("swapon")).then_some(self)
    }
}

/// Where zram devices are made and removed.
const ZRAM: &str = "/sys/class/zram-control/";

impl Drop for Swap {
    fn drop(&mut self) {
        // It fails if nothing was swapped to it.
        let _ = Command::new("swapoff").arg(&self.path).output();
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        if swaps.lines().any(|line| line.split(' ').next() == self.path.to_str()) {
            eprintln!("{} is still swapped to", self.path.display());
        }
        if let Behind::Memory(number) = self.behind
            && let Err(error) = set(Path::new(&(ZRAM.to_owned() + "hot_remove")), number)
        {
            eprintln!("{} stays: {error:#}", self.path.display());
        }
    }
}

/// What all reclaim of the machine has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    /// Pages scanned.
    pub scanned: u64,
    /// Pages freed.
    pub freed: u64,
    /// Pages scanned by tasks, because the machine was short of memory.
    pub direct: u64,
    /// Pages scanned by kswapd.
    pub kswapd: u64,
}

impl Reclaimed {
    /// As `/proc/vmstat` says. Its sums by origin leave out what a memory cgroup's limit caused;
    /// those by kind of page do not.
    pub fn now() -> Result<Self> {
        // Newer kernels count them on each CPU, and add them up later, unless they are asked to.
        set(Path::new("/proc/sys/vm/stat_refresh"), 1)?;
        let vmstat = fs::read_to_string("/proc/vmstat")?;
        let value = |name: &str| -> Result<u64> {
            let line = vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(line.with_context(|| format!("/proc/vmstat has no {name}"))?.parse()?)
        };
        Ok(Self {
            scanned: value("pgscan_anon")? + value("pgscan_file")?,
            freed: value("pgsteal_anon")? + value("pgsteal_file")?,
            direct: value("pgscan_direct")?,
            kswapd: value("pgscan_kswapd")?,
        })
    }
}

/// Processes that the kernel has killed for want of memory.
pub fn oom_kills() -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat")?;
    let line = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(line.context("/proc/vmstat has no oom_kill")?.parse()?)
}

/// Pages read from swap devices and written to them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Swapped {
    /// Read.
    pub pages_in: u64,
    /// Written.
    pub pages_out: u64,
}

impl Swapped {
    /// Of the whole machine.
    pub fn of_host() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/vmstat")?).context("/proc/vmstat has no pswpin")
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
        };
        Some(Self { pages_in: value("pswpin ")?, pages_out: value("pswpout ")? })
    }
}

/// The running kernel's version: how it counts what the tests take for the truth has changed.
pub fn release() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("no version: {release}")
    };
    Ok((major, minor))
}
