//! The tools that the steps call and that do not come with Rust.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::steps::{cargo, run};

/// Debian's packages that the tests need beside Rust and a C compiler.
pub(crate) const TEST: [&str; 6] = [
    // The recorded toolchain of the kernel programs.
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    // llvm-strip.
    "llvm",
    // A file system of the tests.
    "btrfs-progs",
    // What the exporters for it are tested with.
    "prometheus",
];

/// Debian's packages that the virtual machines need.
pub(crate) const VM: [&str; 5] =
    ["qemu-system-x86", "e2fsprogs", "xfsprogs", "btrfs-progs", "xz-utils"];

/// Installs what is missing, where that can be done: on Debian and its kin, as root. Elsewhere the step
/// that misses something says what.
pub(crate) fn packages(packages: &[&str]) -> Result<()> {
    let installed = |package: &str| {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat=${db:Status-Status}", package]);
        query.output().is_ok_and(|output| output.stdout == b"installed")
    };
    let missing: Vec<_> = packages.iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() || Command::new("apt-get").arg("--version").output().is_err() {
        return Ok(());
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.args(["--quiet", "--quiet"]).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "--yes", "--no-install-recommends"]).args(missing))
}

/// Pinned, so that the same sources give the same verdict everywhere.
const CARGO_DENY: &str = "0.20.2";

/// cargo-deny: the one in `PATH` if it has the pinned version, else our own, built on first use.
pub(crate) fn cargo_deny() -> Result<Command> {
    if is_pinned(Path::new("cargo-deny")) {
        return Ok(Command::new("cargo-deny"));
    }
    let root = target_dir().join("tools");
    let ours = root.join("bin/cargo-deny");
    if !is_pinned(&ours) {
        // Unoptimized: compiled in under a minute instead of several, and it still runs in a second.
        let mut install = cargo(["install", "cargo-deny", "--version", CARGO_DENY, "--locked"]);
        install.args(["--debug", "--config", "profile.dev.debug=false", "--force"]);
        install.arg("--root").arg(&root);
        // Its dependencies are built elsewhere, for they are not ours.
        run(install.env_remove("CARGO_TARGET_DIR"))?;
    }
    Ok(Command::new(ours))
}

fn is_pinned(cargo_deny: &Path) -> bool {
    let output = Command::new(cargo_deny).arg("--version").output();
    output.is_ok_and(|output| output.stdout == format!("cargo-deny {CARGO_DENY}\n").as_bytes())
}

/// The Collector's own builder.
const COLLECTOR_BUILDER: &str = "go.opentelemetry.io/collector/cmd/builder@v0.148.0";

/// Whether a Collector can be built: it is written in Go.
pub(crate) fn has_go() -> bool {
    runs("go", "version")
}

/// Whether there is a Prometheus to scrape the agent.
pub(crate) fn has_prometheus() -> bool {
    runs("prometheus", "--version") && runs("promtool", "--version")
}

fn runs(tool: &str, argument: &str) -> bool {
    Command::new(tool).arg(argument).output().is_ok_and(|output| output.status.success())
}

/// The Collector that the tests in `tests/interop` talk to, built on first use.
pub(crate) fn collector() -> Result<()> {
    let parts = "tests/interop/collector.yaml";
    let parts = fs::read_to_string(parts).context(parts)?;
    let directory = env::current_dir()?.join(target_dir()).join("tools/otelcol");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let config = format!(
        "dist: {{name: otelcol, version: 0.148.0, output_path: {:?}}}\n{parts}",
        directory.display().to_string()
    );
    // Written when it is built: another list of parts makes another Collector.
    let (built, wanted) = (directory.join("built.yaml"), directory.join("builder.yaml"));
    if directory.join("otelcol").is_file()
        && fs::read_to_string(&built).ok() == Some(config.clone())
    {
        return Ok(());
    }
    fs::write(&wanted, &config)?;
    let mut go = Command::new("go");
    go.args(["run", COLLECTOR_BUILDER, "--config"]).arg(&wanted);
    // The module proxy is enough: neither the data base of checksums nor a version control system is asked.
    go.env("GONOSUMDB", "*")
        .env("GOFLAGS", "-mod=mod")
        .env("GOTOOLCHAIN", "auto")
        .env("CGO_ENABLED", "0");
    run(&mut go)?;
    fs::rename(wanted, built)?;
    Ok(())
}

/// Where cargo builds, relative to the workspace.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}
