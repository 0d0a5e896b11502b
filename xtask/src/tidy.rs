//! `cargo xtask tidy`: rules of the source tree that no other tool knows.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Where a file gets too long to be read in one go.
const MAX_LINES: usize = 500;

/// What is put off is an issue, not a comment. In two halves, so that this file passes its own rule.
const PUT_OFF: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Checks every file of the tree and reports all that is wrong.
pub(crate) fn run() -> Result<()> {
    let files = files()?;
    let machine_paths = machine_paths();
    let mut wrong = Vec::new();
    for path in &files {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        for machine_path in &machine_paths {
            if names_path(&bytes, machine_path) {
                wrong.push(format!(
                    "{}: names the path {machine_path} of this machine",
                    path.display()
                ));
            }
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            wrong.extend(text_mistakes(path, text));
        }
    }
    wrong.extend(incomplete_signals(&files));
    for line in &wrong {
        println!("{line}");
    }
    ensure!(wrong.is_empty(), "{} mistakes in the source tree", wrong.len());
    Ok(())
}

/// The files under version control, and those about to be: all that are not ignored.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    // The tests run as root, often in a clone that belongs to somebody else; we only list names.
    git.args(["-c", "safe.directory=*"]);
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().context("cannot start git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let paths = names.map(|name| PathBuf::from(OsStr::from_bytes(name)));
    // A file that was deleted and not yet committed is still listed.
    Ok(paths.filter(|path| path.is_file()).collect())
}

fn text_mistakes(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split(|letter: char| !letter.is_alphanumeric());
        if let Some(word) = words.find(|word| PUT_OFF.contains(word)) {
            wrong.push(format!("{shown}:{number}: {word}: open an issue instead"));
        }
    }
    if path.extension().is_some_and(|extension| extension == "rs") {
        if !text.starts_with("//! ") {
            wrong.push(format!("{shown}:1: does not open with `//!` and what the file is"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!(
                "{shown}: {lines} lines; split by meaning, {MAX_LINES} are the most"
            ));
        }
    }
    wrong
}

/// Where this tree and its owner's files lie: true of no other machine, so nothing may depend on it. The compiled
/// kernel programs are searched too, for a compiler likes to leave such paths in its output.
fn machine_paths() -> Vec<String> {
    let tree = std::env::current_dir().ok().map(PathBuf::into_os_string);
    let paths = [tree, std::env::var_os("HOME")].into_iter().flatten();
    paths.filter_map(|path| path.into_string().ok()).filter(|path| path.len() > 1).collect()
}

/// Whether `path` stands in `bytes` as a path of its own, not as the end or the middle of another.
fn names_path(bytes: &[u8], path: &str) -> bool {
    let path = path.as_bytes();
    let part_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(path)).any(|at| {
        let before = at.checked_sub(1).map(|before| &bytes[before]);
        let after = bytes.get(at + path.len());
        !before.is_some_and(|byte| part_of_name(byte) || *byte == b'}') && after == Some(&b'/')
    })
}

/// A signal is one name in five places: a kernel program without its other four is not finished.
fn incomplete_signals(files: &[PathBuf]) -> Vec<String> {
    let programs = files.iter().filter(|path| path.starts_with("ebpf/probes/src/bin"));
    // The programs that do nothing are the bench's.
    let signals = programs.filter_map(|path| path.file_stem()?.to_str()).filter(|n| *n != "empty");
    let mut wrong = Vec::new();
    for signal in signals {
        // A large one is a folder.
        let here = format!("receiver/src/receivers/iomonitor/{signal}");
        let folder = format!("{here}/mod.rs");
        let file = if Path::new(&folder).is_file() { folder } else { format!("{here}.rs") };
        for place in [
            file,
            format!("ebpf/abi/src/{signal}.rs"),
            format!("ebpf/prebuilt/{signal}.o"),
            format!("tests/kernel/{signal}.rs"),
        ] {
            if !Path::new(&place).is_file() {
                wrong.push(format!("ebpf/probes/src/bin/{signal}.rs: {place} is missing"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_only_as_a_whole() {
        assert!(names_path(b"see /home/ann/src", "/home/ann"));
        assert!(names_path(b"\0/home/ann/src\0", "/home/ann"));
        assert!(!names_path(b"see /mnt/home/ann.txt", "/home/ann"));
        assert!(!names_path(b"receiver/src/main.rs", "/src"));
    }

    #[test]
    fn every_mistake_of_a_file_is_named_with_its_line() {
        let text = format!("use x;\n// {}: later\n", PUT_OFF[0]);
        let wrong = text_mistakes(Path::new("a.rs"), &text);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].starts_with("a.rs:2: "), "{wrong:?}");
        assert!(wrong[1].starts_with("a.rs:1: "), "{wrong:?}");
        assert!(text_mistakes(Path::new("a.yaml"), "todos: [fixme_later]\n").is_empty());
    }

    #[test]
    fn a_file_may_have_500_lines_and_no_more() {
        let longest = "//! x\n".repeat(MAX_LINES);
        assert!(text_mistakes(Path::new("a.rs"), &longest).is_empty());
        assert_eq!(text_mistakes(Path::new("a.rs"), &format!("{longest}\n")).len(), 1);
    }
}
