//! The kernel modules that the tests need, with those that they need.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// What may not be built into the kernel.
const WANTED: [&str; 8] =
    ["virtio_pci", "virtio_blk", "ext4", "xfs", "btrfs", "loop", "zram", "overlay"];

/// What zram compresses with by default, where that is a module of its own.
const IF_THERE: [&str; 1] = ["lzo_rle"];

/// A module, ready to be inserted.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// The modules in the order in which they can be inserted.
pub(super) fn collect(directory: &Path) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    walk(&directory.join("kernel"), &mut files)?;
    let builtin = fs::read_to_string(directory.join("modules.builtin"))?;
    let builtin: Vec<_> = builtin.lines().map(|line| name(Path::new(line))).collect();
    let mut found = Vec::new();
    for wanted in WANTED {
        if !builtin.iter().any(|name| name == wanted) {
            add(wanted, &files, &mut found)?;
        }
    }
    for wanted in IF_THERE.into_iter().filter(|wanted| files.contains_key(*wanted)) {
        add(wanted, &files, &mut found)?;
    }
    Ok(found)
}

fn add(wanted: &str, files: &HashMap<String, PathBuf>, found: &mut Vec<Module>) -> Result<()> {
    if found.iter().any(|module| module.name == wanted) {
        return Ok(());
    }
    let path = files.get(wanted).with_context(|| format!("this kernel has no {wanted}"))?;
    let content = read(path)?;
    for needed in needed(&content)? {
        add(&needed, files, found)?;
    }
    found.push(Module { name: wanted.to_owned(), content });
    Ok(())
}

/// What a module says in its section `.modinfo` that it depends on; that never includes what is built in.
fn needed(content: &[u8]) -> Result<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let at = content.windows(KEY.len()).position(|window| window == KEY);
    let value = &content[at.context("a module without `depends`")? + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    let names = std::str::from_utf8(&value[..end])?.split(',').filter(|name| !name.is_empty());
    Ok(names.map(underscored).collect())
}

fn walk(directory: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in directory.read_dir().with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.insert(name(&path), path);
        }
    }
    Ok(())
}

/// `kernel/fs/ext4/ext4.ko.xz` is `ext4`.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    underscored(file.split('.').next().unwrap_or_default())
}

/// The kernel takes both signs for the same.
fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "ko") {
        return Ok(fs::read(path)?);
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output()?;
    ensure!(output.status.success(), "xz: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
