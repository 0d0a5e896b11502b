//! `cargo xtask check`: the steps that need neither root nor a live kernel.

use anyhow::Result;

use crate::steps::{Steps, cargo, run as execute, run_tests};
use crate::{tidy, tools};

/// Runs the quick steps and sums up.
pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::of("check");
    quick(&mut steps);
    steps.sum_up()
}

/// The quick steps, cheapest first.
///
/// All of them see the whole workspace at once: cargo then settles on one set of features for each dependency and
/// compiles it once for all steps.
pub(crate) fn quick(steps: &mut Steps) {
    steps.step("format", || {
        execute(&mut cargo(["fmt", "--all", "--check"]))?;
        execute(&mut cargo(["fmt", "--manifest-path", "ebpf/probes/Cargo.toml", "--check"]))
    });
    steps.step("tidy", tidy::run);
    steps.step("dependencies", || {
        let mut deny = tools::cargo_deny()?;
        // A warning of cargo-deny is a line of deny.toml that is out of date.
        execute(deny.args(["check", "-D", "warnings", "licenses", "bans", "sources"]))
    });
    steps.step("lints", || {
        let scope = ["clippy", "--workspace", "--all-targets", "--all-features"];
        execute(cargo(scope).args(["--", "-D", "warnings"]))
    });
    steps.step("documentation", || {
        let scope = ["doc", "--workspace", "--no-deps", "--all-features"];
        execute(cargo(scope).env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.step("unit tests", || run_tests(&mut cargo(["test", "--workspace"])));
}
