//! Pages that enter and leave the page cache, and pages that reads look for in it.
#![no_std]
#![no_main]

use abi::page_cache::{Counter, Lookup, MAX_TASKS};
use aya_ebpf::{
    helpers::bpf_get_current_task,
    macros::{btf_tracepoint, map, tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{BtfTracePointContext, TracePointContext},
};
use probes::{
    count,
    field::{Trusted, probe, record, set},
    scope, task,
};

probes::program!();

probes::fields! {
    OFFSET_FOLIO_FLAGS,
    OFFSET_FOLIO__FLAGS_1,
    ENUM_PAGEFLAGS_PG_HEAD,
    OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER,
    OFFSET_ADDRESS_SPACE_HOST,
    OFFSET_INODE_I_SIZE,
    OFFSET_TASK_STRUCT_IOAC_SYSCR,
}

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// The latest lookup of each thread.
#[map]
static LOOKUPS: HashMap<u64, Lookup> = HashMap::with_max_entries(MAX_TASKS, NO_PREALLOC);

/// A place is allocated when a thread first needs it, not for all threads that could exist.
const NO_PREALLOC: u32 = 1;

/// Pages in a folio: one event can stand for up to 512 and more.
#[inline(always)]
fn pages(folio: Trusted) -> u64 {
    let flags: u64 = folio.read(&OFFSET_FOLIO_FLAGS);
    if flags & (1 << (set(&ENUM_PAGEFLAGS_PG_HEAD) & 63)) == 0 {
        return 1;
    }
    // The order is in the low byte of the second page's flags (include/linux/page-flags.h).
    let flags: u64 = folio.read(&OFFSET_FOLIO__FLAGS_1);
    1 << (flags & 63)
}

#[inline(always)]
fn pages_of_record(ctx: &TracePointContext) -> u64 {
    let order: u8 = record(ctx, &OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER);
    1 << (order & 63)
}

/// `mm_filemap_add_to_page_cache(folio)`.
#[btf_tracepoint(function = "mm_filemap_add_to_page_cache")]
pub fn adds_btf(ctx: BtfTracePointContext) -> i32 {
    if scope::contains_current() {
        count(&COUNTERS, Counter::Adds as u32, pages(Trusted::new(ctx.arg(0))));
    }
    0
}

/// See [`adds_btf`].
#[tracepoint(category = "filemap", name = "mm_filemap_add_to_page_cache")]
pub fn adds_tp(ctx: TracePointContext) -> u32 {
    if scope::contains_current() {
        count(&COUNTERS, Counter::Adds as u32, pages_of_record(&ctx));
    }
    0
}

/// `mm_filemap_delete_from_page_cache(folio)`.
#[btf_tracepoint(function = "mm_filemap_delete_from_page_cache")]
pub fn deletes_btf(ctx: BtfTracePointContext) -> i32 {
    if scope::contains_current() {
        count(&COUNTERS, Counter::Deletes as u32, pages(Trusted::new(ctx.arg(0))));
    }
    0
}

/// See [`deletes_btf`].
#[tracepoint(category = "filemap", name = "mm_filemap_delete_from_page_cache")]
pub fn deletes_tp(ctx: TracePointContext) -> u32 {
    if scope::contains_current() {
        count(&COUNTERS, Counter::Deletes as u32, pages_of_record(&ctx));
    }
    0
}

/// `mm_filemap_get_pages(mapping, index, last_index)`: raised for each batch of folios that a read
/// finds, with the end of the whole request each time, which may lie behind the end of the file.
#[btf_tracepoint(function = "mm_filemap_get_pages")]
pub fn lookups_btf(ctx: BtfTracePointContext) -> i32 {
    if !scope::contains_current() {
        return 0;
    }
    let mapping = Trusted::new(ctx.arg(0));
    let index: u64 = ctx.arg(1);
    let last_index: u64 = ctx.arg(2);
    // SAFETY: the helper has no preconditions.
    let reads: u64 = probe(unsafe { bpf_get_current_task() }, &OFFSET_TASK_STRUCT_IOAC_SYSCR);
    let now = Lookup { mapping: mapping.address(), index, last_index, reads };

    let thread = task::thread();
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
                return 0;
            }
        }
        None => {
            if LOOKUPS.insert(&thread, &now, 0).is_err() {
                count(&COUNTERS, Counter::LookupsUntracked as u32, 1);
            }
        }
    }
    let size: i64 = mapping.follow(&OFFSET_ADDRESS_SPACE_HOST).read(&OFFSET_INODE_I_SIZE);
    if size <= 0 {
        // Truncated since the pages were found.
        return 0;
    }
    let last_of_file = ((size - 1) >> 12) as u64;
    let last = if last_index < last_of_file { last_index } else { last_of_file };
    if index <= last {
        count(&COUNTERS, Counter::Lookups as u32, last - index + 1);
    }
    0
}

/// `sched_process_exit`: a thread's entry goes with it.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn lookups_exit_btf(_: BtfTracePointContext) -> i32 {
    // A thread that never read has none.
    let _ = LOOKUPS.remove(&task::thread());
    0
}

/// See [`lookups_exit_btf`].
#[tracepoint(category = "sched", name = "sched_process_exit")]
pub fn lookups_exit_tp(_: TracePointContext) -> u32 {
    let _ = LOOKUPS.remove(&task::thread());
    0
}
