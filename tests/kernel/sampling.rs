//! Signals of which some events are counted for all.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file,
    plan::{Call, Open, Plan, Step},
    random,
};

use crate::{in_each_mode, work};

in_each_mode!(["syscalls/timed"] one_of_n_is_counted, chances_are_as_configured);

/// How many of `made` calls are counted with this sampling.
fn counted(mode: Mode, made: u64, sampling: &str, rate: f64) -> Result<u64> {
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut random::rng(), 4096)?;
    let cgroup = Cgroup::new()?;
    let sampling = json!([{"signals": ["syscalls"], "mode": sampling, "rate": rate}]);
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup).with("sampling", sampling))?;
    let step = Step::new(Call::Pread64, 0, 1).times(made);
    work(&Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![vec![step]] }, &cgroup)?;
    let scrape = agent.settled()?;
    let rate = rate.to_string();
    let labels = [("syscall", "pread64"), ("ebpf_sampling_rate", rate.as_str())];
    let (calls, timed) = (
        scrape.sum("ebpf_syscall_calls_total", &labels)?,
        scrape.sum("ebpf_syscall_duration_seconds_count", &labels)?,
    );
    ensure!(calls == timed, "{calls} calls, {timed} durations");
    Ok(calls)
}

fn one_of_n_is_counted(mode: Mode) -> Result<()> {
    let n = random::rng().u64(2..20);
    let made = random::rng().u64(1_000..5_000);
    let shown = counted(mode, made, "nth", 1.0 / n as f64)?;
    // Each CPU counts for itself: what is left on each is less than n.
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let least = (made - made.min(cpus * (n - 1))).div_ceil(n);
    ensure!((least..=made / n).contains(&shown), "{shown} of {made} by {n}");
    Ok(())
}

fn chances_are_as_configured(mode: Mode) -> Result<()> {
    const MADE: u64 = 20_000;
    let shown = counted(mode, MADE, "probability", 0.25)?;
    // Six standard deviations of a binomial distribution: once in a thousand million times it is outside.
    let (mean, deviation) = (MADE / 4, (MADE as f64 * 0.25 * 0.75).sqrt());
    ensure!(shown.abs_diff(mean) as f64 <= 6.0 * deviation, "{shown} of {MADE}");
    Ok(())
}
