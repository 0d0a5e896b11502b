//! Page faults: how often tasks touch memory that is not there yet, and wait for it.

use anyhow::Result;

use super::{
    groups::Groups,
    signal::{Disabled, OptIn, Signal},
};
use crate::{
    config::Mistakes,
    ebpf::{
        ladder::{Context, Mode, Probe, Rung, at},
        load::Loaded,
    },
    metric::{Attribute, Kind, Metric, Points},
};

const FAULTS: Metric = Metric {
    name: "ebpf.memory.page_faults",
    unit: "{fault}",
    kind: Kind::Counter,
    description: "Page faults of tasks of the scope that the kernel could serve. A major one had to wait for a disk: \
                  many of them in a program that maps its files answer why it is slow while it makes no system call.",
    caveat: "A minor fault is no miss: its page was in memory, or was new. Readahead and large folios map many pages \
             in one fault. Faults that end in a signal are not in it. Attached by perf_event, faults that the kernel takes on \
             a task's behalf while it pins memory are missing, and those of CPUs that come online later.",
    attributes: &[Attribute {
        name: "system.paging.fault.type",
        description: "`minor` or `major`: whether input was waited for",
    }],
};

/// Faults by kind.
pub struct Faults;

impl Signal for Faults {
    const NAME: &'static str = "faults";
    const DESCRIPTION: &'static str = "How often tasks touch memory that is not mapped yet.";
    const QUESTION: &'static str = "Do tasks wait for memory that was mapped, or swapped out?";
    const OBJECT: &'static [u8] = aya::include_bytes_aligned!("../../../../ebpf/prebuilt/faults.o");
    const METRICS: &'static [Metric] = &[FAULTS];
    type Config = OptIn;
    const SAMPLED: bool = true;

    const PROBES: &'static [Probe] = &[Probe {
        name: "served",
        context: Context::Task,
        rungs: &[
            Rung::new(Mode::Fentry, &[at("faults_fexit", "handle_mm_fault")], &[]),
            Rung::new(
                Mode::PerfEvent,
                &[at("minor_perf", "minor-faults"), at("major_perf", "major-faults")],
                &[],
            ),
        ],
    }];

    fn new(config: OptIn, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if !loaded.has("served") {
            return Ok(());
        }
        groups.each(Self::NAME, "CELLS", loaded, points, |points, [minor, major]| {
            for (kind, faults) in [("minor", minor), ("major", major)] {
                points.counter(&FAULTS, &[(FAULTS.attributes[0].name, kind)], faults);
            }
        })
    }
}
