//! What reads find in the page cache: hits, misses, and what was read ahead for them.

use std::{collections::BTreeSet, fs};

use anyhow::{Result, bail, ensure};
use nix::libc;
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::wait_for,
    file::{self, PAGE},
    memory::Limited,
    plan::{Call, Open, Plan, Step},
    random,
    scrape::Scrape,
    worker::Worker,
};

use crate::{WORKLOAD, in_each_mode, work};

in_each_mode!(["page_cache/lookups", "page_cache/misses"] a_first_reading_has_no_hit_and_a_second_nothing_else,
    without_readahead_misses_are_the_pages_that_are_new,
    a_scan_of_more_than_memory_holds_is_no_hit,
);
in_each_mode!(["page_cache/misses"] what_faults_add_is_apart);
in_each_mode!(["page_cache/adds", "page_cache/lookups", "page_cache/misses"] what_writes_add_is_no_miss);

/// What is shown of reads.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    followed: u64,
    misses: u64,
    ahead: u64,
}

impl Found {
    fn shown(scrape: &Scrape) -> Result<Self> {
        Ok(Self {
            followed: scrape.count("ebpf_cache_followed_total", &[])?,
            misses: scrape.count("ebpf_cache_misses_total", &[])?,
            ahead: scrape.count("ebpf_cache_readahead_total", &[])?,
        })
    }
}

/// What is shown by the collection that has the last of so many pages, and the ratio that it, and no later one, shows.
fn at_the_end(agent: &Agent, followed: u64) -> Result<(Found, f64)> {
    wait_for("a hit ratio", || {
        let scrape = agent.scrape()?;
        let found = Found::shown(&scrape)?;
        let ratio = scrape.all("ebpf_cache_hit_ratio", &[]).next().map(|sample| sample.value);
        ensure!(found.followed <= followed, "{found:?} shown of {followed} pages");
        Ok(ratio.filter(|_| found.followed == followed).map(|ratio| (found, ratio)))
    })
}

/// Long enough that what one collection shows is seen.
const INTERVAL: &str = "3s";

/// Times that a case may be repeated because the kernel dropped pages of its own accord.
const ATTEMPTS: u32 = 5;

fn a_first_reading_has_no_hit_and_a_second_nothing_else(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    for attempt in 1..=ATTEMPTS {
        let size = rng.u64(1..20 << 20);
        let path = file::cold(&directory, &mut rng, size)?;
        let pages = file::pages(&path)?;
        // Pages, parts of them, or many, so that each page is looked for by as many reads as have a byte of it.
        let chunk = (1 << rng.u64(0..8)) * *PAGE;
        let call = [Call::Pread64, Call::Preadv, Call::Preadv2][rng.usize(0..3)];
        let read = Step::new(call, 0, chunk as usize);
        let whole: Vec<_> = (0..size.div_ceil(chunk)).map(|i| read.at(i * chunk)).collect();
        let plan = Plan {
            threads: 1,
            files: vec![Open::Read(path.clone())],
            phases: vec![whole.clone(), whole],
        };
        let cgroup = Cgroup::new()?;
        let setup =
            Setup::only("page_cache", mode, &cgroup).with("collection_interval", json!(INTERVAL));
        let agent = Agent::start(&setup)?;
        let mut worker = Worker::start(WORKLOAD, &plan)?;
        worker.join(&cgroup)?;
        worker.phase()?;
        let (first, ratio) = at_the_end(&agent, pages)?;
        let there = file::resident(&path)?;
        worker.phase()?;
        if there != pages || file::resident(&path)? != pages {
            println!("attempt {attempt}: {there} of {pages} pages were left");
            continue;
        }
        ensure!(first.followed == pages, "{first:?} shown of {pages} pages ({call:?} of {chunk})");
        let new = first.misses + first.ahead;
        ensure!(
            new == pages,
            "{first:?}: {new} shown as new of {pages} pages ({call:?} of {chunk})"
        );
        ensure!(first.misses > 0, "{first:?}: the first read missed nothing");
        ensure!(ratio == 0.0, "a hit ratio of {ratio} at the first reading");
        let (second, ratio) = at_the_end(&agent, 2 * pages)?;
        let truth = Found { followed: 2 * pages, ..first };
        ensure!(second == truth, "{second:?} shown instead of {truth:?}");
        ensure!(ratio == 1.0, "a hit ratio of {ratio} at the second reading");
        let ratio = agent.settled()?.all("ebpf_cache_hit_ratio", &[]).count();
        ensure!(ratio == 0, "a hit ratio is shown while nothing is read");
        return Ok(());
    }
    bail!("the kernel dropped pages of its own accord in {ATTEMPTS} attempts");
}

fn without_readahead_misses_are_the_pages_that_are_new(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    for attempt in 1..=ATTEMPTS {
        let size = rng.u64(4 << 20..8 << 20);
        let path = file::cold(&directory, &mut rng, size)?;
        let (mut known, mut asked) = (BTreeSet::new(), 0);
        let mut steps = vec![Step::advise(0, libc::POSIX_FADV_RANDOM)];
        for _ in 0..500 {
            let offset = rng.u64(0..size - 60_000);
            // The kernel goes in steps of its own through what is longer than its window.
            let length = rng.usize(1..60_000);
            let call = [Call::Pread64, Call::Preadv, Call::Preadv2][rng.usize(0..3)];
            steps.push(Step::new(call, 0, length).at(offset));
            let (first, last) = (offset / *PAGE, (offset + length as u64 - 1) / *PAGE);
            asked += last - first + 1;
            known.extend(first..=last);
        }
        let plan = Plan { threads: 1, files: vec![Open::Read(path.clone())], phases: vec![steps] };
        let cgroup = Cgroup::new()?;
        let agent = Agent::start(&Setup::only("page_cache", mode, &cgroup))?;
        work(&plan, &cgroup)?;
        let there = file::resident(&path)?;
        let new = known.len() as u64;
        if there < new {
            println!("attempt {attempt}: {there} of {new} pages are left");
            continue;
        }
        let found = Found::shown(&agent.settled()?)?;
        ensure!(found.followed == asked, "{found:?} shown of {asked} pages");
        ensure!(found.misses + found.ahead == new, "{found:?} shown, {new} pages were new");
        // A page beside those that are asked for comes along where the kernel has larger ones.
        ensure!(there > new || found.ahead == 0, "{found:?} shown, nothing was read ahead");
        return Ok(());
    }
    bail!("the kernel dropped pages of its own accord in {ATTEMPTS} attempts");
}

fn a_scan_of_more_than_memory_holds_is_no_hit(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let limited = Limited::new(rng.u64(16 << 20..24 << 20))?;
    let size = 64 << 20;
    let path = file::cold(&directory, &mut rng, size)?;
    let pages = file::pages(&path)?;
    let chunk = (1 << rng.u64(0..6)) * *PAGE;
    let read = Step::new(Call::Pread64, 0, chunk as usize);
    let whole = || (0..size / chunk).map(|i| read.at(i * chunk));
    let plan = Plan {
        threads: 1,
        files: vec![Open::Read(path)],
        phases: vec![whole().chain(whole()).collect()],
    };
    let setup = Setup::only("page_cache", mode, limited.scope())
        .with("collection_interval", json!(INTERVAL));
    let agent = Agent::start(&setup)?;
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    limited.add(worker.pid())?;
    worker.phase()?;
    let (found, ratio) = at_the_end(&agent, 2 * pages)?;
    worker.finish()?;
    let hits = found.followed.saturating_sub(found.misses + found.ahead);
    ensure!(hits < pages / 10, "{hits} hits in two scans of {pages} pages each: {found:?}");
    ensure!(ratio < 0.1, "a hit ratio of {ratio}: {found:?}");
    Ok(())
}

fn what_faults_add_is_apart(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let size = rng.u64(1 << 20..4 << 20);
    let path = file::cold(&directory, &mut rng, size)?;
    let touch = Step::new(Call::Touch, 0, size as usize);
    let plan =
        Plan { threads: 1, files: vec![Open::Read(path.clone())], phases: vec![vec![touch]] };
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("page_cache", mode, &cgroup))?;
    work(&plan, &cgroup)?;
    let scrape = agent.settled()?;
    let (shown, added) = (
        scrape.count("ebpf_cache_faulted_total", &[])?,
        scrape.count("ebpf_page_cache_adds_total", &[])?,
    );
    ensure!(shown == added && shown > 0, "{shown} pages shown, {added} added");
    ensure!(
        shown == file::pages(&path)?,
        "{shown} pages shown, the file has {}",
        file::pages(&path)?
    );
    let misses = scrape.count("ebpf_cache_misses_total", &[])?;
    ensure!(misses == 0, "{misses} misses of reads shown");
    Ok(())
}

fn what_writes_add_is_no_miss(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = directory.path().join("new");
    fs::File::create_new(&path)?;
    let pages = rng.u64(1..2_000);
    let write = Step::new(Call::Write, 0, *PAGE as usize).times(pages);
    let files = vec![Open::Write(path)];
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::only("page_cache", mode, &cgroup))?;
    work(&Plan { threads: 1, files, phases: vec![vec![write]] }, &cgroup)?;
    let scrape = agent.settled()?;
    let added = scrape.count("ebpf_page_cache_adds_total", &[])?;
    ensure!(added == pages, "{added} pages added shown, {pages} written");
    let found = Found::shown(&scrape)?;
    ensure!(found == Found { followed: 0, misses: 0, ahead: 0 }, "{found:?} shown of no read");
    let asked = scrape.count("ebpf_cache_read_attempts_total", &[])?;
    let ratios = scrape.all("ebpf_cache_hit_ratio", &[]).count();
    ensure!((asked, ratios) == (0, 0), "{asked} pages looked for and {ratios} ratios of no read");
    Ok(())
}
