//! Five workloads on the live machine, and what the rules make of each. Their windows are minutes and hours;
//! here they are a second and some seconds.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use nix::libc::POSIX_FADV_DONTNEED;
use serde_json::json;
use tests::{
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    memory::Limited,
    plan::{Call, Open, Plan, Step},
    prometheus::Prometheus,
    random,
    worker::Worker,
};

use crate::{Stage, rules::shipped};

/// Bytes of a read.
const READ: usize = 4096;
/// Reads of a phase.
const READS: u64 = 200;
/// Reads of a phase of a scan: the data lasts for a while.
const SCANNED: u64 = 40;
/// Time between two phases.
const PAUSE: Duration = Duration::from_millis(10);
/// Phases before the workload: reads of what is cached, which is what is usual.
const USUAL: usize = 250;
/// Phases of the workload at most.
const MOST: usize = 800;
/// Times that a workload is tried.
const ATTEMPTS: u32 = 3;
/// Bytes of the data, and of the memory where it is limited.
const DATA: u64 = 128 << 20;
const LIMIT: u64 = 24 << 20;

/// The files of a plan: what is cached, the data, and where is written to.
const CACHED: usize = 0;
const LARGE: usize = 1;
const WRITTEN: usize = 2;

/// The rules with windows that a test can wait for, and what is slow for data that is in memory.
fn rules() -> Result<String> {
    let mut rules = shipped()?;
    for (shipped, here) in
        [("[5m]", "[1s]"), ("[6h] offset 15m", "[30s] offset 1s"), ("0.0001", "0.00001")]
    {
        ensure!(rules.contains(shipped), "{shipped} is in no rule");
        rules = rules.replace(shipped, here);
    }
    Ok(rules)
}

/// Runs `phase` again and again, after a while of what is usual, until the rules say that it is `state`.
fn seen_as(
    state: &str,
    limit: Option<u64>,
    mut phase: impl FnMut(&mut Rng) -> Vec<Step>,
) -> Result<()> {
    // Who shares the processors may make the usual reads slow, too.
    for _ in 1..ATTEMPTS {
        match tried(state, limit, &mut phase) {
            Ok(()) => return Ok(()),
            Err(error) => println!("{error:#}"),
        }
    }
    tried(state, limit, &mut phase)
}

fn tried(
    state: &str,
    limit: Option<u64>,
    phase: &mut impl FnMut(&mut Rng) -> Vec<Step>,
) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let cached = file::cold(&directory, &mut rng, 1 << 20)?;
    let large = file::cold(&directory, &mut rng, DATA)?;
    let written = directory.path().join("written");
    fs::write(&written, "")?;
    let hot = vec![Step::new(Call::Pread64, CACHED, READ).times(READS)];
    let mut phases = vec![hot; USUAL];
    phases.extend((0..MOST).map(|_| phase(&mut rng)));
    let files = vec![Open::Read(cached), Open::Read(large), Open::Write(written)];
    let mut worker = Worker::start("workload", &Plan { threads: 1, files, phases })?;

    let limited = limit.map(Limited::new).transpose()?;
    let free = if limited.is_none() { Some(Cgroup::new()?) } else { None };
    let scope = limited.as_ref().map(Limited::scope).or(free.as_ref()).context("no cgroup")?;
    let stage = Stage::new(scope, json!({}))?;
    let prometheus = Prometheus::with_rules(stage.metrics, &rules()?)?;
    match &limited {
        Some(limited) => limited.add(worker.pid())?,
        None => worker.join(scope)?,
    }
    // It takes some seconds until it scrapes for the first time.
    prometheus.wait_for("up", 1.0)?;
    for _ in 0..USUAL {
        worker.phase()?;
        thread::sleep(PAUSE);
    }
    wait_for("what is usual", || {
        Ok((!prometheus.query("fathom:read_seconds:usual", None)?.is_empty()).then_some(()))
    })?;
    let wanted = format!("fathom:workload_state{{state={state:?}}}");
    let mut last = Vec::new();
    for _ in 0..MOST {
        worker.phase()?;
        thread::sleep(PAUSE);
        last = prometheus.query("fathom:workload_state", None)?;
        if !prometheus.query(&wanted, None)?.is_empty() {
            ensure!(last.len() == 1, "more than one state: {last:?}");
            return worker.kill();
        }
    }
    let numbers = prometheus.query("{__name__=~\"fathom:.*\"}", None)?;
    bail!("not seen as {state} but as {last:?}: {numbers:#?}\n{}", prometheus.log())
}

/// Reads anywhere in the data.
fn anywhere(rng: &mut Rng) -> Vec<Step> {
    let read = |rng: &mut Rng| {
        Step::new(Call::Pread64, LARGE, READ).at(rng.u64(0..DATA / READ as u64) * READ as u64)
    };
    (0..READS).map(|_| read(rng)).collect()
}

#[test]
fn a_benign_scan_is_a_scan() -> Result<()> {
    seen_as("scan", None, |_| {
        vec![
            Step::new(Call::Pread64, CACHED, READ).times(READS),
            Step::new(Call::Read, LARGE, READ).times(SCANNED),
        ]
    })
}

#[test]
fn pressure_that_slows_nobody_down_is_pressure() -> Result<()> {
    seen_as("pressure", Some(LIMIT), |_| {
        vec![
            Step::new(Call::Pread64, CACHED, READ).times(4 * READS),
            Step::new(Call::Read, LARGE, READ).times(SCANNED),
        ]
    })
}

#[test]
fn data_that_advice_throws_out_is_evicted_by_policy() -> Result<()> {
    seen_as("policy_eviction", None, |rng| {
        let mut steps = vec![Step::advise(LARGE, POSIX_FADV_DONTNEED)];
        steps.extend(anywhere(rng));
        steps
    })
}

#[test]
fn data_that_was_not_in_the_cache_is_cold() -> Result<()> {
    seen_as("cold_data", None, anywhere)
}

#[test]
fn reads_that_wait_for_memory_are_a_stall() -> Result<()> {
    let mut written = 0;
    seen_as("reclaim_stall", Some(LIMIT), |rng| {
        // What must be written before it can be reclaimed.
        let mut steps = vec![Step::new(Call::Pwrite64, WRITTEN, 1 << 20).at(written).times(8)];
        written = (written + (1 << 20)) % (64 << 20);
        steps.extend(anywhere(rng).into_iter().take(READS as usize / 4));
        steps
    })
}
