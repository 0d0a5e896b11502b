//! Pages that come back too soon, and pages that are written back.
//!
//! No tracepoint is about either. The functions that account them can be attached to; where that is not allowed, the
//! kernel's accounts of memory cgroups raise a tracepoint for every change of a number (Linux 6.15), most of which are
//! other numbers.
#![no_std]
#![no_main]

use abi::{group::Group, page_states::Cell};
use aya_ebpf::{macros::fentry, programs::FEntryContext};
use probes::{
    field::{Address, Memory, Trusted, record, set},
    folio::{flags, pages},
    group,
};

probes::program!();

probes::fields! {
    ENUM_PAGEFLAGS_PG_SWAPBACKED,
    ENUM_NODE_STAT_ITEM_WORKINGSET_REFAULT_ANON,
    ENUM_NODE_STAT_ITEM_WORKINGSET_REFAULT_FILE,
    ENUM_NODE_STAT_ITEM_NR_WRITEBACK,
    OFFSET_TRACE_EVENT_RAW_MEMCG_RSTAT_STATS_ITEM,
    OFFSET_TRACE_EVENT_RAW_MEMCG_RSTAT_STATS_VAL,
}

probes::cells! {
    /// One cell: pages.
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; 1]
}

#[inline(always)]
fn add(group: Group, pages: u64, field: impl FnOnce(&mut Cell) -> &mut u64) {
    if let Some(cell) = CELLS.cell(group, 0) {
        // SAFETY: the pointer is to this CPU's copy, each field of which one program alone writes.
        *field(unsafe { &mut *cell }) += pages;
    }
}

/// `workingset_refault(folio, shadow)`: the current task has read a page in that was reclaimed before, and is charged
/// for it.
#[fentry(function = "workingset_refault")]
pub fn refault_fentry(ctx: FEntryContext) -> i32 {
    let folio = Trusted::new(ctx.arg(0));
    let Some(group) = group::in_scope() else { return 0 };
    if flags(folio) >> (set(&ENUM_PAGEFLAGS_PG_SWAPBACKED) & 63) & 1 != 0 {
        add(group, pages(folio), |cell| &mut cell.refaulted_anon);
    } else {
        add(group, pages(folio), |cell| &mut cell.refaulted_file);
    }
    0
}

/// `__folio_start_writeback(folio, keep_write)`; before Linux 5.16 `__test_set_page_writeback(page, keep_write)`.
#[fentry(function = "__folio_start_writeback")]
pub fn written_fentry(ctx: FEntryContext) -> i32 {
    let folio = Trusted::new(ctx.arg(0));
    if let Some(group) = group::of_page(Address(folio.address())) {
        add(group, pages(folio), |cell| &mut cell.written);
    }
    0
}

/// A number of a memory cgroup, by `enum node_stat_item`, has changed by so many pages.
#[inline(always)]
fn changed(item: u32, pages: i32, group: impl Fn() -> Option<Group>) {
    // What has been written takes the number of those under writeback down again.
    if pages <= 0 {
        return;
    }
    let anon = item == set(&ENUM_NODE_STAT_ITEM_WORKINGSET_REFAULT_ANON);
    let file = item == set(&ENUM_NODE_STAT_ITEM_WORKINGSET_REFAULT_FILE);
    if !anon && !file && item != set(&ENUM_NODE_STAT_ITEM_NR_WRITEBACK) {
        return;
    }
    let pages = pages as u64;
    if anon || file {
        let Some(group) = group::in_scope() else { return };
        if anon {
            add(group, pages, |cell| &mut cell.refaulted_anon);
        } else {
            add(group, pages, |cell| &mut cell.refaulted_file);
        }
    } else if let Some(group) = group() {
        add(group, pages, |cell| &mut cell.written);
    }
}

probes::raw_tracepoints! {
    /// `mod_memcg_lruvec_state(memcg, item, val)`. The last is an `int` or a `long`, of which the lower half is enough.
    fn changed_btf, changed_raw("mod_memcg_lruvec_state", ctx) {
        let memcg: u64 = ctx.arg(0);
        changed(ctx.arg(1), ctx.arg(2), || group::of_memory(Address(memcg)));
    }
}

probes::tracepoint! {
    /// See [`changed_btf`]. The record has the cgroup's id, by which its ancestors cannot be asked for: the current
    /// task's group gets it.
    fn changed_tp(ctx) {
        changed(
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_MEMCG_RSTAT_STATS_ITEM),
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_MEMCG_RSTAT_STATS_VAL),
            group::in_scope,
        );
    }
}
