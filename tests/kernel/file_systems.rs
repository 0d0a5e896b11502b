//! File systems that do for themselves what others leave to the kernel. On those of the tests' own disk, all other tests
//! run.

use anyhow::{Result, bail, ensure};
use nix::libc;
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    device::Device,
    file::{self, PAGE},
    mounted::Mounted,
    plan::{Call, Open, Plan, Step},
    random,
    scrape::Scrape,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode};

in_each_mode!(["page_cache/adds", "page_cache/deletes", "page_cache/lookups", "page_cache/misses", "fadvise/dropped"]
    pages_of_btrfs_are_counted,
    pages_of_xfs_are_counted,
);
in_each_mode!(["dirty/dirtied", "page_states/changes"]
    writes_of_btrfs_are_counted,
    writes_of_xfs_are_counted,
);
in_each_mode!(["block/requests"]
    requests_of_btrfs_are_counted,
    requests_of_xfs_are_counted,
);

/// With what it is made, and how large.
const BTRFS: (&str, &[&str], u64) = ("btrfs", &["mkfs.btrfs", "-q"], 128 << 20);
const XFS: (&str, &[&str], u64) = ("xfs", &["mkfs.xfs", "-q"], 512 << 20);

type Kind = (&'static str, &'static [&'static str], u64);

/// Mounts one, if this machine can.
fn mounted(directory: &tempfile::TempDir, (kind, mkfs, size): Kind) -> Result<Option<Mounted>> {
    let mounted = Mounted::new(directory.path(), size, mkfs, kind)?;
    if mounted.is_none() {
        println!("not run here: no {}", mkfs[0]);
    }
    Ok(mounted)
}

fn pages_of_btrfs_are_counted(mode: Mode) -> Result<()> {
    pages(mode, BTRFS)
}

fn pages_of_xfs_are_counted(mode: Mode) -> Result<()> {
    pages(mode, XFS)
}

/// Times that a case may be repeated because the kernel dropped pages of its own accord.
const ATTEMPTS: u32 = 5;

/// A file is read twice and dropped.
fn pages(mode: Mode, kind: Kind) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let Some(mounted) = mounted(&directory, kind)? else { return Ok(()) };
    for attempt in 1..=ATTEMPTS {
        let size = rng.u64(1..16 << 20);
        let path = file::cold(mounted.directory(), &mut rng, size)?;
        let pages = file::pages(&path)?;
        let chunk = (1 << rng.u64(0..8)) * *PAGE;
        let read = Step::new(Call::Pread64, 0, chunk as usize);
        let whole: Vec<_> = (0..size.div_ceil(chunk)).map(|i| read.at(i * chunk)).collect();
        let drop = vec![Step::advise(0, libc::POSIX_FADV_DONTNEED)];
        let phases = vec![whole.clone(), whole, drop];
        let plan = Plan { threads: 1, files: vec![Open::Read(path.clone())], phases };
        let cgroup = Cgroup::new()?;
        let setup = Setup::only("page_cache", mode, &cgroup);
        let agent = Agent::start(&setup.signal("fadvise", json!({"enabled": true})))?;
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.phase()?;
        worker.phase()?;
        let there = file::resident(&path)?;
        worker.phase()?;
        let left = file::resident(&path)?;
        worker.finish()?;
        if (there, left) != (pages, 0) {
            println!("attempt {attempt}: {there} of {pages} pages before, {left} after the drop");
            continue;
        }
        let scrape = agent.settled()?;
        for (name, truth) in [
            ("page_cache_adds", pages),
            ("page_cache_deletes", pages),
            ("fadvise_dropped", pages),
            ("cache_read_attempts", 2 * pages),
            ("cache_followed", 2 * pages),
        ] {
            let shown = scrape.count(&format!("ebpf_{name}_total"), &[])?;
            ensure!(shown == truth, "{name}: {shown} shown, {truth} of chunks of {chunk} bytes");
        }
        let misses = scrape.count("ebpf_cache_misses_total", &[])?;
        let ahead = scrape.count("ebpf_cache_readahead_total", &[])?;
        ensure!(misses > 0 && misses + ahead == pages, "{misses} + {ahead} new of {pages} pages");
        return Ok(());
    }
    bail!("the kernel dropped pages of its own accord in {ATTEMPTS} attempts");
}

fn writes_of_btrfs_are_counted(mode: Mode) -> Result<()> {
    writes(mode, BTRFS)
}

fn writes_of_xfs_are_counted(mode: Mode) -> Result<()> {
    writes(mode, XFS)
}

/// A file's pages are written over, and synced.
fn writes(mode: Mode, kind: Kind) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let Some(mounted) = mounted(&directory, kind)? else { return Ok(()) };
    let path = file::cold(mounted.directory(), &mut rng, 4 << 20)?;
    let pages = rng.u64(1..1_000);
    let write = Step::new(Call::Pwrite64, 0, (pages * *PAGE) as usize);
    let again = Step::new(Call::Pwrite64, 0, 1).times(50);
    let phases = vec![vec![write, again], vec![Step::new(Call::Fdatasync, 0, 0)]];
    let plan = Plan { threads: 1, files: vec![Open::Write(path)], phases };
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(
        &Setup::only("dirty", mode, &cgroup).signal("page_states", json!({"enabled": true})),
    )?;
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    worker.join(&cgroup)?;
    worker.phase()?;
    let shown = |scrape: &Scrape, name| scrape.count(&format!("ebpf_page_cache_{name}_total"), &[]);
    let dirtied = shown(&agent.settled()?, "dirtied")?;
    ensure!(dirtied == pages, "{dirtied} pages dirtied shown, {pages} written to");
    worker.phase()?;
    worker.finish()?;
    let scrape = agent.settled()?;
    let (dirtied, written) = (shown(&scrape, "dirtied")?, shown(&scrape, "written_back")?);
    if kind == BTRFS {
        // Its trees are pages, too: where the blocks have gone is written behind them.
        ensure!(written > pages && written == dirtied, "{written} written, {dirtied} dirtied");
    } else {
        ensure!((dirtied, written) == (pages, pages), "{dirtied} dirtied, {written} written");
    }
    Ok(())
}

fn requests_of_btrfs_are_counted(mode: Mode) -> Result<()> {
    requests(mode, BTRFS)
}

fn requests_of_xfs_are_counted(mode: Mode) -> Result<()> {
    requests(mode, XFS)
}

/// A file is read, which is the reader's; then one is written, on the whole machine, since its own threads take part.
fn requests(mode: Mode, kind: Kind) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let Some(mounted) = mounted(&directory, kind)? else { return Ok(()) };
    let size = rng.u64(100..1_000) * *PAGE;
    let path = file::cold(mounted.directory(), &mut rng, size)?;
    let device = mounted.device();
    device.quiet()?;
    let cgroup = Cgroup::new()?;
    let own = Agent::start(&Setup::only("block", mode, &cgroup))?;
    let all = Agent::start(&Setup::only("block", mode, &cgroup).with("scope", json!({})))?;
    let read = Step::new(Call::Read, 0, 100_000).times(size / 100_000 + 2);
    let write = Step::new(Call::Pwrite64, 1, size as usize);
    let phases = vec![vec![read], vec![write, Step::new(Call::Fsync, 1, 0)]];
    let files = vec![Open::Read(path.clone()), Open::Write(path)];
    let mut worker = Worker::start(WORKLOAD, &Plan { threads: 1, files, phases })?;
    worker.join(&cgroup)?;
    let look = || bytes(&all.settled()?, device);
    let (truth, before) = device.at_rest(look)?;
    worker.phase()?;
    let seen = bytes(&own.settled()?, device)?;
    ensure!(seen == (size, 0), "{seen:?} bytes shown, {size} read");
    worker.phase()?;
    worker.finish()?;
    let (now, (read, written)) = device.at_rest(look)?;
    let seen = (read - before.0, written - before.1);
    let truth = (now.read_bytes - truth.read_bytes, now.write_bytes - truth.write_bytes);
    ensure!(seen == truth, "{seen:?} bytes shown, {truth:?} in diskstats");
    ensure!(seen.0 == size && seen.1 > size, "{seen:?}: {size} read, and written with its place");
    Ok(())
}

/// Bytes read and written.
fn bytes(scrape: &Scrape, device: &Device) -> Result<(u64, u64)> {
    let of = |operation| {
        let labels = [("system_device", device.name()?), ("ebpf_block_operation", operation)];
        scrape.sum("ebpf_block_io_bytes_total", &labels)
    };
    Ok((of("read")?, of("write")?))
}
