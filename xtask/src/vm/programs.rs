//! The agent, the tests and their workload, linked so that they need nothing of the machine that they run on.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::architecture::Architecture;
use crate::steps::{cargo, run};

/// Where they lie.
pub(super) struct Programs {
    pub(super) agent: PathBuf,
    pub(super) workload: PathBuf,
    pub(super) tests: PathBuf,
}

/// Builds them, beside what `cargo build` makes and without disturbing it.
pub(super) fn build(directory: &Path, architecture: &Architecture) -> Result<Programs> {
    let triple = architecture.target();
    let cross = architecture.cross_compiler();
    if cross.is_some() {
        run(Command::new("rustup").args(["--quiet", "target", "add", &triple]))?;
    }
    let target = directory.join("build");
    let statically = |command: &mut Command| {
        command
            .args(["--target", &triple])
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            // Emulated processors are slow enough as it is, and must read all that is here from a disk.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("CARGO_PROFILE_DEV_STRIP", "debuginfo");
        if let Some(compiler) = &cross {
            let name = triple.replace('-', "_");
            command.env(format!("CC_{name}"), compiler);
            command.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler);
        }
    };
    // All at once, so that nothing is compiled twice for other features of a dependency.
    let mut all = cargo(["build", "--workspace", "--exclude=xtask", "--features=tests/kernel"]);
    all.args(["--bins", "--test=kernel", "--message-format=json-render-diagnostics"]);
    statically(&mut all);
    let output = all.stderr(Stdio::inherit()).output().context("start cargo")?;
    ensure!(output.status.success(), "cargo build: {}", output.status);
    let messages = String::from_utf8(output.stdout)?;
    let tests = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == "kernel" && message["profile"]["test"] == true;
        ours.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    let built = target.join(&triple).join("debug");
    Ok(Programs {
        agent: built.join("fathom"),
        workload: built.join("workload"),
        tests: tests.context("cargo names no test program")?,
    })
}
