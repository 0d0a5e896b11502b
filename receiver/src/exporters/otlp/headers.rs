//! `headers` of requests.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use hyper::http::{HeaderMap, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use crate::config::{Mistakes, Secret};

/// A map, or the Collector's other way to write one: a list of `{name, value}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(Vec<(String, Secret)>);

impl Headers {
    /// As they are written, for who writes a configuration.
    pub fn exposed(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()))
    }

    /// As they are sent.
    pub fn read(&self) -> Result<HeaderMap, Mistakes> {
        let mut wrong = Mistakes::default();
        let mut headers = HeaderMap::new();
        let mut known = BTreeSet::new();
        let twice: Vec<_> =
            self.0.iter().map(|(name, _)| &**name).filter(|n| !known.insert(*n)).collect();
        if !twice.is_empty() {
            wrong.add("", format!("duplicate keys in map-style list: [{}]", twice.join(" ")));
        }
        let mut unsendable = Vec::new();
        for (name, secret) in &self.0 {
            match (HeaderName::from_str(name), HeaderValue::from_str(secret.expose())) {
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
                // The Collector's own examples have one.
                (Err(_), _) => unsendable.push(name),
                (_, Err(_)) => wrong.add(name, "has a value that no header can have"),
            }
        }
        if let Some(first) = unsendable.first() {
            let number = unsendable.len();
            tracing::warn!("no request can have a header {first:?}: {number} are left out");
        }
        wrong.or(headers)
    }
}

#[cfg(test)]
impl From<(&str, &str)> for Headers {
    fn from((name, value): (&str, &str)) -> Self {
        Self(vec![(name.to_owned(), Secret::new(value))])
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// An element of the list.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pair {
    name: String,
    value: Secret,
}

impl JsonSchema for Headers {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<BTreeMap<String, Secret>>();
        let list = generator.subschema_for::<Vec<Pair>>();
        json_schema!({"anyOf": [map, list]})
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Headers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of headers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some(header) = map.next_entry()? {
                    headers.push(header);
                }
                Ok(Headers(headers))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some(Pair { name, value }) = list.next_element()? {
                    headers.push((name, value));
                }
                Ok(Headers(headers))
            }
            fn visit_unit<E>(self) -> Result<Headers, E> {
                Ok(Headers::default())
            }
        }
        deserializer.deserialize_any(Either)
    }
}
