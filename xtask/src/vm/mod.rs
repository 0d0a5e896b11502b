//! `cargo xtask vm`: the agent and its tests in virtual machines, one for each kernel that is supported.
//!
//! Everything is emulated, so that it runs wherever qemu does; nothing but the programs is installed.
//! All that is downloaded or built lies in `target/vm`.

mod architecture;
mod boot;
mod cpio;
mod disks;
mod initramfs;
mod matrix;
mod modules;
mod packages;
mod programs;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

use self::{
    architecture::{AARCH64, Architecture, X86_64},
    disks::FileSystem,
    matrix::{Declared, Matrix},
};
use crate::tools;

/// A kernel that is supported, and the Debian release whose cloud kernel stands for it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The version, as far as it is fixed; and the architecture, if it is not x86-64.
    version: &'static str,
    architecture: &'static Architecture,
    release: &'static str,
    /// What the tests read and write, if nothing else is asked for: between them, small and large folios on both.
    file_system: FileSystem,
    /// The mechanisms that the tests force there if they are shared out: between them all, and on an old kernel and a new
    /// one those that not every kernel has.
    share: &'static [&'static str],
}

const KERNELS: [Kernel; 5] = [
    Kernel::new("5.10", &X86_64, "bullseye", FileSystem::Ext4, &["fentry", "tp_btf"]),
    Kernel::new("6.1", &X86_64, "bookworm", FileSystem::Ext4, &["kprobe", "raw_tp"]),
    Kernel::new("6.12", &X86_64, "trixie", FileSystem::Xfs, &["fentry", "tracepoint"]),
    Kernel::new(
        "7.2",
        &X86_64,
        "sid",
        FileSystem::Ext4,
        &["kprobe", "syscall_tracepoint", "perf_event"],
    ),
    Kernel::new("6.12-arm64", &AARCH64, "trixie", FileSystem::Ext4, &["fentry", "kprobe"]),
];

impl Kernel {
    const fn new(
        version: &'static str,
        architecture: &'static Architecture,
        release: &'static str,
        file_system: FileSystem,
        share: &'static [&'static str],
    ) -> Self {
        Self { version, architecture, release, file_system, share }
    }

    /// The version alone.
    fn linux(&self) -> &str {
        self.version.split('-').next().unwrap_or_default()
    }
}

/// What to run, and where.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Boot this kernel and no other: 5.10, 6.1, 6.12, 7.2 or 6.12-arm64. May be repeated. Without it, all but the last.
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Run only the tests whose names contain this. May be repeated.
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
    /// The file system that the tests read and write, instead of the one that each kernel is tested with.
    #[arg(long, value_name = "TYPE")]
    file_system: Option<FileSystem>,
    /// Run this in the machine's shell instead of the tests; `fathom` is in its path.
    #[arg(long, value_name = "COMMAND")]
    shell_command: Option<String>,
    /// Download the packages again: the newest that the releases have.
    #[arg(long)]
    update: bool,
    /// Share the mechanisms out: each kernel forces two or three. The table of what attaches is whole, and so are the
    /// tests that force none.
    #[arg(long)]
    share: bool,
}

/// Every signal. A scope and groups give the verifier more of each program than it has without, where the tests try
/// each.
const SCOPED: &str = "yaml:{receivers: {iomonitor: {group_by: process, \
    scope: {cgroups: [/sys/fs/cgroup], comm: {prefix: [x]}}, signals: {faults: {enabled: true}, \
    madvise: {enabled: true}, descriptors: {enabled: true}, page_states: {enabled: true}}}}, \
    exporters: {debug: }, service: {pipelines: {metrics: {receivers: [iomonitor], exporters: [debug]}}}}";

/// Boots the kernels, as many at a time as there are processors: a machine takes one.
pub(crate) fn run(args: &Args) -> Result<()> {
    let kernels = chosen(&args.kernel)?;
    let packages = kernels.iter().flat_map(|kernel| kernel.architecture.packages);
    tools::packages(&tools::VM.iter().chain(packages).copied().collect::<Vec<_>>())?;
    let directory = tools::target_dir().join("vm");
    std::fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    let mut programs = Vec::new();
    for architecture in [&X86_64, &AARCH64] {
        if kernels.iter().any(|kernel| kernel.architecture == architecture) {
            programs.push((architecture, programs::build(&directory, architecture)?));
        }
    }
    let declared = Declared::read()?;
    let mut machines = VecDeque::new();
    for kernel in kernels {
        let files = packages::fetch(&directory, kernel, args.update)?;
        let file_system = args.file_system.unwrap_or(kernel.file_system);
        let script = args.script(kernel, &declared);
        let programs = programs.iter().find(|(built_for, _)| *built_for == kernel.architecture);
        let (_, programs) = programs.context("no programs for its architecture")?;
        let disks = disks::make(&directory, kernel, programs, file_system, &script)?;
        let initramfs = initramfs::make(&directory, kernel, &files)?;
        machines.push_back(boot::Machine { kernel, image: files.image, initramfs, disks });
    }
    let (waiting, ended) = (Mutex::new(machines), Mutex::new(Vec::new()));
    let at_a_time = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                loop {
                    // Not held while the machine runs.
                    let next = locked(&waiting).pop_front();
                    let Some(machine) = next else { break };
                    let end = machine.run(&directory);
                    locked(&ended).push((machine.kernel.version, end));
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (mut matrix, mut failed) = (Matrix::default(), Vec::new());
    for (version, ended) in ended {
        let ended = ended.with_context(|| format!("Linux {version}"))?;
        println!("=== Linux {version}: {ended}");
        if !ended.success() {
            failed.push(format!("{version}: {ended}"));
            failed.extend(ended.failures().map(|failure| format!("{version}: {failure}")));
        }
        if args.shell_command.is_none() {
            matrix.add(version, &ended.lines);
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Args {
    /// What CI runs.
    pub(crate) fn of_ci() -> Self {
        Self { share: true, ..Self::default() }
    }

    /// What a machine runs: the table of what attaches, then the tests.
    fn script(&self, kernel: &Kernel, declared: &Declared) -> String {
        if let Some(command) = &self.shell_command {
            return command.clone();
        }
        let mut skip = String::new();
        for (name, why) in declared.skipped(kernel.version) {
            println!("{}: not run there: {name}: {why}", kernel.version);
            skip += &format!(" --skip {}", quoted(&[name.to_owned()]));
        }
        let forced = matrix::MODES.iter().filter(|mode| **mode != "auto");
        for mode in forced.filter(|mode| self.share && !kernel.share.contains(mode)) {
            skip += &format!(" --skip ::{mode}");
        }
        // An emulated machine is some ten times slower than the one that the tests' deadlines are for.
        format!(
            "for mode in {}; do echo \"{}$mode\"\n\
             fathom probes --config '{SCOPED}' --set receivers.iomonitor.mode=$mode\n\
             done\n\
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
        return Ok(all().collect());
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

/// Those that run if none is named: another architecture's takes another compiler, and much longer.
fn all() -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().filter(|kernel| kernel.architecture == &X86_64)
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
