//! System calls: how many, how long, how many bytes, which errors.

use abi::{
    exponential,
    syscalls::{Counter, MAX_WATCHED, NUMBERS, RETURNS_BYTES, Stats, TIMED, UNWATCHED, WATCHED},
};
use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    errors,
    signal::{Disabled, Signal},
    system_call::{self, SystemCall},
};
use crate::{
    config::Mistakes,
    ebpf::{
        globals::Globals,
        ladder::{Attach, Mode, Probe, Rung},
        load::Loaded,
    },
    metric::{Attribute, Exponential, Kind, Metric, Points},
    receivers::iomonitor::DROPPED,
};

const SYSCALL: Attribute =
    Attribute { name: "syscall", description: "the call's name, such as `pread64`" };

const CALLS: Metric = Metric {
    name: "ebpf.syscall.calls",
    unit: "{call}",
    kind: Kind::Counter,
    description: "Calls that returned.",
    caveat: "A call during which the thread was killed never returns. Calls of 32-bit programs have \
             other numbers and are not counted.",
    attributes: &[SYSCALL],
};

const DURATION: Metric = Metric {
    name: "ebpf.syscall.duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time from entering a call to leaving it.",
    caveat: "Waiting is part of it: a read of an idle socket takes as long as the peer is silent.",
    attributes: &[SYSCALL],
};

const IO: Metric = Metric {
    name: "ebpf.syscall.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Bytes that calls returned having moved.",
    caveat: "Not what reached a disk: the page cache, pipes and sockets count alike.",
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
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/syscalls.o");
    const METRICS: &'static [Metric] = &[CALLS, DURATION, IO, ERRORS];
    type Config = Config;

    const PROBES: &'static [Probe] = &[TIMED_CALLS, COUNTED_CALLS];

    fn new(config: Config, disabled: &Disabled) -> Result<Option<Self>, Mistakes> {
        let mut wrong = Mistakes::default();
        let mut calls = Vec::new();
        for (i, name) in config.calls.iter().enumerate() {
            match system_call::named(name) {
                Some(call) if calls.contains(&call) => {
                    wrong.add(format!("calls::{i}"), format!("{name} is named twice"));
                }
                Some(call) => calls.push(call),
                None => wrong.unknown(
                    format!("calls::{i}"),
                    format!("{name} is not a system call that can be watched"),
                    name,
                    system_call::ALL.iter().map(|call| call.name),
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
            watched[call.number as usize] = entry;
            bytes |= u32::from(call.bytes) << entry;
        }
        globals.bytes(WATCHED, watched);
        globals.number(RETURNS_BYTES, bytes);
        globals.number(TIMED, self.timed.into());
        Ok(())
    }

    fn read(&mut self, loaded: &mut Loaded, points: &mut Points<'_>) -> Result<()> {
        if !loaded.has_any() {
            return Ok(());
        }
        for (entry, call) in (0..).zip(&self.calls) {
            let stats = Sum::of(&loaded.per_cpu("STATS", entry)?);
            let attributes = [(SYSCALL.name, call.name)];
            points.counter(&CALLS, &attributes, stats.calls);
            if call.bytes {
                points.counter(&IO, &attributes, stats.bytes);
            }
            errors::emit(points, &ERRORS, &attributes, &stats.errors);
            if self.timed {
                points.histogram(&DURATION, &attributes, stats.durations());
            }
        }
        if self.timed {
            let counters = loaded.counters("COUNTERS")?;
            points.counter(
                &DROPPED,
                &[("probe", "syscalls/timed"), ("reason", "too many threads")],
                counters[Counter::InFlightFull as usize],
            );
        }
        Ok(())
    }
}

/// Enter and exit. A thread that ends takes its entry along, so the map cannot fill with the dead.
const TIMED_CALLS: Probe = Probe {
    name: "timed",
    rungs: &[
        Rung {
            mode: Mode::TpBtf,
            programs: &[
                Attach { program: "exit_btf", target: "sys_exit" },
                Attach { program: "thread_exit_btf", target: "sched_process_exit" },
                Attach { program: "enter_btf", target: "sys_enter" },
            ],
            fields: &[
                "pt_regs.orig_ax",
                "task_struct.thread_info.status",
                "task_struct.pending.signal.sig",
            ],
            values: &[],
        },
        Rung {
            mode: Mode::Tracepoint,
            programs: &[
                Attach { program: "exit_tp", target: "raw_syscalls/sys_exit" },
                Attach { program: "thread_exit_tp", target: "sched/sched_process_exit" },
                Attach { program: "enter_tp", target: "raw_syscalls/sys_enter" },
            ],
            fields: &[
                "trace_event_raw_sys_enter.id",
                "trace_event_raw_sys_exit.id",
                "trace_event_raw_sys_exit.ret",
                "task_struct.thread_info.status",
                "task_struct.pending.signal.sig",
            ],
            values: &[],
        },
    ],
};

/// Exit alone, where nobody wants durations: half of the price.
const COUNTED_CALLS: Probe = Probe {
    name: "counted",
    rungs: &[
        Rung {
            mode: Mode::TpBtf,
            programs: &[Attach { program: "exit_btf", target: "sys_exit" }],
            fields: &[
                "pt_regs.orig_ax",
                "task_struct.thread_info.status",
                "task_struct.pending.signal.sig",
            ],
            values: &[],
        },
        Rung {
            mode: Mode::Tracepoint,
            programs: &[Attach { program: "exit_tp", target: "raw_syscalls/sys_exit" }],
            fields: &[
                "trace_event_raw_sys_exit.id",
                "trace_event_raw_sys_exit.ret",
                "task_struct.thread_info.status",
                "task_struct.pending.signal.sig",
            ],
            values: &[],
        },
    ],
};

/// One call's numbers, summed over the CPUs.
struct Sum {
    calls: u64,
    bytes: u64,
    nanos: u64,
    zeros: u64,
    errors: Vec<u64>,
    buckets: Vec<u64>,
}

impl Sum {
    fn of(cpus: &[Stats]) -> Self {
        let columns = |of: fn(&Stats) -> &[u64]| {
            let mut sums = vec![0; cpus.first().map_or(0, |s| of(s).len())];
            for cpu in cpus {
                sums.iter_mut().zip(of(cpu)).for_each(|(sum, value)| *sum += value);
            }
            sums
        };
        Self {
            calls: cpus.iter().map(|s| s.calls).sum(),
            bytes: cpus.iter().map(|s| s.bytes).sum(),
            nanos: cpus.iter().map(|s| s.nanos).sum(),
            zeros: cpus.iter().map(|s| s.zeros).sum(),
            errors: columns(|s| &s.errors),
            buckets: columns(|s| &s.buckets),
        }
    }

    /// As OTLP carries it: the range of buckets that are not empty.
    fn durations(&self) -> Exponential {
        let first = self.buckets.iter().position(|n| *n > 0).unwrap_or(0);
        let end = self.buckets.iter().rposition(|n| *n > 0).map_or(first, |last| last + 1);
        Exponential {
            scale: exponential::SCALE,
            sum: self.nanos as f64 / 1e9,
            zero_count: self.zeros,
            offset: exponential::OFFSET + first as i32,
            buckets: self.buckets[first..end].to_vec(),
        }
    }
}
