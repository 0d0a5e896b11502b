//! A read that sleeps for a known time falls into the right bucket, in both forms of the histogram.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use abi::exponential;
use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, pipe},
    otlp::{OtlpServer, Reading},
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, work};

in_each_mode!(["syscalls/timed"] a_sleep_falls_into_its_bucket, text_buckets_hold_what_the_exponential_ones_do,);

/// Times that a sleep may be repeated whose bounds lie in two buckets.
const ATTEMPTS: u32 = 10;

/// The OTLP index of the bucket of a duration.
fn index(duration: Duration) -> Result<i32> {
    let nanos = u64::try_from(duration.as_nanos())?;
    let bucket = exponential::bucket(nanos).context("no time at all")?;
    Ok(i32::try_from(bucket)? + exponential::OFFSET)
}

fn a_sleep_falls_into_its_bucket(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let (path, mut ends) = pipe(&directory)?;
    for attempt in 1..=ATTEMPTS {
        let server = OtlpServer::start()?;
        let cgroup = Cgroup::new()?;
        let agent =
            Agent::start(&Setup::only("syscalls", mode, &cgroup).export_to(server.address()))?;
        let plan = Plan {
            threads: 1,
            files: vec![Open::Read(path.clone())],
            phases: vec![vec![Step::new(Call::Read, 0, 1)]],
        };
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.begin()?;
        worker.inside(libc::SYS_read, 1)?;
        // From here to the write the kernel is inside the read; the caller's own time is longer.
        let inside = Instant::now();
        thread::sleep(Duration::from_micros(rng.u64(20_000..300_000)));
        let least = inside.elapsed();
        ends.write_all(b"x")?;
        worker.stopped()?;
        let report = worker.finish()?;
        let most = Duration::from_nanos(report.of(Call::Read).nanos[0]);
        if index(least)? != index(most)? {
            println!("attempt {attempt}: {least:?} and {most:?} lie in two buckets");
            continue;
        }

        let scrape = agent.settled()?;
        let read = [("syscall", "read")];
        let sum = scrape.one("ebpf_syscall_duration_seconds_sum", &read)?.value;
        ensure!(
            least.as_secs_f64() <= sum && sum <= most.as_secs_f64(),
            "{least:?} {sum} {most:?}"
        );
        for bucket in scrape.all("ebpf_syscall_duration_seconds_bucket", &read) {
            let bound: f64 = bucket.labels["le"].parse()?;
            if bound < least.as_secs_f64() {
                ensure!(bucket.value == 0.0, "{most:?} is counted within {bound} s");
            } else if bound >= upper(index(most)?) {
                ensure!(bucket.value == 1.0, "{most:?} is not counted within {bound} s");
            }
        }
        let point = server.wait_for("ebpf.syscall.duration", |point| match &point.value {
            Reading::Exponential(data) => point.attributes["syscall"] == "read" && data.count > 0,
            _ => false,
        })?;
        let Reading::Exponential(data) = point.value else { bail!("{point:?}") };
        ensure!(data.count == 1 && data.zero_count == 0 && data.scale == exponential::SCALE);
        let positive = data.positive.context("no buckets")?;
        let filled: Vec<_> = (positive.offset..)
            .zip(positive.bucket_counts)
            .filter(|(_, count)| *count > 0)
            .collect();
        ensure!(filled == [(index(least)?, 1)], "{least:?} to {most:?} is in {filled:?}");
        return Ok(());
    }
    bail!("no sleep of {ATTEMPTS} fell into one bucket for sure");
}

/// The upper bound of a bucket, in seconds.
fn upper(index: i32) -> f64 {
    (f64::from(index + 1) / f64::from(1 << exponential::SCALE)).exp2()
}

fn text_buckets_hold_what_the_exponential_ones_do(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 4 << 20)?;
    let server = OtlpServer::start()?;
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup).export_to(server.address()))?;
    // Microseconds when cached, much more when not.
    let steps = (0..2_000)
        .map(|_| Step::new(Call::Pread64, 0, rng.usize(1..200_000)).at(rng.u64(0..4 << 20)))
        .collect();
    let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![steps] };
    let made = work(&plan, &cgroup)?.of(Call::Pread64).calls;
    let scrape = agent.settled()?;
    let point = server.wait_for("ebpf.syscall.duration", |point| match &point.value {
        Reading::Exponential(data) => {
            point.attributes["syscall"] == "pread64" && data.count == made
        }
        _ => false,
    })?;
    let Reading::Exponential(data) = point.value else { bail!("{point:?}") };
    let positive = data.positive.context("no buckets")?;
    let call = [("syscall", "pread64")];
    let mut compared = 0;
    for bucket in scrape.all("ebpf_syscall_duration_seconds_bucket", &call) {
        let bound: f64 = bucket.labels["le"].parse()?;
        // Only what is certainly within the bound: the rest of a bucket that it cuts may be above.
        let within: u64 = data.zero_count
            + (positive.offset..)
                .zip(&positive.bucket_counts)
                .filter(|(index, _)| upper(*index) <= bound)
                .map(|(_, count)| count)
                .sum::<u64>();
        ensure!(bucket.value == within as f64, "{} within {bound} s, not {within}", bucket.value);
        compared += 1;
    }
    ensure!(compared > 10, "only {compared} buckets");
    Ok(())
}
