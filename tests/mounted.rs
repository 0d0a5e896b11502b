//! A file system of a test's own, on a device of its own.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{deadline::wait_for, device::Device};

/// It is unmounted with the value.
#[derive(Debug)]
pub struct Mounted {
    directory: TempDir,
    device: Device,
}

impl Mounted {
    /// Makes one of `size` bytes, with its file in `directory`, by `mkfs.…` and its arguments, and mounts it as a `kind`.
    /// `None` if this machine cannot make it.
    pub fn new(directory: &Path, size: u64, mkfs: &[&str], kind: &str) -> Result<Option<Self>> {
        let device = Device::new(directory, size)?;
        let (program, arguments) = mkfs.split_first().context("no program")?;
        let made = Command::new(program).args(arguments).arg(device.path()).output();
        if !made.is_ok_and(|made| made.status.success()) {
            return Ok(None);
        }
        let directory = TempDir::with_prefix_in("mounted-", directory)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", kind]).arg(device.path()).arg(directory.path());
        let output = mount.output().context("mount")?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Some(Self { directory, device }))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The same, for who makes files there.
    pub fn directory(&self) -> &TempDir {
        &self.directory
    }

    /// What it lies on.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = wait_for("unmounting", || {
            Ok(Command::new("umount").arg(self.path()).status()?.success().then_some(()))
        });
        if let Err(error) = unmounted {
            eprintln!("{} stays mounted: {error:#}", self.path().display());
        }
    }
}
