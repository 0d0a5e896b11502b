//! Pages that enter and leave the page cache, and pages that reads look for in it.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)]

use core::intrinsics::{AtomicOrdering, atomic_and, atomic_or};

use abi::{
    group::Group,
    page_cache::{
        CHUNK, Cell, Chunk, Counter, FOLIO_CHUNKS, Lookup, MAX_AHEAD, MAX_TASKS, READ_CHUNKS, bits,
    },
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::{fexit, map},
    maps::{HashMap, PerCpuArray},
    programs::{FExitContext, TracePointContext},
};
use probes::{
    NO_PREALLOC, count,
    field::{Address, Memory, Trusted, present, record, set},
    file,
    folio::pages,
    group, reads, registers, task,
};

probes::program!();

const RELAXED: AtomicOrdering = AtomicOrdering::Relaxed;

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER,
    OFFSET_TASK_STRUCT_IOAC_SYSCR,
    OFFSET_KIOCB_KI_POS,
    ARG_MM_FILEMAP_GET_PAGES_ADDRESS_SPACE,
    OFFSET_FOLIO_MAPPING,
    OFFSET_FOLIO_INDEX,
}

/// Whether it is told what a read finds: then the other programs remember what is read ahead.
#[unsafe(no_mangle)]
static FOLLOWED: u32 = 0;
/// The numbers on this architecture of calls that have files read ahead.
#[unsafe(no_mangle)]
static NR_FADVISE64: u32 = u32::MAX;
#[unsafe(no_mangle)]
static NR_READAHEAD: u32 = u32::MAX;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// One cell: pages.
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; 1]
}

/// The latest lookup of each thread.
#[map]
static LOOKUPS: HashMap<u64, Lookup> = HashMap::with_max_entries(MAX_TASKS, NO_PREALLOC);

/// Pages that have been read ahead and not read, by their bits.
#[map]
static AHEAD: HashMap<Chunk, u64> = HashMap::with_max_entries(MAX_AHEAD, NO_PREALLOC);

/// Adds `pages` to the field of the group's cell that `field` picks.
#[inline(always)]
fn add(group: Group, pages: u64, field: impl FnOnce(&mut Cell) -> &mut u64) {
    if let Some(cell) = CELLS.cell(group, 0) {
        // SAFETY: the pointer is to this CPU's copy, each field of which one program alone writes.
        *field(unsafe { &mut *cell }) += pages;
    }
}

/// As many by the record, which says the order where folios can be large.
#[inline(always)]
fn pages_of_record(ctx: &TracePointContext) -> u64 {
    if !present(&OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER) {
        return 1;
    }
    let order: u8 = record(ctx, &OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER);
    1 << (order & 63)
}

#[inline(always)]
fn added(pages: impl FnOnce() -> u64) {
    // A page is charged to who reads it in.
    if let Some(group) = group::in_scope() {
        add(group, pages(), |cell| &mut cell.adds);
    }
}

#[inline(always)]
fn deleted(folio: impl Memory) {
    if let Some(group) = group::of_page(Address(folio.address())) {
        add(group, pages(folio), |cell| &mut cell.deletes);
    }
}

probes::raw_tracepoints! {
    /// `mm_filemap_add_to_page_cache(folio)`.
    fn adds_btf, adds_raw("mm_filemap_add_to_page_cache", ctx) {
        added(|| pages(ctx.pointer(0)));
    }
}

probes::tracepoint! {
    /// See [`adds_btf`].
    fn adds_tp(ctx) {
        added(|| pages_of_record(&ctx));
    }
}

probes::raw_tracepoints! {
    /// `mm_filemap_delete_from_page_cache(folio)`.
    fn deletes_btf, deletes_raw("mm_filemap_delete_from_page_cache", ctx) {
        deleted(ctx.pointer(0));
    }
}

probes::tracepoint! {
    /// See [`deletes_btf`]. The record does not say whose page it is: the current task's group gets it.
    fn deletes_tp(ctx) {
        if let Some(group) = group::in_scope() {
            add(group, pages_of_record(&ctx), |cell| &mut cell.deletes);
        }
    }
}

/// `mm_filemap_get_pages(mapping, index, last_index)`: raised for each batch of folios that a read
/// finds, with the end of the whole request each time, which may lie behind the end of the file.
///
/// The first event of a read counts all of it. A batch whose last folio is still being read raises
/// none, so even the first event may lie behind the read's start, which is known from the call's arguments.
#[inline(always)]
fn looked_up(mapping: impl Memory, index: u64, last_index: u64) {
    let Some(group) = group::in_scope() else { return };
    let thread = task::thread();
    let reads: u64 = task::read(&OFFSET_TASK_STRUCT_IOAC_SYSCR);
    let now = Lookup { mapping: mapping.address(), index, last_index, reads };

    match LOOKUPS.get_ptr_mut(&thread) {
        Some(slot) => {
            // SAFETY: only this thread reads and writes its entry while it lives.
            let before = unsafe { *slot };
            unsafe { *slot = now };
            if before.mapping == now.mapping
                && before.last_index == last_index
                && before.reads == reads
                && before.index < index
            {
                return;
            }
        }
        None => {
            if LOOKUPS.insert(&thread, &now, 0).is_err() {
                count(&COUNTERS, Counter::LookupsUntracked as u32, 1);
            }
        }
    }
    let size = file::size(mapping);
    if size <= 0 {
        // Truncated since the pages were found.
        return;
    }
    // Only the read that the call's arguments describe: one inside it, of a file system for itself, is another.
    let read = reads::current();
    let is_the_calls = read.known && read.first <= index && read.last == last_index;
    let first = if is_the_calls { read.first } else { index };
    let last_of_file = ((size - 1) >> reads::page_shift()) as u64;
    let last = if last_index < last_of_file { last_index } else { last_of_file };
    if first > last {
        return;
    }
    let asked = last - first + 1;
    let followed = is_the_calls && set(&FOLLOWED) != 0;
    let ahead = if followed { taken(mapping.address(), first, last) } else { 0 };
    if let Some(cell) = CELLS.cell(group, 0) {
        // SAFETY: the pointer is to this CPU's copy, each field of which one program alone writes.
        let cell = unsafe { &mut *cell };
        cell.lookups += asked;
        if followed {
            cell.followed += asked;
            cell.ahead += ahead;
        }
    }
}

probes::raw_tracepoints! {
    /// See [`looked_up`].
    fn lookups_btf, lookups_raw("mm_filemap_get_pages", ctx) {
        looked_up(ctx.pointer(0), ctx.arg(1), ctx.arg(2));
    }
}

/// What a read of `read_bytes` that ended at `position` has looked for.
#[inline(always)]
fn served(group: Group, position: u64, read_bytes: i64) {
    if read_bytes <= 0 {
        return;
    }
    let (first, last) = (
        (position - read_bytes as u64) >> reads::page_shift(),
        (position - 1) >> reads::page_shift(),
    );
    add(group, last - first + 1, |cell| &mut cell.lookups);
}

/// `filemap_read(iocb, iter, already_read)`, called `generic_file_buffered_read` before Linux 5.11:
/// the bytes that it read tell the pages, which is all there is on kernels without the tracepoint.
#[fexit(function = "filemap_read")]
pub fn reads_fexit(ctx: FExitContext) -> i32 {
    let Some(group) = group::in_scope() else { return 0 };
    let position: u64 = Trusted::new(ctx.arg(0)).read(&OFFSET_KIOCB_KI_POS);
    let already: i64 = ctx.arg(2);
    // The result stands behind the arguments. (The helper for it is younger than this kernel.)
    let ret: i64 = ctx.arg(3);
    served(group, position, ret - already);
    0
}

#[inline(always)]
fn ended() {
    // A thread that never read has none.
    let _ = LOOKUPS.remove(&task::thread());
}

probes::raw_tracepoints! {
    /// `sched_process_exit`: a thread's entries go with it.
    fn thread_exit_btf, thread_exit_raw("sched_process_exit", _) {
        ended();
    }
}

/// Remembers that pages have been read ahead.
#[inline(always)]
fn remember(mapping: u64, first: u64, last: u64) {
    let mut at = first;
    let mut i = 0;
    while i < FOLIO_CHUNKS && at <= last {
        let (key, bits) = (Chunk { mapping, number: at / CHUNK }, bits(at, last));
        let room = AHEAD.get_ptr_mut(&key).is_some()
            || AHEAD.insert(&key, &0, u64::from(BPF_NOEXIST)).is_ok();
        match AHEAD.get_ptr_mut(&key) {
            // SAFETY: the kernel keeps the value while a program has it, and all who change it do it so.
            Some(value) => {
                unsafe { atomic_or::<_, _, RELAXED>(value, bits) };
            }
            None if !room => count(&COUNTERS, Counter::AheadFull as u32, 1),
            None => {}
        }
        at = (at | (CHUNK - 1)) + 1;
        i += 1;
    }
}

/// Forgets what is remembered of pages in so many chunks: how many of them were, and where it has come to.
#[inline(always)]
fn forgotten<const CHUNKS: u32>(mapping: u64, first: u64, last: u64) -> (u64, u64) {
    let mut found = 0;
    let mut at = first;
    let mut i = 0;
    while i < CHUNKS && at <= last {
        let (key, bits) = (Chunk { mapping, number: at / CHUNK }, bits(at, last));
        if let Some(value) = AHEAD.get_ptr_mut(&key) {
            // SAFETY: as in `remember`.
            let before = unsafe { atomic_and::<_, _, RELAXED>(value, !bits) };
            found += u64::from((before & bits).count_ones());
            if before & !bits == 0 {
                let _ = AHEAD.remove(&key);
            }
        }
        at = (at | (CHUNK - 1)) + 1;
        i += 1;
    }
    (found, at)
}

/// A read has come for pages: how many of them it finds for the first time, since they were read ahead.
#[inline(always)]
fn taken(mapping: u64, first: u64, last: u64) -> u64 {
    let (found, at) = forgotten::<READ_CHUNKS>(mapping, first, last);
    if at <= last {
        count(&COUNTERS, Counter::TooLong as u32, 1);
    }
    found
}

/// Pages are added to the page cache by the current task: for a read, which misses those that it asks for and has the
/// others read ahead, by a call that has them read ahead, by a fault, or to be written to.
#[inline(always)]
fn filled(folio: impl Memory) {
    // What is remembered is for lookups, which older kernels do not tell.
    if !present(&ARG_MM_FILEMAP_GET_PAGES_ADDRESS_SPACE) {
        return;
    }
    let Some(group) = group::in_scope() else { return };
    let first: u64 = folio.read(&OFFSET_FOLIO_INDEX);
    let mapping: u64 = folio.read(&OFFSET_FOLIO_MAPPING);
    let pages = pages(folio);
    let last = first + pages - 1;
    let read = reads::current();
    if !read.known {
        let number = registers::number(registers::current()) as u32;
        if number == set(&NR_FADVISE64) || number == set(&NR_READAHEAD) {
            remember(mapping, first, last);
        } else if number == u32::MAX {
            // Not in a call, but on the way from a fault.
            add(group, pages, |cell| &mut cell.faulted);
        }
        return;
    }
    if file::mapping(read.file).address() != mapping {
        // The file system reads something for itself.
        return;
    }
    let from = if first > read.first { first } else { read.first };
    let to = if last < read.last { last } else { read.last };
    if from > to {
        remember(mapping, first, last);
        return;
    }
    add(group, to - from + 1, |cell| &mut cell.misses);
    if first < from {
        remember(mapping, first, from - 1);
    }
    if to < last {
        remember(mapping, to + 1, last);
    }
}

probes::raw_tracepoints! {
    /// See [`adds_btf`].
    fn fills_btf, fills_raw("mm_filemap_add_to_page_cache", ctx) {
        filled(ctx.pointer(0));
    }
}

/// Whoever deletes pages: they are not there any more.
#[inline(always)]
fn gone(folio: impl Memory) {
    let first: u64 = folio.read(&OFFSET_FOLIO_INDEX);
    let mapping = folio.read(&OFFSET_FOLIO_MAPPING);
    forgotten::<FOLIO_CHUNKS>(mapping, first, first + pages(folio) - 1);
}

probes::raw_tracepoints! {
    /// See [`deletes_btf`].
    fn gone_btf, gone_raw("mm_filemap_delete_from_page_cache", ctx) {
        gone(ctx.pointer(0));
    }
}
