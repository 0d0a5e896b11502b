//! Pages that come back after they were reclaimed, and pages that are written back.

use anyhow::{Result, ensure};
use tempfile::NamedTempFile;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, PAGE},
    memory::{Limited, Swap},
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, work};

in_each_mode!(["page_states/changes"]
    what_a_limit_takes_away_comes_back,
    what_was_swapped_comes_back,
    what_is_synced_is_written_back,
);

fn what_a_limit_takes_away_comes_back(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let limit = rng.u64(16 << 20..24 << 20);
    let limited = Limited::new(limit)?;
    // More than the limit, and little enough that the kernel remembers all that it has reclaimed of it.
    let size = limit + limit / 4;
    let path = file::cold(&directory, &mut rng, size)?;
    let read = Step::new(Call::Pread64, 0, 4096);
    let mut steps = Vec::new();
    for _ in 0..2 {
        steps.extend((0..size / 4096).map(|page| read.at(page * 4096)));
    }
    let agent = Agent::start(&Setup::only("page_states", mode, limited.scope()))?;
    let plan = Plan { threads: 1, files: vec![Open::Read(path)], phases: vec![steps] };
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    limited.add(worker.pid())?;
    worker.phase()?;
    let truth = limited.refaults("file")?;
    let shown = agent.settled()?.count("ebpf_memory_refaults_total", &[("page_type", "file")])?;
    worker.finish()?;
    ensure!(*truth.start() > 100, "{truth:?} pages came back");
    ensure!(truth.contains(&shown), "{shown} refaults shown, {truth:?} in memory.stat");
    Ok(())
}

fn what_was_swapped_comes_back(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let Some(_swap) = Swap::new(directory.path(), 64 << 20)? else {
        println!("not run here: this machine cannot swap");
        return Ok(());
    };
    let limit = rng.u64(16 << 20..24 << 20);
    let limited = Limited::swapping(limit)?;
    // Of a tmpfs: nowhere but in memory and in swap.
    let path = NamedTempFile::new_in("/dev/shm")?.into_temp_path();
    let mut steps = Vec::new();
    for (call, file) in [(Call::Pwrite64, 0), (Call::Pread64, 1)] {
        let step = Step::new(call, file, 4096);
        steps.extend((0..(limit + limit / 2) / 4096).map(|page| step.at(page * 4096)));
    }
    let agent = Agent::start(&Setup::only("page_states", mode, limited.scope()))?;
    let files = vec![Open::Write(path.to_owned()), Open::Read(path.to_owned())];
    let mut worker = Worker::start(WORKLOAD, &Plan { threads: 1, files, phases: vec![steps] })?;
    limited.add(worker.pid())?;
    worker.phase()?;
    let truth = limited.refaults("anon")?;
    let shown = agent.settled()?.count("ebpf_memory_refaults_total", &[("page_type", "anon")])?;
    worker.finish()?;
    ensure!(*truth.start() > 100, "{truth:?} pages came back");
    ensure!(truth.contains(&shown), "{shown} refaults shown, {truth:?} in memory.stat");
    Ok(())
}

fn what_is_synced_is_written_back(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 4 << 20)?;
    let pages = rng.u64(1..1_000);
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("page_states", mode, &cgroup))?;
    let write = Step::new(Call::Pwrite64, 0, (pages * *PAGE) as usize);
    let sync = Step::new(Call::Fdatasync, 0, 0);
    let files = vec![Open::Write(path)];
    work(&Plan { threads: 1, files, phases: vec![vec![write, sync]] }, &cgroup)?;
    let shown = agent.settled()?.count("ebpf_page_cache_written_back_total", &[])?;
    ensure!(shown == pages, "{shown} pages shown, {pages} synced");
    Ok(())
}
