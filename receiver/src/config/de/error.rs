//! serde's errors, with the place at which they happened.

use std::fmt;

use serde::de;

use crate::config::{
    Place,
    mistake::hint,
    node::{Node, Value},
};

/// Why a value could not be read.
#[derive(Debug)]
pub(super) struct Error {
    /// What is wrong.
    pub(super) message: String,
    /// What may have been meant.
    pub(super) hint: Option<String>,
    /// The message needs the key in front of it.
    pub(super) wrong_type: bool,
    /// A field without a default is not there.
    pub(super) missing: bool,
    /// It is no error: the field has no value.
    pub(super) keeps_default: bool,
    /// Where: the innermost value that is wrong.
    pub(super) path: Option<String>,
    /// Where that stands.
    pub(super) place: Option<Place>,
}

impl Error {
    /// With a message alone.
    pub(super) fn new(message: String) -> Self {
        Self {
            message,
            hint: None,
            wrong_type: false,
            missing: false,
            keeps_default: false,
            path: None,
            place: None,
        }
    }

    /// That a field has no value.
    pub(super) fn keeps_default() -> Self {
        Self { keeps_default: true, ..Self::new(String::new()) }
    }

    /// Notes where it happened, unless something further in already has.
    pub(super) fn at(mut self, path: &str, node: &Node) -> Self {
        if self.path.is_none() {
            self.path = Some(path.to_owned());
            self.place = node.place.clone();
        }
        self
    }

    /// A value that is no map.
    pub(super) fn no_map(node: &Node) -> Self {
        let message = format!("expected a map or struct, got \"{}\"", node.kind());
        let hint = node.unread.as_deref().map(str::to_owned);
        Self { wrong_type: true, hint, ..Self::new(message) }
    }

    /// With a hint, if it has none.
    pub(super) fn or_hint(mut self, hint: &str) -> Self {
        self.hint.get_or_insert_with(|| hint.to_owned());
        self
    }

    /// A number that the field's type does not have.
    pub(super) fn out_of_range(number: i128, kind: &str) -> Self {
        if number < 0 && kind.starts_with('u') {
            let message = format!("cannot parse value as '{kind}': {number} overflows uint");
            return Self { wrong_type: true, ..Self::new(message) };
        }
        Self::new(format!("{number} is out of range for type '{kind}'"))
    }

    /// A value of another type than the field's.
    pub(super) fn expected(expected: &str, node: &Node) -> Self {
        let message =
            format!("expected type '{expected}', got unconvertible type '{}'", go_type(node));
        let hint = node.unread.as_deref().map(str::to_owned);
        Self { wrong_type: true, hint, ..Self::new(message) }
    }
}

/// What Go calls it.
pub fn go_type(node: &Node) -> &'static str {
    match node.value {
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
        _ => node.kind(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        // What is said of durations needs the key, too, as in the Collector.
        let wrong_type = ["time: ", "must be "].iter().any(|start| message.starts_with(start));
        Self { wrong_type, ..Self::new(message) }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let message = format!("expected {expected}, got {unexpected}");
        Self { wrong_type: true, ..Self::new(message) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        // Without the other spellings of the same value.
        let expected: Vec<_> = expected
            .iter()
            .copied()
            .filter(|name| !name.is_empty() && name.to_lowercase() == *name)
            .collect();
        let message = format!("unknown value \"{variant}\", valid are: {}", expected.join(", "));
        let hint = hint(variant, &expected).filter(|h| h.starts_with("did you mean"));
        Self { hint, ..Self::new(message) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: true, ..Self::new(format!("missing required field \"{field}\"")) }
    }
}
