//! Where configurations come from: URIs.

use std::{env, fs, sync::Arc};

use super::{Mistake, node::Node, yaml};

/// Reads the YAML behind a URI, or a file's path.
pub fn read(uri: &str) -> Result<Node, Mistake> {
    match split(uri) {
        Some(("yaml", text)) => yaml::parse(text, &Arc::from("yaml:")),
        Some(("env", name)) => {
            let text = env::var(name)
                .map_err(|_| failure(format!("environment variable {name} is not set")))?;
            yaml::parse(&text, &Arc::from(uri))
        }
        Some(("file", path)) => file(path),
        Some((scheme, _)) => {
            Err(failure(format!("scheme \"{scheme}\" is not supported for uri \"{uri}\"")))
        }
        None => file(uri),
    }
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

fn file(path: &str) -> Result<Node, Mistake> {
    let bytes =
        fs::read(path).map_err(|e| failure(format!("unable to read the file {path}: {e}")))?;
    yaml::parse_bytes(&bytes, &Arc::from(path))
}

fn failure(message: String) -> Mistake {
    Mistake { path: String::new(), place: None, message, hint: None }
}
