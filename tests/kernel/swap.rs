//! Pages that are swapped: memory of more than a limit, and a file to swap to.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    file,
    memory::{Limited, Swap, Swapped},
    plan::{Call, Open, Plan, Step},
    random,
    scrape::Sample,
    worker::Worker,
};

use crate::WORKLOAD;

const SWAPPED: &str = "ebpf_memory_swapped_total";
const DIRECTIONS: [&str; 2] = ["in", "out"];

/// What can be swapped to.
enum To {
    File,
    Compressed,
}

/// Runs what does not fit, and returns what is shown with what the kernel says.
fn swap(to: To, host: bool) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let limit = rng.u64(16 << 20..20 << 20);
    let size = 2 * limit;
    let swap = match to {
        To::File => Swap::new(directory.path(), 4 * limit)?,
        To::Compressed => Swap::compressed(4 * limit)?,
    };
    let Some(swap) = swap else {
        println!("not run here: this machine cannot swap to that");
        return Ok(());
    };
    let limited = Limited::swapping(limit)?;
    if !host && limited.swapped()?.is_none() {
        println!("not run here: this kernel does not count what a cgroup swaps");
        return Ok(());
    }
    let setup = Setup::new(Mode::Auto, limited.scope());
    let setup = if host { setup.with("scope", json!({})) } else { setup };
    let before = if host { Swapped::of_host()? } else { limited.swapped()?.unwrap_or_default() };
    let agent = Agent::start(&setup)?;
    // Written to once and once more: half of it is out each time.
    let touch = Step { advice: 1, ..Step::new(Call::Touch, 0, size as usize) };
    let plan = Plan { threads: 1, files: vec![Open::Never], phases: vec![vec![touch]] };
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    limited.add(worker.pid())?;
    worker.phase()?;
    let scrape = agent.settled()?;
    let now = if host { Swapped::of_host()? } else { limited.swapped()?.unwrap_or_default() };
    worker.finish()?;
    let truth = [now.pages_in - before.pages_in, now.pages_out - before.pages_out];
    for (direction, truth) in DIRECTIONS.into_iter().zip(truth) {
        let shown = scrape.count(SWAPPED, &[("system_paging_direction", direction)])?;
        ensure!(shown == truth, "{direction}: {shown} pages shown, {truth} swapped");
        let least = (size - limit) / 4096 / 2;
        ensure!(shown > least, "{direction}: {shown} pages shown of {least} that had no room");
    }
    // Such a device takes no requests, and so is none that there is anything to say of.
    if let Some(device) = swap.device() {
        let about = |sample: &&Sample| sample.labels.get("system_device") == Some(&device);
        let shown: Vec<_> = scrape.samples().iter().filter(about).collect();
        ensure!(shown.is_empty(), "{device}: {shown:?}");
    }
    Ok(())
}

#[test]
fn what_the_host_swaps_is_what_the_kernel_counts() -> Result<()> {
    swap(To::File, true)
}

#[test]
fn what_a_cgroup_swaps_is_what_the_kernel_counts() -> Result<()> {
    swap(To::File, false)
}

#[test]
fn what_is_swapped_to_compressed_memory_is_what_the_kernel_counts() -> Result<()> {
    swap(To::Compressed, true)
}
