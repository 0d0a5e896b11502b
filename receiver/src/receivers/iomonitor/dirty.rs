//! Pages of files that are made dirty.

use anyhow::Result;

use super::{
    folio::{FOLIO, HEAD},
    groups::Groups,
    signal::{Disabled, Signal, Switch},
};
use crate::{
    config::Mistakes,
    ebpf::{
        ladder::{Context, Probe, rungs},
        load::Loaded,
    },
    metric::{Kind, Metric, Points},
};

const DIRTIED: Metric = Metric {
    name: "ebpf.page_cache.dirtied",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages of files that were clean and became dirty, by tasks of the scope.",
    caveat: "Not the number of pages written to: writing to a dirty page again changes nothing, and where the page cache has \
             large folios (xfs, and ext4 of late), a byte makes all pages of its folio dirty, and written back. It is what \
             nr_dirtied of /proc/vmstat counts. Direct I/O, DAX and tmpfs have no dirty pages.",
    attributes: &[],
};

/// Pages by the kernel's accounting of dirty ones.
pub struct Dirty;

impl Signal for Dirty {
    const NAME: &'static str = "dirty";
    const DESCRIPTION: &'static str = "What is written to the page cache and has to reach a disk.";
    const QUESTION: &'static str = "How much is being written that a disk has not seen yet?";
    const OBJECT: &'static [u8] = aya::include_bytes_aligned!("../../../../ebpf/prebuilt/dirty.o");
    const METRICS: &'static [Metric] = &[DIRTIED];
    type Config = Switch;
    const SAMPLED: bool = true;

    const PROBES: &'static [Probe] = &[Probe {
        name: "dirtied",
        // With interrupts off.
        context: Context::Interrupt,
        // The classic record does not say how many pages a folio has.
        rungs: rungs!([
            ([("dirtied", "writeback_dirty_folio")], FOLIO, HEAD),
            ([("dirtied", "writeback_dirty_page")], FOLIO, HEAD),
        ]),
    }];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if !loaded.has("dirtied") {
            return Ok(());
        }
        groups.each(Self::NAME, "CELLS", loaded, points, |points, [dirtied]| {
            points.counter(&DIRTIED, &[], dirtied);
        })
    }
}
