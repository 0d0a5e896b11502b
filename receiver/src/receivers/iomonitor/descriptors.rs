//! File descriptors that system calls open and close.

use abi::{
    descriptors::{CALLS, KINDS},
    errno,
    syscalls::NUMBERS,
};
use anyhow::{Context as _, Result};

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
    metric::{About, Attribute, Kind, Metric, Points},
};

const OPENED: Metric = Metric {
    name: "ebpf.fd.opened",
    unit: "{descriptor}",
    kind: Kind::Counter,
    description: "File descriptors that system calls opened, by what they stand for.",
    caveat: "Descriptors that a process inherits, or receives in a message, or that io_uring opens are not in it; nor are \
             those of 32-bit programs.",
    attributes: &[Attribute {
        name: "fd.kind",
        description: "`file`, `socket`, `pipe`, `event` (epoll, eventfd, timerfd, signalfd, inotify, fanotify, perf), \
                      `duplicate` or `other`",
    }],
};

const CLOSED: Metric = Metric {
    name: "ebpf.fd.closed",
    unit: "{descriptor}",
    kind: Kind::Counter,
    description: "File descriptors that `close` closed, whatever it returned but EBADF. Opened ones that grow faster in a \
                  process that lives on are a leak.",
    caveat: "What a process leaves open is closed when it ends, or by execve, close_range or dup2, and is not in it.",
    attributes: &[],
};

const ERRORS: Metric = Metric {
    name: "ebpf.fd.errors",
    unit: "{error}",
    kind: Kind::Counter,
    description: "Calls that should have opened a descriptor and failed, by error: EMFILE and ENFILE say that there are too \
                  many.",
    caveat: "A series appears with its first error. ENOENT, or EAGAIN of accept, is a program's everyday life.",
    attributes: &[errors::TYPE],
};

/// Descriptors by kind.
pub struct Descriptors;

impl Signal for Descriptors {
    const NAME: &'static str = "descriptors";
    const DESCRIPTION: &'static str = "How many files, sockets and the like are opened and closed.";
    const QUESTION: &'static str =
        "Does someone open files or sockets without closing them, or far too often?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/descriptors.o");
    const METRICS: &'static [Metric] = &[OPENED, CLOSED, ERRORS];
    type Config = OptIn;
    const SAMPLED: bool = true;

    const PROBES: &'static [Probe] = &[Probe {
        name: "calls",
        context: Context::Task,
        rungs: rungs!(
            [([("exit", "sys_exit")], REGISTERS)],
            [Rung::new(Mode::Tracepoint, &[at("exit_tp", "raw_syscalls/sys_exit")], RECORD)]
        ),
    }];

    fn new(config: OptIn, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        let mut opens = [0; NUMBERS];
        for (name, does) in CALLS {
            let call = system_call::named(name).with_context(|| format!("no number of {name}"))?;
            // What this architecture does not have, nobody calls.
            if let Some(number) = call.number() {
                opens[number as usize] = *does;
            }
        }
        globals.bytes("OPENS", opens);
        Ok(())
    }

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
            for (_, cell) in cells.iter() {
                let (closed, opened) = cell.split_last().context("a cell of nothing")?;
                for (kind, opened) in KINDS.into_iter().zip(opened) {
                    points.counter(&OPENED, &[(OPENED.attributes[0].name, kind)], *opened);
                }
                points.counter(&CLOSED, &[], *closed);
            }
            let mut by_error = [0; errno::SLOTS as usize];
            errors.of(owner).iter().for_each(|(slot, count)| by_error[slot as usize] = count[0]);
            errors::emit(points, &ERRORS, &[], &by_error);
        }
        points.about(About::default());
        Ok(())
    }
}

/// The arguments of a call that returns.
const REGISTERS: &[&str] =
    &["pt_regs.orig_ax", "pt_regs.di", "pt_regs.si", "task_struct.thread_info.status"];
/// The same beside a record.
const RECORD: &[&str] = &[
    "trace_event_raw_sys_exit.id",
    "trace_event_raw_sys_exit.ret",
    "pt_regs.di",
    "pt_regs.si",
    "task_struct.thread_info.status",
];
