//! Memory reclaim: how hard the kernel looks for pages, and who has to wait for it.

use abi::{
    group::Group,
    reclaim::{Counter, MAX_PROCESSES},
    scope::NANOS_PER_TICK,
};
use anyhow::Result;

use super::{
    groups::Groups,
    signal::{Disabled, Signal, Switch},
};
use crate::{
    config::Mistakes,
    ebpf::{
        ladder::{Attach, Context, Mode, Probe, Rung},
        load::Loaded,
        process::start_ticks,
    },
    metric::{About, Attribute, Kind, Metric, Points},
    receivers::iomonitor::DROPPED,
};

const SCANNED: Metric = Metric {
    name: "ebpf.memory.lru_pages_scanned",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages scanned on the inactive lists, on the whole machine.",
    caveat: "Never limited to the scope: most of it is kswapd's work. With the multi-generational LRU, \
             pages scanned again in a retry are counted again.",
    attributes: &[],
};

const RECLAIMED: Metric = Metric {
    name: "ebpf.memory.lru_pages_reclaimed",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages reclaimed from the inactive lists, on the whole machine.",
    caveat: "Never limited to the scope. What DAMON or MADV_PAGEOUT evict is not in it.",
    attributes: &[],
};

const BEGINS: Metric = Metric {
    name: "ebpf.memory.direct_reclaim_begins",
    unit: "{reclaim}",
    kind: Kind::Counter,
    description: "Times a task of the scope had to reclaim memory itself before it could go on.",
    caveat: "How long it took is not in it.",
    attributes: &[Attribute {
        name: "reclaim.type",
        description: "`global`: the machine is short of memory; `memcg`: the task's memory cgroup is at its limit",
    }],
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
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/reclaim.o");
    const METRICS: &'static [Metric] = &[SCANNED, RECLAIMED, BEGINS, PROCESSES];
    type Config = Switch;

    const PROBES: &'static [Probe] = &[
        Probe {
            name: "shrink",
            context: Context::Task,
            rungs: &[
                Rung {
                    mode: Mode::TpBtf,
                    programs: &[Attach {
                        program: "shrink_btf",
                        target: "mm_vmscan_lru_shrink_inactive",
                    }],
                    fields: &[],
                    values: &[],
                },
                Rung {
                    mode: Mode::RawTp,
                    programs: &[Attach {
                        program: "shrink_raw",
                        target: "mm_vmscan_lru_shrink_inactive",
                    }],
                    fields: &[],
                    values: &[],
                },
                Rung {
                    mode: Mode::Tracepoint,
                    programs: &[Attach {
                        program: "shrink_tp",
                        target: "vmscan/mm_vmscan_lru_shrink_inactive",
                    }],
                    fields: SHRUNK,
                    values: &[],
                },
            ],
        },
        Probe {
            name: "direct_begin",
            context: Context::Task,
            rungs: &[
                Rung {
                    mode: Mode::TpBtf,
                    programs: &[Attach {
                        program: "direct_begin_btf",
                        target: "mm_vmscan_direct_reclaim_begin",
                    }],
                    fields: &[],
                    values: &[],
                },
                Rung {
                    mode: Mode::RawTp,
                    programs: &[Attach {
                        program: "direct_begin_raw",
                        target: "mm_vmscan_direct_reclaim_begin",
                    }],
                    fields: &[],
                    values: &[],
                },
                Rung {
                    mode: Mode::Tracepoint,
                    programs: &[Attach {
                        program: "direct_begin_tp",
                        target: "vmscan/mm_vmscan_direct_reclaim_begin",
                    }],
                    fields: &[],
                    values: &[],
                },
            ],
        },
        Probe {
            name: "memcg_begin",
            context: Context::Task,
            rungs: &[
                Rung {
                    mode: Mode::TpBtf,
                    programs: &[Attach {
                        program: "memcg_begin_btf",
                        target: "mm_vmscan_memcg_reclaim_begin",
                    }],
                    fields: &[],
                    values: &[],
                },
                Rung {
                    mode: Mode::RawTp,
                    programs: &[Attach {
                        program: "memcg_begin_raw",
                        target: "mm_vmscan_memcg_reclaim_begin",
                    }],
                    fields: &[],
                    values: &[],
                },
                Rung {
                    mode: Mode::Tracepoint,
                    programs: &[Attach {
                        program: "memcg_begin_tp",
                        target: "vmscan/mm_vmscan_memcg_reclaim_begin",
                    }],
                    fields: &[],
                    values: &[],
                },
            ],
        },
    ];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self { ended: 0 }))
    }

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        let (global, memcg) = (loaded.has("direct_begin"), loaded.has("memcg_begin"));
        for (owner, cells) in groups.read(Self::NAME, "CELLS", loaded)?.iter() {
            points.about(groups.about(owner));
            for (_, cell) in cells {
                for (attached, kind, begins) in [(global, "global", 0), (memcg, "memcg", 1)] {
                    if attached {
                        points.counter(&BEGINS, &[("reclaim.type", kind)], cell[begins]);
                    }
                }
            }
        }
        points.about(About::default());
        let counters = loaded.counters("COUNTERS")?;
        let value = |counter: Counter| counters[counter as usize];
        if loaded.has("shrink") {
            points.counter(&SCANNED, &[], value(Counter::Scanned));
            points.counter(&RECLAIMED, &[], value(Counter::Reclaimed));
        }
        if global && memcg {
            points.gauge(&PROCESSES, &[], self.processes(loaded)?);
            points.counter(
                &DROPPED,
                &[("probe", "reclaim/direct_begin"), ("reason", "too many processes")],
                value(Counter::GlobalUnplaced) + value(Counter::MemcgUnplaced),
            );
        }
        Ok(())
    }
}

impl Reclaim {
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

/// Whether this very process lives, and not a later one with its pid.
fn alive(process: &Group) -> bool {
    start_ticks(process.id as u32).is_some_and(|ticks| process.start / NANOS_PER_TICK == ticks)
}

const SHRUNK: &[&str] = &[
    "trace_event_raw_mm_vmscan_lru_shrink_inactive.nr_scanned",
    "trace_event_raw_mm_vmscan_lru_shrink_inactive.nr_reclaimed",
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
