//! Pages that enter and leave the page cache, and pages that reads look for in it.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file::{self, PAGE},
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, work};

in_each_mode!(["page_cache/adds", "page_cache/deletes"] pages_added_and_deleted_are_those_of_the_file);

const ADDS: &str = "ebpf_page_cache_adds_total";
const DELETES: &str = "ebpf_page_cache_deletes_total";
const LOOKUPS: &str = "ebpf_cache_read_attempts_total";

/// Times that a case may be repeated because the kernel dropped pages of its own accord (DAMON and
/// memory pressure do) between the reads and the drop: only then does the test not know the truth.
const ATTEMPTS: u32 = 5;

fn pages_added_and_deleted_are_those_of_the_file(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    for attempt in 1..=ATTEMPTS {
        // The last page is seldom full.
        let size = rng.u64(1..40 << 20);
        let path = file::cold(&directory, &mut rng, size)?;
        let pages = file::pages(&path)?;
        let chunk = rng.usize(1_000..1 << 20);
        let read = Step::new(Call::Read, 0, chunk).times(size / chunk as u64 + 2);
        let plan = Plan {
            threads: 1,
            files: vec![Open::Read(path.clone())],
            phases: vec![vec![read], vec![Step::advise(0, libc::POSIX_FADV_DONTNEED)]],
        };
        let cgroup = Cgroup::new()?;
        let agent = Agent::start(&Setup::only("page_cache", mode, &cgroup))?;
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        ensure!(file::resident(&path)? == 0);
        worker.join(&cgroup)?;

        worker.phase()?;
        let scrape = agent.settled()?;
        let added = scrape.count(ADDS, &[])?;
        ensure!(added == pages, "{added} adds shown, the file has {pages} pages (chunk {chunk})");
        ensure!(scrape.count(DELETES, &[])? == 0, "deletes shown before any");

        let present = file::resident(&path)?;
        worker.phase()?;
        let left = file::resident(&path)?;
        ensure!(worker.finish()?.of(Call::Read).bytes == size);
        if present != pages || left != 0 {
            println!("attempt {attempt}: {present} of {pages} pages before, {left} after the drop");
            continue;
        }
        let scrape = agent.settled()?;
        let deleted = scrape.count(DELETES, &[])?;
        ensure!(deleted == pages, "{deleted} deletes shown, {pages} pages were dropped");
        ensure!(scrape.count(ADDS, &[])? == pages, "adds shown for the drop");
        return Ok(());
    }
    bail!("the kernel dropped pages of its own accord in {ATTEMPTS} attempts");
}

in_each_mode!(["page_cache/deletes"] what_others_delete_is_counted_for_the_owner);

/// The pages of a cgroup, dropped by a process that is none of its.
fn what_others_delete_is_counted_for_the_owner(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let cgroup = Cgroup::new()?;
    let root = cgroup.path().parent().context("it is below the root")?;
    let controllers = fs::read_to_string(root.join("cgroup.subtree_control"))?;
    if !controllers.split_whitespace().any(|controller| controller == "memory") {
        println!("not run here: memory is not controlled by cgroup v2");
        return Ok(());
    }
    for attempt in 1..=ATTEMPTS {
        let size = rng.u64(1..10 << 20);
        let path = file::cold(&directory, &mut rng, size)?;
        let pages = file::pages(&path)?;
        let agent = Agent::start(&Setup::only("page_cache", mode, &cgroup))?;
        let read = Step::new(Call::Read, 0, size as usize);
        let files = vec![Open::Read(path.clone())];
        work(&Plan { threads: 1, files, phases: vec![vec![read]] }, &cgroup)?;
        if file::resident(&path)? != pages {
            println!("attempt {attempt}: the kernel dropped pages of its own accord");
            continue;
        }
        file::drop_cache(&path)?;
        let shown = agent.settled()?.count(DELETES, &[])?;
        // A record of the event does not say whose the page was.
        let truth = if mode == Mode::Tracepoint { 0 } else { pages };
        ensure!(shown == truth, "{shown} deletes shown, {pages} pages were dropped by another");
        return Ok(());
    }
    bail!("the kernel dropped pages of its own accord in {ATTEMPTS} attempts");
}

in_each_mode!(["page_cache/lookups"] lookups_are_the_pages_that_reads_ask_for);

fn lookups_are_the_pages_that_reads_ask_for(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let page = *PAGE;
    let size = rng.u64(3 << 20..6 << 20);
    let path = file::cold(&directory, &mut rng, size)?;
    let at = |offset: u64, size: u64| Step::new(Call::Pread64, 0, size as usize).at(offset);

    let somewhere = rng.u64(10..100) * page;
    let mut steps = vec![
        // Two reads that end on the same page, each way round, and the same read twice.
        at(somewhere, 3 * page),
        at(somewhere + page, 2 * page),
        at(somewhere + page, 2 * page),
        at(somewhere + 2 * page, page),
        at(somewhere + 2 * page, 1),
        at(somewhere, 3 * page),
        at(somewhere, 3 * page),
        // One byte, the last of a page and the first of the next, and the page after the last read's.
        at(somewhere + page - 1, 1),
        at(somewhere + page, 1),
        at(somewhere + page - 1, 2),
        at(somewhere + page, page),
        at(somewhere + 2 * page, page),
        // Across the end of the file, at it and behind it.
        at(size - 1, 1),
        at(size - 1, page),
        at(size - 3 * page, 10 * page),
        at(size - 3 * page, 10 * page),
        at(size - 2 * page, 10 * page),
        at(size, page),
        at(size + 10 * page, page),
        // Nothing.
        at(somewhere, 0),
        // Everything, in one read that finds many batches of folios.
        at(0, size),
        at(0, size),
        at(page, size),
    ];
    for _ in 0..300 {
        let offset = rng.u64(0..size);
        let longest = 1 << rng.u32(0..20);
        steps.push(at(offset, rng.u64(0..longest)));
    }
    // Every byte of one page, one at a time.
    steps.extend((0..page).map(|byte| at(somewhere + byte, 1)));

    let truth: u64 = steps
        .iter()
        .map(|step| {
            let end = size.min(step.offset + step.size as u64);
            if end > step.offset { (end - 1) / page - step.offset / page + 1 } else { 0 }
        })
        .sum();
    let plan = Plan { threads: 1, files: vec![Open::Read(path.clone())], phases: vec![steps] };
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("page_cache", mode, &cgroup))?;
    work(&plan, &cgroup)?;
    let cold = agent.settled()?.count(LOOKUPS, &[])?;
    ensure!(cold == truth, "{cold} lookups shown for {truth} pages, the file not being cached");
    work(&plan, &cgroup)?;
    let warm = agent.settled()?.count(LOOKUPS, &[])? - cold;
    ensure!(warm == truth, "{warm} lookups shown for {truth} pages, the file being cached");
    let threads = rng.usize(2..9);
    work(&Plan { threads, ..plan }, &cgroup)?;
    let scrape = agent.settled()?;
    let many = scrape.count(LOOKUPS, &[])? - cold - warm;
    let truth = truth * threads as u64;
    ensure!(many <= truth, "{many} lookups shown for {truth} pages of {threads} threads");
    // How many pages an event is about, nobody knows who missed it.
    scrape
        .admits("page_cache/lookups", (truth - many).min(1))
        .with_context(|| format!("{many} lookups shown for {truth} pages of {threads} threads"))
}
