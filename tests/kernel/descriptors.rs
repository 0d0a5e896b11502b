//! Descriptors that are opened and closed.

use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    plan::{Call, DESCRIPTORS, Open, Plan, Step},
    random,
};

use crate::{in_each_mode, work};

in_each_mode!(["descriptors/calls"] descriptors_are_counted_by_kind);

fn descriptors_are_counted_by_kind(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    // One thread: another could take a number that is free for a moment.
    let (threads, times) = (1, rng.u64(1..200));
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("descriptors", mode, &cgroup))?;
    let step = Step::new(Call::Descriptors, 0, 0).times(times);
    let plan = Plan { threads, files: vec![Open::Never], phases: vec![vec![step]] };
    let told = work(&plan, &cgroup)?.of(Call::Descriptors);
    let rounds = threads as u64 * times;
    ensure!(told.calls == rounds && told.errors.is_empty(), "the workload failed: {told:?}");
    let scrape = agent.settled()?;
    for (kind, opened) in DESCRIPTORS {
        let shown = scrape.count("ebpf_fd_opened_total", &[("fd_kind", kind)])?;
        let truth = opened * rounds;
        ensure!(shown == truth, "{kind}: {shown} opened shown, {truth} opened");
    }
    let all: u64 = DESCRIPTORS.iter().map(|(_, opened)| opened * rounds).sum();
    let shown = scrape.sum("ebpf_fd_opened_total", &[])?;
    ensure!(shown == all, "{shown} opened shown, {all} opened");
    let shown = scrape.count("ebpf_fd_closed_total", &[])?;
    ensure!(shown == all, "{shown} closed shown, {all} closed");
    for error in ["ENOENT", "EBADF"] {
        let shown = scrape.count("ebpf_fd_errors_total", &[("error_type", error)])?;
        ensure!(shown == rounds, "{error}: {shown} errors shown, {rounds} met");
    }
    let shown = scrape.sum("ebpf_fd_errors_total", &[])?;
    ensure!(shown == 2 * rounds, "{shown} errors shown, {} met", 2 * rounds);
    Ok(())
}
