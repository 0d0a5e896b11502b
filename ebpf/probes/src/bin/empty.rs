//! Programs that do nothing: what it costs to be called at all, which `cargo xtask bench` subtracts.
#![no_std]
#![no_main]

use aya_ebpf::{
    macros::{btf_tracepoint, perf_event},
    programs::{BtfTracePointContext, PerfEventContext},
};

probes::program!();

/// At any raw tracepoint.
#[btf_tracepoint(function = "sys_enter")]
pub fn first_btf(_: BtfTracePointContext) -> i32 {
    0
}

/// At another.
#[btf_tracepoint(function = "sys_exit")]
pub fn second_btf(_: BtfTracePointContext) -> i32 {
    0
}

/// At any event of perf.
#[perf_event]
pub fn first_perf(_: PerfEventContext) -> u32 {
    0
}

probes::tracepoint! {
    /// At any classic tracepoint.
    fn first_tp(_) {
    }
}

probes::tracepoint! {
    /// At another.
    fn second_tp(_) {
    }
}
