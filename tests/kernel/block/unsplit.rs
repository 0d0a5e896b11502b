//! `split: false`: each request has one time, and what is not needed for it is not attached.

use super::*;

in_each_mode!(["block/requests", "block/merges"] one_time_is_asked_of_the_end_alone);
in_each_mode!(["block/requests"]
    one_time_is_there_for_what_waited_and_was_under_way_before,
    one_time_is_of_tasks_and_cgroups,
    what_the_kernel_does_not_account_has_no_time,
);

pub(super) const TIME: &str = "ebpf_block_duration_seconds";

pub(super) fn unsplit(setup: Setup) -> Setup {
    setup.signal("block", json!({"enabled": true, "split": false}))
}

fn one_time_is_asked_of_the_end_alone(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let device = Device::new(directory.path(), 16 << 20)?;
    let (_cgroup, setup) = everything(mode)?;
    let split = Agent::start(&setup)?.verified()?.len();
    let agent = Agent::start(&unsplit(setup))?;
    let programs = agent.verified()?.len();
    ensure!(programs + 1 == split, "{programs} programs, and {split} that split");
    let truth = device.quiet()?;
    let start = shown(&agent.settled()?, &device)?;
    let direct = device.direct()?;
    let (mut read, mut written) = (0, 0);
    for _ in 0..rng.u64(300..600) {
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
    direct.file().sync_all()?;
    let mut buffered = fs::File::options().write(true).open(device.path())?;
    io::copy(&mut io::Read::take(io::repeat(7), 5 << 20), &mut buffered)?;
    buffered.sync_all()?;
    let truth = since(truth, device.quiet()?);
    let scrape = agent.settled()?;
    let seen = since(start, shown(&scrape, &device)?);
    // The kernel counts the empty write behind each flush as a write.
    ensure!(seen.writes + seen.flushes == truth.writes, "{seen:?} {truth:?}");
    ensure!(seen == Counts { writes: seen.writes, ..truth }, "{seen:?} {truth:?}");
    ensure!(
        (seen.read_bytes, seen.write_bytes) == (read, written + (5 << 20)),
        "{seen:?}: {read}, {written}"
    );
    for operation in ["read", "write", "flush"] {
        let timed = sum(&scrape, &format!("{TIME}_count"), &device, operation)?;
        let made = sum(&scrape, OPERATIONS, &device, operation)?;
        ensure!(timed == made && made > 0, "{operation}: {timed} timed, {made} made");
    }
    let labels = [("system_device", device.name()?)];
    for name in [IN_FLIGHT.to_owned(), format!("{QUEUE_TIME}_sum"), format!("{DEVICE_TIME}_sum")] {
        let count = scrape.all(&name, &labels).count();
        ensure!(count == 0, "{name} is shown");
    }
    Ok(())
}

fn one_time_is_there_for_what_waited_and_was_under_way_before(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    // More than a loop device takes at once.
    let count = random::rng().u64(140..160);
    let Some(stacked) = Stacked::new(directory.path())? else {
        println!("not run here: no mkfs.ext2");
        return Ok(());
    };
    let device = stacked.device()?;
    let (_cgroup, setup) = everything(mode)?;
    let scheduled = device.set("scheduler", "mq-deadline").ok();
    let count = if scheduled.is_some() { count } else { count / 10 };
    let mut agent = None;
    let waited = Duration::from_millis(500);
    device.quiet()?;
    let before = device.time()?;
    stuck(&stacked, count, || {
        thread::sleep(waited);
        agent = Some(Agent::start(&unsplit(setup))?);
        Ok(())
    })?;
    device.quiet()?;
    let theirs = (device.time()? - before).as_secs_f64();
    let scrape = agent.context("it was started")?.settled()?;
    let ended = sum(&scrape, OPERATIONS, device, "write")?;
    let timed = sum(&scrape, &format!("{TIME}_count"), device, "write")?;
    ensure!((ended, timed) == (count, count), "{ended} shown, {timed} timed, {count} ended");
    // The kernel's own sum, in whole milliseconds. It looks a little later, when it has woken who waits.
    let (ours, least) = (seconds(&scrape, TIME, device)?, waited.as_secs_f64() * count as f64);
    ensure!(ours >= least, "{ours} s shown, it was {least} s at least");
    ensure!((ours - theirs).abs() < 0.01 * theirs, "{ours} s shown, {theirs} s in diskstats");
    Ok(())
}

fn one_time_is_of_tasks_and_cgroups(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    let size = random::rng().u64(100..1_000) * BLOCK;
    let device = Device::new(directory.path(), size)?;
    let cgroup = Cgroup::new()?;
    let setup = Setup::only("block", mode, &cgroup).with("group_by", json!("cgroup"));
    let agent = Agent::start(&unsplit(setup))?;
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
    let scrape = agent.settled()?;
    let id = cgroup.id()?;
    let labels =
        [("system_device", device.name()?), ("cgroup_id", &id), ("disk_io_direction", "read")];
    let (bytes, made) = (scrape.count(IO, &labels)?, scrape.count(OPERATIONS, &labels)?);
    ensure!(bytes == size, "{bytes} bytes shown, {size} read");
    let timed = scrape.count(&format!("{TIME}_count"), &labels)?;
    ensure!(timed == made, "{timed} timed, {made} made");
    worker.finish()?;
    Ok(())
}

/// It leaves in a request the time of the one before, which was then there.
fn what_the_kernel_does_not_account_has_no_time(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let device = Device::new(directory.path(), 16 << 20)?;
    let (_cgroup, setup) = everything(mode)?;
    let split = Agent::start(&setup)?;
    let whole = Agent::start(&unsplit(setup))?;
    let direct = device.direct()?;
    // What is accounted leaves its time in the requests' memory.
    let (before, after) = (rng.u64(300..500), rng.u64(300..500));
    let began = Instant::now();
    for block in 0..before {
        direct.read(block * BLOCK, BLOCK as usize)?;
    }
    let took = began.elapsed().as_secs_f64();
    let off = device.set("iostats", "0")?;
    thread::sleep(Duration::from_secs(1));
    for block in 0..after {
        direct.read(block * BLOCK, BLOCK as usize)?;
    }
    drop(off);
    for (agent, name, timed) in [
        (&whole, TIME, before),
        (&split, QUEUE_TIME, before),
        (&split, DEVICE_TIME, before + after),
    ] {
        let scrape = agent.settled()?;
        let made = sum(&scrape, OPERATIONS, &device, "read")?;
        let shown = sum(&scrape, &format!("{name}_count"), &device, "read")?;
        ensure!((made, shown) == (before + after, timed), "{name}: {made} shown, {shown} timed");
        let seconds = seconds(&scrape, name, &device)?;
        ensure!(timed > before || seconds <= took, "{name}: {seconds} s in {took} s");
    }
    Ok(())
}
