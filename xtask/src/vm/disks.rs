//! The disks of a machine: an empty file system for the tests, and an archive with the programs.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{Kernel, cpio::Archive, programs::Programs};
use crate::steps::run;

/// What the tests' files lie on.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum FileSystem {
    /// Has small folios before Linux 6.16.
    Ext4,
    /// Has large folios on Linux 6.1 and later.
    Xfs,
    /// Makes its own bios, and has trees for pages.
    Btrfs,
}

impl FileSystem {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

/// The disks, in the order in which the machine has them.
pub(super) struct Disks {
    pub(super) file_system: FileSystem,
    /// Only ever written to in memory.
    pub(super) empty: PathBuf,
    pub(super) programs: PathBuf,
}

/// Enough for the largest test; the file on our side has holes.
const SIZE: u64 = 2 << 30;

pub(super) fn make(
    directory: &Path,
    kernel: &Kernel,
    programs: &Programs,
    file_system: FileSystem,
    script: &str,
) -> Result<Disks> {
    let empty = directory.join(format!("{}.img", file_system.name()));
    if !empty.is_file() {
        format(&empty, file_system)?;
    }
    // One for each kernel: two commands may run at a time.
    let path = directory.join(format!("{}-programs.cpio", kernel.version));
    let mut archive = Archive::new(BufWriter::new(File::create(&path)?));
    archive.directory("bin")?;
    archive.directory("bin/deps")?;
    archive.copy("bin/fathom", &programs.agent)?;
    archive.copy("bin/workload", &programs.workload)?;
    archive.copy("bin/deps/kernel", &programs.tests)?;
    archive.program("run", script.as_bytes())?;
    archive.finish()?;
    Ok(Disks { file_system, empty, programs: path })
}

/// With no feature that the oldest kernel lacks, whatever mkfs takes for usual.
fn format(path: &Path, file_system: FileSystem) -> Result<()> {
    let partial = path.with_extension("partial");
    File::create(&partial)?.set_len(SIZE)?;
    let mut mkfs = match file_system {
        FileSystem::Ext4 => {
            let mut mkfs = Command::new("mkfs.ext4");
            mkfs.args(["-q", "-F", "-O", "none,has_journal,extent,flex_bg,64bit,metadata_csum"]);
            mkfs.args(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
            mkfs.env("MKE2FS_CONFIG", "/dev/null");
            mkfs
        }
        FileSystem::Xfs => {
            let mut mkfs = Command::new("mkfs.xfs");
            mkfs.args(["-q", "-f", "-i", "sparse=1"]);
            mkfs.args(["-m", "crc=1,finobt=1,reflink=1,bigtime=0,rmapbt=0,inobtcount=0"]);
            mkfs
        }
        FileSystem::Btrfs => {
            let mut mkfs = Command::new("mkfs.btrfs");
            mkfs.args(["-q", "-f", "--sectorsize", "4096"]);
            mkfs
        }
    };
    // Where a user's own path may not lead.
    let path_variable = std::env::var("PATH").unwrap_or_default();
    run(mkfs.env("PATH", format!("{path_variable}:/usr/sbin:/sbin")).arg(&partial))?;
    fs::rename(partial, path)?;
    Ok(())
}
