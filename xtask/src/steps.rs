//! Runs the steps of a command one after another, says how long each took, and sums up at the end.
//!
//! A step that fails does not stop the rest: one run names everything that is wrong.

use std::ffi::OsStr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

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
                self.failed.push(name.to_owned());
                println!("=== {name}: FAILED in {took}: {error:#}");
            }
        }
    }

    /// Notes a step that cannot run on this machine. In CI nothing may be skipped, so there it is a failure.
    pub(crate) fn skip(&mut self, name: &'static str, why: &str) {
        if std::env::var_os("CI").is_some_and(|value| value == "true") {
            println!("\n=== {name}: FAILED, because CI=true allows no skip: {why}");
            self.failed.push(name.to_owned());
        } else {
            println!("\n=== {name}: skipped: {why}");
            self.skipped.push(format!("{name}: {why}"));
        }
    }

    /// The last line, and the result of the command.
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
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let shown = words.join(" ");
    println!("$ {shown}");
    let status = command.status().with_context(|| format!("cannot start `{}`", words[0]))?;
    if !status.success() {
        bail!("`{shown}`: {status}");
    }
    Ok(())
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
