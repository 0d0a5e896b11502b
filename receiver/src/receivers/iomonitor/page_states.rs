//! Pages that come back too soon, and pages that are written back.

use anyhow::Result;

use super::{
    folio::FOLIO,
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

const REFAULTS: Metric = Metric {
    name: "ebpf.memory.refaults",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that tasks of the scope had to read in again after they had been reclaimed: what a larger memory would \
                  have spared. Misses without refaults are of cold data, which no memory helps.",
    caveat: "A page that was dropped by advice or truncation and comes back is none; nor is one that was reclaimed so long ago \
             that the kernel has forgotten it.",
    attributes: &[Attribute {
        name: "page.type",
        description: "`file`: of the page cache; `anon`: of memory that was swapped out",
    }],
};

const WRITTEN: Metric = Metric {
    name: "ebpf.page_cache.written_back",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that began to be written back to their disks. Beside ebpf.page_cache.dirtied it says how often a page is \
                  written to before it reaches the disk.",
    caveat: "Counted for the cgroup that a page is charged to, where the scope names cgroups alone and memory is controlled \
             by cgroup v2, unless a classic tracepoint is forced; otherwise for the task that writes, which is the kernel's flusher \
             but for fsync and the like. Pages that are swapped out are among them. Direct I/O is not. \
             Attached to mod_memcg_lruvec_state, what ebpf.probe.missed says of it came in interrupts, where writing back ends \
             and never begins: nothing is missing here.",
    attributes: &[],
};

/// Pages by the kernel's accounts.
pub struct PageStates;

impl Signal for PageStates {
    const NAME: &'static str = "page_states";
    const DESCRIPTION: &'static str =
        "What was reclaimed too soon, and what is written back to disks.";
    const QUESTION: &'static str = "Would more memory help, and what is being written back?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/page_states.o");
    const METRICS: &'static [Metric] = &[REFAULTS, WRITTEN];
    type Config = OptIn;
    const SAMPLED: bool = true;

    const PROBES: &'static [Probe] = &[Probe {
        name: "changes",
        context: Context::Task,
        rungs: &[
            // Costs nothing to the many other changes.
            Rung::new(
                Mode::Fentry,
                &[
                    at("refault_fentry", "workingset_refault"),
                    at("written_fentry", "__folio_start_writeback"),
                ],
                FOLIO,
            )
            .comparing(FLAGS),
            // Before Linux 5.16.
            Rung::new(
                Mode::Fentry,
                &[
                    at("refault_fentry", "workingset_refault"),
                    at("written_fentry", "__test_set_page_writeback"),
                ],
                FOLIO,
            )
            .comparing(FLAGS),
            Rung::new(Mode::TpBtf, &[at("changed_btf", "mod_memcg_lruvec_state")], &[])
                .comparing(ITEMS),
            Rung::new(Mode::RawTp, &[at("changed_raw", "mod_memcg_lruvec_state")], &[])
                .comparing(ITEMS),
            Rung::new(
                Mode::Tracepoint,
                &[at("changed_tp", "memcg/mod_memcg_lruvec_state")],
                &[
                    "trace_event_raw_memcg_rstat_stats.item",
                    "trace_event_raw_memcg_rstat_stats.val",
                ],
            )
            .comparing(ITEMS),
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
        if !loaded.has("changes") {
            return Ok(());
        }
        groups.each(Self::NAME, "CELLS", loaded, points, |points, [file, anon, written]| {
            for (kind, pages) in [("file", file), ("anon", anon)] {
                points.counter(&REFAULTS, &[(REFAULTS.attributes[0].name, kind)], pages);
            }
            points.counter(&WRITTEN, &[], written);
        })
    }
}

/// Where among a folio's flags.
const FLAGS: &[&str] = &["pageflags.PG_head", "pageflags.PG_swapbacked"];
/// The numbers among those of a memory cgroup.
const ITEMS: &[&str] = &[
    "node_stat_item.WORKINGSET_REFAULT_ANON",
    "node_stat_item.WORKINGSET_REFAULT_FILE",
    "node_stat_item.NR_WRITEBACK",
];
