//! What attaches where: probes against kernels and mechanisms, held against what `tests/matrix.yaml` declares.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The mechanisms, as configurations name them.
pub(super) const MODES: [&str; 8] = [
    "auto",
    "tp_btf",
    "raw_tp",
    "tracepoint",
    "syscall_tracepoint",
    "fentry",
    "kprobe",
    "perf_event",
];

/// A line that says which mechanism the following lines are about.
pub(super) const MODE: &str = "@@@ mode ";
/// A line that ends them.
pub(super) const TESTS: &str = "@@@ tests";

/// The file with the declarations.
const DECLARED: &str = "tests/matrix.yaml";

/// What is known not to work, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Declared {
    holes: Vec<Hole>,
    tests: Vec<Skipped>,
}

/// Probes that do not attach.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hole {
    kernels: BTreeSet<String>,
    probe: String,
    modes: BTreeSet<String>,
    why: String,
}

/// Tests that do not run in the machines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Skipped {
    kernels: BTreeSet<String>,
    name: String,
    why: String,
}

impl Declared {
    pub(super) fn read() -> Result<Self> {
        let text = fs::read_to_string(DECLARED).context(DECLARED)?;
        let declared: Self = serde_yaml::from_str(&text).context(DECLARED)?;
        for why in
            declared.holes.iter().map(|h| &h.why).chain(declared.tests.iter().map(|t| &t.why))
        {
            ensure!(!why.trim().is_empty(), "{DECLARED}: a declaration without a reason");
        }
        Ok(declared)
    }

    /// The tests that are not run on a kernel, each with the reason.
    pub(super) fn skipped(&self, kernel: &str) -> Vec<(&str, &str)> {
        let here = self.tests.iter().filter(|test| test.kernels.contains(kernel));
        here.map(|test| (test.name.as_str(), test.why.as_str())).collect()
    }
}

/// Of each kernel, what `fathom probes` said for each mechanism: probe to the mechanism that attached.
#[derive(Default)]
pub(super) struct Matrix {
    /// Kernel, probe, mode asked for: the mode that attached, or the reason.
    cells: BTreeMap<(String, String, &'static str), Result<String, String>>,
    kernels: Vec<String>,
}

impl Matrix {
    /// Takes in what a machine printed.
    pub(super) fn add(&mut self, kernel: &str, lines: &[String]) {
        self.kernels.push(kernel.to_owned());
        let mut mode = None;
        for line in lines {
            if let Some(name) = line.strip_prefix(MODE) {
                mode = MODES.into_iter().find(|m| *m == name);
                continue;
            }
            if line == TESTS {
                mode = None;
            }
            let (Some(mode), mut words) = (mode, line.split_whitespace()) else { continue };
            let (Some(probe), Some(by)) = (words.next(), words.next()) else { continue };
            if !probe.contains('/') {
                continue;
            }
            let reason = words.collect::<Vec<_>>().join(" ");
            // The ladder has no such rung: nothing that could be missing.
            if reason.contains("the probe has no such way") {
                continue;
            }
            let cell = if by == "-" { Err(reason) } else { Ok(by.to_owned()) };
            self.cells.insert((kernel.to_owned(), probe.to_owned(), mode), cell);
        }
    }

    /// Prints the table and compares it with what is declared.
    pub(super) fn judge(&self, declared: &Declared) -> Result<()> {
        let probes: BTreeSet<&String> = self.cells.keys().map(|(_, probe, _)| probe).collect();
        ensure!(!probes.is_empty(), "no machine has shown its probes");
        println!("\nWhat attaches, that which is taken first in front:");
        for probe in probes {
            println!("{probe}");
            for kernel in &self.kernels {
                let cell =
                    |mode: &'static str| self.cells.get(&(kernel.clone(), probe.clone(), mode));
                let first = match cell("auto") {
                    Some(Ok(by)) => by.as_str(),
                    _ => "-",
                };
                let attached =
                    |mode: &&'static str| cell(mode).is_some_and(Result::is_ok) && *mode != first;
                let others =
                    MODES.into_iter().skip(1).filter(attached).collect::<Vec<_>>().join(" ");
                println!("  {kernel:<6} {first:<18} {others}");
            }
        }
        let wrong = self.wrong(declared);
        if !wrong.is_empty() {
            bail!("{}", wrong.join("\n"));
        }
        Ok(())
    }

    fn wrong(&self, declared: &Declared) -> Vec<String> {
        let mut wrong = Vec::new();
        for ((kernel, probe, mode), cell) in &self.cells {
            let hole = declared.holes.iter().any(|hole| {
                hole.kernels.contains(kernel) && hole.probe == *probe && hole.modes.contains(*mode)
            });
            match cell {
                Err(why) if !hole => wrong.push(format!("{kernel}: {probe} by {mode}: {why}")),
                Ok(_) if hole => {
                    wrong.push(format!(
                        "{kernel}: {probe} attaches by {mode}: {DECLARED} says it does not"
                    ));
                }
                _ => {}
            }
        }
        // Every rung is forced once somewhere: only the whole set of kernels can tell.
        if super::all().all(|kernel| self.kernels.iter().any(|known| known == kernel.version)) {
            let rungs: BTreeSet<_> =
                self.cells.keys().map(|(_, probe, mode)| (probe, mode)).collect();
            for (probe, mode) in rungs {
                let somewhere = self
                    .cells
                    .iter()
                    .any(|((_, p, m), cell)| (p, m) == (probe, mode) && cell.is_ok());
                if !somewhere {
                    wrong.push(format!("{probe} attaches by {mode} on no kernel"));
                }
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(lines: &[&str]) -> Matrix {
        let mut matrix = Matrix::default();
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        matrix.add("6.1", &lines);
        matrix
    }

    fn declared(holes: &str) -> Declared {
        serde_yaml::from_str(&format!("{{holes: {holes}, tests: []}}")).expect("valid")
    }

    const SHOWN: [&str; 6] = [
        "@@@ mode fentry",
        "PROBE  MODE  REASON",
        "a/b    fentry",
        "a/c    -      fentry: the kernel refuses it",
        "a/d    -      fentry: the configuration forces it, and the probe has no such way",
        "@@@ tests",
    ];

    #[test]
    fn a_hole_must_be_declared_and_a_declared_one_must_be_there() {
        let matrix = matrix(&SHOWN);
        assert_eq!(
            matrix.wrong(&declared("[]")),
            ["6.1: a/c by fentry: fentry: the kernel refuses it"]
        );
        let hole = "{kernels: ['6.1'], probe: a/c, modes: [fentry], why: it is so}";
        assert_eq!(matrix.wrong(&declared(&format!("[{hole}]"))), [""; 0]);
        let other = hole.replace("a/c", "a/b");
        let wrong = matrix.wrong(&declared(&format!("[{hole}, {other}]")));
        assert_eq!(wrong, ["6.1: a/b attaches by fentry: tests/matrix.yaml says it does not"]);
    }
}
