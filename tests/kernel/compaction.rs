//! Compaction of all memory, which the kernel does at once when it is asked to.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    random,
    shell::Shell,
    tracefs::Witness,
};

use crate::in_each_mode;

in_each_mode!(["compaction/runs"] every_zone_that_is_compacted_is_counted);

const DURATION: &str = "ebpf_memory_compaction_duration_seconds";

fn every_zone_that_is_compacted_is_counted(mode: Mode) -> Result<()> {
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("compaction", mode, &cgroup))?;
    let times = random::rng().usize(1..4);
    let shell = Shell::new(&"echo 1 > /proc/sys/vm/compact_memory;".repeat(times))?;
    let ends = Witness::new("compaction/mm_compaction_end", &[shell.pid()])?;
    cgroup.add(shell.pid())?;
    let before = Instant::now();
    ensure!(shell.finish()?.success(), "the shell failed");
    let took = before.elapsed();
    let scrape = agent.settled()?;
    let truth = ends.count()?;
    ensure!(truth > 0, "nothing was compacted");
    let shown = scrape.sum(&format!("{DURATION}_count"), &[])?;
    ensure!(shown == truth, "{shown} runs shown, {truth} traced");
    let mut by_result = BTreeMap::<_, u64>::new();
    for line in ends.lines()? {
        let result = line.rsplit("status=").next().context("no status")?.trim().to_owned();
        *by_result.entry(result).or_default() += 1;
    }
    ensure!(by_result.values().sum::<u64>() == truth, "{by_result:?}");
    for (result, truth) in &by_result {
        let label = [("compaction_result", result.as_str())];
        let shown = scrape.count(&format!("{DURATION}_count"), &label)?;
        ensure!(shown == *truth, "{result}: {shown} runs shown, {by_result:?} traced");
    }
    let seconds: f64 = scrape.all(&format!("{DURATION}_sum"), &[]).map(|s| s.value).sum();
    ensure!(seconds > 0.0 && seconds <= took.as_secs_f64(), "{seconds} s shown of {took:?}");
    Ok(())
}
