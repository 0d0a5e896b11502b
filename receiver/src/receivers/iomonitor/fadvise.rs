//! Calls of `posix_fadvise`, by advice and result.

use abi::{
    errno,
    fadvise::{ADVICES, Counter, DONTNEED, INVALID, SLOTS},
};
use anyhow::Result;

use super::{
    derived::Quantity,
    errors,
    folio::{FOLIO, HEAD},
    groups::Groups,
    own::dropped,
    signal::{Disabled, Signal, Switch},
    system_call,
};
use crate::{
    config::Mistakes,
    ebpf::{
        architecture::page_size,
        globals::Globals,
        ladder::{Context, Mode, Probe, Rung, at, rungs},
        load::Loaded,
    },
    metric::{About, Attribute, Kind, Metric, Points},
};

const CALLS: Metric = Metric {
    name: "ebpf.fadvise.calls",
    unit: "{call}",
    kind: Kind::Counter,
    description: "Calls of fadvise64 that returned.",
    caveat: "madvise, readahead and io_uring's advice are other calls.",
    attributes: &[],
};

const ADVICE: Metric = Metric {
    name: "ebpf.fadvise.advice",
    unit: "{call}",
    kind: Kind::Counter,
    description: "Calls of fadvise64 by advice, successful or not.",
    caveat: "Calls whose advice does not exist are in ebpf.fadvise.calls alone.",
    attributes: &[NAME],
};

const ADVISED: Metric = Metric {
    name: "ebpf.fadvise.advised",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes of files that accepted advice was about: from its offset on as many as it says, or all if it says \
                  0, and no more than the file had when the call was made.",
    caveat: "A series appears with its first byte. What was asked, not what was done: what is read ahead or dropped are \
             whole pages, and not those that are there already, or not at all.",
    attributes: &[NAME],
};

const DROPPED_PAGES: Metric = Metric {
    name: "ebpf.fadvise.dropped",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that advice of `dontneed` dropped from the page cache: those deleted by the thread that made the \
                  call, while it was in it. Reads of them afterwards are misses by policy, not by pressure.",
    caveat: "Pages of which only a part is meant stay, and so do dirty and mapped ones. io_uring's advice is not in it.",
    attributes: &[],
};

/// Which advice.
const NAME: Attribute = Attribute {
    name: "advice",
    description: "`normal`, `random`, `sequential`, `willneed`, `dontneed` or `noreuse`",
};

const SUCCESS: Metric = Metric {
    name: "ebpf.fadvise.success",
    unit: "{call}",
    kind: Kind::Counter,
    description: "Calls of fadvise64 that returned 0.",
    caveat: "The kernel accepted the advice. Whether pages were dropped is in ebpf.fadvise.dropped: dirty or mapped pages, \
             for instance, stay.",
    attributes: &[],
};

const ERRORS: Metric = Metric {
    name: "ebpf.fadvise.errors",
    unit: "{error}",
    kind: Kind::Counter,
    description: "Calls of fadvise64 that failed, by error.",
    caveat: "A series appears with its first error.",
    attributes: &[errors::TYPE],
};

/// Calls by advice.
pub struct Fadvise;

impl Signal for Fadvise {
    const NAME: &'static str = "fadvise";
    const DESCRIPTION: &'static str = "What programs advise the kernel about their files.";
    const QUESTION: &'static str =
        "Does a program's advice do what it is meant to do, or throw out what is needed again?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/fadvise.o");
    const METRICS: &'static [Metric] = &[CALLS, ADVICE, SUCCESS, ERRORS, ADVISED, DROPPED_PAGES];
    type Config = Switch;

    const PROBES: &'static [Probe] = &[CALLED, DROPPED_BY_ADVICE];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        globals.number("NR_FADVISE64", system_call::number("fadvise64")?);
        for (global, number) in COMPAT {
            globals.number(*global, *number);
        }
        Ok(())
    }

    fn names(&self) -> Vec<&'static str> {
        system_call::named("fadvise64").map(|call| call.event()).into_iter().collect()
    }

    /// Success, and an error or two.
    const CELLS: u32 = 2;

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if loaded.has("dropped") {
            for (owner, cells) in groups.read(Self::NAME, "DROPPED", loaded)?.iter() {
                points.about(groups.about(owner));
                let pages = cells.iter().filter_map(|(_, cell)| cell.first()).sum();
                points.counter(&DROPPED_PAGES, &[], pages);
                groups.note(owner, Quantity::Dropped, pages * page_size());
            }
            points.about(About::default());
        }
        if !loaded.has("calls") {
            return Ok(());
        }
        for (owner, cells) in groups.read(Self::NAME, "CALLS", loaded)?.iter() {
            points.about(groups.about(owner));
            let mut calls = vec![0; SLOTS as usize];
            for (slot, cell) in cells.iter() {
                calls[slot as usize] = cell.first().copied().unwrap_or(0);
            }
            emit(points, &calls);
        }
        for (owner, cells) in groups.read(Self::NAME, "ADVISED", loaded)?.iter() {
            points.about(groups.about(owner));
            for (advice, cell) in cells.iter() {
                let Some(name) = ADVICES.get(advice as usize) else { continue };
                if cell[0] > 0 {
                    points.counter(&ADVISED, &[(NAME.name, name)], cell[0]);
                }
                if advice == DONTNEED {
                    groups.note(owner, Quantity::NotNeeded, cell[0]);
                }
            }
        }
        points.about(About::default());
        let counters = loaded.counters("COUNTERS")?;
        let events = [
            ("too many threads", counters[Counter::InFlightFull as usize]),
            ("return not reported", counters[Counter::ReturnsMissed as usize]),
        ];
        dropped(points, "fadvise/calls", &events);
        Ok(())
    }
}

fn emit(points: &mut Points<'_>, calls: &[u64]) {
    let results = |advice: u32| {
        let first = (advice * errno::SLOTS) as usize;
        &calls[first..first + errno::SLOTS as usize]
    };
    points.counter(&CALLS, &[], calls.iter().sum());
    for (advice, name) in (0..).zip(ADVICES) {
        points.counter(&ADVICE, &[("advice", name)], results(advice).iter().sum());
    }
    points.counter(&SUCCESS, &[], (0..=INVALID).map(|advice| results(advice)[0]).sum());
    let by_error: Vec<u64> = (0..errno::SLOTS as usize)
        .map(|slot| (0..=INVALID).map(|advice| results(advice)[slot]).sum())
        .collect();
    errors::emit(points, &ERRORS, &[], &by_error);
}

/// The numbers by which 32-bit callers come (arch/x86/entry/syscalls/syscall_32.tbl, arch/arm/tools/syscall.tbl).
const COMPAT: &[(&str, u32)] = if cfg!(target_arch = "x86_64") {
    &[("NR_COMPAT_FADVISE64", 250), ("NR_COMPAT_FADVISE64_64", 272)]
} else {
    &[("NR_COMPAT_ARM_FADVISE64_64", 270)]
};

/// The arguments of a call that returns, for native and for 32-bit callers.
const REGISTERS: &[&str] = &[
    "pt_regs.orig_ax",
    "pt_regs.r10",
    "pt_regs.di",
    "pt_regs.si",
    "pt_regs.dx",
    "pt_regs.r8",
    "pt_regs.bp",
    "pt_regs.bx?",
    "pt_regs.cx?",
    "task_struct.thread_info.status",
    "task_struct.files?",
    "files_struct.fdt?",
    "fdtable.fd?",
    "file.f_mapping?",
    "address_space.host?",
    "inode.i_size?",
];

const CALLED: Probe = Probe {
    name: "calls",
    context: Context::Task,
    rungs: &[
        // Costs nothing to other calls. On arm64 the compiler puts the function's body into the one call that native
        // callers come by, and the function itself is left to 32-bit ones.
        #[cfg(target_arch = "x86_64")]
        Rung::new(Mode::Fentry, &[at("calls_fexit", "ksys_fadvise64_64")], FILE),
        Rung::new(Mode::TpBtf, &[at("exit_btf", "sys_exit")], REGISTERS),
        Rung::new(Mode::RawTp, &[at("exit_raw", "sys_exit")], REGISTERS),
        Rung::new(
            Mode::SyscallTracepoint,
            &[at("enter_tp", "syscalls/sys_enter_*"), at("exit_tp", "syscalls/sys_exit_*")],
            RECORDS,
        ),
        #[cfg(target_arch = "x86_64")]
        Rung::new(
            Mode::Kprobe,
            &[at("exit_kprobe", "ksys_fadvise64_64"), at("enter_kprobe", "ksys_fadvise64_64")],
            FILE,
        ),
    ],
};

/// Pages that are deleted while the thread that deletes them is in the call.
const DROPPED_BY_ADVICE: Probe = Probe {
    name: "dropped",
    // With interrupts off.
    context: Context::Interrupt,
    rungs: rungs!(
        [([("dropped", "mm_filemap_delete_from_page_cache")], DROPPING, HEAD)],
        [Rung::new(
            Mode::Tracepoint,
            &[at("dropped_tp", "filemap/mm_filemap_delete_from_page_cache")],
            DROPPING_RECORD,
        )]
    ),
};

/// The file behind a descriptor, for the bytes that advice is about.
#[cfg(target_arch = "x86_64")]
const FILE: &[&str] = &[
    "task_struct.files?",
    "files_struct.fdt?",
    "fdtable.fd?",
    "file.f_mapping?",
    "address_space.host?",
    "inode.i_size?",
];
/// The same beside records.
const RECORDS: &[&str] = &[
    "trace_event_raw_sys_enter.args",
    "trace_event_raw_sys_exit.ret",
    "task_struct.files?",
    "files_struct.fdt?",
    "fdtable.fd?",
    "file.f_mapping?",
    "address_space.host?",
    "inode.i_size?",
];
/// The advice of the call that the current task is in, beside a folio.
const DROPPING: &[&str] = &[
    FOLIO[0],
    FOLIO[1],
    FOLIO[2],
    "pt_regs.orig_ax",
    "pt_regs.r10",
    "pt_regs.di",
    "pt_regs.si",
    "pt_regs.bp",
    "task_struct.thread_info.status",
];
/// The same beside a record.
const DROPPING_RECORD: &[&str] = &[
    "trace_event_raw_mm_filemap_op_page_cache.order|page.compound_order",
    "pt_regs.orig_ax",
    "pt_regs.r10",
    "pt_regs.di",
    "pt_regs.si",
    "pt_regs.bp",
    "task_struct.thread_info.status",
];
