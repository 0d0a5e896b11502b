//! Calls of `fadvise64`, by advice and result, and the pages that they drop.
//!
//! When a system call returns, the saved registers still hold its arguments, and when the function behind it
//! returns, a `fexit` program still has them: these mechanisms need the exit alone. The others are pairs.
#![no_std]
#![no_main]

use abi::{
    fadvise::{Call, Counter, DONTNEED, INVALID, MAX_THREADS, SLOTS, bytes, slot},
    group::Group,
};
use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe, map},
    maps::{HashMap, PerCpuArray},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use probes::{
    NO_PREALLOC, count,
    field::{ABSENT, Memory, present, record, set},
    file,
    folio::pages,
    group, registers, task,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ARGS,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET,
    OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER,
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
    CALLS, CALLS_BY_GROUP, CALLS_SEATS: [u64; SLOTS]
}

probes::cells! {
    /// Bytes that accepted advice was about, by advice.
    ADVISED, ADVISED_BY_GROUP, ADVISED_SEATS: [u64; INVALID]
}

probes::cells! {
    /// Pages dropped.
    DROPPED, DROPPED_BY_GROUP, DROPPED_SEATS: [u64; 1]
}

/// The call that each thread is in, where entry and return are two programs.
#[map]
static IN_FLIGHT: HashMap<u64, Call> = HashMap::with_max_entries(MAX_THREADS, NO_PREALLOC);

#[inline(always)]
fn called(group: Group, call: Call, ret: i64) {
    if let Some(calls) = CALLS.cell(group, slot(call.advice, ret)) {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { *calls += 1 };
    }
    let advice = call.advice as u32;
    if ret != 0 || advice >= INVALID || call.bytes == 0 {
        return;
    }
    if let Some(bytes) = ADVISED.cell(group, advice) {
        // SAFETY: as above.
        unsafe { *bytes += call.bytes };
    }
}

/// A call with these arguments. Its bytes mean nothing if the descriptor is wrong: then it fails.
#[inline(always)]
fn call(descriptor: u64, offset: u64, length: u64, advice: u64) -> Call {
    let bytes = if file::are_known() {
        let size = file::size(file::mapping(file::of_descriptor(descriptor)));
        bytes(size, offset as i64, length as i64)
    } else {
        0
    };
    Call { advice, bytes }
}

/// `ksys_fadvise64_64(fd, offset, len, advice)`: what every kind of caller comes by.
#[fexit(function = "ksys_fadvise64_64")]
pub fn calls_fexit(ctx: FExitContext) -> i32 {
    if let Some(group) = group::in_scope() {
        // The result stands behind the arguments. It is an `int`.
        let ret: u64 = ctx.arg(4);
        let call = call(ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
        called(group, call, i64::from(ret as i32));
    }
    0
}

/// A number in two registers of 32 bits.
#[inline(always)]
fn joined(low: u64, high: u64) -> u64 {
    u64::from(low as u32) | high << 32
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
    let native = number == u64::from(set(&NR_FADVISE64)) && !registers::compat();
    let short = !native && comes_by(&NR_COMPAT_FADVISE64, number);
    let long = !native && comes_by(&NR_COMPAT_FADVISE64_64, number);
    let arm = !native && comes_by(&NR_COMPAT_ARM_FADVISE64_64, number);
    if !(native || short || long || arm) {
        return;
    }
    let Some(group) = group::in_scope() else { return };
    if native {
        let (descriptor, offset) = (registers::argument_0(regs), registers::argument_1(regs));
        let (length, advice) = (registers::argument_2(regs), registers::argument_3(regs));
        return called(group, call(descriptor, offset, length, advice), ret);
    }
    if arm {
        // Numbers of 64 bits begin at an even register.
        let offset = joined(registers::argument_2(regs), registers::argument_3(regs));
        let length = joined(registers::argument_4(regs), registers::compat_argument_5(regs));
        let (descriptor, advice) = (registers::argument_0(regs), registers::argument_1(regs));
        return called(group, call(descriptor, offset, length, advice), ret);
    }
    let descriptor = registers::compat_argument_0(regs);
    let offset = joined(registers::compat_argument_1(regs), registers::compat_argument_2(regs));
    let (third, fourth) = (registers::compat_argument_3(regs), registers::compat_argument_4(regs));
    let (length, advice) = if short {
        (third, fourth)
    } else {
        (joined(third, fourth), registers::compat_argument_5(regs))
    };
    called(group, call(descriptor, offset, length, advice), ret);
}

probes::raw_tracepoints! {
    /// `sys_exit(regs, ret)`.
    fn exit_btf, exit_raw("sys_exit", ctx) {
        left(ctx.pointer(0), ctx.arg(1));
    }
}

#[inline(always)]
fn entered(call: Call) {
    if group::in_scope().is_none() {
        return;
    }
    let thread = task::thread();
    if IN_FLIGHT.get_ptr(&thread).is_some() {
        // The kernel follows a limited number of returns at a time.
        count(&COUNTERS, Counter::ReturnsMissed as u32, 1);
    }
    if IN_FLIGHT.insert(&thread, &call, 0).is_err() {
        count(&COUNTERS, Counter::InFlightFull as u32, 1);
    }
}

#[inline(always)]
fn returned(ret: i64) {
    let thread = task::thread();
    if let Some(call) = IN_FLIGHT.get_ptr(&thread) {
        // SAFETY: only this thread writes its entry.
        let call = unsafe { *call };
        let _ = IN_FLIGHT.remove(&thread);
        called(group::current(), call, ret);
    }
}

probes::tracepoint! {
    /// `syscalls/sys_enter_fadvise64`, which goes by another name on arm64. Callers with 32-bit numbers do not come by here.
    fn enter_tp(ctx) {
        let arguments: [u64; 4] = record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ARGS);
        entered(call(arguments[0], arguments[1], arguments[2], arguments[3]));
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
    if let (Some(descriptor), Some(offset), Some(length), Some(advice)) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3))
    {
        entered(call(descriptor, offset, length, advice));
    }
    0
}

/// The return of [`calls_fexit`]'s function.
#[kretprobe]
pub fn exit_kprobe(ctx: RetProbeContext) -> u32 {
    returned(i64::from(ctx.ret::<u64>() as i32));
    0
}

/// Whether the current task is advising that a file's pages are not needed.
#[inline(always)]
fn dropping() -> bool {
    let regs = registers::current();
    let number = registers::number(regs);
    let advice = if number == u64::from(set(&NR_FADVISE64)) {
        if registers::compat() {
            return false;
        }
        registers::argument_3(regs)
    } else if comes_by(&NR_COMPAT_FADVISE64, number) {
        registers::compat_argument_4(regs)
    } else if comes_by(&NR_COMPAT_FADVISE64_64, number) {
        registers::compat_argument_5(regs)
    } else if comes_by(&NR_COMPAT_ARM_FADVISE64_64, number) {
        registers::argument_1(regs)
    } else {
        return false;
    };
    advice as u32 == DONTNEED
}

#[inline(always)]
fn deleted(pages: impl FnOnce() -> u64) {
    if !dropping() {
        return;
    }
    let Some(group) = group::in_scope() else { return };
    if let Some(dropped) = DROPPED.cell(group, 0) {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { *dropped += pages() };
    }
}

probes::raw_tracepoints! {
    /// `mm_filemap_delete_from_page_cache(folio)`.
    fn dropped_btf, dropped_raw("mm_filemap_delete_from_page_cache", ctx) {
        deleted(|| pages(ctx.pointer(0)));
    }
}

probes::tracepoint! {
    /// See [`dropped_btf`].
    fn dropped_tp(ctx) {
        deleted(|| {
            if !present(&OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER) {
                return 1;
            }
            let order: u8 = record(&ctx, &OFFSET_TRACE_EVENT_RAW_MM_FILEMAP_OP_PAGE_CACHE_ORDER);
            1 << (order & 63)
        });
    }
}
