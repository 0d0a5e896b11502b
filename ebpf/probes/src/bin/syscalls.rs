//! Calls, errors, bytes and durations of the system calls that are watched.
#![no_std]
#![no_main]

use abi::{
    errno, exponential,
    group::Group,
    seat::Seat,
    syscalls::{
        Cell, Counter, MAX_THREADS, MAX_WATCHED, NUMBERS, OCTAVE, OCTAVES, SEATS_BITS, UNWATCHED,
        cell, error,
    },
};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use probes::{
    NO_PREALLOC, count,
    field::{checked, record, set},
    group, registers, scope,
    seats::Seats,
    task,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ID,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET,
}

/// The place of each call number among the watched.
#[unsafe(no_mangle)]
static WATCHED: [u8; NUMBERS] = [UNWATCHED; NUMBERS];
/// Whether durations are measured.
#[unsafe(no_mangle)]
static TIMED: u32 = 0;
/// The watched calls that return a number of bytes.
#[unsafe(no_mangle)]
static RETURNS_BYTES: u32 = 0;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// By [`cell`].
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [Cell; (MAX_WATCHED * OCTAVES) as u32]
}

probes::cells! {
    /// Failures by [`error`].
    ERRORS, ERRORS_BY_GROUP, ERRORS_SEATS: [u64; MAX_WATCHED as u32 * errno::SLOTS]
}

#[map]
static SEATS: Array<Seat<u64>> = Array::with_max_entries(1 << SEATS_BITS, 0);

#[map]
static IN_FLIGHT: HashMap<u64, u64> = HashMap::with_max_entries(MAX_THREADS, NO_PREALLOC);

/// When each thread entered the watched call that it is in, 0 if it is in none, by the address of its task. A thread
/// keeps its seat as long as it lives.
const THREADS: Seats<u64> = Seats { seats: &SEATS, bits: SEATS_BITS, others: &IN_FLIGHT };

/// The place of call `number`, if it is watched.
#[inline(always)]
fn watched(number: u64) -> Option<u32> {
    if number >= NUMBERS as u64 {
        return None;
    }
    let place = set(&WATCHED[number as usize]);
    if place == UNWATCHED { None } else { Some(u32::from(place)) }
}

#[inline(always)]
fn enter(number: u64, native: impl FnOnce() -> bool) {
    if watched(number).is_none() || !native() || !scope::contains_current() {
        return;
    }
    let thread = task::thread();
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if !THREADS.put(thread, &now) {
        count(&COUNTERS, Counter::InFlightFull as u32, 1);
    }
}

#[inline(always)]
fn exit(number: u64, ret: i64, native: impl FnOnce() -> bool) {
    let Some(place) = watched(number) else { return };
    if set(&TIMED) == 0 {
        if native()
            && let Some(group) = group::in_scope()
        {
            left(group, place, ret, 0);
        }
        return;
    }
    // What entered in the scope is counted, wherever the thread has moved since; nor is the kind
    // of caller asked again.
    let Some(began) = THREADS.get(task::thread()) else { return };
    // SAFETY: only this thread writes its entry.
    let since = unsafe { *began };
    if since == 0 {
        return;
    }
    // SAFETY: as above; and the helper has no preconditions.
    unsafe { *began = 0 };
    let nanos = unsafe { bpf_ktime_get_ns() }.saturating_sub(since);
    left(group::current(), place, ret, nanos);
}

#[inline(always)]
fn left(group: Group, place: u32, ret: i64, nanos: u64) {
    let slot = errno::slot(ret);
    // A call in which its thread is killed never returns to anyone.
    if slot == errno::RESTART && task::killed() {
        return;
    }
    if slot != 0
        && let Some(errors) = ERRORS.cell(group, error(place, slot))
    {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { *errors += 1 };
    }
    // Not an `Option`: the compiler would copy its value where there is none, which the verifier refuses.
    let bucket = exponential::bucket_from_one(if nanos == 0 { 1 } else { nanos });
    let entry = cell(place, bucket);
    let Some(cell) = CELLS.cell(group, entry) else { return };
    // SAFETY: as above.
    let cell = unsafe { &mut *cell };
    cell.calls += 1;
    if slot == 0 && set(&RETURNS_BYTES) >> (place & 31) & 1 != 0 {
        cell.bytes += ret as u64;
    }
    cell.nanos += nanos;
    if nanos == 0 {
        cell.zeros += 1;
    } else if let Some(bucket) = checked::<OCTAVE>(bucket % OCTAVE) {
        cell.buckets[bucket] += 1;
    }
}

probes::raw_tracepoints! {
    /// `sys_enter(regs, id)`.
    fn enter_btf, enter_raw("sys_enter", ctx) {
        enter(ctx.arg(1), registers::native);
    }

    /// `sys_exit(regs, ret)`.
    fn exit_btf, exit_raw("sys_exit", ctx) {
        exit(registers::number(ctx.pointer(0)), ctx.arg(1), registers::native);
    }
}

probes::tracepoint! {
    /// `raw_syscalls/sys_enter`.
    fn enter_tp(ctx) {
        enter(record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ID), registers::native);
    }
}

probes::tracepoint! {
    /// `raw_syscalls/sys_exit`.
    fn exit_tp(ctx) {
        exit(
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID),
            record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET),
            registers::native,
        );
    }
}

probes::tracepoint! {
    /// `syscalls/sys_enter_*`, one for each watched call: callers with 32-bit numbers do not come by here.
    /// The record begins like that of all calls together, but for the width of the number.
    fn enter_call_tp(ctx) {
        let number: u32 = record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ID);
        enter(u64::from(number), || true);
    }
}

probes::tracepoint! {
    /// `syscalls/sys_exit_*`: see [`enter_call_tp`].
    fn exit_call_tp(ctx) {
        let number: u32 = record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_ID);
        exit(u64::from(number), record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET), || true);
    }
}

#[inline(always)]
fn ended() {
    THREADS.leave(task::thread());
}

probes::raw_tracepoints! {
    /// `sched_process_exit`: a thread's entry goes with it.
    fn thread_exit_btf, thread_exit_raw("sched_process_exit", _) {
        ended();
    }
}

probes::tracepoint! {
    /// See [`thread_exit_btf`].
    fn thread_exit_tp(_) {
        ended();
    }
}
