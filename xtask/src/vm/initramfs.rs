//! What a machine starts with: busybox, the kernel's modules, and the script that is its first process.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{Kernel, cpio::Archive, modules, packages::Files};

pub(super) fn make(directory: &Path, kernel: &Kernel, files: &Files) -> Result<PathBuf> {
    let path = directory.join(kernel.version).join("initramfs.cpio");
    let mut archive = Archive::new(BufWriter::new(File::create(&path)?));
    for directory in ["bin", "dev", "etc", "modules", "proc", "sys", "test", "tmp"] {
        archive.directory(directory)?;
    }
    // The kernel opens it for the first process before anything is mounted.
    archive.character_device("dev/console", 5, 1)?;
    archive.copy("bin/busybox", &files.busybox)?;
    archive.link("bin/sh", "busybox")?;
    archive.program("init", include_bytes!("init.sh"))?;
    for (number, module) in modules::collect(&files.modules)?.into_iter().enumerate() {
        archive.program(&format!("modules/{number:02}-{}.ko", module.name), &module.content)?;
    }
    archive.finish()?;
    Ok(path)
}
