//! Requests to block devices.

mod devices;
mod ladder;
mod metrics;

use std::collections::BTreeMap;

use abi::{
    block::{Counter, OCTAVES, OPERATIONS, Operation, Phase},
    errno,
};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use self::{devices::Devices, metrics as m};
use super::{
    derived::Quantity,
    durations::Durations,
    errors,
    groups::{Groups, Owner},
    own,
    signal::{Disabled, Signal},
};
use crate::{
    config::Mistakes,
    ebpf::{globals::Globals, ladder::Probe, load::Loaded},
    metric::{About, Metric, Pair, Points},
};

/// `signals::block`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether its programs are loaded.
    pub enabled: bool,
    /// Whether the time in the queue and the time in the device are told apart, and what is in flight is counted.
    /// Without it, a request has one time, at a lower price.
    pub split: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, split: true }
    }
}

/// Requests by the block layer's own events.
pub struct Block {
    split: bool,
    devices: Devices,
}

/// Of an owner: a device's place and an operation.
type Place = (Owner, u32, u32);

/// What is counted at a [`Place`].
#[derive(Default)]
struct Sum {
    counts: [u64; COUNTS],
    errors: Vec<(u32, u64)>,
    queue: Durations,
    device: Durations,
}

/// Numbers in [`abi::block::Counts`].
const COUNTS: usize = size_of::<abi::block::Counts>() / size_of::<u64>();

impl Signal for Block {
    const NAME: &'static str = "block";
    const DESCRIPTION: &'static str =
        "What block devices are asked for, how long it waits and how long it takes.";
    const QUESTION: &'static str = "Is it the device, or the queue before it, and for whom?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../../ebpf/prebuilt/block.o");
    const METRICS: &'static [Metric] = m::ALL;
    type Config = Config;

    const PROBES: &'static [Probe] = &[ladder::REQUESTS, ladder::MERGES];
    /// Few groups use more than one device themselves.
    const CELLS: u32 = 2;
    /// Dozens of devices, each with a few operations, each of these with times in some ten octaves.
    const HOST_CELLS: u32 = 4_096;

    fn new(config: Config, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        let Config { enabled, split } = config;
        Ok(enabled.then(|| Self { split, devices: Devices::default() }))
    }

    fn spared(&self, whole_host: bool) -> &'static [&'static str] {
        match (whole_host, self.split) {
            // Whose a request is can be asked when it is submitted, and not when it ends.
            (false, _) => &[],
            (true, true) => ladder::OF_TASKS,
            (true, false) => ladder::BEFORE_THE_END,
        }
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        globals.number("SPLIT", self.split.into());
        Ok(())
    }

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if !loaded.has_any() {
            return Ok(());
        }
        let sums = sums(loaded, groups)?;
        self.devices.look(loaded)?;
        let (requests, merges) =
            (loaded.has(ladder::REQUESTS.name), loaded.has(ladder::MERGES.name));
        if requests && groups.is_host() {
            // Known to be nothing before the first.
            groups.note(Owner::Host, Quantity::Fetched, 0);
        }
        for ((owner, place, operation), sum) in &sums {
            points.about(groups.about(*owner));
            let operation = Operation::ALL[*operation as usize];
            let mut attributes: Vec<Pair<'_>> = Vec::new();
            attributes.extend(self.devices.name(*place).map(|name| (m::DEVICE.name, name)));
            attributes.extend(direction(operation).map(|d| (m::DIRECTION.name, d)));
            attributes.push((m::OPERATION.name, name(operation)));
            if requests {
                sum.requests(points, &attributes);
                sum.times(points, &attributes, self.split);
                if operation == Operation::Read {
                    groups.note(*owner, Quantity::Fetched, sum.counts[1]);
                }
            }
            if merges {
                sum.merges(points, &attributes);
            }
        }
        points.about(About::default());
        if requests {
            dropped(loaded, &sums, points)?;
        }
        Ok(())
    }
}

/// Reads the three maps.
fn sums(loaded: &Loaded, groups: &mut Groups) -> Result<BTreeMap<Place, Sum>> {
    let mut sums: BTreeMap<Place, Sum> = BTreeMap::new();
    let at = |owner, entry| (owner, entry / OPERATIONS, entry % OPERATIONS);
    for (owner, cells) in groups.read_sparse(Block::NAME, "COUNTS", loaded)?.iter() {
        for (entry, cell) in cells.iter() {
            let Ok(counts) = cell.try_into() else { bail!("a cell of {} numbers", cell.len()) };
            sums.entry(at(owner, entry)).or_default().counts = counts;
        }
    }
    for (owner, cells) in groups.read_sparse(Block::NAME, "ERRORS", loaded)?.iter() {
        for (entry, cell) in cells.iter() {
            let sum = sums.entry(at(owner, entry / errno::SLOTS)).or_default();
            sum.errors.push((entry % errno::SLOTS, cell[0]));
        }
    }
    for (owner, cells) in groups.read_sparse(Block::NAME, "TIMES", loaded)?.iter() {
        for (entry, cell) in cells.iter() {
            let (phase, octave) = (entry / OCTAVES as u32, entry as usize % OCTAVES);
            let sum = sums.entry(at(owner, phase / 2)).or_default();
            let times =
                if phase % 2 == Phase::Queue as u32 { &mut sum.queue } else { &mut sum.device };
            let [nanos, zeros, buckets @ ..] = cell else { continue };
            times.add(octave, *nanos, *zeros, buckets);
        }
    }
    Ok(sums)
}

impl Sum {
    fn requests(&self, points: &mut Points<'_>, attributes: &[Pair<'_>]) {
        let [operations, bytes, _, _, _, _, _, requeues, ..] = self.counts;
        points.counter(&m::OPERATIONS, attributes, operations);
        points.counter(&m::IO, attributes, bytes);
        points.counter(&m::REQUEUES, attributes, requeues);
        let mut by_error = [0; errno::SLOTS as usize];
        for (error, count) in &self.errors {
            by_error[*error as usize] += count;
        }
        errors::emit(points, &m::ERRORS, attributes, &by_error);
    }

    fn times(&self, points: &mut Points<'_>, attributes: &[Pair<'_>], split: bool) {
        if !split {
            points.histogram(&m::DURATION, attributes, self.device.histogram());
            return;
        }
        let [_, _, issued, ended, returned, lost_at_start, lost_at_issue, ..] = self.counts;
        // The CPUs' copies are not read at one moment: an end may be seen without its begin.
        let under_way = issued.saturating_sub(ended + returned + lost_at_start + lost_at_issue);
        points.up_down_counter(&m::IN_FLIGHT, attributes, under_way);
        points.histogram(&m::QUEUE, attributes, self.queue.histogram());
        points.histogram(&m::DEVICE_DURATION, attributes, self.device.histogram());
    }

    fn merges(&self, points: &mut Points<'_>, attributes: &[Pair<'_>]) {
        let [.., behind, before, joined] = self.counts;
        points.counter(&m::MERGES, attributes, behind + before + joined);
    }
}

fn dropped(loaded: &Loaded, sums: &BTreeMap<Place, Sum>, points: &mut Points<'_>) -> Result<()> {
    let counters = loaded.counters("COUNTERS")?;
    let full =
        counters[Counter::NoRoomAtStart as usize] + counters[Counter::NoRoomAtIssue as usize];
    // What an ended group has counted is in `other` in the same collection.
    let living = sums.iter().filter(|((owner, ..), _)| !matches!(owner, Owner::Ended(_)));
    let lost = living.map(|(_, sum)| sum.counts[5] + sum.counts[6]).sum();
    let events = [("too many requests", full), ("an end was not seen", lost)];
    own::dropped(points, "block/requests", &events);
    Ok(())
}

/// `disk.io.direction` of OpenTelemetry's conventions: of what moves data.
const fn direction(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::Read => Some("read"),
        Operation::Write => Some("write"),
        _ => None,
    }
}

const fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Flush => "flush",
        Operation::Discard => "discard",
        Operation::WriteZeroes => "write_zeroes",
        Operation::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf::ladder::Rung;

    #[test]
    fn what_can_be_spared_is_in_the_ladder_and_not_all_of_a_rung() {
        let rungs = ladder::REQUESTS.rungs;
        for (names, of_a_rung) in [(ladder::OF_TASKS, 1), (ladder::BEFORE_THE_END, 2)] {
            for name in names {
                let there = |r: &&Rung| r.programs.iter().any(|p| p.program == *name);
                assert!(rungs.iter().any(|r| there(&r)), "{name}");
            }
            for rung in rungs {
                let spared = rung.programs.iter().filter(|p| names.contains(&p.program));
                assert_eq!(spared.count(), of_a_rung, "{rung:?}");
            }
        }
    }
}
