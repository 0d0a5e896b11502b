//! The agent's counts by cgroup, and what the kernel's own controller of I/O has charged each cgroup with: `io.stat`.
//!
//! That counts a bio when it is submitted (block/blk-cgroup.c, `blk_cgroup_bio_start`), the agent a request when it
//! ends. The bytes are the same, since each byte is submitted once, whatever becomes of its bio. Operations are more
//! there:
//!
//! - A bio that joins a request is one. The agent has it among the merges.
//! - Who syncs submits an empty write, which is one. The agent has the flush that it stands for, once for all who wait
//!   for it, as nobody's.
//!
//! A bio that is too large for the device is as many as it has parts, as are the requests. Zeroes are writes there.
//!
//! And it may be another cgroup's: what a task submits itself is its own cgroup's for the agent, even if it is charged to
//! one above, since the controller may be off below that. Btrfs charges the root with its trees, and has who syncs
//! submit them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    device::Device,
    file::{self, PAGE},
    plan::{Call, Open, Plan, Step},
    random,
    scrape::Scrape,
    shell::Shell,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode};

in_each_mode!(["block/requests", "block/merges"]
    what_siblings_do_past_the_page_cache_is_what_each_is_charged_with,
    what_siblings_write_to_the_page_cache_is_what_each_is_charged_with,
);

/// Bytes and operations.
type Amount = (u64, u64);

/// What was done to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    read: Amount,
    write: Amount,
    discard: Amount,
}

impl Work {
    fn since(self, before: Self) -> Self {
        let less = |now: Amount, before: Amount| (now.0 - before.0, now.1 - before.1);
        Self {
            read: less(self.read, before.read),
            write: less(self.write, before.write),
            discard: less(self.discard, before.discard),
        }
    }

    fn and(self, other: Self) -> Self {
        let sum = |one: Amount, other: Amount| (one.0 + other.0, one.1 + other.1);
        Self {
            read: sum(self.read, other.read),
            write: sum(self.write, other.write),
            discard: sum(self.discard, other.discard),
        }
    }
}

/// A device by both its names.
struct Disk {
    name: String,
    number: String,
}

impl Disk {
    fn named(name: &str) -> Result<Self> {
        let number = fs::read_to_string(Path::new("/sys/class/block").join(name).join("dev"))?;
        Ok(Self { name: name.to_owned(), number: number.trim().to_owned() })
    }

    /// That which a directory lies on.
    fn below(directory: &Path) -> Result<Self> {
        let directory = directory.canonicalize()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        // proc(5): … (5) mount point … - type source options
        let points = mounts.lines().filter_map(|line| {
            let (fields, end) = line.split_once(" - ")?;
            let point = Path::new(fields.split(' ').nth(4)?);
            let name = end.split(' ').nth(1)?.strip_prefix("/dev/")?;
            directory.starts_with(point).then_some((point.as_os_str().len(), name))
        });
        let (_, name) = points.max().context("it lies on no disk")?;
        let block = fs::canonicalize(Path::new("/sys/class/block").join(name))?;
        // A partition's directory lies in its disk's.
        let whole = if block.join("partition").exists() { block.parent() } else { Some(&*block) };
        let name = whole.and_then(Path::file_name).and_then(|name| name.to_str());
        Self::named(name.context("it has no name")?)
    }

    /// What the kernel says that a cgroup has done to it, and all below the cgroup.
    fn charged(&self, cgroup: &Cgroup) -> Result<Work> {
        let text = fs::read_to_string(cgroup.path().join("io.stat"))?;
        let (mut work, mut here) = (Work::default(), false);
        // A device's number, then its fields: the kernel once forgot to end the line of one that has none.
        for word in text.split_whitespace() {
            let Some((key, value)) = word.split_once('=') else {
                here = word == self.number;
                continue;
            };
            let place = match key {
                "rbytes" => &mut work.read.0,
                "rios" => &mut work.read.1,
                "wbytes" => &mut work.write.0,
                "wios" => &mut work.write.1,
                "dbytes" => &mut work.discard.0,
                "dios" => &mut work.discard.1,
                _ => continue,
            };
            if here {
                *place = value.parse().with_context(|| format!("{word} in {text}"))?;
            }
        }
        Ok(work)
    }

    /// As much by a scrape, of one cgroup or of all. What joined a request is an operation, too.
    fn shown(&self, scrape: &Scrape, id: Option<&str>) -> Result<Work> {
        let of = |operations: &[&str]| -> Result<Amount> {
            let mut amount = (0, 0);
            for operation in operations {
                let mut labels =
                    vec![("system_device", &*self.name), ("ebpf_block_operation", *operation)];
                labels.extend(id.map(|id| ("cgroup_id", id)));
                let sum = |name: &str| scrape.sum(&format!("ebpf_block_{name}_total"), &labels);
                amount.0 += sum("io_bytes")?;
                amount.1 += sum("operations")? + sum("merges")?;
            }
            Ok(amount)
        };
        Ok(Work {
            read: of(&["read"])?,
            write: of(&["write", "write_zeroes"])?,
            discard: of(&["discard"])?,
        })
    }
}

/// Two cgroups with one parent, to whom the kernel charges I/O, and who is looked at.
struct Siblings {
    both: [Cgroup; 2],
    /// Dropped, and so removed, after them.
    parent: Cgroup,
}

/// What they have done, by the kernel and by the agent.
#[derive(Debug, Default)]
struct Seen {
    charged: [Work; 2],
    shown: [Work; 2],
}

impl Siblings {
    /// `None` if the kernel charges no I/O here.
    fn new() -> Result<Option<Self>> {
        let parent = Cgroup::new()?;
        if !parent.controlled("io")? {
            println!("not run here: I/O is not controlled by cgroup v2");
            return Ok(None);
        }
        parent.control("io")?;
        Ok(Some(Self { both: [parent.child()?, parent.child()?], parent }))
    }

    fn watched(&self, mode: Mode) -> Result<Agent> {
        let setup = Setup::only("block", mode, &self.parent).with("group_by", json!("cgroup"));
        Agent::start(&setup)
    }

    fn start(&self, plans: [Plan; 2]) -> Result<[Worker; 2]> {
        let [first, second] = plans.map(|plan| Worker::start(WORKLOAD, &plan));
        let workers = [first?, second?];
        for (worker, cgroup) in workers.iter().zip(&self.both) {
            worker.join(cgroup)?;
        }
        Ok(workers)
    }

    /// What they have done to `disk`, which is idle. For each witness, the two must be all that there is.
    fn seen(&self, disk: &Disk, agent: &Agent) -> Result<Seen> {
        let scrape = agent.settled()?;
        let mut seen = Seen::default();
        for (n, cgroup) in self.both.iter().enumerate() {
            seen.charged[n] = disk.charged(cgroup)?;
            seen.shown[n] = disk.shown(&scrape, Some(&cgroup.id()?))?;
        }
        let (all, of_parent) = (disk.shown(&scrape, None)?, disk.charged(&self.parent)?);
        let [first, second] = seen.shown;
        ensure!(all == first.and(second), "others than the two have something: {all:?}, {seen:?}");
        let [first, second] = seen.charged;
        ensure!(of_parent == first.and(second), "the parent has {of_parent:?}: {seen:?}");
        Ok(seen)
    }
}

impl Seen {
    /// Of each: what the kernel has charged it with, and what the agent shows of that.
    fn since(&self, before: &Self) -> [(Work, Work); 2] {
        [0, 1].map(|n| {
            (self.charged[n].since(before.charged[n]), self.shown[n].since(before.shown[n]))
        })
    }
}

/// Both work at the same time.
fn phase(workers: &mut [Worker; 2]) -> Result<()> {
    for worker in &mut *workers {
        worker.begin()?;
    }
    workers.iter().try_for_each(Worker::stopped)
}

fn finish(workers: [Worker; 2]) -> Result<()> {
    for worker in workers {
        worker.finish()?;
    }
    Ok(())
}

fn what_siblings_do_past_the_page_cache_is_what_each_is_charged_with(mode: Mode) -> Result<()> {
    let Some(siblings) = Siblings::new()? else { return Ok(()) };
    let mut rng = random::rng();
    let directory = file::directory()?;
    let half = 16 << 20;
    let device = Device::new(directory.path(), 2 * half)?;
    let disk = Disk::named(device.name()?)?;
    let agent = siblings.watched(mode)?;

    // Each has its half: what is nobody else's neighbour is not merged with it.
    let plans = [0, half].map(|first| {
        let steps = (0..rng.u64(50..150)).map(|_| {
            let call = if rng.bool() { Call::Pread64 } else { Call::Pwrite64 };
            let size = *PAGE * rng.u64(1..40);
            Step::new(call, 0, size as usize).at(first + *PAGE * rng.u64(0..2_000))
        });
        let mut steps: Vec<_> = steps.collect();
        steps.push(Step::new(Call::Fsync, 0, 0).times(rng.u64(1..20)));
        let files = vec![Open::Direct(device.path().to_owned())];
        let large = Step::new(Call::Pwrite64, 0, rng.usize(1..8) << 20).at(first);
        Plan { threads: 1, files, phases: vec![steps, vec![large]] }
    });
    let mut workers = siblings.start(plans.clone())?;
    device.quiet()?;
    let before = siblings.seen(&disk, &agent)?;
    phase(&mut workers)?;
    device.quiet()?;
    let seen = siblings.seen(&disk, &agent)?;
    for (plan, (charged, shown)) in plans.iter().zip(seen.since(&before)) {
        let done = |call| -> Amount {
            let steps = plan.phases[0].iter().filter(|step| step.call == call);
            steps.fold((0, 0), |sum, step| (sum.0 + step.size as u64, sum.1 + step.count))
        };
        let truth =
            Work { read: done(Call::Pread64), write: done(Call::Pwrite64), ..Work::default() };
        ensure!(shown == truth, "{shown:?} shown, {truth:?} done");
        let flushes = Work { write: (0, done(Call::Fsync).1), ..Work::default() };
        ensure!(charged == truth.and(flushes), "{charged:?}: {truth:?} and {flushes:?} done");
    }

    // More than fits into a bio, of which some may be merged again.
    phase(&mut workers)?;
    device.quiet()?;
    let (before, seen) = (seen, siblings.seen(&disk, &agent)?);
    for (plan, (charged, shown)) in plans.iter().zip(seen.since(&before)) {
        ensure!(shown == charged, "{shown:?} shown, {charged:?} charged");
        let size = plan.phases[1][0].size as u64;
        ensure!(shown.write.0 == size && shown.write.1 > 0, "{shown:?}: {size} bytes written");
    }
    finish(workers)?;

    // Blocks given back. The program that does that may read first.
    let sizes = [(); 2].map(|()| rng.u64(1..1_000) * *PAGE);
    for (n, cgroup) in siblings.both.iter().enumerate() {
        let (first, path) = (half * n as u64, device.path().display());
        let shell = Shell::new(&format!("blkdiscard -o {first} -l {} {path}", sizes[n]))?;
        cgroup.add(shell.pid())?;
        ensure!(shell.finish()?.success(), "blkdiscard failed");
    }
    device.quiet()?;
    let after = siblings.seen(&disk, &agent)?;
    for (size, (charged, shown)) in sizes.into_iter().zip(after.since(&seen)) {
        ensure!(shown == charged, "{shown:?} shown, {charged:?} charged");
        ensure!(shown.discard == (size, 1), "{shown:?}: {size} bytes given back at once");
    }
    Ok(())
}

/// Each writes a file of its own, and has it written back; then the kernel does that, on behalf of others. Whatever the
/// file system: what it submits itself, and what its threads do.
fn what_siblings_write_to_the_page_cache_is_what_each_is_charged_with(mode: Mode) -> Result<()> {
    let Some(siblings) = Siblings::new()? else { return Ok(()) };
    let directory = file::directory()?;
    let disk = Disk::below(directory.path())?;
    let trees = statfs(directory.path())?.filesystem_type() == BTRFS_SUPER_MAGIC;
    let mut rng = random::rng();
    let sizes = [(); 2].map(|()| rng.u64(100..1_000) * *PAGE);
    let mut plans = Vec::new();
    for (n, cgroup) in siblings.both.iter().enumerate() {
        // The kernel writes a file back for the cgroup that was the first to change it, in this case to create it.
        let path = directory.path().join(format!("written-{n}"));
        let shell = Shell::new(&format!(": >'{}'", path.display()))?;
        cgroup.add(shell.pid())?;
        ensure!(shell.finish()?.success(), "the shell failed");
        // Whole pages: none has to be read first.
        let write = Step::new(Call::Pwrite64, 0, sizes[n] as usize);
        let sync = |call| vec![write, Step::new(call, 0, 0)];
        let phases = vec![sync(Call::Fsync), sync(Call::Fdatasync), vec![write]];
        plans.push(Plan { threads: 1, files: vec![Open::Write(path)], phases });
    }
    nix::unistd::sync();
    let agent = siblings.watched(mode)?;
    // By its scope alone: others than the writer, and out of the scope, do the work.
    let of_first = Agent::start(&Setup::only("block", mode, &siblings.both[0]))?;
    let plans = plans.try_into().ok().context("there are two")?;
    let mut workers = siblings.start(plans)?;
    let mut before = siblings.seen(&disk, &agent)?;
    for syncs in [1, 1, 0] {
        phase(&mut workers)?;
        if syncs == 0 {
            // The writers stand still, and their files are open: nobody but the flusher and this process can write back.
            nix::unistd::sync();
        }
        let seen = siblings.seen(&disk, &agent)?;
        let (in_scope, first) = (disk.shown(&of_first.settled()?, None)?, seen.shown[0]);
        ensure!(in_scope == first, "{in_scope:?} shown by its scope, {first:?} by its cgroup");
        for (size, (charged, shown)) in sizes.into_iter().zip(seen.since(&before)) {
            let (more, of) = (syncs > 0 || trees, shown.write.0);
            // What else a file system writes when it is asked to sync is charged as well.
            ensure!(of == size || more && of > size, "{shown:?} shown, {size} bytes: {charged:?}");
            if trees && syncs > 0 {
                ensure!(of >= charged.write.0, "{shown:?} shown, {charged:?} charged");
                continue;
            }
            let flushes = charged.write.1.saturating_sub(shown.write.1);
            ensure!(flushes <= syncs, "{flushes} operations more charged, {syncs} syncs");
            let flushes = Work { write: (0, flushes), ..Work::default() };
            ensure!(charged == shown.and(flushes), "{shown:?} shown, {charged:?} charged");
        }
        before = seen;
    }
    finish(workers)
}
