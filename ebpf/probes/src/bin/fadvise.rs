//! Calls of `fadvise64`, by advice and result.
//!
//! When a system call returns, the saved registers still hold its arguments: the `tp_btf` program
//! needs the exit alone. The classic record of the exit has no arguments, so that mechanism is a
//! pair.
#![no_std]
#![no_main]

use abi::fadvise::{Counter, MAX_THREADS, SLOTS, slot};
use aya_ebpf::{
    macros::{btf_tracepoint, map, tracepoint},
    maps::{HashMap, PerCpuArray},
    programs::{BtfTracePointContext, TracePointContext},
};
use probes::{
    count,
    field::{Trusted, record, set},
    registers, scope, task,
};

probes::program!();

probes::fields! {
    OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ARGS,
    OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET,
}

/// The number of `fadvise64` on this architecture.
#[unsafe(no_mangle)]
static NR_FADVISE64: u32 = 0;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

#[map]
static CALLS: PerCpuArray<u64> = PerCpuArray::with_max_entries(SLOTS, 0);

/// The advice of each thread that is inside the call by the classic mechanism.
#[map]
static IN_FLIGHT: HashMap<u64, u64> = HashMap::with_max_entries(MAX_THREADS, 0);

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn exit_btf(ctx: BtfTracePointContext) -> i32 {
    let regs = Trusted::new(ctx.arg(0));
    let number = registers::number(regs);
    // On a 64-bit kernel the other numbers mean something else to 64-bit programs; which of the
    // two a caller is, is asked only when the number fits.
    let advice = if number == u64::from(set(&NR_FADVISE64)) {
        if registers::compat() {
            return 0;
        }
        registers::argument_3(regs)
    } else if number == registers::COMPAT_FADVISE64 && registers::compat() {
        registers::compat_argument_4(regs)
    } else if number == registers::COMPAT_FADVISE64_64 && registers::compat() {
        registers::compat_argument_5(regs)
    } else {
        return 0;
    };
    if scope::contains_current() {
        count(&CALLS, slot(advice, ctx.arg(1)), 1);
    }
    0
}

/// `syscalls/sys_enter_fadvise64`. Callers with 32-bit numbers do not come by here.
#[tracepoint(category = "syscalls", name = "sys_enter_fadvise64")]
pub fn enter_tp(ctx: TracePointContext) -> u32 {
    if scope::contains_current() {
        let arguments: [u64; 4] = record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_ENTER_ARGS);
        if IN_FLIGHT.insert(&task::thread(), &arguments[3], 0).is_err() {
            count(&COUNTERS, Counter::InFlightFull as u32, 1);
        }
    }
    0
}

/// `syscalls/sys_exit_fadvise64`: see [`enter_tp`].
#[tracepoint(category = "syscalls", name = "sys_exit_fadvise64")]
pub fn exit_tp(ctx: TracePointContext) -> u32 {
    let thread = task::thread();
    if let Some(advice) = IN_FLIGHT.get_ptr(&thread) {
        // SAFETY: only this thread writes its entry.
        let advice = unsafe { *advice };
        let _ = IN_FLIGHT.remove(&thread);
        count(&CALLS, slot(advice, record(&ctx, &OFFSET_TRACE_EVENT_RAW_SYS_EXIT_RET)), 1);
    }
    0
}
