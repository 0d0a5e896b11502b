//! Fathom's developer commands.

mod build_ebpf;

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Compiles the kernel programs into `ebpf/prebuilt`.
    BuildEbpf {
        /// Compares with what is committed instead of writing it.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace has a root")?;
    match Command::parse() {
        Command::BuildEbpf { check } => build_ebpf::run(root, check),
    }
}
