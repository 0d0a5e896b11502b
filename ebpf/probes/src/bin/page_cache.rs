//! Pages that enter and leave the page cache, and pages that reads look for in it.
#![no_std]
#![no_main]

use abi::{
    group::Group,
    page_cache::{Cell, Counter, Lookup, MAX_TASKS},
};
use aya_ebpf::{
    macros::{btf_tracepoint, fexit, map, raw_tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{BtfTracePointContext, FExitContext, RawTracePointContext, TracePointContext},
};
use probes::{
    NO_PREALLOC, count,
    field::{Address, Memory, Trusted, present, probe_at, record, set},
    folio::pages,
    group, registers, task,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER,
    OFFSET_ADDRESS_SPACE_HOST,
    OFFSET_INODE_I_SIZE,
    OFFSET_TASK_STRUCT_IOAC_SYSCR,
    OFFSET_TASK_STRUCT_FILES,
    OFFSET_FILES_STRUCT_FDT,
    OFFSET_FDTABLE_FD,
    OFFSET_FILE_F_POS,
    OFFSET_KIOCB_KI_POS,
}

/// The number of `read` on this architecture.
#[unsafe(no_mangle)]
static NR_READ: u32 = 0;
/// The number of `pread64` on this architecture.
#[unsafe(no_mangle)]
static NR_PREAD64: u32 = 0;

/// The bits of a position in a file that lie within a page.
#[unsafe(no_mangle)]
static PAGE_SHIFT: u32 = 12;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// One cell: pages.
    CELLS, CELLS_BY_GROUP: [Cell; 1]
}

/// The latest lookup of each thread.
#[map]
static LOOKUPS: HashMap<u64, Lookup> = HashMap::with_max_entries(MAX_TASKS, NO_PREALLOC);

#[inline(always)]
fn page_shift() -> u32 {
    set(&PAGE_SHIFT) & 63
}

/// Adds `pages` to the field of the group's cell that `field` picks.
#[inline(always)]
fn add(group: Group, pages: u64, field: impl FnOnce(&mut Cell) -> &mut u64) {
    if let Some(cell) = group::cell(&CELLS, &CELLS_BY_GROUP, group, 0) {
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

/// `mm_filemap_add_to_page_cache(folio)`.
#[btf_tracepoint(function = "mm_filemap_add_to_page_cache")]
pub fn adds_btf(ctx: BtfTracePointContext) -> i32 {
    added(|| pages(Trusted::new(ctx.arg(0))));
    0
}

/// See [`adds_btf`].
#[raw_tracepoint(tracepoint = "mm_filemap_add_to_page_cache")]
pub fn adds_raw(ctx: RawTracePointContext) -> i32 {
    added(|| pages(Address(ctx.arg(0))));
    0
}

probes::tracepoint! {
    /// See [`adds_btf`].
    fn adds_tp(ctx) {
        added(|| pages_of_record(&ctx));
    }
}

/// `mm_filemap_delete_from_page_cache(folio)`.
#[btf_tracepoint(function = "mm_filemap_delete_from_page_cache")]
pub fn deletes_btf(ctx: BtfTracePointContext) -> i32 {
    deleted(Trusted::new(ctx.arg(0)));
    0
}

/// See [`deletes_btf`].
#[raw_tracepoint(tracepoint = "mm_filemap_delete_from_page_cache")]
pub fn deletes_raw(ctx: RawTracePointContext) -> i32 {
    deleted(Address(ctx.arg(0)));
    0
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
/// none, so even the first event may lie behind the read's start: see [`start`].
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
    let size: i64 = mapping.follow(&OFFSET_ADDRESS_SPACE_HOST).read(&OFFSET_INODE_I_SIZE);
    if size <= 0 {
        // Truncated since the pages were found.
        return;
    }
    let first = start(index, last_index);
    let last_of_file = ((size - 1) >> page_shift()) as u64;
    let last = if last_index < last_of_file { last_index } else { last_of_file };
    if first <= last {
        add(group, last - first + 1, |cell| &mut cell.lookups);
    }
}

/// See [`looked_up`].
#[btf_tracepoint(function = "mm_filemap_get_pages")]
pub fn lookups_btf(ctx: BtfTracePointContext) -> i32 {
    looked_up(Trusted::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

/// See [`looked_up`].
#[raw_tracepoint(tracepoint = "mm_filemap_get_pages")]
pub fn lookups_raw(ctx: RawTracePointContext) -> i32 {
    looked_up(Address(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

/// The first page of the read that the current task is in, which is `index` or lies before it. Known
/// for `read` and `pread64`, from their arguments; of any other way to read, `index` is taken.
#[inline(always)]
fn start(index: u64, last_index: u64) -> u64 {
    let regs = registers::current();
    let number = registers::number(regs);
    let position = if number == u64::from(set(&NR_PREAD64)) {
        registers::argument_3(regs)
    } else if number == u64::from(set(&NR_READ)) {
        // The file's own position, which moves when the call returns.
        let files = task::current().follow(&OFFSET_TASK_STRUCT_FILES);
        let table = files.follow(&OFFSET_FILES_STRUCT_FDT);
        let array = table.follow(&OFFSET_FDTABLE_FD);
        let descriptor = registers::argument_0(regs) as u32;
        let file = Address(probe_at(array.address() + 8 * u64::from(descriptor)));
        file.read(&OFFSET_FILE_F_POS)
    } else {
        return index;
    };
    // Only the read that these arguments describe: one inside it, of a file system for itself, is
    // another.
    let end = position + registers::argument_2(regs);
    let first = position >> page_shift();
    if first < index && end > position && (end - 1) >> page_shift() == last_index {
        first
    } else {
        index
    }
}

/// What a read of `read_bytes` that ended at `position` has looked for.
#[inline(always)]
fn served(group: Group, position: u64, read_bytes: i64) {
    if read_bytes <= 0 {
        return;
    }
    let (first, last) =
        ((position - read_bytes as u64) >> page_shift(), (position - 1) >> page_shift());
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

/// `sched_process_exit`: a thread's entries go with it.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn thread_exit_btf(_: BtfTracePointContext) -> i32 {
    ended();
    0
}

/// See [`thread_exit_btf`].
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn thread_exit_raw(_: RawTracePointContext) -> i32 {
    ended();
    0
}
