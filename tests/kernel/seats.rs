//! Busy cells have seats, of which there are fewer than cells here: they go from one to another, and every count is
//! exact.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use abi::group::Seat;
use anyhow::{Result, ensure};
use aya::maps::{Array, Map};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::SLOWDOWN,
    file,
    plan::{Call, Open, Plan, Step},
    random,
    worker::Worker,
};

use crate::WORKLOAD;

/// Each has a few octaves of durations, a cell each.
const CGROUPS: usize = 80;
const BUSY: usize = 10;
const ROUNDS: usize = 4;
const PREADS: (&str, &str) = ("syscall", "pread64");
const METRICS: [&str; 2] = ["ebpf_syscall_calls_total", "ebpf_syscall_duration_seconds_count"];

/// Which seats are open, and whose they are.
fn open(agent: &Agent) -> Result<BTreeSet<(u32, u64, u32)>> {
    let mut open = BTreeSet::new();
    for map in agent.maps("CELLS_SEATS")? {
        let seats: Array<_, Seat> = Map::Array(map).try_into()?;
        for (number, seat) in seats.iter().enumerate() {
            let seat = seat?;
            if seat.open != 0 {
                open.insert((number as u32, seat.group.id, seat.entry));
            }
        }
    }
    Ok(open)
}

#[test]
fn they_go_to_who_is_busy_and_lose_nothing() -> Result<()> {
    let mut rng = random::rng();
    let parent = Cgroup::new()?;
    let setup = Setup::only("syscalls", Mode::Auto, &parent)
        .with("group_by", json!("cgroup"))
        .with("collection_interval", json!("10ms"));
    let agent = Agent::start(&setup)?;
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 1 << 16)?;
    let mut cgroups = (0..CGROUPS).map(|_| parent.child()).collect::<Result<Vec<_>>>()?;
    let (mut made, mut all) = (BTreeMap::new(), 0);
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        rng.shuffle(&mut cgroups);
        // Some end, with what they have counted, and others take their place.
        for gone in cgroups.drain(..4).collect::<Vec<_>>() {
            made.remove(&gone.id()?);
            drop(gone);
            cgroups.push(parent.child()?);
        }
        for cgroup in &cgroups[..BUSY] {
            // For as many readings as it takes to be found busy.
            let count = rng.u64(50_000..80_000) / *SLOWDOWN;
            let step = Step::new(Call::Pread64, 0, 1).times(count);
            let phases = vec![vec![step]; 2];
            let plan = Plan { threads: 1, files: vec![Open::Read(path.clone())], phases };
            let mut worker = Worker::start(WORKLOAD, &plan)?;
            worker.join(cgroup)?;
            worker.phase()?;
            worker.phase()?;
            worker.finish()?;
            *made.entry(cgroup.id()?).or_insert(0) += 2 * count;
            all += 2 * count;
        }
        // All steps that a seat takes from one to another.
        thread::sleep(Duration::from_millis(1_100));
        let scrape = agent.settled()?;
        for metric in METRICS {
            let shown = scrape.sum(metric, &[PREADS])?;
            ensure!(shown == all, "{metric}: {shown} shown, {all} made");
            for (id, made) in &made {
                let shown = scrape.count(metric, &[PREADS, ("cgroup_id", id)])?;
                ensure!(shown == *made, "{metric} of cgroup {id}: {shown} shown, {made} made");
            }
        }
        seen.push(open(&agent)?);
    }
    let all: BTreeSet<_> = seen.iter().flatten().collect();
    let numbers: BTreeSet<_> = all.iter().map(|(number, ..)| number).collect();
    println!(
        "seats open after each round: {:?}",
        seen.iter().map(BTreeSet::len).collect::<Vec<_>>()
    );
    ensure!(!numbers.is_empty(), "nobody has had a seat");
    ensure!(all.len() > numbers.len(), "no seat of {} has had another owner", numbers.len());
    Ok(())
}
