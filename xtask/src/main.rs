//! Fathom's developer commands: `cargo xtask <command>`.

mod build_ebpf;
mod check;
mod steps;
mod test;
mod tidy;
mod tools;
mod vm;

use anyhow::Result;
use clap::Parser;

/// Fathom's developer commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Command {
    /// Everything CI runs. As root it includes the tests in the live kernel.
    Test,
    /// What needs no root and no live kernel: format, lints, unit tests, docs, dependencies.
    Check,
    /// The tests in virtual machines, one for each supported kernel.
    Vm(vm::Args),
    /// What watching costs, beside empty programs at the same hooks; as root, on a quiet machine, some 20 minutes.
    Bench,
    /// Rules of the source tree that no other tool knows.
    Tidy,
    /// Write the documents that are generated from the code: docs/signals.md, docs/schema.json, docs/components.
    Generate,
    /// Build the Collector that the tests in tests/interop talk to.
    Collector,
    /// Compile the kernel programs into ebpf/prebuilt.
    BuildEbpf {
        /// Only compare with what is committed, byte for byte.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    // Paths below are relative to the workspace, wherever cargo was called.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?;
    match Command::parse() {
        Command::Test => test::run(),
        Command::Check => check::run(),
        Command::Vm(args) => vm::run(&args),
        Command::Bench => {
            steps::run(&mut steps::cargo(["build", "--release"]))?;
            let bench = ["bench", "--package", "tests", "--features", "kernel", "--bench", "bench"];
            steps::run(&mut steps::cargo(bench))
        }
        Command::Tidy => tidy::run(),
        Command::Generate => steps::run(
            steps::cargo(["test", "--quiet", "--package", "fathom", "--test", "reference"])
                .env("FATHOM_GENERATE", "1"),
        ),
        Command::Collector => tools::collector(),
        Command::BuildEbpf { check } => build_ebpf::run(check),
    }
}
