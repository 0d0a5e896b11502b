//! A block device of a test's own, and what the kernel counts for it.
#![expect(unsafe_code, reason = "what a loop device can be told has no wrapper")]

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{fcntl::OFlag, libc};

use crate::deadline::wait_for;

/// A file as a block device (a loop device), gone with the value.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
}

impl Device {
    /// A device of the file's content.
    pub fn of(file: &Path) -> Result<Self> {
        // Another test may take the same one: then the next.
        let path = wait_for("a free loop device", || {
            let free = Command::new("losetup").arg("-f").output().context("losetup")?;
            ensure!(free.status.success(), "losetup -f: {}", String::from_utf8_lossy(&free.stderr));
            let path = PathBuf::from(String::from_utf8(free.stdout)?.trim());
            let taken = Command::new("losetup").arg(&path).arg(file).output()?.status.success();
            Ok(taken.then_some(path))
        })?;
        let device = Self { path };
        // Others look at new devices (partitions, labels). What they have read must not be found in the cache.
        device.quiet()?;
        nix::fcntl::posix_fadvise(
            File::open(&device.path)?,
            0,
            0,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )?;
        Ok(device)
    }

    /// A device of `size` bytes of zeroes, with its file in `directory`.
    pub fn new(directory: &Path, size: u64) -> Result<Self> {
        let file = tempfile::NamedTempFile::new_in(directory)?;
        // Not sparse: the file system then has nothing to allocate.
        io::copy(&mut io::Read::take(io::repeat(0), size), &mut file.as_file())?;
        file.as_file().sync_all()?;
        // The device keeps it open.
        Self::of(file.path())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, as `system.device` has it.
    pub fn name(&self) -> Result<&str> {
        self.path.file_name().and_then(|name| name.to_str()).context("it has a name")
    }

    /// Makes it read and write its file past the page cache, so that its requests end when those of the disk below
    /// do, in interrupts. `false` if the file system below cannot do that.
    pub fn pass_through(&self) -> Result<bool> {
        /// `LOOP_SET_DIRECT_IO` of include/uapi/linux/loop.h.
        const DIRECT: libc::Ioctl = 0x4c08;
        let file = File::open(&self.path)?;
        // SAFETY: the argument is a number.
        Ok(unsafe { libc::ioctl(file.as_raw_fd(), DIRECT, 1_u64) } == 0)
    }

    /// Opens it past the page cache.
    pub fn direct(&self) -> Result<Direct> {
        self.direct_with(OFlag::empty())
    }

    /// Opens it past the page cache, with more flags.
    pub fn direct_with(&self, flags: OFlag) -> Result<Direct> {
        let flags = (flags | OFlag::O_DIRECT).bits();
        let file = File::options().read(true).write(true).custom_flags(flags).open(&self.path)?;
        Ok(Direct(file))
    }

    /// The fields of /proc/diskstats behind the device's three, by Documentation/admin-guide/iostats.rst, which counts
    /// them from 1.
    fn statistics(&self) -> Result<Vec<u64>> {
        let name = self.name()?;
        let all = fs::read_to_string("/proc/diskstats")?;
        let line = all.lines().map(str::split_whitespace).map(Iterator::collect::<Vec<_>>);
        let fields = line.into_iter().find(|f| f.get(2) == Some(&name)).context("a line for it")?;
        fields.iter().skip(3).map(|field| Ok(field.parse()?)).collect()
    }

    /// The time that its requests have taken, from being made to their end, added up.
    pub fn time(&self) -> Result<Duration> {
        let fields = self.statistics()?;
        // Of reads, writes, discards and flushes, in ms.
        let millis = [4, 8, 15, 17].into_iter().filter_map(|n: usize| fields.get(n - 1));
        Ok(Duration::from_millis(millis.sum()))
    }

    /// What the kernel has counted for it.
    pub fn counts(&self) -> Result<Counts> {
        let fields = self.statistics()?;
        let field = |n: usize| fields.get(n - 1).copied().context("a field");
        let sector = 512;
        Ok(Counts {
            reads: field(1)?,
            read_merges: field(2)?,
            read_bytes: field(3)? * sector,
            writes: field(5)?,
            write_merges: field(6)?,
            write_bytes: field(7)? * sector,
            discards: field(12)?,
            discard_bytes: field(14)? * sector,
            flushes: field(16)?,
            in_flight: field(9)?,
        })
    }

    /// Sets what its queue does (`queue/` of the device in sysfs) while the result lives: whoever has the device next
    /// would find it so.
    pub fn set(&self, key: &str, value: &str) -> Result<Set> {
        let path = PathBuf::from(format!("/sys/block/{}/queue/{key}", self.name()?));
        let before = fs::read_to_string(&path)?;
        fs::write(&path, value)?;
        // One of several is in brackets.
        let chosen = before.split(['[', ']']).nth(1).unwrap_or(&before);
        Ok(Set { path, before: chosen.trim().to_owned() })
    }

    /// Waits until nobody does anything with it.
    pub fn quiet(&self) -> Result<Counts> {
        wait_for("an idle device", || {
            let before = self.counts()?;
            std::thread::sleep(Duration::from_millis(50));
            Ok((self.counts()? == before && before.in_flight == 0).then_some(before))
        })
    }

    /// What `look` finds while nobody does anything with it, and what has been done with it until then: a mounted file
    /// system has threads of its own, which read or write when they like.
    pub fn at_rest<T>(&self, mut look: impl FnMut() -> Result<T>) -> Result<(Counts, T)> {
        wait_for("a device that stays idle", || {
            let counts = self.quiet()?;
            let found = look()?;
            Ok((self.counts()? == counts).then_some((counts, found)))
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Gone as soon as its last user is.
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

/// What a device's queue has been set to.
#[derive(Debug)]
pub struct Set {
    path: PathBuf,
    before: String,
}

impl Drop for Set {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.before);
    }
}

/// What /proc/diskstats says of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub reads: u64,
    pub read_merges: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub write_merges: u64,
    pub write_bytes: u64,
    pub discards: u64,
    pub discard_bytes: u64,
    pub flushes: u64,
    pub in_flight: u64,
}

/// A device without the page cache: each call is I/O.
#[derive(Debug)]
pub struct Direct(File);

/// What direct I/O must be aligned to, at most.
const BLOCK: usize = 4096;

impl Direct {
    /// The descriptor.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Reads `size` bytes at `offset`.
    pub fn read(&self, offset: u64, size: usize) -> io::Result<()> {
        let mut buffer = vec![0; size + BLOCK];
        let from = aligned(&buffer);
        self.0.read_exact_at(&mut buffer[from..from + size], offset)
    }

    /// Writes `size` bytes at `offset`.
    pub fn write(&self, offset: u64, size: usize) -> io::Result<()> {
        let buffer = vec![0xa5; size + BLOCK];
        let from = aligned(&buffer);
        self.0.write_all_at(&buffer[from..from + size], offset)
    }
}

fn aligned(buffer: &[u8]) -> usize {
    buffer.as_ptr().align_offset(BLOCK)
}
