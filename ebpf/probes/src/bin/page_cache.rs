//! Pages that enter and leave the page cache, and pages that reads look for in it.
#![no_std]
#![no_main]

use abi::page_cache::{Counter, Lookup, MAX_TASKS};
use aya_ebpf::{
    macros::{btf_tracepoint, map, tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{BtfTracePointContext, TracePointContext},
};
use probes::{
    count,
    field::{Trusted, probe, probe_at, record, set},
    registers, scope, task,
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
    OFFSET_TASK_STRUCT_FILES,
    OFFSET_FILES_STRUCT_FDT,
    OFFSET_FDTABLE_FD,
    OFFSET_FILE_F_POS,
}

/// The number of `read` on this architecture.
#[unsafe(no_mangle)]
static NR_READ: u32 = 0;
/// The number of `pread64` on this architecture.
#[unsafe(no_mangle)]
static NR_PREAD64: u32 = 0;

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
///
/// The first event of a read counts all of it. A batch whose last folio is still being read raises
/// none, so even the first event may lie behind the read's start: see [`start`].
#[btf_tracepoint(function = "mm_filemap_get_pages")]
pub fn lookups_btf(ctx: BtfTracePointContext) -> i32 {
    if !scope::contains_current() {
        return 0;
    }
    let mapping = Trusted::new(ctx.arg(0));
    let index: u64 = ctx.arg(1);
    let last_index: u64 = ctx.arg(2);
    let thread = task::thread();
    let reads: u64 = probe(thread, &OFFSET_TASK_STRUCT_IOAC_SYSCR);
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
    let first = start(thread, index, last_index);
    let last_of_file = ((size - 1) >> PAGE_SHIFT) as u64;
    let last = if last_index < last_of_file { last_index } else { last_of_file };
    if first <= last {
        count(&COUNTERS, Counter::Lookups as u32, last - first + 1);
    }
    0
}

/// Pages are of 4 KiB on this architecture.
const PAGE_SHIFT: u32 = 12;

/// The first page of the read that the current task is in, which is `index` or lies before it. Known
/// for `read` and `pread64`, from their arguments; of any other way to read, `index` is taken.
#[inline(always)]
fn start(thread: u64, index: u64, last_index: u64) -> u64 {
    let regs = registers::current();
    let number = registers::number(regs);
    let position = if number == u64::from(set(&NR_PREAD64)) {
        registers::argument_3(regs)
    } else if number == u64::from(set(&NR_READ)) {
        // The file's own position, which moves when the call returns.
        let files: u64 = probe(thread, &OFFSET_TASK_STRUCT_FILES);
        let table: u64 = probe(files, &OFFSET_FILES_STRUCT_FDT);
        let array: u64 = probe(table, &OFFSET_FDTABLE_FD);
        let descriptor = registers::argument_0(regs) as u32;
        let file: u64 = probe_at(array + 8 * u64::from(descriptor));
        probe(file, &OFFSET_FILE_F_POS)
    } else {
        return index;
    };
    // Only the read that these arguments describe: one inside it, of a file system for itself, is
    // another.
    let end = position + registers::argument_2(regs);
    let first = position >> PAGE_SHIFT;
    if first < index && end > position && (end - 1) >> PAGE_SHIFT == last_index {
        first
    } else {
        index
    }
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
