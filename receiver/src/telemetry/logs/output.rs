//! Where records go.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};

/// Outputs that are open.
pub(super) struct Outputs(Vec<Output>);

enum Output {
    Stdout,
    Stderr,
    File(PathBuf, File),
}

/// What a path means.
pub(super) enum Target<'a> {
    Stdout,
    Stderr,
    File(&'a Path),
}

/// Reads a path: zap's rules, and its words.
pub(super) fn target(path: &str) -> Result<Target<'_>, String> {
    match (path, path.split_once("://")) {
        ("stdout", _) => Ok(Target::Stdout),
        ("stderr", _) => Ok(Target::Stderr),
        ("", _) => Err("must name a file, stdout or stderr".to_owned()),
        (_, None) => Ok(Target::File(Path::new(path))),
        (_, Some(("file", path))) => match path.strip_prefix("localhost").unwrap_or(path) {
            path if path.starts_with('/') => Ok(Target::File(Path::new(path))),
            _ => Err(format!("file URLs must leave host empty or use localhost: got {path}")),
        },
        (_, Some((scheme, _))) => Err(format!("no sink found for scheme {scheme:?}")),
    }
}

impl Outputs {
    /// Opens them; files are continued.
    pub(super) fn open(paths: &[String]) -> Result<Self> {
        let open = |path: &String| {
            Ok(match target(path).map_err(|message| anyhow!(message))? {
                Target::Stdout => Output::Stdout,
                Target::Stderr => Output::Stderr,
                Target::File(path) => {
                    let file = OpenOptions::new().create(true).append(true).open(path);
                    let failed = || format!("open sink {path:?}");
                    Output::File(path.to_owned(), file.with_context(failed)?)
                }
            })
        };
        paths.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// Writes to each, in one piece: other processes may write there, too. Says what went wrong to `errors`.
    pub(super) fn write(&self, text: &[u8], errors: Option<&Self>) {
        for output in &self.0 {
            let (name, written) = match output {
                Output::Stdout => (Path::new("stdout"), io::stdout().lock().write_all(text)),
                Output::Stderr => (Path::new("stderr"), io::stderr().lock().write_all(text)),
                Output::File(path, file) => (path.as_path(), (&*file).write_all(text)),
            };
            if let (Err(error), Some(errors)) = (written, errors) {
                let name = name.display();
                errors.write(format!("write error: {name}: {error}\n").as_bytes(), None);
            }
        }
    }
}
