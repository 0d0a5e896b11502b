//! Signals that are read at intervals of their own, and readings at whole multiples of an interval.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    plan::{Call, Open, Plan, Step},
    random,
};

use crate::work;

const CALLS: &str = "ebpf.syscall.calls";
const ADDS: &str = "ebpf.page_cache.adds";

/// The values of a metric's points by the times of their readings, all series of one reading together.
fn readings(path: &Path, name: &str) -> Result<BTreeMap<u64, u64>> {
    let mut readings = BTreeMap::new();
    // The last may not be whole yet.
    for line in fs::read_to_string(path)?.split_inclusive('\n').filter(|line| line.ends_with('\n'))
    {
        let line: Value = serde_json::from_str(line)?;
        let metrics = line["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array();
        for metric in metrics.into_iter().flatten().filter(|metric| metric["name"] == name) {
            for point in metric["sum"]["dataPoints"].as_array().context("points")? {
                let number = |key: &str| -> Result<u64> {
                    Ok(point[key].as_str().with_context(|| format!("{point}"))?.parse()?)
                };
                // The end of a process's series has no value.
                if point["flags"] == 1 {
                    continue;
                }
                *readings.entry(number("timeUnixNano")?).or_default() += number("asInt")?;
            }
        }
    }
    Ok(readings)
}

#[test]
fn each_signal_is_read_at_its_interval_and_loses_nothing() -> Result<()> {
    let directory = file::directory()?;
    let out = directory.path().join("out.json");
    let cgroup = Cgroup::new()?;
    let close = json!({"signals": ["syscalls"], "collection_interval": "20ms"});
    let setup = Setup::new(Mode::Auto, &cgroup)
        .with("collection_interval", json!("1h"))
        .with("group_by", json!("process"))
        .with("overrides", json!([close]))
        .and("file", json!({"path": out}));
    let agent = Agent::start(&setup)?;
    let mut rng = random::rng();
    let (mut calls, mut pages) = (0, 0);
    // Processes that come and go: what they did is in both signals, whichever of them finds out first.
    for _ in 0..5 {
        let (count, size) = (rng.u64(1..500), rng.u64(1..300_000));
        let path = file::cold(&directory, &mut rng, size)?;
        pages += file::pages(&path)?;
        // Nothing is read ahead of what is asked for.
        let step = Step::new(Call::Pread64, 0, usize::try_from(size)?).times(count);
        let files = vec![Open::Read(path)];
        work(&Plan { threads: 1, files, phases: vec![vec![step]] }, &cgroup)?;
        calls += count;
    }
    wait_for("twenty readings", || Ok((readings(&out, CALLS)?.len() >= 20).then_some(())))?;
    ensure!(readings(&out, ADDS)?.is_empty(), "{:?}", readings(&out, ADDS)?);
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    let (shown, added) = (readings(&out, CALLS)?, readings(&out, ADDS)?);
    ensure!(shown.values().last() >= Some(&calls), "{calls} calls were made: {shown:?}");
    // At the end everything is read once more.
    ensure!(added.len() == 1, "{added:?}");
    ensure!(added.values().last() >= Some(&pages), "{pages} pages were added: {added:?}");
    Ok(())
}

#[test]
fn readings_are_at_whole_multiples_of_their_interval_since_the_epoch() -> Result<()> {
    const WINDOW: Duration = Duration::from_millis(200);
    let directory = file::directory()?;
    let out = directory.path().join("out.json");
    let cgroup = Cgroup::new()?;
    let epoch = SystemTime::now() - Duration::from_millis(random::rng().u64(0..1_000_000_000));
    let align = json!({
        "enabled": true,
        "epoch": humantime::format_rfc3339_nanos(epoch).to_string(),
    });
    let setup = Setup::only("syscalls", Mode::Auto, &cgroup)
        .with("collection_interval", json!("200ms"))
        .with("align", align)
        .and("file", json!({"path": out}));
    let agent = Agent::start(&setup)?;
    let seen = wait_for("ten readings", || {
        let seen = readings(&out, CALLS)?;
        Ok((seen.len() >= 10).then_some(seen))
    })?;
    drop(agent);
    let epoch = epoch.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let since = seen.keys().map(|at| u128::from(*at) - epoch).collect::<Vec<_>>();
    let windows = since.iter().map(|since| since / WINDOW.as_nanos()).collect::<Vec<_>>();
    ensure!(windows.windows(2).all(|pair| pair[0] < pair[1]), "two in one window: {since:?}");
    // Another process may have had the CPU at some of the boundaries, hardly at all of them.
    let soonest = since.iter().map(|since| since % WINDOW.as_nanos()).min();
    ensure!(soonest < Some(Duration::from_millis(5).as_nanos()), "{soonest:?} ns after: {since:?}");
    Ok(())
}
