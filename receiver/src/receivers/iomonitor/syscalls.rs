//! System calls: how many, how long, how many bytes, which errors.

use abi::{
    errno,
    syscalls::{Counter, MAX_WATCHED, NUMBERS, OCTAVES, RETURNS_BYTES, TIMED, UNWATCHED, WATCHED},
};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    derived::Quantity,
    durations::Durations,
    errors,
    groups::{Groups, Owned},
    own::dropped,
    signal::{Disabled, Signal},
    system_call::{self, SystemCall},
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

const SYSCALL: Attribute =
    Attribute { name: "syscall", description: "the call's name, such as `pread64`" };

const CALLS: Metric = Metric {
    name: "ebpf.syscall.calls",
    unit: "{call}",
    kind: Kind::Counter,
    description: "Calls that returned.",
    caveat: "A call during which the thread was killed never returns. One that was entered before the agent attached, or \
             before its thread came into the scope, counts only if ebpf.syscall.duration is off. Calls of 32-bit programs \
             have other numbers and are not counted.",
    attributes: &[SYSCALL],
};

const DURATION: Metric = Metric {
    name: "ebpf.syscall.duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time from entering a call to leaving it.",
    caveat: "Waiting is part of it: a read of an idle socket takes as long as the peer is silent, and futex and \
             epoll_wait are there to wait.",
    attributes: &[SYSCALL],
};

const IO: Metric = Metric {
    name: "ebpf.syscall.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes that calls returned having moved.",
    caveat: "Not what reached a disk: the page cache, pipes and sockets count alike. What io_uring moves is in \
             no call.",
    attributes: &[SYSCALL],
};

const ERRORS: Metric = Metric {
    name: "ebpf.syscall.errors",
    unit: "{error}",
    kind: Kind::Counter,
    description: "Calls that failed, by error.",
    caveat: "A series appears with its first error. EAGAIN is a program's everyday life. A call that a \
             signal interrupts ends with ERESTARTSYS, and if the kernel restarts it, it is one more call.",
    attributes: &[SYSCALL, errors::TYPE],
};

/// `signals::syscalls`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether its programs are loaded.
    pub enabled: bool,
    /// The calls to watch.
    pub calls: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let calls = ["read", "pread64", "write", "pwrite64", "fsync", "fdatasync"];
        Self { enabled: true, calls: calls.map(str::to_owned).to_vec() }
    }
}

/// The calls that are watched.
pub struct Syscalls {
    calls: Vec<&'static SystemCall>,
    timed: bool,
}

impl Signal for Syscalls {
    const NAME: &'static str = "syscalls";
    const DESCRIPTION: &'static str = "How long system calls take, and what comes of them.";
    const QUESTION: &'static str = "What do applications wait for, how often, and what goes wrong?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/syscalls.o");
    const METRICS: &'static [Metric] = &[CALLS, DURATION, IO, ERRORS];
    type Config = Config;
    const SAMPLED: bool = true;

    const PROBES: &'static [Probe] = &[TIMED_CALLS, COUNTED_CALLS];

    fn new(config: Config, disabled: &Disabled) -> Result<Option<Self>, Mistakes> {
        let mut wrong = Mistakes::default();
        let mut calls = Vec::new();
        for (i, name) in config.calls.iter().enumerate() {
            match system_call::named(name) {
                Some(call) if calls.contains(&call) => {
                    wrong.add(format!("calls::{i}"), format!("{name} is named twice"));
                }
                Some(call) if call.number().is_none() => wrong.add(
                    format!("calls::{i}"),
                    format!("{name} is not a system call of this architecture"),
                ),
                Some(call) => calls.push(call),
                None => wrong.unknown(
                    format!("calls::{i}"),
                    format!("{name} is not a system call that can be watched"),
                    name,
                    system_call::ALL.iter().filter(|c| c.number().is_some()).map(|c| c.name),
                ),
            }
        }
        wrong.require(!calls.is_empty() || !config.enabled, "calls", "names no system call");
        wrong.require(
            calls.len() <= MAX_WATCHED,
            "calls",
            &format!("more than {MAX_WATCHED} calls cannot be watched at once"),
        );
        let timed = !disabled.contains(DURATION.name);
        wrong.or(config.enabled.then_some(Self { calls, timed }))
    }

    fn wants(&self, probe: &str) -> bool {
        probe == if self.timed { TIMED_CALLS.name } else { COUNTED_CALLS.name }
    }

    fn globals(&self, globals: &mut Globals) -> Result<()> {
        let mut watched = [UNWATCHED; NUMBERS];
        let mut bytes = 0;
        for (entry, call) in (0_u8..).zip(&self.calls) {
            let number = call.number().with_context(|| format!("no number of {}", call.name))?;
            watched[number as usize] = entry;
            bytes |= u32::from(call.bytes) << entry;
        }
        globals.bytes(WATCHED, watched);
        globals.number(RETURNS_BYTES, bytes);
        globals.number(TIMED, self.timed.into());
        Ok(())
    }

    fn names(&self) -> Vec<&'static str> {
        self.calls.iter().map(|call| call.event()).collect()
    }

    /// A few calls, each in a few octaves.
    const CELLS: u32 = 8;

    fn sizes(&self) -> Vec<(&'static str, u32)> {
        let calls = self.calls.len() as u32;
        vec![("CELLS", calls * OCTAVES as u32), ("ERRORS", calls * errno::SLOTS)]
    }

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if !loaded.has_any() {
            return Ok(());
        }
        let errors = groups.read(Self::NAME, "ERRORS", loaded)?;
        for (owner, cells) in groups.read(Self::NAME, "CELLS", loaded)?.iter() {
            points.about(groups.about(owner));
            let failed = errors.of(owner);
            for (place, call) in (0..).zip(&self.calls) {
                let cells = entries(cells, place * OCTAVES as u32, OCTAVES as u32);
                let sum = Sum::of(cells);
                // Of groups, most make few of the calls.
                if sum.calls == 0 && !groups.is_host() {
                    continue;
                }
                let attributes = [(SYSCALL.name, call.name)];
                points.counter(&CALLS, &attributes, sum.calls);
                if call.bytes {
                    points.counter(&IO, &attributes, sum.bytes);
                }
                if call.reads() {
                    groups.note(owner, Quantity::Read, sum.bytes);
                }
                for (slot, count) in entries(failed, place * errno::SLOTS, errno::SLOTS) {
                    errors::emit_one(points, &ERRORS, &attributes, slot as u32, count[0]);
                }
                if self.timed {
                    points.histogram(&DURATION, &attributes, sum.durations.histogram());
                }
            }
        }
        points.about(About::default());
        if self.timed {
            let counters = loaded.counters("COUNTERS")?;
            let events = counters[Counter::InFlightFull as usize];
            dropped(points, "syscalls/timed", &[("too many threads", events)]);
        }
        Ok(())
    }
}

/// Of an owner's cells, those of `count` entries from `first` on, counted from there.
fn entries(cells: Owned<'_>, first: u32, count: u32) -> impl Iterator<Item = (usize, &[u64])> {
    cells
        .iter()
        .filter(move |(entry, _)| (first..first + count).contains(entry))
        .map(move |(entry, cell)| ((entry - first) as usize, cell))
}

/// What the tracepoints at a call's exit say, and more.
macro_rules! exit_and {
    [$($more:expr),*] => {
        &["trace_event_raw_sys_exit.id", "trace_event_raw_sys_exit.ret", $($more,)* KILLED]
    };
}

/// Enter and exit. A thread that ends takes its entry along, so the map cannot fill with the dead.
const TIMED_CALLS: Probe = Probe {
    name: "timed",
    context: Context::Task,
    rungs: rungs!(
        [(
            [("exit", "sys_exit"), ("thread_exit", "sched_process_exit"), ("enter", "sys_enter")],
            REGISTERS,
        )],
        [
            Rung::new(
                Mode::Tracepoint,
                &[
                    at("exit_tp", "raw_syscalls/sys_exit"),
                    at("thread_exit_tp", "sched/sched_process_exit"),
                    at("enter_tp", "raw_syscalls/sys_enter"),
                ],
                exit_and![ENTERED, STATUS],
            ),
            Rung::new(
                Mode::SyscallTracepoint,
                &[
                    at("exit_call_tp", "syscalls/sys_exit_*"),
                    at("thread_exit_tp", "sched/sched_process_exit"),
                    at("enter_call_tp", "syscalls/sys_enter_*"),
                ],
                exit_and![ENTERED],
            ),
        ]
    ),
};

/// Exit alone, where nobody wants durations: half of the price.
const COUNTED_CALLS: Probe = Probe {
    name: "counted",
    context: Context::Task,
    rungs: rungs!(
        [([("exit", "sys_exit")], REGISTERS)],
        [
            Rung::new(
                Mode::Tracepoint,
                &[at("exit_tp", "raw_syscalls/sys_exit")],
                exit_and![STATUS],
            ),
            Rung::new(
                Mode::SyscallTracepoint,
                &[at("exit_call_tp", "syscalls/sys_exit_*")],
                exit_and![],
            ),
        ]
    ),
};

/// The number of a call that returns, and whether it is one of this architecture.
const REGISTERS: &[&str] = &["pt_regs.orig_ax", STATUS, KILLED];
/// Whether a call is one of this architecture.
const STATUS: &str = "task_struct.thread_info.status";
/// The number of a call that begins, where the tracepoint says it.
const ENTERED: &str = "trace_event_raw_sys_enter.id";
/// Whether a thread is being killed. Without it, a call that the thread is killed in counts as one that a
/// signal interrupts.
const KILLED: &str = "task_struct.pending.signal.sig?";

/// One call's numbers.
#[derive(Default)]
struct Sum {
    calls: u64,
    bytes: u64,
    durations: Durations,
}

impl Sum {
    /// Of the cells by octave: see [`abi::syscalls::Cell`].
    fn of<'a>(cells: impl Iterator<Item = (usize, &'a [u64])>) -> Self {
        let mut sum = Self::default();
        for (octave, cell) in cells {
            let [calls, bytes, nanos, zeros, buckets @ ..] = cell else { continue };
            sum.calls += calls;
            sum.bytes += bytes;
            sum.durations.add(octave, *nanos, *zeros, buckets);
        }
        sum
    }
}
