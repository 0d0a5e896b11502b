//! A configuration as a tree that remembers where each value stands and how it was written.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::Place;

/// One value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// As it was written, for a field of type string. Of text, and of what stands for an expression: such a field takes
    /// the value `0123` of a variable as these four characters, but a `0123` of the file is a number.
    pub text: Option<String>,
    /// Where it stands; `None` for what no source says.
    pub place: Option<Place>,
    /// What to know of the value of an expression: why it is text, if that is because it is no YAML, or which variable is
    /// not set.
    pub unread: Option<Box<str>>,
    /// Whether it is text that Go's reader of YAML takes for a time.
    pub time: bool,
}

/// A YAML value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing: a key without a value.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, of 64 bits with a sign or without.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of its keys.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where it stands.
    pub place: Option<Place>,
}

impl Node {
    /// The value below a key of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(k, _)| k.name == key).map(|(_, node)| node)
    }

    /// The entries of a map; none of anything else.
    pub fn entries(&self) -> &[(Key, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Whether it is nothing, or holds nothing.
    pub fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// The value at a path of keys and list indices joined with `::`, or as far as the path leads.
    pub fn nearest(&self, path: &str) -> &Self {
        let mut node = self;
        for part in path.split("::").filter(|p| !p.is_empty()) {
            let next = match &node.value {
                Value::List(items) => part.parse().ok().and_then(|i: usize| items.get(i)),
                _ => node.get(part),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The type, in the Collector's words.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::String(_) => "string",
            Value::List(_) => "slice",
            Value::Map(_) => "map",
        }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => match i64::try_from(*value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => serializer.serialize_i128(*value),
            },
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::String(value) => serializer.serialize_str(value),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, node) in entries {
                    map.serialize_entry(&key.name, node)?;
                }
                map.end()
            }
        }
    }
}
