//! Sections that may be absent, and be turned off by a key `enabled` beside their own.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{Deserializer, Visitor},
};

use super::{At, Error, Node, Value};

/// What a field's alias ends with, beside the name, if the key without a value turns its section on.
pub(super) const NULL_IS_ON: &str = ":null";

/// The name by which a field says that its section may have the key `enabled`.
pub(super) const OPTIONAL: &str = "$fathom::config::Optional";

impl At<'_> {
    /// A section that the key `enabled` may turn off. What it says is read all the same, for its mistakes.
    pub(super) fn optional<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Map(entries) = &self.node.value else {
            return visitor.visit_newtype_struct(self);
        };
        let Some((_, enabled)) = entries.iter().find(|(key, _)| key.name == "enabled") else {
            return visitor.visit_newtype_struct(self);
        };
        let Value::Bool(enabled) = enabled.value else {
            return Err(Error::expected("bool", enabled).at(&self.below("enabled"), enabled));
        };
        let rest = entries.iter().filter(|(key, _)| key.name != "enabled").cloned();
        let node = Node { value: Value::Map(rest.collect()), ..self.node.clone() };
        let rest = At { node: &node, ..self };
        match enabled {
            true => visitor.visit_newtype_struct(rest),
            false => visitor.visit_some(rest),
        }
    }
}

/// Reads a section that may be absent, or turned off by a key `enabled` beside its own, as the
/// Collector's optional ones. For `#[serde(deserialize_with = "crate::config::optional")]`.
pub fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Switch<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Switch<T> {
        type Value = Option<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a section")
        }
        fn visit_newtype_struct<D: Deserializer<'de>>(self, on: D) -> Result<Option<T>, D::Error> {
            Option::deserialize(on)
        }
        fn visit_some<D: Deserializer<'de>>(self, off: D) -> Result<Option<T>, D::Error> {
            T::deserialize(off).map(|_| None)
        }
    }
    deserializer.deserialize_newtype_struct(OPTIONAL, Switch(PhantomData))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::config::Section;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Part {
        size: u8,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        #[serde(deserialize_with = "crate::config::optional")]
        part: Option<Part>,
    }

    #[test]
    fn a_section_can_be_turned_off() {
        let part = |size| Some(Part { size });
        for (text, expected) in [
            ("{}", None),
            ("part:", None),
            ("part: {}", part(0)),
            ("part: {size: 1}", part(1)),
            ("part: {enabled: true, size: 1}", part(1)),
            ("part: {enabled: true}", part(0)),
            ("part: {enabled: false, size: 1}", None),
        ] {
            let section = Section::of_text(text).unwrap();
            assert_eq!(section.parse::<Whole>(), Ok(Whole { part: expected }), "{text}");
        }
        for (text, message) in [
            ("part: {enabled: false, sise: 1}", "'part' has invalid keys: sise"),
            ("part: {enabled: 7}", "'enabled' expected type 'bool', got unconvertible type 'int'"),
        ] {
            let wrong = Section::of_text(text).unwrap().parse::<Whole>().unwrap_err().0;
            assert_eq!(wrong[0].message, message);
        }
        let json = serde_json::from_str::<Whole>(r#"{"part": {"size": 2}}"#).unwrap();
        assert_eq!(json, Whole { part: part(2) });
    }
}
