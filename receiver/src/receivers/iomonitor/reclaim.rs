//! Memory reclaim: how hard the kernel looks for pages, and who has to wait for it.

use std::fs;

use abi::reclaim::{Counter, MAX_PROCESSES, Process};
use anyhow::Result;

use super::signal::{Disabled, Signal, Switch};
use crate::{
    config::Mistakes,
    ebpf::{
        ladder::{Attach, Mode, Probe, Rung},
        load::Loaded,
    },
    metric::{Attribute, Kind, Metric, Points},
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
                    mode: Mode::Tracepoint,
                    programs: &[Attach {
                        program: "shrink_tp",
                        target: "vmscan/mm_vmscan_lru_shrink_inactive",
                    }],
                    fields: &[
                        "trace_event_raw_mm_vmscan_lru_shrink_inactive.nr_scanned",
                        "trace_event_raw_mm_vmscan_lru_shrink_inactive.nr_reclaimed",
                    ],
                    values: &[],
                },
            ],
        },
        Probe {
            name: "direct_begin",
            rungs: &[
                Rung {
                    mode: Mode::TpBtf,
                    programs: &[Attach {
                        program: "direct_begin_btf",
                        target: "mm_vmscan_direct_reclaim_begin",
                    }],
                    fields: PROCESS,
                    values: &[],
                },
                Rung {
                    mode: Mode::Tracepoint,
                    programs: &[Attach {
                        program: "direct_begin_tp",
                        target: "vmscan/mm_vmscan_direct_reclaim_begin",
                    }],
                    fields: PROCESS,
                    values: &[],
                },
            ],
        },
        Probe {
            name: "memcg_begin",
            rungs: &[
                Rung {
                    mode: Mode::TpBtf,
                    programs: &[Attach {
                        program: "memcg_begin_btf",
                        target: "mm_vmscan_memcg_reclaim_begin",
                    }],
                    fields: PROCESS,
                    values: &[],
                },
                Rung {
                    mode: Mode::Tracepoint,
                    programs: &[Attach {
                        program: "memcg_begin_tp",
                        target: "vmscan/mm_vmscan_memcg_reclaim_begin",
                    }],
                    fields: PROCESS,
                    values: &[],
                },
            ],
        },
    ];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self { ended: 0 }))
    }

    fn read(&mut self, loaded: &mut Loaded, points: &mut Points<'_>) -> Result<()> {
        let counters = loaded.counters("COUNTERS")?;
        let value = |counter: Counter| counters[counter as usize];
        if loaded.has("shrink") {
            points.counter(&SCANNED, &[], value(Counter::Scanned));
            points.counter(&RECLAIMED, &[], value(Counter::Reclaimed));
        }
        let (global, memcg) = (loaded.has("direct_begin"), loaded.has("memcg_begin"));
        if global {
            points.counter(&BEGINS, &[("reclaim.type", "global")], value(Counter::GlobalBegins));
        }
        if memcg {
            points.counter(&BEGINS, &[("reclaim.type", "memcg")], value(Counter::MemcgBegins));
        }
        if global && memcg {
            points.gauge(&PROCESSES, &[], self.processes(loaded)?);
            points.counter(
                &DROPPED,
                &[("probe", "reclaim/direct_begin"), ("reason", "too many processes")],
                value(Counter::ReclaimersFull),
            );
        }
        Ok(())
    }
}

impl Reclaim {
    /// Everyone seen so far. Once half of the map is full, those that have ended make room; until
    /// then, asking /proc about each would be work for nothing.
    fn processes(&mut self, loaded: &mut Loaded) -> Result<u64> {
        let seen = loaded.entries::<Process, u64>("RECLAIMERS")?;
        let mut kept = seen.len() as u64;
        if kept > u64::from(MAX_PROCESSES / 2) {
            for (process, _) in seen.iter().filter(|(process, _)| !alive(process)) {
                loaded.remove::<Process, u64>("RECLAIMERS", process)?;
                self.ended += 1;
                kept -= 1;
            }
        }
        Ok(self.ended + kept)
    }
}

/// Whether this very process lives, and not a later one with its pid.
fn alive(process: &Process) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    start_ticks(&stat).is_some_and(|ticks| {
        // proc_pid_stat(5) gives the start in ticks of 10 ms, rounded down.
        process.start_time / NANOS_PER_TICK == ticks
    })
}

/// `USER_HZ` is 100 on every architecture that Fathom runs on.
const NANOS_PER_TICK: u64 = 10_000_000;

/// The 22nd field; the second, the name in brackets, may contain anything.
fn start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// What tells a process from a later one with its pid.
const PROCESS: &[&str] = &["task_struct.group_leader", "task_struct.start_boottime"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_pid() {
        let pid = std::process::id();
        let stat = fs::read_to_string("/proc/self/stat").expect("procfs is mounted");
        let ticks = start_ticks(&stat).expect("the field is there");
        let this = Process { start_time: ticks * NANOS_PER_TICK + 1, pid, pad: 0 };
        assert!(alive(&this));
        assert!(!alive(&Process { start_time: this.start_time - NANOS_PER_TICK, ..this }));
    }

    #[test]
    fn names_with_brackets_and_spaces_do_not_shift_fields() {
        let fields = (3..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_ticks(&format!("7 (a) b) {fields}")), Some(22));
    }
}
