//! Component ids: `type[/name]`.

use std::fmt;

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
        let mut letters = kind.chars();
        let valid = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
            && kind.len() <= 63;
        if kind.is_empty() {
            return Err(format!("in \"{text}\" id: the part before / should not be empty"));
        }
        if !valid {
            return Err(format!(
                "in \"{text}\" id: invalid character(s) in type \"{kind}\": it must match \
                 ^[a-zA-Z][0-9a-zA-Z_]{{0,62}}$"
            ));
        }
        match name {
            Some("") => Err(format!("in \"{text}\" id: the part after / should not be empty")),
            // Separators, control characters and symbols would break logs and file names.
            Some(name) if name.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                Err(format!("in \"{text}\" id: invalid character(s) in name \"{name}\""))
            }
            Some(name) if name.chars().count() > 1024 => {
                Err("an id's name is longer than 1024 characters".to_owned())
            }
            name => Ok(Self { kind: kind.to_owned(), name: name.unwrap_or_default().to_owned() }),
        }
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
