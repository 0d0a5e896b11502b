//! Memory reclaim: what is scanned and freed, and who has to do it himself.
#![no_std]
#![no_main]

use abi::{
    duration::{self as durations, Begun, MAX_THREADS, entries},
    group::Group,
    reclaim::{
        Cell, Counter, DIRECT, GLOBAL, KINDS, KSWAPD, MAX_PROCESSES, MEMCG, OTHER, OTHER_REASON,
        TYPES,
    },
};
use aya_ebpf::{
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use probes::{
    NO_PREALLOC, count, duration,
    field::{record, set},
    group, task,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_SCANNED,
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_RECLAIMED,
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_ISOLATE_NR_TAKEN,
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_THROTTLED_USEC_DELAYED,
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_THROTTLED_REASON,
}

/// Whether the lists are multi-generational.
#[unsafe(no_mangle)]
static GENERATIONS: u32 = 0;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// One cell: begins.
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; 1]
}

/// Pages scanned, then pages reclaimed, by who did it.
#[map]
static SHRUNK: PerCpuArray<u64> = PerCpuArray::with_max_entries(2 * TYPES.len() as u32, 0);

probes::cells! {
    /// How long tasks reclaimed, and how long they waited meanwhile.
    DURATIONS, DURATIONS_BY_GROUP, DURATIONS_SEATS: [durations::Cell; entries(KINDS)]
}

/// Threads that reclaim.
#[map]
static IN_FLIGHT: HashMap<u64, Begun> = HashMap::with_max_entries(MAX_THREADS, NO_PREALLOC);

/// How often each process began to reclaim.
#[map]
static RECLAIMERS: HashMap<Group, u64> = HashMap::with_max_entries(MAX_PROCESSES, NO_PREALLOC);

/// Who reclaims here: a task that has begun to, or a kernel thread.
#[inline(always)]
fn reclaimer() -> u32 {
    if let Some(begun) = IN_FLIGHT.get_ptr(&task::thread()) {
        // SAFETY: only this thread writes its entry.
        return unsafe { (*begun).kind };
    }
    // Its threads are called `kswapd0`, and so on for each node.
    const NAME: u64 = u64::from_le_bytes(*b"kswapd\0\0");
    const LETTERS: u64 = (1 << 48) - 1;
    if task::process_name()[0] & LETTERS == NAME { KSWAPD } else { OTHER }
}

/// Reclaim is the whole machine's business, kswapd's for the most part: the scope does not apply.
#[inline(always)]
fn shrunk(scanned: u64, reclaimed: u64) {
    let by = reclaimer();
    // With generations, a retry shows again what has been scanned: there `isolated` counts.
    if set(&GENERATIONS) == 0 {
        count(&SHRUNK, by, scanned);
    }
    count(&SHRUNK, TYPES.len() as u32 + by, reclaimed);
}

probes::raw_tracepoints! {
    /// `mm_vmscan_lru_shrink_inactive(nid, nr_scanned, nr_reclaimed, stat, priority, file)`.
    fn shrink_btf, shrink_raw("mm_vmscan_lru_shrink_inactive", ctx) {
        shrunk(ctx.arg(1), ctx.arg(2));
    }
}

probes::tracepoint! {
    /// See [`shrink_btf`].
    fn shrink_tp(ctx) {
        shrunk(
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_SCANNED),
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_RECLAIMED),
        );
    }
}

/// With generations, the kernel takes what it takes off the lists for scanned; without, this is told of the active
/// lists too.
#[inline(always)]
fn isolated(taken: impl FnOnce() -> u64) {
    if set(&GENERATIONS) != 0 {
        count(&SHRUNK, reclaimer(), taken());
    }
}

probes::raw_tracepoints! {
    /// `mm_vmscan_lru_isolate(highest_zoneidx, order, nr_requested, nr_scanned, nr_skipped, nr_taken, …)`.
    fn isolate_btf, isolate_raw("mm_vmscan_lru_isolate", ctx) {
        isolated(|| ctx.arg(5));
    }
}

probes::tracepoint! {
    /// See [`isolate_btf`].
    fn isolate_tp(ctx) {
        isolated(|| record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_ISOLATE_NR_TAKEN));
    }
}

/// The current task begins to reclaim: it waits for that.
#[inline(always)]
fn begin(kind: u32, field: impl FnOnce(&mut Cell) -> &mut u64, unplaced: Counter, full: Counter) {
    let take_off = |counted| {
        if !duration::begin(&IN_FLIGHT, kind, counted) {
            count(&COUNTERS, full as u32, 1);
        }
    };
    // Each path takes off by itself: the verifier of Linux 5.10 refuses a group that may not be there after it.
    let Some(group) = group::in_scope() else {
        // What it reclaims is counted for the machine.
        take_off(false);
        return;
    };
    take_off(true);
    if let Some(cell) = CELLS.cell(group, 0) {
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

/// It goes on with its own work.
#[inline(always)]
fn end(kind: u32) {
    if let Some((begun, nanos)) = duration::end(&IN_FLIGHT)
        && begun.counted != 0
    {
        duration::count(&DURATIONS, group::current(), kind, nanos);
    }
}

#[inline(always)]
fn global() {
    let (unplaced, full) = (Counter::GlobalUnplaced, Counter::GlobalInFlightFull);
    begin(GLOBAL, |cell| &mut cell.global, unplaced, full);
}

#[inline(always)]
fn memcg() {
    let (unplaced, full) = (Counter::MemcgUnplaced, Counter::MemcgInFlightFull);
    begin(MEMCG, |cell| &mut cell.memcg, unplaced, full);
}

probes::raw_tracepoints! {
    /// `mm_vmscan_direct_reclaim_begin`: the machine is short of memory. Its arguments have changed
    /// places between kernels; none is needed.
    fn direct_begin_btf, direct_begin_raw("mm_vmscan_direct_reclaim_begin", _) {
        global();
    }
}

probes::tracepoint! {
    /// See [`direct_begin_btf`].
    fn direct_begin_tp(_) {
        global();
    }
}

probes::raw_tracepoints! {
    /// `mm_vmscan_memcg_reclaim_begin`: the memory cgroup is at its limit.
    fn memcg_begin_btf, memcg_begin_raw("mm_vmscan_memcg_reclaim_begin", _) {
        memcg();
    }
}

probes::tracepoint! {
    /// See [`memcg_begin_btf`].
    fn memcg_begin_tp(_) {
        memcg();
    }
}

probes::raw_tracepoints! {
    /// `mm_vmscan_direct_reclaim_end`: see [`direct_begin_btf`].
    fn direct_end_btf, direct_end_raw("mm_vmscan_direct_reclaim_end", _) {
        end(GLOBAL);
    }
}

probes::tracepoint! {
    /// See [`direct_end_btf`].
    fn direct_end_tp(_) {
        end(GLOBAL);
    }
}

probes::raw_tracepoints! {
    /// `mm_vmscan_memcg_reclaim_end`: see [`memcg_begin_btf`].
    fn memcg_end_btf, memcg_end_raw("mm_vmscan_memcg_reclaim_end", _) {
        end(MEMCG);
    }
}

probes::tracepoint! {
    /// See [`memcg_end_btf`].
    fn memcg_end_tp(_) {
        end(MEMCG);
    }
}

/// A task that reclaims has waited, so that it does not do so in vain.
#[inline(always)]
fn throttled(micros: u32, reason: u32) {
    let Some(group) = group::in_scope() else { return };
    let kind = DIRECT + if reason < OTHER_REASON { reason } else { OTHER_REASON };
    duration::count(&DURATIONS, group, kind, 1_000 * u64::from(micros));
}

probes::raw_tracepoints! {
    /// `mm_vmscan_throttled(nid, usec_timeout, usec_delayed, reason)`.
    fn throttled_btf, throttled_raw("mm_vmscan_throttled", ctx) {
        throttled(ctx.arg(2), ctx.arg(3));
    }
}

probes::tracepoint! {
    /// See [`throttled_btf`].
    fn throttled_tp(ctx) {
        throttled(
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_THROTTLED_USEC_DELAYED),
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_THROTTLED_REASON),
        );
    }
}
