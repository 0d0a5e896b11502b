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
    /// A classic tracepoint, whose record the kernel fills first.
    Tracepoint,
}

impl Mode {
    /// As configurations and metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Tracepoint => "tracepoint",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that a signal observes.
#[derive(Debug)]
pub struct Probe {
    /// Its name, unique in the signal.
    pub name: &'static str,
    /// What it can be, the best first.
    pub rungs: &'static [Rung],
}

/// One way to observe it: programs that only make sense together.
#[derive(Debug)]
pub struct Rung {
    /// The mechanism.
    pub mode: Mode,
    /// The programs.
    pub programs: &'static [Attach],
    /// Kernel fields whose offsets they read.
    pub fields: &'static [&'static str],
    /// Enum values that they compare with.
    pub values: &'static [&'static str],
}

/// A program and where it attaches.
#[derive(Debug)]
pub struct Attach {
    /// The function in the object.
    pub program: &'static str,
    /// The tracepoint: `name` for `tp_btf`, `category/name` for a classic one.
    pub target: &'static str,
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
