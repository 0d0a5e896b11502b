//! Pages of files that are made dirty.
#![no_std]
#![no_main]

use abi::dirty::Cell;
use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use probes::{
    field::{Address, Memory, Trusted},
    folio::pages,
    group,
};

probes::program!();

probes::cells! {
    /// One cell: pages.
    CELLS, CELLS_BY_GROUP: [Cell; 1]
}

#[inline(always)]
fn dirtied(folio: impl Memory) {
    // Who writes is who dirties; it happens in the call.
    let Some(group) = group::in_scope() else { return };
    if let Some(cell) = group::cell(&CELLS, &CELLS_BY_GROUP, group, 0) {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { (*cell).dirtied += pages(folio) };
    }
}

/// `writeback_dirty_folio(folio, mapping)`; before Linux 5.18 `writeback_dirty_page(page, mapping)`.
#[btf_tracepoint(function = "writeback_dirty_folio")]
pub fn dirtied_btf(ctx: BtfTracePointContext) -> i32 {
    dirtied(Trusted::new(ctx.arg(0)));
    0
}

/// See [`dirtied_btf`].
#[raw_tracepoint(tracepoint = "writeback_dirty_folio")]
pub fn dirtied_raw(ctx: RawTracePointContext) -> i32 {
    dirtied(Address(ctx.arg(0)));
    0
}
