//! Where configurations come from: URIs.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{Mistake, http, node::Node, yaml};

/// The most that one source may hold.
pub const MAX_BYTES: usize = 16 << 20;

/// How long a file may take, from opening it to its end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Files that are being read at once, those that do not end included.
const MAX_READING: usize = 64;

/// Reads the YAML behind a URI, or a file's path.
pub fn read(uri: &str) -> Result<Node, Mistake> {
    let bytes = match split(uri) {
        Some(("env", text)) => {
            let (name, default) = variable(text).map_err(failure)?;
            let value = env::var(name).ok().or_else(|| default.map(str::to_owned));
            value
                .map(String::into_bytes)
                .ok_or_else(|| failure(format!("environment variable {name} is not set")))?
        }
        Some((scheme, opaque)) => match bytes(scheme, opaque) {
            Some(bytes) => bytes.map_err(failure)?,
            None => return Err(failure(format!("unsupported scheme on URI {uri:?}"))),
        },
        None => file(uri).map_err(failure)?,
    };
    // A whole configuration is no name.
    let name = if uri.starts_with("yaml:") { "yaml:" } else { uri.trim_start_matches("file:") };
    yaml::parse_bytes(&bytes, &Arc::from(name))
}

/// What stands behind a URI of any scheme but `env`, of whose meaning there are two. `None` if there is
/// no such scheme.
pub fn bytes(scheme: &str, opaque: &str) -> Option<Result<Vec<u8>, String>> {
    let bytes = match scheme {
        "yaml" => Ok(opaque.as_bytes().to_vec()),
        "file" => file(opaque),
        "http" | "https" => http::get(&format!("{scheme}:{opaque}")),
        _ => return None,
    };
    Some(bytes)
}

/// A scheme has two characters or more, so that `C:` is none.
pub fn split(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let mut letters = scheme.chars();
    let valid = scheme.len() >= 2
        && letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    valid.then_some((scheme, rest))
}

/// `NAME` or `NAME:-default`.
pub fn variable(text: &str) -> Result<(&str, Option<&str>), String> {
    let (name, default) = match text.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (text, None),
    };
    let mut letters = name.chars();
    let valid = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    match valid {
        true => Ok((name, default)),
        false => Err(format!(
            "environment variable \"{name}\" has invalid name: must match regex \
             ^[a-zA-Z_][a-zA-Z0-9_]*$"
        )),
    }
}

/// What stands in a file. A pipe that nobody writes into, or a mount that does not answer, would hold up a reload, and all
/// that follow, for good: a thread waits for it instead.
fn file(path: &str) -> Result<Vec<u8>, String> {
    static READING: AtomicUsize = AtomicUsize::new(0);
    let unable =
        |why: &dyn std::fmt::Display| format!("unable to read the file file:{path}: {why}");
    if READING.fetch_add(1, Ordering::Relaxed) >= MAX_READING {
        READING.fetch_sub(1, Ordering::Relaxed);
        return Err(unable(&"too many files before it have not ended yet"));
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = path.to_owned();
    let read = move || {
        // Whoever asked may have given up.
        let _ = sender.send(whole(&name));
        READING.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = thread::Builder::new().name("source".to_owned()).spawn(read) {
        READING.fetch_sub(1, Ordering::Relaxed);
        return Err(unable(&error));
    }
    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large(path)),
        Ok(Err(error)) => Err(unable(&as_go(path, &error))),
        Err(_) => Err(unable(&format_args!("it has not ended after {}s", PATIENCE.as_secs()))),
    }
}

/// An error with the text that Go has for it.
fn as_go(path: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    // Go opens directories, too.
    let done = if error.kind() == io::ErrorKind::IsADirectory { "read" } else { "open" };
    format!("{done} {path}: {text}")
}

/// All of a file; `None` if that is too much.
fn whole(path: &str) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    if file.metadata()?.len() > MAX_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    // What has no length may have no end.
    let read = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok((read <= MAX_BYTES).then_some(bytes))
}

/// What is said of a source that never ends.
pub fn too_large(name: &str) -> String {
    format!("{name} is larger than {} MiB", MAX_BYTES >> 20)
}

fn failure(message: String) -> Mistake {
    let message = format!("cannot retrieve the configuration: {message}");
    Mistake { path: String::new(), place: None, message, hint: None }
}
