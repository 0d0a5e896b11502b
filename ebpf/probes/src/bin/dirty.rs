//! Pages of files that are made dirty.
#![no_std]
#![no_main]

use abi::dirty::Cell;
use probes::{field::Memory, folio::pages, group};

probes::program!();

probes::cells! {
    /// One cell: pages.
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; 1]
}

#[inline(always)]
fn dirtied(folio: impl Memory) {
    // Who writes is who dirties; it happens in the call.
    let Some(group) = group::in_scope() else { return };
    if let Some(cell) = CELLS.cell(group, 0) {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { (*cell).dirtied += pages(folio) };
    }
}

probes::raw_tracepoints! {
    /// `writeback_dirty_folio(folio, mapping)`; before Linux 5.18 `writeback_dirty_page(page, mapping)`.
    fn dirtied_btf, dirtied_raw("writeback_dirty_folio", ctx) {
        dirtied(ctx.pointer(0));
    }
}
