//! The attach ladder, as data: which programs a probe can be, in order of preference, and what each
//! needs of the kernel.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A mechanism by which programs attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A raw tracepoint whose arguments the verifier knows by type.
    TpBtf,
    /// A raw tracepoint.
    RawTp,
    /// A classic tracepoint, whose record the kernel fills first.
    Tracepoint,
    /// Classic tracepoints of single system calls.
    SyscallTracepoint,
    /// A trampoline at the entry or the return of a function (`fentry`, `fexit`).
    Fentry,
    /// A breakpoint at the entry or the return of a function (`kprobe`, `kretprobe`).
    Kprobe,
    /// A software event of perf on each CPU.
    PerfEvent,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 7] = [
        Self::TpBtf,
        Self::RawTp,
        Self::Tracepoint,
        Self::SyscallTracepoint,
        Self::Fentry,
        Self::Kprobe,
        Self::PerfEvent,
    ];

    /// As configurations and metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Tracepoint => "tracepoint",
            Self::SyscallTracepoint => "syscall_tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::PerfEvent => "perf_event",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// In what context the kernel raises a probe's events, which decides by which mechanism none is lost.
///
/// Measured on 5.10, 6.1, 6.12, 6.18 and 7.2: a classic tracepoint's program is not run when its event
/// interrupts any other classic program on the CPU; and where tracepoints are preemptible (since Linux 7.0),
/// a raw one's is not run while a task that was preempted inside it waits for the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// By tasks, with interrupts on: classic tracepoints and perf's events lose nothing, raw ones do where they
    /// are preemptible.
    Task,
    /// In interrupts, or with interrupts off: raw tracepoints lose nothing.
    Interrupt,
}

/// One thing that a signal observes.
#[derive(Debug)]
pub struct Probe {
    /// Its name, unique in the signal.
    pub name: &'static str,
    /// Where its events happen.
    pub context: Context,
    /// What it can be, the best first.
    pub rungs: &'static [Rung],
}

impl Probe {
    /// The rungs in the order in which they are tried on a kernel whose tracepoints are preemptible or
    /// not.
    pub fn order(&self, preemptible: bool) -> impl Iterator<Item = &'static Rung> {
        // `syscall_tracepoint` is preemptible there too.
        let first = |rung: &&Rung| matches!(rung.mode, Mode::Tracepoint | Mode::PerfEvent);
        let safest = preemptible && self.context == Context::Task;
        let rungs = self.rungs.iter();
        rungs
            .clone()
            .filter(move |r| safest && first(r))
            .chain(rungs.filter(move |r| !(safest && first(r))))
    }
}

/// One way to observe it: programs that only make sense together.
#[derive(Debug)]
pub struct Rung {
    /// The mechanism.
    pub mode: Mode,
    /// The programs.
    pub programs: &'static [Attach],
    /// What they read of the kernel: fields, as in `task_struct.comm`, whose offsets they need; types,
    /// as in `page`, whose size they need; arguments of tracepoints, as in `block_rq_issue(request)`, whose
    /// place differs between kernels. `a|b` asks for one of the two at least, `a?` for nothing: the
    /// program finds out what there is.
    pub fields: &'static [&'static str],
    /// Enum values that they compare with.
    pub values: &'static [&'static str],
}

impl Rung {
    /// A rung that compares with no enum values.
    pub const fn new(
        mode: Mode,
        programs: &'static [Attach],
        fields: &'static [&'static str],
    ) -> Self {
        Self { mode, programs, fields, values: &[] }
    }

    /// The same, with enum values.
    pub const fn comparing(self, values: &'static [&'static str]) -> Self {
        Self { values, ..self }
    }
}

/// A ladder of raw tracepoints: each program is there twice, as `x_btf` for kernels that tell the verifier the types of
/// its arguments and as `x_raw` for others, and all rungs with types come before those without. Each is given as its
/// programs and where they attach, the fields, and enum values if there are any. What else there is follows.
macro_rules! rungs {
    (
        [$(
            ([$(($program:literal, $target:expr $(,)?)),+ $(,)?], $fields:expr $(, $values:expr)? $(,)?)
        ),+ $(,)?]
        $(, [$($last:expr),* $(,)?])? $(,)?
    ) => {
        &[
            $($crate::ebpf::ladder::Rung::new(
                $crate::ebpf::ladder::Mode::TpBtf,
                &[$($crate::ebpf::ladder::at(concat!($program, "_btf"), $target)),+],
                $fields,
            )$(.comparing($values))?,)+
            $($crate::ebpf::ladder::Rung::new(
                $crate::ebpf::ladder::Mode::RawTp,
                &[$($crate::ebpf::ladder::at(concat!($program, "_raw"), $target)),+],
                $fields,
            )$(.comparing($values))?,)+
            $($($last),*)?
        ]
    };
}
pub(crate) use rungs;

/// A program and where it attaches.
#[derive(Debug)]
pub struct Attach {
    /// The function in the object.
    pub program: &'static str,
    /// The tracepoint: `name` for a raw one, `category/name` for a classic one; or the function; or the
    /// event, as perf calls it. `*` stands for each of the names that the signal gives.
    pub target: &'static str,
}

/// `program` at `target`.
pub const fn at(program: &'static str, target: &'static str) -> Attach {
    Attach { program, target }
}

/// What became of a probe.
#[derive(Clone, Debug)]
pub struct Status {
    /// `signal/probe`.
    pub probe: String,
    /// The mechanism by which it attached; `None` if it did not.
    pub mode: Option<Mode>,
    /// Why the better mechanisms, or all, were refused.
    pub refused: Vec<(Mode, String)>,
}

impl Status {
    /// The refusals in one line; empty if the first choice attached.
    pub fn reason(&self) -> String {
        let reasons: Vec<_> =
            self.refused.iter().map(|(mode, why)| format!("{mode}: {why}")).collect();
        reasons.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNGS: &[Rung] = &[
        Rung::new(Mode::TpBtf, &[], &[]),
        Rung::new(Mode::SyscallTracepoint, &[], &[]),
        Rung::new(Mode::Tracepoint, &[], &[]),
    ];

    fn order(context: Context, preemptible: bool) -> Vec<Mode> {
        let probe = Probe { name: "p", context, rungs: RUNGS };
        probe.order(preemptible).map(|r| r.mode).collect()
    }

    #[test]
    fn what_loses_nothing_comes_first() {
        let listed = [Mode::TpBtf, Mode::SyscallTracepoint, Mode::Tracepoint];
        assert_eq!(order(Context::Task, false), listed);
        assert_eq!(order(Context::Interrupt, true), listed);
        assert_eq!(
            order(Context::Task, true),
            [Mode::Tracepoint, Mode::TpBtf, Mode::SyscallTracepoint]
        );
    }
}
