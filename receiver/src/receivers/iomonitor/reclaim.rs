//! Memory reclaim: how hard the kernel looks for pages, and who has to wait for it.

use std::fs;

use abi::{
    duration::OCTAVES,
    group::Group,
    reclaim::{Counter, DIRECT, GLOBAL, KINDS, MAX_PROCESSES, MEMCG, REASONS, TYPES},
    scope::NANOS_PER_TICK,
};
use anyhow::Result;

use super::{
    derived::Quantity,
    durations::by_kind,
    groups::{Groups, Owner},
    own::dropped,
    signal::{Disabled, Signal, Switch},
};
use crate::{
    config::Mistakes,
    ebpf::{
        globals::Globals,
        ladder::{Context, Mode, Probe, Rung, at, rungs},
        load::Loaded,
        process::start_ticks,
    },
    metric::{About, Attribute, Kind, Metric, Points},
};

const TYPE: Attribute = Attribute {
    name: "reclaim.type",
    description: "`global`: a task, as the machine is short of memory; `memcg`: a task, as its memory cgroup is at its \
                  limit; `kswapd`: the kernel in the background; `other`: someone who was asked to, through memory.reclaim \
                  or the like",
};

const REASON: Attribute = Attribute {
    name: "throttle.reason",
    description: "`writeback`: too many pages are being written; `isolated`: too many tasks reclaim at once; \
                  `noprogress`: nothing was found; `congested`: dirty pages are in the way; `_OTHER`",
};

const SCANNED: Metric = Metric {
    name: "ebpf.memory.lru_pages_scanned",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages scanned on the inactive lists, on the whole machine, by who did it.",
    caveat: "Never limited to the scope: most of it is kswapd's work. Linux 6.1 does not report what its \
             multi-generational LRU scans. Turning that LRU on or off makes it wrong until the agent is restarted.",
    attributes: &[TYPE],
};

const RECLAIMED: Metric = Metric {
    name: "ebpf.memory.lru_pages_reclaimed",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages reclaimed from the inactive lists, on the whole machine, by who did it. Divided by those \
                  scanned, it is how well reclaim goes: near 1 is easy, near 0 is trouble.",
    caveat: "Never limited to the scope. What DAMON or MADV_PAGEOUT evict is not in it.",
    attributes: &[TYPE],
};

const BEGINS: Metric = Metric {
    name: "ebpf.memory.direct_reclaim_begins",
    unit: "{reclaim}",
    kind: Kind::Counter,
    description: "Times a task of the scope had to reclaim memory itself before it could go on.",
    caveat: "How long it took is in ebpf.memory.direct_reclaim_duration.",
    attributes: &[TYPE],
};

const DURATION: Metric = Metric {
    name: "ebpf.memory.direct_reclaim_duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time that tasks of the scope spent reclaiming memory before they could go on: what a read or an \
                  allocation took longer because memory was short.",
    caveat: "Waiting for throttles is part of it, and so is time in which the task could not run.",
    attributes: &[TYPE],
};

const THROTTLE: Metric = Metric {
    name: "ebpf.memory.reclaim_throttle_duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time that tasks of the scope were made to wait while they reclaimed, by the reason.",
    caveat: "The kernel measures in its ticks and says µs. Part of ebpf.memory.direct_reclaim_duration, but for \
             kswapd's.",
    attributes: &[REASON],
};

const PROCESSES: Metric = Metric {
    name: "ebpf.memory.direct_reclaim_processes",
    unit: "{process}",
    kind: Kind::Gauge,
    description: "Processes of the scope that have reclaimed directly since the agent started.",
    caveat: "Processes that have ended stay counted, so it never falls: its increase is the number of \
             processes that were spared until then.",
    attributes: &[],
};

/// Reclaim, and the processes that did it.
pub struct Reclaim {
    /// Processes that are no longer in the map, because they have ended.
    ended: u64,
}

impl Signal for Reclaim {
    const NAME: &'static str = "reclaim";
    const DESCRIPTION: &'static str =
        "How the kernel wins memory back, and who has to wait for it.";
    const QUESTION: &'static str =
        "Who waits while the kernel looks for memory, how long, and why?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/reclaim.o");
    const METRICS: &'static [Metric] = &[SCANNED, RECLAIMED, BEGINS, DURATION, THROTTLE, PROCESSES];
    type Config = Switch;

    const PROBES: &'static [Probe] = &[
        Probe {
            name: "shrink",
            context: Context::Task,
            rungs: rungs!(
                [(
                    [
                        ("shrink", "mm_vmscan_lru_shrink_inactive"),
                        ("isolate", "mm_vmscan_lru_isolate"),
                    ],
                    &[],
                )],
                [Rung::new(
                    Mode::Tracepoint,
                    &[
                        at("shrink_tp", "vmscan/mm_vmscan_lru_shrink_inactive"),
                        at("isolate_tp", "vmscan/mm_vmscan_lru_isolate"),
                    ],
                    SHRUNK,
                )]
            ),
        },
        Probe {
            name: "direct",
            context: Context::Task,
            rungs: rungs!(
                [(
                    [
                        ("direct_end", "mm_vmscan_direct_reclaim_end"),
                        ("direct_begin", "mm_vmscan_direct_reclaim_begin"),
                    ],
                    &[],
                )],
                [Rung::new(
                    Mode::Tracepoint,
                    &[
                        at("direct_end_tp", "vmscan/mm_vmscan_direct_reclaim_end"),
                        at("direct_begin_tp", "vmscan/mm_vmscan_direct_reclaim_begin"),
                    ],
                    &[],
                )]
            ),
        },
        Probe {
            name: "memcg",
            context: Context::Task,
            rungs: rungs!(
                [(
                    [
                        ("memcg_end", "mm_vmscan_memcg_reclaim_end"),
                        ("memcg_begin", "mm_vmscan_memcg_reclaim_begin"),
                    ],
                    &[],
                )],
                [Rung::new(
                    Mode::Tracepoint,
                    &[
                        at("memcg_end_tp", "vmscan/mm_vmscan_memcg_reclaim_end"),
                        at("memcg_begin_tp", "vmscan/mm_vmscan_memcg_reclaim_begin"),
                    ],
                    &[],
                )]
            ),
        },
        Probe {
            name: "throttled",
            context: Context::Task,
            rungs: rungs!(
                [([("throttled", "mm_vmscan_throttled")], &[])],
                [Rung::new(
                    Mode::Tracepoint,
                    &[at("throttled_tp", "vmscan/mm_vmscan_throttled")],
                    THROTTLED,
                )]
            ),
        },
    ];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self { ended: 0 }))
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        globals.number("GENERATIONS", has_generations().into());
        Ok(())
    }

    /// Begins, and durations in a few octaves.
    const CELLS: u32 = 8;

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        let (global, memcg) = (loaded.has("direct"), loaded.has("memcg"));
        let direct = [(global, GLOBAL), (memcg, MEMCG)];
        for (owner, cells) in groups.read(Self::NAME, "CELLS", loaded)?.iter() {
            points.about(groups.about(owner));
            for (_, cell) in cells.iter() {
                for (_, kind) in direct.iter().filter(|(attached, _)| *attached) {
                    let kind = *kind as usize;
                    points.counter(&BEGINS, &[(TYPE.name, TYPES[kind])], cell[kind]);
                }
            }
        }
        for (owner, cells) in groups.read(Self::NAME, "DURATIONS", loaded)?.iter() {
            points.about(groups.about(owner));
            let kinds = by_kind(cells, KINDS as usize, OCTAVES);
            let (reclaims, waits) = kinds.split_at(DIRECT as usize);
            for (_, kind) in direct.iter().filter(|(attached, _)| *attached) {
                let kind = *kind as usize;
                let attributes = [(TYPE.name, TYPES[kind])];
                points.histogram(&DURATION, &attributes, reclaims[kind].histogram());
            }
            let reasons = REASONS.into_iter().chain(["_OTHER"]).zip(waits);
            // A reason that the kernel does not have yet appears when it does.
            for (reason, waits) in reasons.filter(|(reason, waits)| {
                loaded.has("throttled") && (*reason != "_OTHER" || !waits.is_empty())
            }) {
                points.histogram(&THROTTLE, &[(REASON.name, reason)], waits.histogram());
            }
        }
        points.about(About::default());
        self.whole_machine(loaded, groups, points, global && memcg)
    }
}

impl Reclaim {
    /// What the scope does not apply to.
    fn whole_machine(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
        direct: bool,
    ) -> Result<()> {
        if loaded.has("shrink") {
            let pages = loaded.counters("SHRUNK")?;
            let (scanned, reclaimed) = pages.split_at(TYPES.len());
            groups.note(Owner::Host, Quantity::Scanned, scanned.iter().sum());
            groups.note(Owner::Host, Quantity::Reclaimed, reclaimed.iter().sum());
            for (metric, pages) in [(&SCANNED, scanned), (&RECLAIMED, reclaimed)] {
                if !direct {
                    // Tasks that reclaim cannot be told from the others.
                    points.counter(metric, &[], pages.iter().sum());
                    continue;
                }
                for (by, pages) in TYPES.into_iter().zip(pages) {
                    points.counter(metric, &[(TYPE.name, by)], *pages);
                }
            }
        }
        let counters = loaded.counters("COUNTERS")?;
        let value = |counter: Counter| counters[counter as usize];
        if direct {
            points.gauge(&PROCESSES, &[], self.processes(loaded)?);
            let unplaced = value(Counter::GlobalUnplaced) + value(Counter::MemcgUnplaced);
            let full = value(Counter::GlobalInFlightFull) + value(Counter::MemcgInFlightFull);
            let events = [("too many processes", unplaced), ("too many threads", full)];
            dropped(points, "reclaim/direct", &events);
        }
        Ok(())
    }

    /// Everyone seen so far. Once half of the map is full, those that have ended make room; until
    /// then, asking /proc about each would be work for nothing.
    fn processes(&mut self, loaded: &mut Loaded) -> Result<u64> {
        let seen = loaded.entries::<Group, u64>("RECLAIMERS")?;
        let mut kept = seen.len() as u64;
        if kept > u64::from(MAX_PROCESSES / 2) {
            for (process, _) in seen.iter().filter(|(process, _)| !alive(process)) {
                loaded.remove::<Group, u64>("RECLAIMERS", process)?;
                self.ended += 1;
                kept -= 1;
            }
        }
        Ok(self.ended + kept)
    }
}

/// Whether the lists of pages are multi-generational (Documentation/admin-guide/mm/multigen_lru.rst).
fn has_generations() -> bool {
    let enabled = fs::read_to_string("/sys/kernel/mm/lru_gen/enabled").unwrap_or_default();
    let components = enabled.trim().trim_start_matches("0x");
    u32::from_str_radix(components, 16).is_ok_and(|components| components & 1 != 0)
}

/// Whether this very process lives, and not a later one with its pid.
fn alive(process: &Group) -> bool {
    start_ticks(process.id as u32).is_some_and(|ticks| process.start / NANOS_PER_TICK == ticks)
}

const SHRUNK: &[&str] = &[
    "trace_event_raw_mm_vmscan_lru_shrink_inactive.nr_scanned",
    "trace_event_raw_mm_vmscan_lru_shrink_inactive.nr_reclaimed",
    "trace_event_raw_mm_vmscan_lru_isolate.nr_taken",
];
const THROTTLED: &[&str] = &[
    "trace_event_raw_mm_vmscan_throttled.usec_delayed",
    "trace_event_raw_mm_vmscan_throttled.reason",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_pid() {
        let pid = std::process::id();
        let ticks = start_ticks(pid).expect("procfs is mounted");
        let this = Group { start: ticks * NANOS_PER_TICK + 1, id: pid.into() };
        assert!(alive(&this));
        assert!(!alive(&Group { start: this.start - NANOS_PER_TICK, ..this }));
    }
}
