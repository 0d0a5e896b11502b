//! Calls of `fadvise64`, by advice and result.
//!
//! When a system call returns, the saved registers still hold its arguments, and when the function behind it
//! returns, a `fexit` program still has them: these mechanisms need the exit alone. The others are pairs.
#![no_std]
#![no_main]

use abi::{
    fadvise::{Counter, MAX_THREADS, SLOTS, slot},
    group::Group,
};
use aya_ebpf::{
    macros::{btf_tracepoint, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{
        BtfTracePointContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
    },
};
use probes::{
    NO_PREALLOC, count,
    field::{ABSENT, Address, Memory, Trusted, present, record, set},
    group, registers, task,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ARGS,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET,
}

/// The number of `fadvise64` on this architecture.
#[unsafe(no_mangle)]
static NR_FADVISE64: u32 = 0;

/// The numbers by which 32-bit callers come, if this architecture has them: of `fadvise64(fd, offset_low,
/// offset_high, length, advice)`,
#[unsafe(no_mangle)]
static NR_COMPAT_FADVISE64: u32 = ABSENT;
/// of `fadvise64_64(fd, offset_low, offset_high, length_low, length_high, advice)`,
#[unsafe(no_mangle)]
static NR_COMPAT_FADVISE64_64: u32 = ABSENT;
/// and of `arm_fadvise64_64(fd, advice, …)`.
#[unsafe(no_mangle)]
static NR_COMPAT_ARM_FADVISE64_64: u32 = ABSENT;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// Calls by [`slot`].
    CALLS, CALLS_BY_GROUP: [u64; SLOTS]
}

/// The advice of each thread that is inside the call, where entry and return are two programs.
#[map]
static IN_FLIGHT: HashMap<u64, u64> = HashMap::with_max_entries(MAX_THREADS, NO_PREALLOC);

#[inline(always)]
fn called(group: Group, advice: u64, ret: i64) {
    if let Some(calls) = group::cell(&CALLS, &CALLS_BY_GROUP, group, slot(advice, ret)) {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { *calls += 1 };
    }
}

/// `ksys_fadvise64_64(fd, offset, len, advice)`: what every kind of caller comes by.
#[fexit(function = "ksys_fadvise64_64")]
pub fn calls_fexit(ctx: FExitContext) -> i32 {
    if let Some(group) = group::in_scope() {
        // The result stands behind the arguments. It is an `int`.
        let ret: u64 = ctx.arg(4);
        called(group, ctx.arg(3), i64::from(ret as i32));
    }
    0
}

/// Whether a 32-bit caller has come by a number.
#[inline(always)]
fn comes_by(compat: &'static u32, number: u64) -> bool {
    present(compat) && number == u64::from(set(compat)) && registers::compat()
}

#[inline(always)]
fn left(regs: impl Memory, ret: i64) {
    let number = registers::number(regs);
    // On a 64-bit kernel the other numbers mean something else to 64-bit programs; which of the
    // two a caller is, is asked only when the number fits.
    let advice = if number == u64::from(set(&NR_FADVISE64)) {
        if registers::compat() {
            return;
        }
        registers::argument_3(regs)
    } else if comes_by(&NR_COMPAT_FADVISE64, number) {
        registers::compat_argument_4(regs)
    } else if comes_by(&NR_COMPAT_FADVISE64_64, number) {
        registers::compat_argument_5(regs)
    } else if comes_by(&NR_COMPAT_ARM_FADVISE64_64, number) {
        registers::argument_1(regs)
    } else {
        return;
    };
    if let Some(group) = group::in_scope() {
        called(group, advice, ret);
    }
}

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn exit_btf(ctx: BtfTracePointContext) -> i32 {
    left(Trusted::new(ctx.arg(0)), ctx.arg(1));
    0
}

/// See [`exit_btf`].
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn exit_raw(ctx: RawTracePointContext) -> i32 {
    left(Address(ctx.arg(0)), ctx.arg(1));
    0
}

#[inline(always)]
fn entered(advice: u64) {
    if group::in_scope().is_none() {
        return;
    }
    let thread = task::thread();
    if IN_FLIGHT.get_ptr(&thread).is_some() {
        // The kernel follows a limited number of returns at a time.
        count(&COUNTERS, Counter::ReturnsMissed as u32, 1);
    }
    if IN_FLIGHT.insert(&thread, &advice, 0).is_err() {
        count(&COUNTERS, Counter::InFlightFull as u32, 1);
    }
}

#[inline(always)]
fn returned(ret: i64) {
    let thread = task::thread();
    if let Some(advice) = IN_FLIGHT.get_ptr(&thread) {
        // SAFETY: only this thread writes its entry.
        let advice = unsafe { *advice };
        let _ = IN_FLIGHT.remove(&thread);
        called(group::current(), advice, ret);
    }
}

probes::tracepoint! {
    /// `syscalls/sys_enter_fadvise64`, which goes by another name on arm64. Callers with 32-bit numbers do not come by here.
    fn enter_tp(ctx) {
        let arguments: [u64; 4] = record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ARGS);
        entered(arguments[3]);
    }
}

probes::tracepoint! {
    /// `syscalls/sys_exit_fadvise64`: see [`enter_tp`].
    fn exit_tp(ctx) {
        returned(record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET));
    }
}

/// The entry of [`calls_fexit`]'s function.
#[kprobe]
pub fn enter_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(advice) = ctx.arg(3) {
        entered(advice);
    }
    0
}

/// The return of [`calls_fexit`]'s function.
#[kretprobe]
pub fn exit_kprobe(ctx: RetProbeContext) -> u32 {
    returned(i64::from(ctx.ret::<u64>() as i32));
    0
}
