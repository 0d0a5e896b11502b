//! Mistakes in a configuration. All of them are reported at once, each with its place.

use std::{fmt, sync::Arc};

use super::report::MOST;

/// Where something stands in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key's path below the section that is checked, joined with `::`; empty for the section.
    pub path: String,
    /// Where the value stands, if it stands in a file. Filled in from `path` when it is `None`.
    pub place: Option<Place>,
    /// What is wrong: lower-case, no full stop.
    pub message: String,
    /// What to do about it, such as the nearest valid key.
    pub hint: Option<String>,
}

/// Every mistake found in one section, as far as a report can hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// Notes a mistake at the key `path` (relative, joined with `::`).
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.is_full() {
            return;
        }
        self.0.push(Mistake {
            path: path.into(),
            place: None,
            message: message.into(),
            hint: None,
        });
    }

    /// Notes a mistake unless `holds`.
    pub fn require(&mut self, holds: bool, path: &str, message: &str) {
        if !holds {
            self.add(path, message);
        }
    }

    /// Notes a name at the key `path` that is none of the `valid` ones, and suggests the nearest.
    pub fn unknown<'a>(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        given: &str,
        valid: impl IntoIterator<Item = &'a str>,
    ) {
        if self.is_full() {
            return;
        }
        let valid: Vec<_> = valid.into_iter().collect();
        self.0.push(Mistake {
            path: path.into(),
            place: None,
            message: message.into(),
            hint: hint(given, &valid),
        });
    }

    /// Takes in the mistakes of a nested section that stands at `path`.
    pub fn nest(&mut self, path: &str, nested: Self) {
        let room = MOST.saturating_sub(self.0.len());
        self.0.extend(nested.0.into_iter().take(room).map(|mut mistake| {
            mistake.path = match (path, mistake.path.as_str()) {
                ("", _) => mistake.path,
                (_, "") => path.to_owned(),
                (_, below) => format!("{path}::{below}"),
            };
            mistake
        }));
    }

    /// Whether there is no use in looking for more: each would have to be given its place.
    fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    /// `value`, if there are no mistakes.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

/// A path as Go writes it: `sending_queue.batch`, `headers[0]`, `service.pipelines[metrics]`.
pub fn dotted(path: &str) -> String {
    let mut out = String::new();
    for part in path.split("::") {
        if out == "service.pipelines" || part.bytes().all(|b| b.is_ascii_digit()) && !out.is_empty()
        {
            out += &format!("[{part}]");
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out += part;
        }
    }
    out
}

/// Who has more names has not mistyped one of three.
pub const MANY: usize = 1000;
/// Nor has who writes a longer one.
const LONG: usize = 1000;

/// What may have been meant: the nearest valid name, if one is near, else all of them.
pub fn hint(given: &str, valid: &[&str]) -> Option<String> {
    if valid.len() > MANY || given.len() > LONG {
        return None;
    }
    // Less alike than this, a name is a guess, not a slip.
    const NEAR: f64 = 0.6;
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(given, name);
    let nearest = valid.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    if likeness(nearest) >= NEAR {
        return Some(format!("did you mean `{nearest}`?"));
    }
    let mut all = valid.to_vec();
    all.sort_unstable();
    all.dedup();
    Some(format!("valid are: {}", all.join(", ")))
}
