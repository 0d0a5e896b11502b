//! Requests to block devices, on devices of the tests' own: what the agent shows is what was done, and what
//! /proc/diskstats says.

mod unsplit;
mod unusual;

use std::{
    fs, io,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{FallocateFlags, fallocate};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::wait_for,
    device::{Counts, Device},
    file,
    mounted::Mounted,
    plan::{Call, Open, Plan, Step},
    random,
    scrape::Scrape,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode};

const IO: &str = "ebpf_block_io_bytes_total";
const OPERATIONS: &str = "ebpf_block_operations_total";
const ERRORS: &str = "ebpf_block_errors_total";
const MERGES: &str = "ebpf_block_merges_total";
const IN_FLIGHT: &str = "ebpf_block_in_flight";
const DEVICE_TIME: &str = "ebpf_block_device_duration_seconds";
const QUEUE_TIME: &str = "ebpf_block_queue_duration_seconds";

const BLOCK: u64 = 4096;

in_each_mode!(["block/requests", "block/merges"] what_a_device_does_is_what_the_kernel_counts);
in_each_mode!(["block/requests"]
    tasks_outside_the_scope_do_not_count,
    cgroups_have_their_own,
    what_a_device_has_is_in_flight,
    what_was_under_way_before_is_no_debt,
    errors_have_their_names,
);

/// Everything that happens on the host.
fn everything(mode: Mode) -> Result<(Cgroup, Setup)> {
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("block", mode, &cgroup).with("scope", json!({}));
    Ok((cgroup, setup))
}

/// The sum of all series of a device and an operation.
fn sum(scrape: &Scrape, name: &str, device: &Device, operation: &str) -> Result<u64> {
    let labels = [("system_device", device.name()?), ("ebpf_block_operation", operation)];
    scrape.sum(name, &labels)
}

fn seconds(scrape: &Scrape, name: &str, device: &Device) -> Result<f64> {
    let labels = [("system_device", device.name()?)];
    Ok(scrape.all(&format!("{name}_sum"), &labels).map(|sample| sample.value).sum())
}

/// What the agent shows of a device, in the kernel's own terms. An empty write that stands for a flush is a
/// write for the kernel.
fn shown(scrape: &Scrape, device: &Device) -> Result<Counts> {
    let of = |name, operation| sum(scrape, name, device, operation);
    Ok(Counts {
        reads: of(OPERATIONS, "read")?,
        read_merges: of(MERGES, "read")?,
        read_bytes: of(IO, "read")?,
        writes: of(OPERATIONS, "write")? + of(OPERATIONS, "write_zeroes")?,
        write_merges: of(MERGES, "write")?,
        write_bytes: of(IO, "write")? + of(IO, "write_zeroes")?,
        discards: of(OPERATIONS, "discard")?,
        discard_bytes: of(IO, "discard")?,
        flushes: of(OPERATIONS, "flush")?,
        in_flight: scrape.sum(IN_FLIGHT, &[("system_device", device.name()?)])?,
    })
}

/// What has come since.
fn since(before: Counts, now: Counts) -> Counts {
    Counts {
        reads: now.reads - before.reads,
        read_merges: now.read_merges - before.read_merges,
        read_bytes: now.read_bytes - before.read_bytes,
        writes: now.writes - before.writes,
        write_merges: now.write_merges - before.write_merges,
        write_bytes: now.write_bytes - before.write_bytes,
        discards: now.discards - before.discards,
        discard_bytes: now.discard_bytes - before.discard_bytes,
        flushes: now.flushes - before.flushes,
        in_flight: now.in_flight,
    }
}

fn what_a_device_does_is_what_the_kernel_counts(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let device = Device::new(directory.path(), 16 << 20)?;
    let (_cgroup, setup) = everything(mode)?;
    let agent = Agent::start(&setup)?;
    let truth = device.quiet()?;
    let start = shown(&agent.settled()?, &device)?;
    let since_start = |now: &Scrape| Ok::<_, anyhow::Error>(since(start, shown(now, &device)?));

    // Reads and writes of known sizes.
    let direct = device.direct()?;
    let (mut read, mut written) = (0, 0);
    let began = Instant::now();
    for _ in 0..rng.u64(50..200) {
        let size = BLOCK * rng.u64(1..40);
        let offset = BLOCK * rng.u64(0..2_000);
        if rng.bool() {
            direct.read(offset, size as usize)?;
            read += size;
        } else {
            direct.write(offset, size as usize)?;
            written += size;
        }
    }
    let took = began.elapsed().as_secs_f64();
    let scrape = agent.settled()?;
    let seen = since_start(&scrape)?;
    ensure!(seen == since(truth, device.quiet()?), "{seen:?} is not what diskstats say");
    ensure!((seen.read_bytes, seen.write_bytes) == (read, written), "{seen:?}: {read}, {written}");
    // One at a time: their times together are no longer than all of it.
    let (queue, in_device) =
        (seconds(&scrape, QUEUE_TIME, &device)?, seconds(&scrape, DEVICE_TIME, &device)?);
    ensure!(in_device > 0.0 && queue + in_device <= took, "{queue} s + {in_device} s in {took} s");
    for name in [QUEUE_TIME, DEVICE_TIME] {
        let timed = sum(&scrape, &format!("{name}_count"), &device, "write")?;
        ensure!(timed == seen.writes, "{timed} writes timed ({name}), {} made", seen.writes);
    }

    // Flushes.
    let syncs = rng.u64(2..20);
    for i in 0..syncs {
        direct.write(i * BLOCK, BLOCK as usize)?;
        direct.file().sync_all()?;
    }
    let seen = since_start(&agent.settled()?)?;
    let now = since(truth, device.quiet()?);
    ensure!(seen.flushes == syncs, "{} flushes shown, {syncs} made", seen.flushes);
    ensure!(now.flushes == syncs, "{} flushes in diskstats, {syncs} made", now.flushes);
    ensure!(seen.write_bytes == now.write_bytes, "{seen:?} {now:?}");
    // The kernel counts the empty write behind each as a write.
    ensure!(seen.writes + syncs == now.writes, "{seen:?} {now:?}");

    // Zeroes, and blocks given back.
    let zeroes = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(direct.file(), zeroes, 1 << 20, 1 << 20)?;
    let discard = Command::new("blkdiscard")
        .args(["-o", "4194304", "-l", "3145728"])
        .arg(device.path())
        .status()?;
    ensure!(discard.success(), "blkdiscard: {discard}");
    let scrape = agent.settled()?;
    let (before, seen, now) = (seen, since_start(&scrape)?, since(truth, device.quiet()?));
    let zeroed = sum(&scrape, IO, &device, "write_zeroes")?;
    ensure!(zeroed == 1 << 20, "{zeroed} bytes of zeroes shown");
    ensure!(seen.discard_bytes == 3 << 20 && seen.discards == now.discards, "{seen:?} {now:?}");
    ensure!(seen.write_bytes - before.write_bytes == 1 << 20, "{seen:?} {before:?}");

    // What the page cache writes is merged.
    let mut buffered = fs::File::options().write(true).open(device.path())?;
    io::copy(&mut io::Read::take(io::repeat(7), 5 << 20), &mut buffered)?;
    buffered.sync_all()?;
    let (before, seen, now) =
        (seen, since_start(&agent.settled()?)?, since(truth, device.quiet()?));
    ensure!(seen.write_bytes - before.write_bytes == 5 << 20, "{seen:?} {before:?}");
    ensure!(seen.write_merges == now.write_merges, "{seen:?} {now:?}");
    ensure!(seen.read_bytes == now.read_bytes && seen.reads == now.reads, "{seen:?} {now:?}");
    ensure!(seen.in_flight == 0, "{seen:?}");
    Ok(())
}

/// Reads all of the device through the page cache.
fn reader(device: &Device, size: u64) -> Result<Worker> {
    let chunk = 100_000;
    let step = Step::new(Call::Read, 0, chunk).times(size / chunk as u64 + 2);
    let files = vec![Open::Read(device.path().to_owned())];
    Worker::start(WORKLOAD, &Plan { threads: 1, files, phases: vec![vec![step]] })
}

fn tasks_outside_the_scope_do_not_count(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    let size = random::rng().u64(100..1_000) * BLOCK;
    let device = Device::new(directory.path(), size)?;
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("block", mode, &cgroup))?;
    let mut worker = reader(&device, size)?;
    worker.join(&cgroup)?;
    // This process is not in the cgroup.
    let direct = device.direct()?;
    for block in 0..50 {
        direct.write(block * BLOCK, BLOCK as usize)?;
        direct.read(block * BLOCK, BLOCK as usize)?;
    }
    device.quiet()?;
    let before = shown(&agent.settled()?, &device)?;
    ensure!(before == Counts::default(), "{before:?} shown of tasks outside of the scope");
    worker.phase()?;
    let seen = shown(&agent.settled()?, &device)?;
    ensure!(seen.read_bytes == size && seen.write_bytes == 0, "{seen:?} shown, {size} bytes read");
    worker.finish()?;
    Ok(())
}

fn cgroups_have_their_own(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    let mut rng = random::rng();
    let parent = Cgroup::new()?;
    let setup = Setup::only("block", mode, &parent).with("group_by", json!("cgroup"));
    let agent = Agent::start(&setup)?;
    for cgroup in [parent.child()?, parent.child()?] {
        let size = rng.u64(100..1_000) * BLOCK;
        let device = Device::new(directory.path(), size)?;
        let mut worker = reader(&device, size)?;
        worker.join(&cgroup)?;
        worker.phase()?;
        worker.finish()?;
        let id = cgroup.id()?;
        let labels =
            [("system_device", device.name()?), ("cgroup_id", &id), ("disk_io_direction", "read")];
        let shown = agent.settled()?.count(IO, &labels)?;
        ensure!(shown == size, "cgroup {id}: {shown} bytes shown, {size} read");
    }
    Ok(())
}

/// A device whose file lies in a file system on another device. That can be frozen: what the device is given then,
/// it cannot end.
struct Stacked {
    device: Option<Device>,
    disk: Mounted,
}

impl Stacked {
    /// Not frozen yet. `None` if this machine cannot make a file system.
    fn new(directory: &Path) -> Result<Option<Self>> {
        let Some(disk) = Mounted::new(directory, 32 << 20, &["mkfs.ext2"], "ext4")? else {
            return Ok(None);
        };
        let device = Some(Device::new(disk.path(), 4 << 20)?);
        Ok(Some(Self { device, disk }))
    }

    fn device(&self) -> Result<&Device> {
        self.device.as_ref().context("it is there until the end")
    }

    fn freeze(&self) -> Result<()> {
        run(Command::new("fsfreeze").arg("--freeze").arg(self.disk.path()))
    }

    fn thaw(&self) -> Result<()> {
        run(Command::new("fsfreeze").arg("--unfreeze").arg(self.disk.path()))
    }
}

impl Drop for Stacked {
    fn drop(&mut self) {
        let _ = self.thaw();
        self.device = None;
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Writes one block in each of `count` threads while the device can end none, and calls `meanwhile` when
/// it has them all.
fn stuck(stacked: &Stacked, count: u64, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let device = stacked.device()?;
    device.quiet()?;
    stacked.freeze()?;
    thread::scope(|scope| {
        let writes: Vec<_> = (0..count)
            // Not one behind the other: they would be merged where they wait.
            .map(|n| {
                scope.spawn(move || Ok(device.direct()?.write(2 * n * BLOCK, BLOCK as usize)?))
            })
            .collect();
        let given = wait_for("the writes to be under way", || {
            Ok((device.counts()?.in_flight == count).then_some(()))
        });
        let result = given.and_then(|()| meanwhile());
        stacked.thaw()?;
        for write in writes {
            let done: Result<()> = write.join().unwrap_or_else(|_| bail!("a thread has failed"));
            done?;
        }
        result
    })
}

fn what_a_device_has_is_in_flight(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    let count = random::rng().u64(1..20);
    let Some(stacked) = Stacked::new(directory.path())? else {
        println!("not run here: no mkfs.ext2");
        return Ok(());
    };
    let device = stacked.device()?;
    let (_cgroup, setup) = everything(mode)?;
    let agent = Agent::start(&setup)?;
    let waited = Duration::from_millis(200);
    stuck(&stacked, count, || {
        let seen = sum(&agent.settled()?, IN_FLIGHT, device, "write")?;
        ensure!(seen == count, "{seen} writes in flight shown, {count} are");
        thread::sleep(waited);
        Ok(())
    })?;
    let scrape = agent.settled()?;
    ensure!(sum(&scrape, IN_FLIGHT, device, "write")? == 0, "none are in flight any more");
    ensure!(sum(&scrape, OPERATIONS, device, "write")? == count);
    let took = seconds(&scrape, DEVICE_TIME, device)?;
    let least = waited.as_secs_f64() * count as f64;
    ensure!(took >= least, "{took} s in the device shown, it was {least} s at least");
    Ok(())
}

fn what_was_under_way_before_is_no_debt(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    let count = random::rng().u64(1..20);
    let Some(stacked) = Stacked::new(directory.path())? else {
        println!("not run here: no mkfs.ext2");
        return Ok(());
    };
    let device = stacked.device()?;
    let (_cgroup, setup) = everything(mode)?;
    let mut agent = None;
    stuck(&stacked, count, || {
        agent = Some(Agent::start(&setup)?);
        Ok(())
    })?;
    let agent = agent.context("it was started")?;
    let direct = device.direct()?;
    direct.write(0, BLOCK as usize)?;
    let scrape = agent.settled()?;
    // They end before its eyes, but how long they have taken it cannot know.
    let ended = sum(&scrape, OPERATIONS, device, "write")?;
    ensure!(ended == count + 1, "{ended} writes shown, {count} and one ended");
    let timed = sum(&scrape, &format!("{DEVICE_TIME}_count"), device, "write")?;
    ensure!(timed == 1, "{timed} writes timed, one began after the agent");
    let left = sum(&scrape, IN_FLIGHT, device, "write")?;
    ensure!(left == 0, "{left} writes in flight shown, none are");
    Ok(())
}

fn errors_have_their_names(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let disk = directory.path();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(disk))?;
    let result = full(mode, disk, rng.u64(80..200));
    run(Command::new("umount").arg("-l").arg(disk))?;
    result
}

/// A device whose file promises more than its file system has room for.
fn full(mode: Mode, directory: &Path, writes: u64) -> Result<()> {
    let path = directory.join("promise");
    fs::File::create_new(&path)?.set_len(writes * BLOCK)?;
    let device = Device::of(&path)?;
    let (_cgroup, setup) = everything(mode)?;
    let agent = Agent::start(&setup)?;
    let direct = device.direct()?;
    let failed = (0..writes).filter(|n| direct.write(n * BLOCK, BLOCK as usize).is_err()).count();
    ensure!(failed > 0, "nothing failed");
    let scrape = agent.settled()?;
    let labels = [("system_device", device.name()?), ("ebpf_block_operation", "write")];
    let errors: Vec<_> = scrape.all(ERRORS, &labels).collect();
    let [error] = errors[..] else { bail!("{errors:?}") };
    ensure!(error.value == failed as f64, "{error:?}: {failed} writes failed");
    let name = error.labels.get("error_type").map(String::as_str);
    ensure!(matches!(name, Some("EIO" | "ENOSPC")), "{error:?}");
    let ended = sum(&scrape, OPERATIONS, &device, "write")?;
    ensure!(ended == writes, "{ended} writes shown, {writes} ended");
    Ok(())
}
