//! Page faults, beside what the kernel accounts to the process.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file,
    memory::{Limited, Swap, Swapped},
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode};

in_each_mode!(["faults/served"] faults_are_those_of_the_process,
    what_comes_back_from_a_swap_file_was_waited_for,
    what_comes_back_from_compressed_memory_was_waited_for,
);

/// Minor and major faults of a process and all its threads: what getrusage(2) calls `ru_minflt` and `ru_majflt`.
fn accounted(pid: Pid) -> Result<[u64; 2]> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(") ").next().context("no name")?;
    // Behind the name: proc(5)'s third field is the first.
    let field = |number: usize| -> Result<u64> {
        Ok(fields.split(' ').nth(number - 3).context("too few fields")?.parse()?)
    };
    Ok([field(10)?, field(12)?])
}

fn faults_are_those_of_the_process(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 16 << 20)?;
    let pages = file::pages(&path)?;
    // Memory of nobody's, touched page by page; and a file, here and there, without readahead.
    let fresh = Step::new(Call::Touch, 1, rng.usize(1 << 20..4 << 20)).times(rng.u64(1..5));
    let mut steps = vec![fresh];
    for _ in 0..rng.u64(20..200) {
        let page = rng.u64(0..pages) * *file::PAGE;
        steps.push(Step::new(Call::Touch, 0, 1).at(page));
    }
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("faults", mode, &cgroup))?;
    let files = vec![Open::Read(path), Open::Never];
    let plan = Plan { threads: rng.usize(1..4), files, phases: vec![steps] };
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    worker.join(&cgroup)?;
    let before = accounted(worker.pid())?;
    worker.phase()?;
    let after = accounted(worker.pid())?;
    worker.leave()?;
    let scrape = agent.settled()?;
    worker.finish()?;

    let kinds = ["minor", "major"].into_iter().zip(after.into_iter().zip(before));
    for (kind, (after, before)) in kinds {
        let truth = after - before;
        ensure!(truth > 10, "the workload has taken {truth} {kind} faults");
        let label = [("system_paging_fault_type", kind)];
        let shown = scrape.count("ebpf_memory_page_faults_total", &label)?;
        ensure!(shown == truth, "{shown} {kind} faults shown, {truth} accounted");
    }
    Ok(())
}

fn what_comes_back_from_a_swap_file_was_waited_for(mode: Mode) -> Result<()> {
    let directory = file::directory()?;
    let Some(swap) = Swap::new(directory.path(), 64 << 20)? else {
        println!("not run here: this machine cannot swap to a file");
        return Ok(());
    };
    swapped(mode, &swap)
}

fn what_comes_back_from_compressed_memory_was_waited_for(mode: Mode) -> Result<()> {
    let Some(swap) = Swap::compressed(64 << 20)? else {
        println!("not run here: this machine cannot swap to compressed memory");
        return Ok(());
    };
    swapped(mode, &swap)
}

/// Memory of more than a limit, touched again and again: the page that comes is a major fault, and so has been waited
/// for; one that came along with it is a minor one when it is touched.
fn swapped(mode: Mode, swap: &Swap) -> Result<()> {
    let limit = random::rng().u64(16 << 20..20 << 20);
    let limited = Limited::swapping(limit)?;
    let touch = Step { advice: 1, ..Step::new(Call::Touch, 0, 2 * limit as usize) };
    let plan = Plan { threads: 1, files: vec![Open::Never], phases: vec![vec![touch]] };
    let agent = Agent::start(&Setup::only("faults", mode, limited.scope()))?;
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    limited.add(worker.pid())?;
    let (before, swapped) = (accounted(worker.pid())?, Swapped::of_host()?.pages_in);
    worker.phase()?;
    let (after, swapped) = (accounted(worker.pid())?, Swapped::of_host()?.pages_in - swapped);
    let scrape = agent.settled()?;
    worker.finish()?;
    let [minor, major] = [after[0] - before[0], after[1] - before[1]];
    // The kernel reads what lies beside it in a file as well, and so less has to be waited for.
    let least = if swap.device().is_some() { swapped / 2 } else { 100 };
    ensure!(major > least.max(100), "{major} major faults taken for {swapped} pages swapped in");
    for (kind, truth) in [("minor", minor), ("major", major)] {
        let label = [("system_paging_fault_type", kind)];
        let shown = scrape.count("ebpf_memory_page_faults_total", &label)?;
        ensure!(shown == truth, "{shown} {kind} faults shown, {truth} accounted");
    }
    Ok(())
}
