//! `cargo xtask test`: everything CI runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::steps::{Steps, cargo, run as execute, run_tests};
use crate::{build_ebpf, check, tidy, tools, vm};

/// Runs every step and sums up.
pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::of("test");
    if is_root()? {
        let go = if tools::has_go() { None } else { Some("golang-go") };
        let prometheus = if tools::has_prometheus() { None } else { Some("prometheus") };
        let packages: Vec<_> = tools::TEST.into_iter().chain(go).chain(prometheus).collect();
        steps.step("packages", || tools::packages(&packages));
    }
    check::quick(&mut steps);
    steps.step("fuzz of the configuration", || {
        let fuzz = ["test", "--workspace", "--all-features", "--test", "mutation"];
        execute(cargo(fuzz).env("FATHOM_FUZZ_SECONDS", "20"))
    });
    steps.step("prebuilt kernel programs", || build_ebpf::run(true));
    // The steps below use the binary exactly as a user's `cargo build` makes it: without the features that only
    // tests ask of its dependencies, whose absence could otherwise go unnoticed.
    steps.step("build", || execute(&mut cargo(["build"])));
    steps.step("configurations", configurations);
    const NOT_ROOT: &str = "not root; try `sudo -E env PATH=$PATH cargo xtask test`";
    if is_root()? {
        steps.step("tests in the live kernel", live_kernel);
    } else {
        steps.skip("tests in the live kernel", NOT_ROOT);
    }
    match (is_root()?, tools::has_go()) {
        (true, true) => {
            steps.step("build of a Collector", tools::collector);
            steps.step("tests against a Collector", || root_tests("interop"));
        }
        (true, false) => steps.skip("tests against a Collector", "no Go to build one with"),
        (false, _) => steps.skip("tests against a Collector", NOT_ROOT),
    }
    match (is_root()?, tools::has_prometheus()) {
        (true, true) => steps.step("tests with Prometheus", || root_tests("promql")),
        (true, false) => steps.skip("tests with Prometheus", "no prometheus and promtool in PATH"),
        (false, _) => steps.skip("tests with Prometheus", NOT_ROOT),
    }
    match is_root()? {
        true => steps.step("tests in virtual machines", machines),
        false => steps.skip("tests in virtual machines", NOT_ROOT),
    }
    steps.sum_up()
}

/// Every configuration that we ship must be accepted by the binary that we ship.
fn configurations() -> Result<()> {
    let files: Vec<PathBuf> =
        tidy::files()?.into_iter().filter(|path| is_configuration(path)).collect();
    ensure!(!files.is_empty(), "no configuration found in otelcol-config or examples");
    let mut refused = Vec::new();
    for file in files {
        let mut validate = cargo(["run", "--quiet", "--", "validate", "--config"]);
        if let Err(error) = execute(validate.arg(&file)) {
            println!("{error:#}");
            refused.push(file.display().to_string());
        }
    }
    ensure!(refused.is_empty(), "refused: {}", refused.join(", "));
    Ok(())
}

/// All of `otelcol-config/` is for Fathom; in `examples/` also lie files for Docker, Kubernetes, Prometheus, …, which
/// have no receivers.
fn is_configuration(path: &Path) -> bool {
    let yaml = path.extension().is_some_and(|extension| extension == "yaml");
    let has_receivers = || {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| line.starts_with("receivers:"))
    };
    yaml && (path.starts_with("otelcol-config")
        || (path.starts_with("examples") && has_receivers()))
}

/// The tests in `tests/kernel`, one at a time: each compares what the whole kernel counted with what it did itself.
fn live_kernel() -> Result<()> {
    // A container or a bare machine may not have it mounted; the classic tracepoints are found there.
    if !Path::new("/sys/kernel/tracing/events").exists() {
        execute(Command::new("mount").args(["-t", "tracefs", "tracefs", "/sys/kernel/tracing"]))?;
    }
    root_tests("kernel")
}

/// The same tests on each kernel that is supported. All that each could force takes two to three times as long, and is for
/// `cargo xtask vm`.
fn machines() -> Result<()> {
    vm::run(&vm::Args::of_ci())
}

/// The tests of one program that load programs into the kernel, one at a time.
fn root_tests(program: &str) -> Result<()> {
    let scope = ["test", "--workspace", "--all-features", "--test", program];
    run_tests(cargo(scope).args(["--", "--test-threads=1"]))
}

/// Whether the effective user is root: the kernel shows a process's own directory as owned by that user.
fn is_root() -> Result<bool> {
    let own = fs::metadata("/proc/self").context("cannot read /proc/self")?;
    Ok(own.uid() == 0)
}
