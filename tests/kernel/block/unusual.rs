//! Requests that take another way than most: with a flush, in parts, put back, or as a part of another.

use nix::fcntl::OFlag;

use super::*;

in_each_mode!(["block/requests"]
    reads_and_writes_are_told_apart_whatever_else_is_asked_of_them,
    what_a_journal_writes_is_what_the_kernel_counts,
    a_request_that_ends_in_parts_is_one_and_leaves_nothing_behind,
);
in_each_mode!(["block/requests", "block/merges"] what_is_merged_has_its_device_and_was_never_in_it);

/// A write may be asked to be on the disk when it ends, and to have all before it flushed: the kernel's own names of
/// such begin with that.
fn reads_and_writes_are_told_apart_whatever_else_is_asked_of_them(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let device = Device::new(directory.path(), 64 << 20)?;
    let (_cgroup, setup) = everything(mode)?;
    let agent = Agent::start(&setup)?;
    let (truth, start) = (device.quiet()?, shown(&agent.settled()?, &device)?);
    let (reads, writes, safe) = (rng.u64(20..99), rng.u64(100..199), rng.u64(200..299));
    for (count, write, flag) in [
        (reads, false, OFlag::empty()),
        (writes, true, OFlag::empty()),
        (safe, true, OFlag::O_DSYNC),
    ] {
        let with_flag = device.direct_with(flag)?;
        for block in 0..count {
            if write {
                with_flag.write(block * BLOCK, BLOCK as usize)?;
            } else {
                with_flag.read(block * BLOCK, BLOCK as usize)?;
            }
        }
    }
    let truth = since(truth, device.quiet()?);
    let seen = since(start, shown(&agent.settled()?, &device)?);
    ensure!(
        (seen.reads, seen.writes) == (reads, writes + safe),
        "{seen:?}: {reads} read, {writes} written, and {safe} that are safe at once"
    );
    // One behind the block, and some kernels ask for another.
    ensure!(seen.flushes >= safe && seen.flushes == truth.flushes, "{seen:?} {truth:?}");
    ensure!(
        (seen.read_bytes, seen.write_bytes) == (reads * BLOCK, (writes + safe) * BLOCK),
        "{seen:?}"
    );
    let scrape = agent.settled()?;
    for (direction, bytes) in [("read", seen.read_bytes), ("write", seen.write_bytes)] {
        let labels = [("system_device", device.name()?), ("disk_io_direction", direction)];
        let shown = scrape.sum(IO, &labels)?;
        ensure!(shown == bytes, "{direction}: {shown} bytes shown, {bytes} by operation");
    }

    Ok(())
}

/// A journal has all before its last block flushed, and then that.
fn what_a_journal_writes_is_what_the_kernel_counts(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    let mkfs = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0"];
    let Some(mounted) = Mounted::new(directory.path(), 64 << 20, &mkfs, "ext4")? else {
        println!("not run here: no mkfs.ext4");
        return Ok(());
    };
    let device = mounted.device();
    let (_cgroup, setup) = everything(mode)?;
    let agent = Agent::start(&setup)?;
    let look = || shown(&agent.settled()?, device);
    let (truth, before) = device.at_rest(look)?;
    for number in 0..random::rng().u64(3..20) {
        let file = fs::File::create_new(mounted.path().join(number.to_string()))?;
        file.sync_all()?;
    }
    let (now, seen) = device.at_rest(look)?;
    let (truth, seen) = (since(truth, now), since(before, seen));
    ensure!(truth.write_bytes > 0 && truth.flushes > 0, "nothing was flushed: {truth:?}");
    // The kernel counts empty writes that stand for flushes.
    ensure!(seen.writes > 0 && seen.writes <= truth.writes, "{seen:?} {truth:?}");
    let seen = Counts { writes: truth.writes, ..seen };
    ensure!(seen == truth, "{seen:?} is not what diskstats say: {truth:?}");
    Ok(())
}

/// The device promises more than its file has. What is read beyond is ended in two parts: what there is, and after it
/// was put back into the queue, an error for the rest.
fn a_request_that_ends_in_parts_is_one_and_leaves_nothing_behind(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = directory.path().join("promise");
    let (there, asked) = (rng.u64(1..16), rng.u64(17..32));
    fs::write(&path, vec![7; (32 * BLOCK) as usize])?;
    let device = Device::of(&path)?;
    if !device.pass_through()? {
        println!("not run here: the file system has no direct I/O");
        return Ok(());
    }
    fs::File::options().write(true).open(&path)?.set_len(there * BLOCK)?;
    let (_cgroup, setup) = everything(mode)?;
    let agent = Agent::start(&setup)?;
    let whole = Agent::start(&unsplit::unsplit(setup))?;
    let before = device.quiet()?;
    let direct = device.direct()?;
    let times = 500;
    for _ in 0..times {
        ensure!(direct.read(0, (asked * BLOCK) as usize).is_err(), "what is not there was read");
    }
    let truth = since(before, device.quiet()?);
    let scrape = agent.settled()?;
    let seen = shown(&scrape, &device)?;
    // As for the kernel, bytes that failed are among them.
    ensure!(seen == truth && seen.reads == times, "{seen:?} is not what diskstats say: {truth:?}");
    let labels = [("system_device", device.name()?), ("error_type", "EIO")];
    let errors = scrape.count(ERRORS, &labels)?;
    ensure!(errors == times, "{errors} errors shown, {times} met");
    // Not always, under load; why is not known. What diskstats say, above, holds in any case.
    let requeued = sum(&scrape, "ebpf_block_requeues_total", &device, "read")?;
    let least = times * (asked - there) * BLOCK;
    ensure!(
        requeued > 0 && seen.read_bytes == least + requeued * there * BLOCK,
        "{requeued} put back shown, {there} blocks each: {seen:?}"
    );
    for name in [QUEUE_TIME, DEVICE_TIME] {
        let timed = sum(&scrape, &format!("{name}_count"), &device, "read")?;
        ensure!(timed == times, "{name}: {timed} timed, {times} made");
    }
    let scrape = whole.settled()?;
    ensure!(shown(&scrape, &device)? == seen, "with one time, not {seen:?}");
    ensure!(scrape.count(ERRORS, &labels)? == times);
    let timed = sum(&scrape, &format!("{}_count", unsplit::TIME), &device, "read")?;
    ensure!(timed == times, "{timed} timed, {times} made");
    Ok(())
}

fn what_is_merged_has_its_device_and_was_never_in_it(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let Some(stacked) = Stacked::new(directory.path())? else {
        println!("not run here: no mkfs.ext2");
        return Ok(());
    };
    let device = stacked.device()?;
    let (_cgroup, setup) = everything(mode)?;
    let agent = Agent::start(&setup)?;
    let truth = device.quiet()?;
    // What the page cache writes, it writes page by page.
    let mut buffered = fs::File::options().write(true).open(device.path())?;
    io::copy(&mut io::Read::take(io::repeat(7), 1 << 20), &mut buffered)?;
    buffered.sync_all()?;
    let truth = since(truth, device.quiet()?);
    ensure!(truth.write_merges > 0, "nothing was merged: {truth:?}");
    let merged = sum(&agent.settled()?, MERGES, device, "write")?;
    ensure!(merged == truth.write_merges, "{merged} merges shown, {truth:?}");
    // Had one of them counted as a request that has left the device, fewer would be in it now.
    let count = rng.u64(1..20);
    stuck(&stacked, count, || {
        let seen = sum(&agent.settled()?, IN_FLIGHT, device, "write")?;
        ensure!(seen == count, "{seen} writes in flight shown, {count} are, {merged} were merged");
        Ok(())
    })
}
