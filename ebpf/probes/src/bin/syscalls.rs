//! Calls, errors, bytes and durations of the system calls that are watched.
#![no_std]
#![no_main]

use abi::{
    errno, exponential,
    syscalls::{Counter, MAX_THREADS, MAX_WATCHED, NUMBERS, Stats, UNWATCHED},
};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map, tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{BtfTracePointContext, TracePointContext},
};
use probes::{
    count,
    field::{Trusted, checked, record, set},
    registers, scope, task,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ID,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET,
}

/// The entry in `STATS` of each call number.
#[unsafe(no_mangle)]
static WATCHED: [u8; NUMBERS] = [UNWATCHED; NUMBERS];
/// Whether durations are measured.
#[unsafe(no_mangle)]
static TIMED: u32 = 0;
/// The entries of `STATS` whose calls return a number of bytes.
#[unsafe(no_mangle)]
static RETURNS_BYTES: u32 = 0;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

#[map]
static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(MAX_WATCHED as u32, 0);

/// When each thread entered the watched call that it is in; 0 if it is in none. An entry stays as
/// long as its thread: writing it costs half of inserting and deleting one per call.
#[map]
static IN_FLIGHT: HashMap<u64, u64> = HashMap::with_max_entries(MAX_THREADS, NO_PREALLOC);

/// A place is allocated when a thread first needs it, not for all threads that could exist.
const NO_PREALLOC: u32 = 1;

/// The entry of call `number`, if it is watched.
#[inline(always)]
fn watched(number: u64) -> Option<u32> {
    if number >= NUMBERS as u64 {
        return None;
    }
    let entry = set(&WATCHED[number as usize]);
    if entry == UNWATCHED { None } else { Some(u32::from(entry)) }
}

/// Whether the current call is one to count. A 32-bit caller's numbers mean other calls.
#[inline(always)]
fn in_scope() -> bool {
    !registers::compat() && scope::contains_current()
}

#[inline(always)]
fn enter(number: u64) {
    if watched(number).is_none() || !in_scope() {
        return;
    }
    let thread = task::thread();
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(began) = IN_FLIGHT.get_ptr_mut(&thread) {
        // SAFETY: only this thread writes its entry.
        unsafe { *began = now };
    } else if IN_FLIGHT.insert(&thread, &now, 0).is_err() {
        count(&COUNTERS, Counter::InFlightFull as u32, 1);
    }
}

#[inline(always)]
fn exit(number: u64, ret: i64) {
    let Some(entry) = watched(number) else { return };
    let timed = set(&TIMED) != 0;
    let mut nanos = 0;
    if timed {
        // What entered in the scope is counted, wherever the thread has moved since; nor is the kind
        // of caller asked again.
        let Some(began) = IN_FLIGHT.get_ptr_mut(&task::thread()) else { return };
        // SAFETY: only this thread writes its entry.
        let since = unsafe { *began };
        if since == 0 {
            return;
        }
        // SAFETY: as above; and the helper has no preconditions.
        unsafe { *began = 0 };
        nanos = unsafe { bpf_ktime_get_ns() }.saturating_sub(since);
    } else if !in_scope() {
        return;
    }
    let slot = errno::slot(ret);
    // A call in which its thread is killed never returns to anyone.
    if slot == errno::RESTART && task::killed() {
        return;
    }
    let Some(stats) = STATS.get_ptr_mut(entry) else { return };
    // SAFETY: the pointer is to this CPU's copy of the entry.
    let stats = unsafe { &mut *stats };
    stats.calls += 1;
    if slot != 0 {
        if let Some(slot) = checked::<{ errno::SLOTS as usize }>(slot as usize) {
            stats.errors[slot] += 1;
        }
    } else if set(&RETURNS_BYTES) >> (entry & 31) & 1 != 0 {
        stats.bytes += ret as u64;
    }
    if timed {
        stats.nanos += nanos;
        match exponential::bucket(nanos) {
            Some(bucket) => {
                if let Some(bucket) = checked::<{ exponential::BUCKETS }>(bucket) {
                    stats.buckets[bucket] += 1;
                }
            }
            None => stats.zeros += 1,
        }
    }
}

/// `sys_enter(regs, id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn enter_btf(ctx: BtfTracePointContext) -> i32 {
    enter(ctx.arg(1));
    0
}

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn exit_btf(ctx: BtfTracePointContext) -> i32 {
    exit(registers::number(Trusted::new(ctx.arg(0))), ctx.arg(1));
    0
}

/// `raw_syscalls/sys_enter`.
#[tracepoint(category = "raw_syscalls", name = "sys_enter")]
pub fn enter_tp(ctx: TracePointContext) -> u32 {
    enter(record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ID));
    0
}

/// `raw_syscalls/sys_exit`.
#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
pub fn exit_tp(ctx: TracePointContext) -> u32 {
    exit(
        record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID),
        record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET),
    );
    0
}

/// `sched_process_exit`: a thread's entry goes with it.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn thread_exit_btf(_: BtfTracePointContext) -> i32 {
    // A thread that made no watched call has none.
    let _ = IN_FLIGHT.remove(&task::thread());
    0
}

/// See [`thread_exit_btf`].
#[tracepoint(category = "sched", name = "sched_process_exit")]
pub fn thread_exit_tp(_: TracePointContext) -> u32 {
    let _ = IN_FLIGHT.remove(&task::thread());
    0
}
