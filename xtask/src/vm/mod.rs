//! `cargo xtask vm`: the agent and its tests in virtual machines, one for each kernel that is supported.
//!
//! Everything is emulated, so that it runs wherever qemu does; nothing but the programs is installed.
//! All that is downloaded or built lies in `target/vm`.

mod boot;
mod cpio;
mod disks;
mod initramfs;
mod matrix;
mod modules;
mod packages;
mod programs;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use self::matrix::{Declared, Matrix};
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
    let declared = Declared::read()?;
    let (mut matrix, mut failed) = (Matrix::default(), Vec::new());
    for kernel in kernels {
        println!("\n=== Linux {}", kernel.version);
        let files = packages::fetch(&directory, kernel, args.update)?;
        let script = args.script(kernel, &declared);
        let disks = disks::make(&directory, kernel, &programs, args.file_system, &script)?;
        let initramfs = initramfs::make(&directory, kernel, &files)?;
        let machine =
            boot::Machine { kernel, image: &files.image, initramfs: &initramfs, disks: &disks };
        let ended = machine.run(&directory)?;
        println!("=== Linux {}: {ended}", kernel.version);
        if !ended.success() {
            failed.push(format!("{}: {ended}", kernel.version));
            failed.extend(ended.failed_tests().map(|name| format!("{}: {name}", kernel.version)));
        }
        if args.shell_command.is_none() {
            matrix.add(kernel.version, &ended.lines);
        }
    }
    if args.shell_command.is_none()
        && let Err(error) = matrix.judge(&declared)
    {
        failed.push(error.to_string());
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

impl Args {
    /// What a machine runs: the table of what attaches, then the tests.
    fn script(&self, kernel: &Kernel, declared: &Declared) -> String {
        if let Some(command) = &self.shell_command {
            return command.clone();
        }
        let mut skip = String::new();
        for (name, why) in declared.skipped(kernel.version) {
            println!("not run there: {name}: {why}");
            skip += &format!(" --skip {}", quoted(&[name.to_owned()]));
        }
        // An emulated machine is some ten times slower than the one that the tests' deadlines are for.
        format!(
            "for mode in {}; do echo \"{}$mode\"; fathom probes --mode $mode; done\n\
             echo '{}'\n\
             FATHOM_TEST_SLOWDOWN=10 kernel --test-threads=1 {}{skip}\n",
            matrix::MODES.join(" "),
            matrix::MODE,
            matrix::TESTS,
            quoted(&self.test),
        )
    }
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
