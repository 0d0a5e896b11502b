//! The file that is being written: whole records or nothing.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Config, Rotation, rotate::Backups};

/// Writes records to the end of a file.
pub struct Writer {
    path: PathBuf,
    /// Missing after a failure, until it can be opened again.
    open: Option<Open>,
    /// Whether what was there before stays.
    keep: bool,
    rotation: Option<Backups>,
    /// Whether records are lines of text.
    lines: bool,
}

struct Open {
    file: File,
    /// What the file holds.
    size: u64,
    /// A record broke off and could not be taken back.
    torn: bool,
}

impl Writer {
    /// Opens the file as configured.
    pub fn open(config: &Config, path: &Path) -> Result<Self> {
        let rotation = config.rotation.as_ref().map(|rotation| Backups::new(path, rotation));
        let open = Some(Open::at(path)?);
        // Rotation is a way to keep what is there, so it does so from the start.
        let keep = config.append || rotation.is_some();
        Ok(Self { path: path.to_owned(), open, keep, rotation, lines: config.is_lines() })
    }

    /// What is in the file stays.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Takes away what was there, unless it is to be kept. Not as soon as it is opened: another component
    /// may keep the agent from running, and after a reload the one before has just written its last.
    pub fn begin(&mut self) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let failed = || self.path.display().to_string();
        if !self.keep && open.file.metadata().with_context(failed)?.is_file() {
            open.file.set_len(0).with_context(failed)?;
        }
        open.size = open.file.metadata().with_context(failed)?.len();
        self.mend()
    }

    /// Whoever wrote before may have ended in the middle of a record. What follows shall not be lost with it.
    fn mend(&mut self) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.size == 0 || !open.file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Ok(());
        }
        // Who may write it but not read it has to trust it.
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        let failed = || self.path.display().to_string();
        if self.lines {
            file.seek(SeekFrom::End(-1)).with_context(failed)?;
            let mut last = [0];
            file.read_exact(&mut last).with_context(failed)?;
            open.torn = last != *b"\n";
        } else if !is_whole(file, open.size).with_context(failed)? {
            // Nothing that follows a length without its record could be read.
            Backups::new(&self.path, &Rotation { max_backups: 0, ..Rotation::default() })
                .rotate()?;
            tracing::warn!(
                "{}: its last record is not whole: it was put aside",
                self.path.display()
            );
            *open = Open::at(&self.path)?;
        }
        Ok(())
    }

    /// Writes one record, after which the file ends; if that fails, it ends where it did before.
    pub fn write(&mut self, record: &[u8]) -> Result<()> {
        if self.open.as_ref().is_some_and(|open| self.is_elsewhere(&open.file)) {
            // Somebody has moved or removed it, as log rotation does.
            self.open = None;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        if let Some(backups) = &self.rotation
            && open.size > 0
            && open.size + record.len() as u64 > backups.max_bytes
        {
            match backups.rotate() {
                Ok(()) => open = Open::at(&self.path)?,
                // A file that is too large is better than none.
                Err(error) => tracing::error!("rotation: {error:#}"),
            }
        }
        let result = open.write(record);
        self.open = Some(open);
        result.with_context(|| self.path.display().to_string())
    }

    /// Whether the path leads to another file than the one that is open, or to none.
    fn is_elsewhere(&self, file: &File) -> bool {
        let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        match (file.metadata(), fs::metadata(&self.path)) {
            (Ok(open), Ok(there)) => id(open) != id(there),
            (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
            (Err(_), _) => true,
        }
    }
}

impl Open {
    fn at(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        // Appending also after truncation: the end is where a record that was taken back began.
        let pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        // Who opens a pipe for writing alone waits until someone reads it.
        let file = options.create(true).append(true).read(pipe).mode(0o644).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Self { file, size, torn: false })
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            // With what is left of the record, which may not be counted.
            self.size = self.file.metadata().map_or(self.size + 1, |metadata| metadata.len());
            self.torn = false;
        }
        match self.file.write_all(record) {
            Ok(()) => {
                self.size += record.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part of it may have found room. What is no regular file cannot be cut.
                self.torn = self.file.set_len(self.size).is_err();
                Err(error)
            }
        }
    }
}

/// Whether a file of this size ends with the end of a record. Each begins with its length.
fn is_whole(file: File, size: u64) -> io::Result<bool> {
    let (mut file, mut at) = (BufReader::new(file), 0_u64);
    while at < size {
        let mut length = [0; 4];
        match file.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        let length = u32::from_be_bytes(length);
        file.seek_relative(i64::from(length))?;
        at += 4 + u64::from(length);
    }
    Ok(at == size)
}

/// Makes a directory and those above it.
pub fn create_directory(path: &Path, permissions: u32) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(permissions).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_torn_record_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("records");
        fs::write(&path, "{\"torn\": ").expect("written");
        let config = Config { append: true, ..Config::default() };
        let mut writer = Writer::open(&config, &path).expect("opened");
        writer.begin().expect("begun");
        writer.write(b"{}\n").expect("written");
        let open = writer.open.expect("it is open");
        // A record that breaks off is cut there: not a byte of the one before.
        assert_eq!(open.size, fs::metadata(&path).expect("there").len());
        assert_eq!(fs::read_to_string(&path).expect("text"), "{\"torn\": \n{}\n");
    }
}
