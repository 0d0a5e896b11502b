//! Compaction: how long it takes to move pages together, and what comes of it.
#![no_std]
#![no_main]

use abi::{
    compaction::{Counter, KINDS, OTHER},
    duration::{Begun, Cell, MAX_THREADS, entries},
};
use aya_ebpf::{
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use probes::{
    NO_PREALLOC, count, duration,
    field::{Memory, Trusted, record},
    group,
};

probes::program!();

probes::fields! {
    OFFSET_COMPACT_CONTROL_ORDER,
    OFFSET_TRACE_EVENT_RAW_MM_COMPACTION_END_STATUS,
}

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// By result.
    DURATIONS, DURATIONS_BY_GROUP, DURATIONS_SEATS: [Cell; entries(KINDS)]
}

#[map]
static IN_FLIGHT: HashMap<u64, Begun> = HashMap::with_max_entries(MAX_THREADS, NO_PREALLOC);

#[inline(always)]
fn begun() {
    if group::in_scope().is_some() && !duration::begin(&IN_FLIGHT, 0, true) {
        count(&COUNTERS, Counter::InFlightFull as u32, 1);
    }
}

#[inline(always)]
fn ended(result: u32) {
    let Some((_, nanos)) = duration::end(&IN_FLIGHT) else { return };
    let kind = if result < OTHER { result } else { OTHER };
    duration::count(&DURATIONS, group::current(), kind, nanos);
}

probes::raw_tracepoints! {
    /// `mm_compaction_begin`: a run through a zone begins. No argument is needed.
    fn begin_btf, begin_raw("mm_compaction_begin", _) {
        begun();
    }
}

probes::tracepoint! {
    /// See [`begin_btf`].
    fn begin_tp(_) {
        begun();
    }
}

/// `mm_compaction_end(cc, zone_start, zone_end, sync, status)`.
#[btf_tracepoint(function = "mm_compaction_end")]
pub fn end_btf(ctx: BtfTracePointContext) -> i32 {
    // Where the first argument is no `cc`, the verifier refuses this, and so does not take the fifth for the result.
    let order: i32 = Trusted::new(ctx.arg(0)).read(&OFFSET_COMPACT_CONTROL_ORDER);
    core::hint::black_box(order);
    ended(ctx.arg(4));
    0
}

/// See [`end_btf`].
#[raw_tracepoint(tracepoint = "mm_compaction_end")]
pub fn end_raw(ctx: RawTracePointContext) -> i32 {
    ended(ctx.arg(4));
    0
}

probes::raw_tracepoints! {
    /// `mm_compaction_end(zone_start, migrate_pfn, free_pfn, zone_end, sync, status)`, before Linux 5.18. Without
    /// types it does not attach where there are five arguments.
    fn end_six_btf, end_six_raw("mm_compaction_end", ctx) {
        ended(ctx.arg(5));
    }
}

probes::tracepoint! {
    /// See [`end_btf`].
    fn end_tp(ctx) {
        ended(record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_COMPACTION_END_STATUS));
    }
}
