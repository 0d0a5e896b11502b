//! Processes that a signal ends, and those among them that the kernel chose because memory was short.
//!
//! Seen where the process ends itself, `sched_process_exit`: there it is the current task, so that the scope and the
//! groups hold as for everything else that it did.
#![no_std]
#![no_main]

use abi::{
    group::Group,
    kills::{BUFFER, CHOSEN, Counter, DUMPED, ENTRIES, Event, OOM, REMEMBERED},
};
use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};
use probes::{cgroup, count, field::Memory, group, task};

probes::program!();

probes::fields! {
    OFFSET_TASK_STRUCT_SIGNAL,
    OFFSET_TASK_STRUCT_EXIT_CODE,
    OFFSET_SIGNAL_STRUCT_LIVE,
    OFFSET_SIGNAL_STRUCT_OOM_MM,
    OFFSET_SIGNAL_STRUCT_MAXRSS,
}

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

probes::cells! {
    /// Processes by signal, and those that were chosen.
    CELLS, CELLS_BY_GROUP, CELLS_SEATS: [u64; ENTRIES]
}

/// The latest processes that were counted.
#[map]
static COUNTED: LruHashMap<Group, u64> = LruHashMap::with_max_entries(REMEMBERED, 0);

/// What happened since the last collection.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(BUFFER, 0);

#[inline(always)]
fn add(group: Group, entry: u32) {
    if let Some(cell) = CELLS.cell(group, entry) {
        // SAFETY: the pointer is to this CPU's copy, which this program alone writes.
        unsafe { *cell += 1 };
    }
}

#[inline(always)]
fn ended() {
    // As wait(2) tells it: the signal, and whether there is a core (include/uapi/asm-generic's `exit_code`).
    const SIGNAL: u32 = 0x7f;
    const CORE: u32 = 0x80;
    let code: u32 = task::read(&OFFSET_TASK_STRUCT_EXIT_CODE);
    let signal = code & SIGNAL;
    if signal == 0 || signal >= ENTRIES {
        return;
    }
    let shared = task::current().follow(&OFFSET_TASK_STRUCT_SIGNAL);
    // Threads that have not ended. Several can see that there is none left.
    if shared.read::<u32>(&OFFSET_SIGNAL_STRUCT_LIVE) != 0 {
        return;
    }
    let Some(group) = group::in_scope() else { return };
    let process = task::process();
    if COUNTED.insert(process, 0, u64::from(BPF_NOEXIST)).is_err() {
        return;
    }
    add(group, signal);
    let mut flags = if code & CORE != 0 { DUMPED } else { 0 };
    if shared.read::<u64>(&OFFSET_SIGNAL_STRUCT_OOM_MM) != 0 {
        add(group, OOM);
        flags |= CHOSEN;
    }
    let event = Event {
        // SAFETY: the helper has no preconditions.
        time: unsafe { bpf_ktime_get_boot_ns() },
        pid: process.id,
        start: process.start,
        cgroup: cgroup::current(),
        name: task::process_name(),
        most_pages: shared.read(&OFFSET_SIGNAL_STRUCT_MAXRSS),
        signal,
        flags,
    };
    // User space looks at each collection: nobody is to be woken.
    if EVENTS.output::<Event>(event, u64::from(BPF_RB_NO_WAKEUP)).is_err() {
        count(&COUNTERS, Counter::EventsLost as u32, 1);
    }
}

probes::raw_tracepoints! {
    /// `sched_process_exit`.
    fn exit_btf, exit_raw("sched_process_exit", _) {
        ended();
    }
}

probes::tracepoint! {
    /// See [`exit_btf`].
    fn exit_tp(_) {
        ended();
    }
}
