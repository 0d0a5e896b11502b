//! Files whose place in the page cache a test knows.
#![expect(
    unsafe_code,
    reason = "only mincore(2), for which there is no safe wrapper, knows what is cached"
)]

use std::{
    fs::{self, File},
    io::Write,
    num::NonZero,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use nix::{
    errno::Errno,
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    libc,
    sys::{
        mman::{MapFlags, ProtFlags, mmap, munmap},
        stat::Mode,
        statfs::{TMPFS_MAGIC, statfs},
    },
    unistd::{SysconfVar, mkfifo, sysconf},
};
use tempfile::TempDir;

/// Bytes of a page.
pub static PAGE: LazyLock<u64> = LazyLock::new(|| {
    sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
});

/// A directory on a disk, gone with the value.
pub fn directory() -> Result<TempDir> {
    // Beside the test program: `/tmp` may be a tmpfs, whose pages are not the page cache's.
    let program = std::env::current_exe()?;
    let parent = program.parent().context("the test program lies in no directory")?;
    let kind = statfs(parent)?.filesystem_type();
    ensure!(
        kind != TMPFS_MAGIC,
        "{} is a tmpfs: build into a directory on a disk",
        parent.display()
    );
    Ok(TempDir::with_prefix_in("fathom-test-", parent)?)
}

/// A file of random bytes on the disk, none of them in the page cache.
pub fn cold(directory: &TempDir, rng: &mut Rng, size: u64) -> Result<PathBuf> {
    let path = directory.path().join(format!("{:016x}", rng.u64(..)));
    let mut bytes = vec![0; usize::try_from(size)?];
    rng.fill(&mut bytes);
    let mut file = File::create_new(&path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    drop_cache(&path)?;
    Ok(path)
}

/// A named pipe, and both of its ends: as long as they are open, opening one end does not wait.
pub fn pipe(directory: &TempDir) -> Result<(PathBuf, File)> {
    let path = directory.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU)?;
    let ends = File::options().read(true).write(true).open(&path)?;
    Ok((path, ends))
}

/// Drops a clean file's pages from the cache.
pub fn drop_cache(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    // A page that is just being written back, or in another CPU's batch, stays: ask again.
    for _ in 0..100 {
        posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        if resident(path)? == 0 {
            return Ok(());
        }
        file.sync_all()?;
    }
    bail!("{} stays in the page cache", path.display())
}

/// Pages of a file.
pub fn pages(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.len().div_ceil(*PAGE))
}

/// Pages of a file that are in the page cache, as the kernel's own `mincore` says.
pub fn resident(path: &Path) -> Result<u64> {
    let file = File::open(path)?;
    let size = usize::try_from(file.metadata()?.len())?;
    let length = NonZero::new(size).context("the file is empty")?;
    let mut present = vec![0_u8; usize::try_from(pages(path)?)?];
    // SAFETY: a new mapping that nothing touches.
    let map = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &file, 0) }?;
    // SAFETY: `map` is a mapping of `size` bytes and `present` has a byte for each of its pages.
    let asked = Errno::result(unsafe { libc::mincore(map.as_ptr(), size, present.as_mut_ptr()) });
    // SAFETY: nothing refers to the mapping any more.
    unsafe { munmap(map, size) }?;
    asked?;
    Ok(present.iter().map(|byte| u64::from(byte & 1)).sum())
}
