//! Pages that are made dirty.

use anyhow::{Result, ensure};
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, PAGE},
    plan::{Call, Open, Plan, Step},
    random,
};

use crate::{in_each_mode, work};

in_each_mode!(["dirty/dirtied"] pages_written_to_are_dirtied_once);

const DIRTIED: &str = "ebpf_page_cache_dirtied_total";

fn pages_written_to_are_dirtied_once(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let page = *PAGE;
    // Clean: its pages have reached the disk.
    let path = file::cold(&directory, &mut rng, 4 << 20)?;
    let pages = rng.u64(1..1_000);
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("dirty", mode, &cgroup))?;
    // Whole pages from the start on, each once; then again while they are dirty, byte by byte in one of them.
    let first = Step::new(Call::Pwrite64, 0, (pages * page) as usize);
    let again = Step::new(Call::Pwrite64, 0, 1).times(50);
    let files = vec![Open::Write(path)];
    let plan = Plan { threads: 1, files, phases: vec![vec![first, again]] };
    work(&plan, &cgroup)?;
    let shown = agent.settled()?.count(DIRTIED, &[])?;
    // Had a flusher come between, one page more: the file is too new for that.
    ensure!(shown == pages, "{shown} pages shown, {pages} written to");
    Ok(())
}
