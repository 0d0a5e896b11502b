//! Writes archives in cpio's format "newc", which the kernel unpacks when it starts and busybox later.

use std::{
    fs,
    io::{Result, Write},
    path::Path,
};

/// An archive that grows; its directories must be added before what is in them.
pub(super) struct Archive<W> {
    to: W,
    files: u32,
}

/// Bits of `st_mode` that say what an entry is.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, files: 0 }
    }

    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// A file that anybody may run.
    pub(super) fn program(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, FILE | 0o755, (0, 0), content)
    }

    /// A file that anybody may run, as it is here.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        self.program(path, &fs::read(from)?)
    }

    pub(super) fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.entry(path, LINK | 0o777, (0, 0), to.as_bytes())
    }

    pub(super) fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(path, CHARACTER | 0o600, (major, minor), &[])
    }

    pub(super) fn finish(mut self) -> Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.files += 1;
        // The inode must differ, or two entries are one file.
        let size = u32::try_from(content.len()).map_err(std::io::Error::other)?;
        let fields = [self.files, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1];
        let length = path.len() as u32 + 1;
        write!(self.to, "070701")?;
        for field in fields.into_iter().chain([length, 0]) {
            write!(self.to, "{field:08x}")?;
        }
        write!(self.to, "{path}\0")?;
        // Header and content begin at multiples of four.
        self.pad(6 + 13 * 8 + length as usize)?;
        self.to.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, length: usize) -> Result<()> {
        self.to.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}
