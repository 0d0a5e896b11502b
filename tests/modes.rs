//! By which mechanism the agent's programs are attached, and which mechanisms this kernel has for what.

use std::{collections::BTreeMap, process::Command, sync::OnceLock};

use anyhow::{Context as _, Result, bail};

use crate::agent::binary;

/// A mechanism that a user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The best that works.
    Auto,
    /// Raw tracepoints with typed arguments.
    TpBtf,
    /// Raw tracepoints.
    RawTp,
    /// Classic tracepoints.
    Tracepoint,
    /// Classic tracepoints of single system calls.
    SyscallTracepoint,
    /// Trampolines at functions.
    Fentry,
    /// Breakpoints at functions.
    Kprobe,
    /// Software events of perf.
    PerfEvent,
}

impl Mode {
    /// Every mechanism.
    pub const EACH: [Self; 7] = [
        Self::TpBtf,
        Self::RawTp,
        Self::Tracepoint,
        Self::SyscallTracepoint,
        Self::Fentry,
        Self::Kprobe,
        Self::PerfEvent,
    ];

    /// As the configuration and the label `mode` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
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

/// By probe and mechanism, why it does not attach.
type Holes = BTreeMap<(String, Mode), Option<String>>;

/// Why a probe does not attach by a mechanism on this kernel; `None` if it does. A test of what does not
/// attach cannot run: it says so, and the matrix of kernels says whether that was to be expected.
pub fn hole(probe: &str, mode: Mode) -> Result<Option<String>> {
    holes()?
        .get(&(probe.to_owned(), mode))
        .cloned()
        .with_context(|| format!("`fathom probes` does not show {probe}"))
}

/// Whether anything attaches by a mechanism on this kernel.
pub fn attaches(mode: Mode) -> Result<bool> {
    Ok(holes()?.iter().any(|((_, by), why)| *by == mode && why.is_none()))
}

/// What the verifier refuses of the probes' programs, each with its reason.
pub fn refused() -> Result<Vec<String>> {
    let refused = holes()?.iter().filter_map(|((probe, mode), why)| {
        let why = why.as_deref().filter(|why| why.contains("the verifier refuses"))?;
        Some(format!("{probe} by {}: {why}", mode.name()))
    });
    Ok(refused.collect())
}

fn holes() -> Result<&'static Holes> {
    static PROBES: OnceLock<Result<Holes, String>> = OnceLock::new();
    let probes = PROBES.get_or_init(|| ask().map_err(|error| format!("{error:#}")));
    match probes {
        Ok(probes) => Ok(probes),
        Err(error) => bail!("{error}"),
    }
}

/// What `fathom probes` says of every mechanism.
fn ask() -> Result<Holes> {
    let mut probes = BTreeMap::new();
    for mode in [Mode::Auto].into_iter().chain(Mode::EACH) {
        let output = Command::new(binary()?).args(["probes", "--mode", mode.name()]).output()?;
        let shown = String::from_utf8(output.stdout)?;
        for line in shown.lines().skip(1) {
            let mut words = line.split_whitespace();
            let (Some(probe), Some(by)) = (words.next(), words.next()) else { continue };
            let reason = words.collect::<Vec<_>>().join(" ");
            probes.insert((probe.to_owned(), mode), (by == "-").then_some(reason));
        }
    }
    Ok(probes)
}
