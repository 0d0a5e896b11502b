//! Component ids: `type[/name]`.

use std::{fmt, sync::OnceLock};

use regex::Regex;

/// Bytes that a name may have.
const MAX_NAME: usize = 1024;

/// Separators, control characters and symbols, in every script.
static STRANGE: OnceLock<Regex> = OnceLock::new();

/// A component's id. Pipelines have ids of the same form, the type being the signal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// The type.
    pub kind: String,
    /// The name after the `/`; empty if there is none.
    pub name: String,
}

impl Id {
    /// Reads an id; white space round both parts means nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind.trim(), Some(name.trim())),
            None => (text.trim(), None),
        };
        if kind.is_empty() {
            return Err(match name {
                Some(_) => format!("in {text:?} id: the part before / should not be empty"),
                None => "id must not be empty".to_owned(),
            });
        }
        if let Some(name) = name {
            if name.is_empty() {
                return Err(format!("in {text:?} id: the part after / should not be empty"));
            }
            if name.len() > MAX_NAME {
                let length = name.len();
                return Err(format!(
                    "in {name:?} id: name {name:?} is longer than {MAX_NAME} characters ({length} characters)"
                ));
            }
            // They would break logs and file names.
            let strange =
                STRANGE.get_or_init(|| Regex::new(r"[\pZ\pC\pS]").expect("a valid expression"));
            if strange.is_match(name) {
                return Err(format!("in {name:?} id: invalid character(s) in name {name:?}"));
            }
        }
        let mut letters = kind.chars();
        let valid = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
            && kind.len() <= 63;
        if !valid {
            return Err(format!(
                "in {text:?} id: invalid character(s) in type {kind:?}: it must match \
                 ^[a-zA-Z][0-9a-zA-Z_]{{0,62}}$"
            ));
        }
        Ok(Self { kind: kind.to_owned(), name: name.unwrap_or_default().to_owned() })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            f.write_str(&self.kind)
        } else {
            write!(f, "{}/{}", self.kind, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Collector's own cases.
    #[test]
    fn ids_are_the_collector_s() {
        for (text, id) in [
            ("valid_type", "valid_type"),
            ("valid_type/valid_name", "valid_type/valid_name"),
            ("   valid_type   /   valid_name  ", "valid_type/valid_name"),
            ("valid_type/中文好", "valid_type/中文好"),
            ("valid_type/name-with-dashes", "valid_type/name-with-dashes"),
            (
                "valid_type/Linux-Messages-File_01J__processor0__logs",
                "valid_type/Linux-Messages-File_01J__processor0__logs",
            ),
            ("valid_type/1", "valid_type/1"),
            ("a/b/c", "a/b/c"),
        ] {
            assert_eq!(Id::parse(text).map(|id| id.to_string()).as_deref(), Ok(id));
        }
        let long = "a".repeat(1025);
        for (text, error) in [
            ("/valid_name", "in \"/valid_name\" id: the part before / should not be empty"),
            (
                "     /valid_name",
                "in \"     /valid_name\" id: the part before / should not be empty",
            ),
            ("valid_type/", "in \"valid_type/\" id: the part after / should not be empty"),
            (
                "valid_type/      ",
                "in \"valid_type/      \" id: the part after / should not be empty",
            ),
            ("      ", "id must not be empty"),
            ("", "id must not be empty"),
            (
                "valid_type/invalid name",
                "in \"invalid name\" id: invalid character(s) in name \"invalid name\"",
            ),
            ("a/b$", "in \"b$\" id: invalid character(s) in name \"b$\""),
            ("0a", "in \"0a\" id: invalid character(s) in type \"0a\""),
            ("a-b", "in \"a-b\" id: invalid character(s) in type \"a-b\""),
            (&format!("a/{long}"), "is longer than 1024 characters (1025 characters)"),
            (&"a".repeat(64), "invalid character(s) in type"),
        ] {
            let said = Id::parse(text).expect_err(text);
            assert!(said.contains(error), "{said}");
        }
    }
}
