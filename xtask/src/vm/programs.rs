//! The agent, the tests and their workload, linked so that they need nothing of the machine that they run on.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::steps::cargo;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where they lie.
pub(super) struct Programs {
    pub(super) agent: PathBuf,
    pub(super) workload: PathBuf,
    pub(super) tests: PathBuf,
}

/// Builds them, beside what `cargo build` makes and without disturbing it; at once, so that the agent is compiled
/// once. (That it works without the features that tests ask of its dependencies is shown on the live kernel.)
pub(super) fn build(directory: &Path) -> Result<Programs> {
    let mut build = cargo(["build", "--message-format=json-render-diagnostics"]);
    build
        .args(["--package", "fathom", "--package", "tests", "--features", "tests/kernel"])
        .args(["--bin", "fathom", "--bin", "workload", "--test", "kernel", "--target", TARGET])
        .env("CARGO_TARGET_DIR", directory.join("build"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // Emulated processors are slow enough as it is, and must read all that is here from a disk.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env("CARGO_PROFILE_DEV_STRIP", "debuginfo");
    let output = build.stderr(Stdio::inherit()).output().context("start cargo")?;
    ensure!(output.status.success(), "cargo build: {}", output.status);
    let messages = String::from_utf8(output.stdout)?;
    let program = |name: &str| {
        let found = messages.lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let executable = message["executable"].as_str()?;
            (message["target"]["name"] == name).then(|| PathBuf::from(executable))
        });
        found.with_context(|| format!("cargo names no program {name}"))
    };
    Ok(Programs {
        agent: program("fathom")?,
        workload: program("workload")?,
        tests: program("kernel")?,
    })
}
