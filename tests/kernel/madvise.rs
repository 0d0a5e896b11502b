//! Advice about memory and files, by advice and result.

use std::collections::BTreeMap;

use abi::madvise::ADVICES;
use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file,
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode};

in_each_mode!(["madvise/calls"] advice_is_counted_by_call_name_and_result);

fn advice_is_counted_by_call_name_and_result(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let data = file::cold(&directory, &mut rng, 500_000)?;
    let files = vec![Open::Read(data), Open::Never];
    // One call of each kind at a time: what the kernel says of it is then that of this advice.
    let mut kinds = Vec::new();
    for advice in [0, 1, 2, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19, 7, 99, -1, i32::MIN] {
        kinds.push(Step { advice, ..Step::new(Call::Madvise, 0, rng.usize(1..1 << 20)) });
    }
    for advice in [20, 21, 5_000] {
        kinds.push(Step { advice, ..Step::new(Call::ProcessMadvise, 0, rng.usize(1..1 << 20)) });
    }
    kinds.push(Step::new(Call::Readahead, 0, rng.usize(1..1 << 20)));
    // To the kernel, nothing is all that follows, and more than there is no mistake: of bytes that no file has, a few
    // calls would make a number that a counter cannot hold.
    for advice in [0, -1] {
        let offset = rng.u64(0..600_000);
        kinds.push(Step { offset, advice, ..Step::new(Call::Readahead, 0, 0) });
    }
    kinds.push(Step::new(Call::Readahead, 1, 4096));

    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("madvise", mode, &cgroup))?;
    let mut calls = BTreeMap::<_, u64>::new();
    let mut bytes = BTreeMap::<_, u64>::new();
    let mut errors = BTreeMap::<_, u64>::new();
    for step in kinds {
        let step = step.times(rng.u64(1..40));
        // A thread that ends gives its stack back, with this very call: that must not happen in the scope.
        let phases = vec![vec![step], Vec::new()];
        let plan = Plan { threads: 1, files: files.clone(), phases };
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.phase()?;
        worker.leave()?;
        worker.phase()?;
        let told = worker.finish()?.of(step.call);
        let advice = match step.call {
            Call::Readahead => "",
            _ => usize::try_from(step.advice).ok().and_then(|a| ADVICES.get(a)).map_or("", |a| *a),
        };
        let advice =
            if advice.is_empty() && step.call != Call::Readahead { "_OTHER" } else { advice };
        *calls.entry((step.call.name(), advice)).or_default() += told.calls;
        *bytes.entry((step.call.name(), advice)).or_default() += told.bytes;
        for (errno, count) in told.errors {
            *errors.entry((step.call.name(), errno)).or_default() += count;
        }
    }
    let scrape = agent.settled()?;

    ensure!(
        bytes.values().filter(|bytes| **bytes > 0).count() > 10,
        "nothing was accepted: {bytes:?}"
    );
    ensure!(errors.len() > 2, "nothing was refused: {errors:?}");
    for (metric, truth) in
        [("ebpf_madvise_calls_total", calls), ("ebpf_madvise_advised_bytes_total", bytes)]
    {
        for ((call, advice), made) in &truth {
            let shown = scrape.count(metric, &[("syscall", call), ("advice", advice)]);
            // An empty label is none.
            let shown = match *advice {
                "" => scrape.count(metric, &[("syscall", call)])?,
                _ => shown?,
            };
            ensure!(shown == *made, "{metric} {call} {advice}: {shown} shown, {made} made");
        }
        let (shown, made) = (scrape.sum(metric, &[])?, truth.values().sum::<u64>());
        ensure!(shown == made, "{metric}: {shown} shown, {made} made");
    }
    for ((call, errno), met) in &errors {
        let name = format!("{:?}", nix::errno::Errno::from_raw(*errno));
        let labels = [("syscall", *call), ("error_type", name.as_str())];
        let shown = scrape.count("ebpf_madvise_errors_total", &labels)?;
        ensure!(shown == *met, "{call} {name}: {shown} errors shown, {met} met");
    }
    let (shown, met) =
        (scrape.sum("ebpf_madvise_errors_total", &[])?, errors.values().sum::<u64>());
    ensure!(shown == met, "{shown} errors shown, {met} met");
    Ok(())
}
