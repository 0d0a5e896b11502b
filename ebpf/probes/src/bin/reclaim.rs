//! Memory reclaim: what is scanned and freed, and who has to do it himself.
#![no_std]
#![no_main]

use abi::reclaim::{Counter, MAX_PROCESSES, Process};
use aya_ebpf::{
    helpers::bpf_get_current_task,
    macros::{btf_tracepoint, map, tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{BtfTracePointContext, TracePointContext},
};
use probes::{
    count,
    field::{probe, record},
    scope, task,
};

probes::program!();

probes::fields! {
    OFFSET_TASK_STRUCT_GROUP_LEADER,
    OFFSET_TASK_STRUCT_START_BOOTTIME,
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_SCANNED,
    OFFSET_TRACE_EVENT_RAW_MM_VMSCAN_LRU_SHRINK_INACTIVE_NR_RECLAIMED,
}

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// How often each process began to reclaim.
#[map]
static RECLAIMERS: HashMap<Process, u64> = HashMap::with_max_entries(MAX_PROCESSES, 0);

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
fn begin(counter: Counter) {
    if !scope::contains_current() {
        return;
    }
    count(&COUNTERS, counter as u32, 1);
    // SAFETY: the helper has no preconditions.
    let leader: u64 = probe(unsafe { bpf_get_current_task() }, &OFFSET_TASK_STRUCT_GROUP_LEADER);
    let key = Process {
        start_time: probe(leader, &OFFSET_TASK_STRUCT_START_BOOTTIME),
        pid: task::process(),
        pad: 0,
    };
    if let Some(begins) = RECLAIMERS.get_ptr_mut(&key) {
        // SAFETY: the entry lives; threads of one process may lose a count of each other here,
        // which is why the number of begins is counted apart.
        unsafe { *begins += 1 };
    } else if RECLAIMERS.insert(&key, &1, 0).is_err() {
        count(&COUNTERS, Counter::ReclaimersFull as u32, 1);
    }
}

/// `mm_vmscan_direct_reclaim_begin`: the machine is short of memory. Its arguments have changed
/// places between kernels; none is needed.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_begin_btf(_: BtfTracePointContext) -> i32 {
    begin(Counter::GlobalBegins);
    0
}

/// See [`direct_begin_btf`].
#[tracepoint(category = "vmscan", name = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_begin_tp(_: TracePointContext) -> u32 {
    begin(Counter::GlobalBegins);
    0
}

/// `mm_vmscan_memcg_reclaim_begin`: the memory cgroup is at its limit.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_begin_btf(_: BtfTracePointContext) -> i32 {
    begin(Counter::MemcgBegins);
    0
}

/// See [`memcg_begin_btf`].
#[tracepoint(category = "vmscan", name = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_begin_tp(_: TracePointContext) -> u32 {
    begin(Counter::MemcgBegins);
    0
}
