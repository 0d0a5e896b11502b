//! What the programs share: reading kernel fields, the scope, per-CPU counters, registers.
//!
//! A program never knows an offset. It reads a field through a global that user space sets, from
//! the running kernel's BTF, before it loads the program. The globals are read-only, so the verifier
//! knows their values: a branch on one is decided at load time and costs nothing.
#![no_std]

pub mod cgroup;
pub mod duration;
pub mod field;
pub mod file;
pub mod folio;
pub mod group;
pub mod reads;
pub mod registers;
pub mod sample;
pub mod scope;
pub mod seats;
pub mod task;

use aya_ebpf::maps::PerCpuArray;

/// A place in a hash is allocated when it is first needed (`BPF_F_NO_PREALLOC`), not for all that could
/// be. User space takes the flag away on kernels where tracing programs may not allocate.
pub const NO_PREALLOC: u32 = 1;

/// Adds to one entry of a per-CPU array of counters.
///
/// Not atomic, and need not be: the kernel runs a program on one CPU once at a time, and no two
/// programs share an entry.
#[inline(always)]
pub fn count(counters: &PerCpuArray<u64>, entry: u32, amount: u64) {
    if let Some(value) = counters.get_ptr_mut(entry) {
        // SAFETY: the pointer is to this CPU's copy of the entry.
        unsafe { *value += amount };
    }
}

/// Declares the program of a classic tracepoint. It returns 1: 0 would take the event away from everyone else who
/// follows it with perf (`trace_call_bpf` in kernel/trace/bpf_trace.c), and that is what the macro of aya returns.
#[macro_export]
macro_rules! tracepoint {
    ($(#[$doc:meta])* fn $name:ident($context:pat) $body:block) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "tracepoint")]
        pub fn $name(context: *mut core::ffi::c_void) -> u32 {
            let $context = aya_ebpf::programs::TracePointContext::new(context);
            $body
            1
        }
    };
}

/// Declares the two programs of a raw tracepoint: one whose arguments the verifier knows by type, and one for kernels
/// that do not tell it. In the body, a context's [`pointer`](field::Arguments::pointer) is what each of them may read.
#[macro_export]
macro_rules! raw_tracepoints {
    ($(
        $(#[$doc:meta])* fn $btf:ident, $raw:ident($event:literal, $context:pat) { $($body:tt)* }
    )+) => {$(
        $(#[$doc])*
        #[aya_ebpf::macros::btf_tracepoint(function = $event)]
        pub fn $btf($context: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            #[allow(unused_imports)]
            use $crate::field::Arguments as _;
            $($body)*
            0
        }

        #[doc = concat!("See [`", stringify!($btf), "`].")]
        #[aya_ebpf::macros::raw_tracepoint(tracepoint = $event)]
        pub fn $raw($context: aya_ebpf::programs::RawTracePointContext) -> i32 {
            #[allow(unused_imports)]
            use $crate::field::Arguments as _;
            $($body)*
            0
        }
    )+};
}

/// Declares the licence that the kernel's helpers ask for, and a panic handler that cannot be
/// reached: a panic that the compiler could not rule out would be an endless loop, which the
/// verifier refuses.
#[macro_export]
macro_rules! program {
    () => {
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            loop {}
        }
    };
}
