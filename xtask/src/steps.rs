//! Runs the steps of a command one after another, says how long each took, and sums up at the end.
//!
//! A step that fails does not stop the rest: one run names everything that is wrong.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// What became of the steps so far.
pub(crate) struct Steps {
    command: &'static str,
    began: Instant,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Steps {
    /// No step yet, of the command of this name.
    pub(crate) fn of(command: &'static str) -> Self {
        Self { command, began: Instant::now(), passed: 0, failed: Vec::new(), skipped: Vec::new() }
    }

    /// Runs one step.
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<()>) {
        println!("\n=== {name}");
        let began = Instant::now();
        let result = run();
        let took = seconds(began.elapsed());
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("=== {name}: ok in {took}");
            }
            Err(error) => {
                self.failed.push(format!("{name}: {error:#}"));
                println!("=== {name}: FAILED in {took}: {error:#}");
            }
        }
    }

    /// Notes a step that cannot run on this machine. In CI nothing may be skipped, so there it is a failure.
    pub(crate) fn skip(&mut self, name: &'static str, why: &str) {
        if std::env::var_os("CI").is_some_and(|value| value == "true") {
            println!("\n=== {name}: FAILED, because CI=true allows no skip: {why}");
            self.failed.push(format!("{name}: {why}"));
        } else {
            println!("\n=== {name}: skipped: {why}");
            self.skipped.push(format!("{name}: {why}"));
        }
    }

    /// The last line, and the result of the command. What failed is said once more there: of a long log the end may be
    /// all that is at hand.
    pub(crate) fn sum_up(self) -> Result<()> {
        let list = |names: &[String]| match names {
            [] => String::new(),
            names => format!(" ({})", names.join(", ")),
        };
        let summary = format!(
            "cargo xtask {}: {} passed, {} failed{}, {} skipped{} in {}",
            self.command,
            self.passed,
            self.failed.len(),
            list(&self.failed),
            self.skipped.len(),
            list(&self.skipped),
            seconds(self.began.elapsed()),
        );
        ensure!(self.failed.is_empty(), summary);
        println!("\n=== {summary}");
        Ok(())
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Shows the command, runs it, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(status.success(), "`{shown}`: {status}");
    Ok(())
}

fn show(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let shown = words.join(" ");
    println!("$ {shown}");
    shown
}

/// As much of a command that runs tests: says in the end which of them failed, and why.
pub(crate) fn run_tests(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start `{shown}`"))?;
    let output = child.stdout.take().context("the tests have an output")?;
    let mut failures = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the tests say")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        failures.extend(failure(&line));
    }
    let status = child.wait().context("cannot wait for the tests")?;
    ensure!(status.success(), "`{shown}`: {status}: {}", failures.join("; "));
    Ok(())
}

/// What a line of a test program says of one that failed: its name, or the reason.
pub(crate) fn failure(line: &str) -> Option<String> {
    const MOST: usize = 300;
    let name = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
    let reason = || {
        let said = line.starts_with("Error: ") || line.contains(" panicked at ");
        said.then_some(line)
    };
    name.or_else(reason).map(|text| text.chars().take(MOST).collect())
}

/// A call of cargo, as if from the user's shell.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("cargo");
    command.args(args);
    // `cargo run` describes xtask's own package to us in variables. Handed on, they would make build scripts that
    // watch them (ring's does) run again each time cargo is called from here after the shell, or the other way round.
    for (name, _) in std::env::vars_os() {
        let name_str = name.to_string_lossy();
        if name_str.starts_with("CARGO_PKG_") || name_str.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::failure;

    #[test]
    fn failures_are_found_in_what_a_test_program_says() {
        let lines = [
            "test block::a_request::raw_tp ... FAILED",
            "test block::another ... ok",
            "Error: 1 shown, 2 done",
            "thread 'x::y' (7) panicked at tests/x.rs:1:1:",
            "test result: FAILED. 1 passed; 2 failed",
        ];
        let found: Vec<_> = lines.into_iter().filter_map(failure).collect();
        assert_eq!(found, ["block::a_request::raw_tp", lines[2], lines[3]]);
    }
}
