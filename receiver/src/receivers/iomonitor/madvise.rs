//! Advice about memory (`madvise`, `process_madvise`), and about files by `readahead`.

use abi::{
    errno,
    madvise::{ADVICES, CALLS, READAHEAD, SLOTS},
};
use anyhow::Result;

use super::{
    errors,
    groups::Groups,
    signal::{Disabled, OptIn, Signal},
    system_call,
};
use crate::{
    config::Mistakes,
    ebpf::{
        globals::Globals,
        ladder::{Context, Mode, Probe, Rung, at, rungs},
        load::Loaded,
    },
    metric::{About, Attribute, Kind, Metric, Pair, Points},
};

const CALL: Attribute = Attribute {
    name: "syscall",
    description: "the call's name: `madvise`, `process_madvise` or `readahead`",
};

const ADVICE: Attribute = Attribute {
    name: "advice",
    description: "as in madvise(2), in lower case without `MADV_`; `_OTHER` if it is none of the common ones. \
                  `readahead` has none",
};

const CALLED: Metric = Metric {
    name: "ebpf.madvise.calls",
    unit: "{call}",
    kind: Kind::Counter,
    description: "Calls of madvise, process_madvise and readahead that returned, successful or not, by advice. Who drops \
                  or evicts memory on purpose (`dontneed`, `pageout`) causes the faults and reads that follow.",
    caveat: "A series appears with its first call. Allocators advise about their own memory all the time. io_uring's \
             advice and 32-bit programs' calls are not in it.",
    attributes: &[CALL, ADVICE],
};

const BYTES: Metric = Metric {
    name: "ebpf.madvise.advised",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes that the calls which succeeded were about.",
    caveat: "What was asked, not what was done: memory that was not there cannot be dropped. Of process_madvise, the bytes \
             that the kernel says it has advised about; of readahead, no more than the file has from its offset on, where the \
             kernel's types say how many these are.",
    attributes: &[CALL, ADVICE],
};

const ERRORS: Metric = Metric {
    name: "ebpf.madvise.errors",
    unit: "{error}",
    kind: Kind::Counter,
    description: "Calls of madvise, process_madvise and readahead that failed, by error.",
    caveat: "A series appears with its first error. madvise may have done a part before it fails.",
    attributes: &[CALL, errors::TYPE],
};

/// Calls by advice.
pub struct Madvise;

impl Signal for Madvise {
    const NAME: &'static str = "madvise";
    const DESCRIPTION: &'static str =
        "What programs advise the kernel about memory, theirs and others'.";
    const QUESTION: &'static str =
        "Do programs prepare and give back their memory, and does that work?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/madvise.o");
    const METRICS: &'static [Metric] = &[CALLED, BYTES, ERRORS];
    type Config = OptIn;
    const SAMPLED: bool = true;

    const PROBES: &'static [Probe] = &[Probe {
        name: "calls",
        context: Context::Task,
        rungs: rungs!(
            [([("exit", "sys_exit")], REGISTERS)],
            [
                Rung::new(Mode::Tracepoint, &[at("exit_tp", "raw_syscalls/sys_exit")], RECORD),
                Rung::new(
                    Mode::SyscallTracepoint,
                    &[at("exit_call_tp", "syscalls/sys_exit_*")],
                    RECORD_OF_CALL,
                ),
            ]
        ),
    }];

    fn new(config: OptIn, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        for name in CALLS {
            globals.number(format!("NR_{}", name.to_uppercase()), system_call::number(name)?);
        }
        Ok(())
    }

    fn names(&self) -> Vec<&'static str> {
        CALLS.to_vec()
    }

    /// One or two advices, and perhaps an error.
    const CELLS: u32 = 2;

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if !loaded.has("calls") {
            return Ok(());
        }
        let errors = groups.read(Self::NAME, "ERRORS", loaded)?;
        for (owner, cells) in groups.read(Self::NAME, "CELLS", loaded)?.iter() {
            points.about(groups.about(owner));
            for (entry, cell) in cells.iter() {
                let &[calls, bytes] = cell else { continue };
                if calls == 0 {
                    continue;
                }
                let attributes = attributes(entry);
                points.counter(&CALLED, &attributes, calls);
                points.counter(&BYTES, &attributes, bytes);
            }
            for (call, name) in (0..).zip(CALLS) {
                let mut by_error = [0; errno::SLOTS as usize];
                let own = errors.of(owner).iter().filter(|(e, _)| e / errno::SLOTS == call);
                own.for_each(|(e, count)| by_error[(e % errno::SLOTS) as usize] = count[0]);
                errors::emit(points, &ERRORS, &[(CALL.name, name)], &by_error);
            }
        }
        points.about(About::default());
        Ok(())
    }
}

/// What a cell is of.
fn attributes(entry: u32) -> Vec<Pair<'static>> {
    let (call, advice) = (entry / SLOTS, entry % SLOTS);
    let name = CALLS.get(call as usize).copied().unwrap_or_default();
    let mut attributes = vec![(CALL.name, name)];
    if call != READAHEAD {
        let advice = ADVICES.get(advice as usize).copied().unwrap_or("_OTHER");
        attributes.push((ADVICE.name, advice));
    }
    attributes
}

/// The arguments of a call that returns.
const REGISTERS: &[&str] = &[
    "pt_regs.orig_ax",
    "pt_regs.di",
    "pt_regs.si",
    "pt_regs.dx",
    "pt_regs.r10",
    "task_struct.thread_info.status",
    "task_struct.files?",
    "files_struct.fdt?",
    "fdtable.fd?",
    "file.f_mapping?",
    "address_space.host?",
    "inode.i_size?",
];
/// The same beside a record.
const RECORD: &[&str] = &[
    "trace_event_raw_sys_exit.id",
    "trace_event_raw_sys_exit.ret",
    "pt_regs.di",
    "pt_regs.si",
    "pt_regs.dx",
    "pt_regs.r10",
    "task_struct.thread_info.status",
    "task_struct.files?",
    "files_struct.fdt?",
    "fdtable.fd?",
    "file.f_mapping?",
    "address_space.host?",
    "inode.i_size?",
];
/// Of native callers alone.
const RECORD_OF_CALL: &[&str] = &[
    "trace_event_raw_sys_exit.id",
    "trace_event_raw_sys_exit.ret",
    "pt_regs.di",
    "pt_regs.si",
    "pt_regs.dx",
    "pt_regs.r10",
    "task_struct.files?",
    "files_struct.fdt?",
    "fdtable.fd?",
    "file.f_mapping?",
    "address_space.host?",
    "inode.i_size?",
];

#[cfg(test)]
mod tests {
    use abi::madvise::{MADVISE, OTHER, PROCESS_MADVISE, entry};

    use super::*;

    #[test]
    fn entries_have_their_names() {
        let named = |call, advice| attributes(entry(call, advice));
        assert_eq!(named(MADVISE, 4), [("syscall", "madvise"), ("advice", "dontneed")]);
        let pageout = [("syscall", "process_madvise"), ("advice", "pageout")];
        assert_eq!(named(PROCESS_MADVISE, 21), pageout);
        assert_eq!(named(READAHEAD, 0), [("syscall", "readahead")]);
        // One series of all: two with the same attributes would be an error.
        for advice in [5, 6, 7, OTHER, 100, u32::MAX] {
            assert_eq!(entry(MADVISE, advice), entry(MADVISE, OTHER));
            assert_eq!(named(MADVISE, advice)[1].1, "_OTHER");
        }
    }
}
