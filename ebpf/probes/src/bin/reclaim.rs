//! Memory reclaim: what is scanned and freed, and who has to do it himself.
#![no_std]
#![no_main]

use abi::{
    group::Group,
    reclaim::{Cell, Counter, MAX_PROCESSES},
};
use aya_ebpf::{
    macros::{btf_tracepoint, map, raw_tracepoint, tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{BtfTracePointContext, RawTracePointContext, TracePointContext},
};
use probes::{NO_PREALLOC, count, field::record, group, task};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_SCANNED,
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_RECLAIMED,
}

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// One cell: begins.
    CELLS, CELLS_BY_GROUP: [Cell; 1]
}

/// How often each process began to reclaim.
#[map]
static RECLAIMERS: HashMap<Group, u64> = HashMap::with_max_entries(MAX_PROCESSES, NO_PREALLOC);

/// Reclaim is the whole machine's business, kswapd's for the most part: the scope does not apply.
#[inline(always)]
fn shrunk(scanned: u64, reclaimed: u64) {
    count(&COUNTERS, Counter::Scanned as u32, scanned);
    count(&COUNTERS, Counter::Reclaimed as u32, reclaimed);
}

/// `mm_vmscan_lru_shrink_inactive(nid, nr_scanned, nr_reclaimed, stat, priority, file)`.
#[btf_tracepoint(function = "mm_vmscan_lru_shrink_inactive")]
pub fn shrink_btf(ctx: BtfTracePointContext) -> i32 {
    shrunk(ctx.arg(1), ctx.arg(2));
    0
}

/// See [`shrink_btf`].
#[raw_tracepoint(tracepoint = "mm_vmscan_lru_shrink_inactive")]
pub fn shrink_raw(ctx: RawTracePointContext) -> i32 {
    shrunk(ctx.arg(1), ctx.arg(2));
    0
}

/// See [`shrink_btf`].
#[tracepoint(category = "vmscan", name = "mm_vmscan_lru_shrink_inactive")]
pub fn shrink_tp(ctx: TracePointContext) -> u32 {
    shrunk(
        record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_SCANNED),
        record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_RECLAIMED),
    );
    0
}

/// The current task begins to reclaim: it waits for that.
#[inline(always)]
fn begin(field: impl FnOnce(&mut Cell) -> &mut u64, unplaced: Counter) {
    let Some(group) = group::in_scope() else { return };
    if let Some(cell) = group::cell(&CELLS, &CELLS_BY_GROUP, group, 0) {
        // SAFETY: the pointer is to this CPU's copy, each field of which one program alone writes.
        *field(unsafe { &mut *cell }) += 1;
    }
    let process = task::process();
    if let Some(begins) = RECLAIMERS.get_ptr_mut(&process) {
        // SAFETY: the entry lives; threads of one process may lose a count of each other here,
        // which is why the number of begins is counted apart.
        unsafe { *begins += 1 };
    } else if RECLAIMERS.insert(&process, &1, 0).is_err() {
        count(&COUNTERS, unplaced as u32, 1);
    }
}

#[inline(always)]
fn global() {
    begin(|cell| &mut cell.global, Counter::GlobalUnplaced);
}

#[inline(always)]
fn memcg() {
    begin(|cell| &mut cell.memcg, Counter::MemcgUnplaced);
}

/// `mm_vmscan_direct_reclaim_begin`: the machine is short of memory. Its arguments have changed
/// places between kernels; none is needed.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_begin_btf(_: BtfTracePointContext) -> i32 {
    global();
    0
}

/// See [`direct_begin_btf`].
#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_begin_raw(_: RawTracePointContext) -> i32 {
    global();
    0
}

/// See [`direct_begin_btf`].
#[tracepoint(category = "vmscan", name = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_begin_tp(_: TracePointContext) -> u32 {
    global();
    0
}

/// `mm_vmscan_memcg_reclaim_begin`: the memory cgroup is at its limit.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_begin_btf(_: BtfTracePointContext) -> i32 {
    memcg();
    0
}

/// See [`memcg_begin_btf`].
#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_begin_raw(_: RawTracePointContext) -> i32 {
    memcg();
    0
}

/// See [`memcg_begin_btf`].
#[tracepoint(category = "vmscan", name = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_begin_tp(_: TracePointContext) -> u32 {
    memcg();
    0
}
