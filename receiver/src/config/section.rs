//! A part of a configuration, handed to the component that it belongs to.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, Visitor},
};

use super::{Mistake, Mistakes, de, node::Node, yaml};

/// The YAML below one component's id, still knowing where each value stands.
#[derive(Clone, Debug, Default)]
pub struct Section(Node);

impl Section {
    /// The section that a node is.
    pub fn new(node: Node) -> Self {
        Self(node)
    }

    /// The section that a text in YAML is.
    pub fn of_text(yaml: &str) -> Result<Self, Mistake> {
        yaml::parse(yaml, &"text".into()).map(Self)
    }

    /// Reads it as `T`, with every unknown key and every value of the wrong type reported.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Mistakes> {
        let (value, wrong) = de::read(&self.0);
        match value {
            Some(value) => wrong.or(value),
            None => Err(wrong),
        }
    }

    /// Reads it as `C` and checks that with `new`, even if there are mistakes in it already: all are
    /// reported together.
    pub fn configure<C: DeserializeOwned, T>(
        &self,
        new: impl FnOnce(C) -> Result<T, Mistakes>,
    ) -> Result<T, Mistakes> {
        let (config, mut wrong) = de::read(&self.0);
        let Some(config) = config else { return Err(wrong) };
        match new(config) {
            Ok(made) => wrong.or(made),
            Err(mut more) => {
                self.locate(&mut more);
                // A value that could not be read was left at its default, which may be wrong too: what
                // is said about it, or about what holds it, may be its consequence.
                more.0.retain(|m| {
                    !wrong.0.iter().any(|w| within(&m.path, &w.path) || within(&w.path, &m.path))
                });
                wrong.0.append(&mut more.0);
                Err(wrong)
            }
        }
    }

    /// What cannot be read as `C`: keys that it does not have, values of other types.
    pub fn unreadable<C: DeserializeOwned>(&self) -> Mistakes {
        de::read::<C>(&self.0).1
    }

    /// Reads it as `C` and writes that: what it says, and the defaults of what it does not say.
    pub fn effective<C: DeserializeOwned + Serialize + Default>(&self) -> serde_json::Value {
        let config: C = de::read(&self.0).0.unwrap_or_default();
        serde_json::to_value(config).expect("a configuration serialises")
    }

    /// Finds the places of mistakes that know their path alone.
    pub fn locate(&self, mistakes: &mut Mistakes) {
        for mistake in mistakes.0.iter_mut().filter(|m| m.place.is_none()) {
            let node = self.0.nearest(&mistake.path);
            mistake.place = node.place.clone();
            if mistake.hint.is_none() {
                mistake.hint = node.unread.as_deref().map(str::to_owned);
            }
        }
    }
}

/// Whether a path is another, or leads on from it.
fn within(path: &str, holder: &str) -> bool {
    path.strip_prefix(holder)
        .is_some_and(|rest| holder.is_empty() || rest.is_empty() || rest.starts_with("::"))
}

/// A field whose type is decided later, by something that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct Raw(Node);

impl Raw {
    /// As a section of its own; its mistakes carry places, and paths relative to it.
    pub fn section(&self) -> Section {
        Section(self.0.clone())
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Handed;
        impl Visitor<'_> for Handed {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section of a configuration file")
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
                de::handed().ok_or_else(|| E::custom("a section can be read from a file alone"))
            }
        }
        let node =
            deserializer.deserialize_newtype_struct(de::RAW, Handed).map_err(D::Error::custom)?;
        Ok(Self(node))
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Raw {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Raw".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Level {
        #[default]
        Low,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        level: Level,
    }

    #[test]
    fn a_name_is_no_map() {
        let read = |text| Section::of_text(text).expect("valid").parse::<Whole>();
        assert_eq!(read("level: low"), Ok(Whole::default()));
        let wrong = read("level: {low: }").expect_err("a map").0;
        let message =
            "'level' expected type 'string', got unconvertible type 'map[string]interface {}'";
        assert_eq!(wrong[0].message, message);
    }

    #[test]
    fn whatever_a_section_holds_can_be_shown() {
        let section =
            Section::of_text("{a: 99999999999999999999, b: -9223372036854775808, c: .nan}");
        let shown = section.expect("valid").effective::<BTreeMap<String, Raw>>();
        let expected = serde_json::json!({"a": 1e20, "b": i64::MIN, "c": null});
        assert_eq!(shown, expected);
    }
}
