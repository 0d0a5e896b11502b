//! Every metric that the reference of signals has, seen.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Mode, Setup},
    deadline::wait_for,
    device::Device,
    file,
    memory::Limited,
    modes::hole,
    plan::{Call, Open, Plan, Step, ring},
    random,
    shell::Shell,
    worker::Worker,
};

use crate::{WORKLOAD, lifecycle::missed};

/// What is generated from the metrics' definitions.
const REFERENCE: &str = include_str!("../../docs/signals.md");

/// The names of all metrics that a file of OTLP lines has.
fn names(path: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let text = fs::read_to_string(path)?;
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let line: Value = serde_json::from_str(line)?;
        let metrics = line["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array();
        let all = metrics.into_iter().flatten().filter_map(|metric| metric["name"].as_str());
        names.extend(all.map(str::to_owned));
    }
    Ok(names)
}

#[test]
fn every_metric_is_shown_when_what_it_counts_has_happened() -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let out = directory.path().join("out.json");
    let on = json!({"enabled": true});
    let limit = 16 << 20;
    let limited = Limited::new(limit)?;
    let setup = Setup::new(Mode::Auto, limited.scope())
        .with("scope", json!({}))
        .with("run_time", json!(true))
        .and("file", json!({"path": out}));
    let asked_for = ["page_states", "madvise", "faults", "descriptors"];
    let setup = asked_for.iter().fold(setup, |setup, name| setup.signal(name, on.clone()));
    let agent = Agent::start(&setup)?;

    // Reads of more than memory holds, advice, descriptors, memory, and requests through a ring: right and wrong.
    let data = file::cold(&directory, &mut rng, 3 * limit)?;
    let flags = |step: Step, advice: i32| Step { advice, ..step };
    let whole = Step::new(Call::Read, 0, 1 << 20).times(3 * limit / (1 << 20));
    let steps = vec![
        whole,
        Step::advise(0, libc::POSIX_FADV_DONTNEED),
        Step::new(Call::Pread64, 1, 1),
        Step::advise(1, libc::POSIX_FADV_DONTNEED),
        Step::new(Call::Madvise, 0, 4_096),
        flags(Step::new(Call::Madvise, 0, 4_096), 99),
        Step::new(Call::Descriptors, 0, 0),
        Step::new(Call::Touch, 0, 1 << 20),
        flags(Step::new(Call::Ring, 0, 10), 22),
        flags(Step::new(Call::Ring, 1, 10), 22 | ring::WRONG),
        Step::new(Call::Pwrite64, 2, 4_096),
        Step::new(Call::Fsync, 2, 0),
    ];
    let files = vec![Open::Read(data.clone()), Open::Never, Open::Write(data)];
    let mut worker = Worker::start(WORKLOAD, &Plan { threads: 1, files, phases: vec![steps] })?;
    limited.add(worker.pid())?;
    worker.phase()?;
    worker.finish()?;
    Shell::new("kill -KILL $$")?.finish()?;
    // A device that has less than it promises fails.
    let promise = directory.path().join("promise");
    fs::write(&promise, vec![7; 1 << 16])?;
    let device = Device::of(&promise)?;
    device.pass_through()?;
    fs::File::options().write(true).open(&promise)?.set_len(1 << 12)?;
    ensure!(device.direct()?.read(0, 1 << 16).is_err(), "what is not there was read");

    let declared: BTreeSet<_> = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .map(str::to_owned)
        .collect();
    ensure!(declared.len() > 50, "{declared:?}");
    agent.settled()?;
    let missing = wait_for("every metric", || {
        let mut missing: BTreeSet<_> = declared.difference(&names(&out)?).cloned().collect();
        // Instead of others, in block::unsplit.
        missing.remove("ebpf.block.duration");
        // Linux before 5.12 does not count it.
        if missed(agent.pid())?.is_empty() {
            missing.remove("ebpf.probe.missed");
        }
        Ok(absent(&missing)?.then_some(missing))
    })
    .with_context(|| format!("{:?}", declared.difference(&names(&out).unwrap_or_default())))?;
    println!("absent on this kernel: {missing:?}");
    Ok(())
}

/// Whether of each of these the kernel lacks something.
fn absent(metrics: &BTreeSet<String>) -> Result<bool> {
    for metric in metrics {
        // Where the tests can be, pressure and statistics of programs are.
        let probes: &[&str] = match metric.as_str() {
            "ebpf.memory.reclaim_throttle_duration" => &["reclaim/throttled"],
            "ebpf.cache.followed" | "ebpf.cache.misses" | "ebpf.cache.readahead" => {
                &["page_cache/misses"]
            }
            "ebpf.cache.faulted" | "ebpf.cache.hit_ratio" => &["page_cache/misses"],
            "ebpf.fadvise.dropped" | "ebpf.fadvise.drop_ratio" => &["fadvise/dropped"],
            "ebpf.io_uring.submissions" => &["io_uring/submissions"],
            name if name.starts_with("ebpf.io_uring.") => &["io_uring/completions"],
            _ => return Ok(false),
        };
        for probe in probes {
            if hole(probe, Mode::Auto)?.is_none() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
