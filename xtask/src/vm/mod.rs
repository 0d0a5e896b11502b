//! `cargo xtask vm`: the agent and its tests in virtual machines, one for each kernel that is supported.
//!
//! Everything is emulated, so that it runs wherever qemu does; nothing but the programs is installed.
//! All that is downloaded or built lies in `target/vm`.

mod boot;
mod cpio;
mod disks;
mod initramfs;
mod modules;
mod packages;
mod programs;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::tools;

/// A kernel that is supported, and the Debian release whose cloud kernel stands for it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The version, as far as it is fixed.
    version: &'static str,
    release: &'static str,
}

const KERNELS: [Kernel; 4] = [
    Kernel { version: "5.10", release: "bullseye" },
    Kernel { version: "6.1", release: "bookworm" },
    Kernel { version: "6.12", release: "trixie" },
    Kernel { version: "7.2", release: "sid" },
];

/// What to run, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Boot this kernel and no other: 5.10, 6.1, 6.12 or 7.2. May be repeated.
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Run only the tests whose names contain this. May be repeated.
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
    /// The file system that the tests read and write.
    #[arg(long, value_name = "TYPE", default_value = "ext4")]
    file_system: disks::FileSystem,
    /// Run this in the machine's shell instead of the tests; `fathom` is in its path.
    #[arg(long, value_name = "COMMAND")]
    shell_command: Option<String>,
    /// Download the packages again: the newest that the releases have.
    #[arg(long)]
    update: bool,
}

/// Boots the kernels one after another.
pub(crate) fn run(args: &Args) -> Result<()> {
    let kernels = chosen(&args.kernel)?;
    tools::packages(&tools::VM)?;
    let directory = tools::target_dir().join("vm");
    std::fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    let programs = programs::build(&directory)?;
    let script = match &args.shell_command {
        Some(command) => command.clone(),
        None => format!("kernel --test-threads=1 {}", quoted(&args.test)),
    };
    let disks = disks::make(&directory, &programs, args.file_system, &script)?;
    let mut failed = Vec::new();
    for kernel in kernels {
        println!("\n=== Linux {}", kernel.version);
        let files = packages::fetch(&directory, kernel, args.update)?;
        let initramfs = initramfs::make(&directory, kernel, &files)?;
        let machine =
            boot::Machine { kernel, image: &files.image, initramfs: &initramfs, disks: &disks };
        let ended = machine.run(&directory)?;
        if !ended.success() {
            failed.push(format!("{}: {ended}", kernel.version));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn chosen(versions: &[String]) -> Result<Vec<&'static Kernel>> {
    if versions.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let named = |version: &String| {
        let supported = || KERNELS.map(|kernel| kernel.version).join(", ");
        KERNELS
            .iter()
            .find(|kernel| kernel.version == version)
            .with_context(|| format!("no kernel {version}: there are {}", supported()))
    };
    versions.iter().map(named).collect()
}

fn quoted(words: &[String]) -> String {
    let quoted: Vec<_> =
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    quoted.join(" ")
}

/// The one file of a directory whose name begins so.
fn find(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = directory.read_dir().with_context(|| directory.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("no {prefix}… in {}", directory.display())
}
