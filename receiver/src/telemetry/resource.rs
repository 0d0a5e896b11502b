//! `resource`: what the agent is, with what the configuration adds and takes away.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::LazyLock};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error as _, MapAccess, Visitor},
};
use serde_json::Value;

use crate::config::Mistakes;

/// The agent's id, new at each start.
static INSTANCE: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().to_string());

/// A map of attributes, of which null takes one away; or the form of OpenTelemetry's configuration files,
/// `attributes`, a list of names and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    map: BTreeMap<String, Option<String>>,
    list: Option<Vec<Attribute>>,
    /// Keys of the other form that do nothing here.
    rest: BTreeMap<String, Value>,
}

/// An element of `attributes`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    name: String,
    value: Value,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

impl Attribute {
    fn text(&self) -> Option<String> {
        match &self.value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => Some(self.value.to_string()),
            Value::Null | Value::Object(_) => None,
        }
    }
}

impl Config {
    /// A reader that does not accept other forms is told of them here.
    pub(super) fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        for (i, attribute) in self.list.iter().flatten().enumerate() {
            let at = format!("attributes::{i}");
            wrong.require(!attribute.name.is_empty(), &at, "an attribute needs a name");
            wrong.require(attribute.text().is_some(), &at, "an attribute needs a value");
        }
        if self.rest.contains_key("attributes_list") {
            let message = "resource::attributes_list is not currently supported";
            wrong.add("attributes_list", message);
        }
        wrong
    }

    /// What the agent is.
    pub(super) fn attributes(&self) -> BTreeMap<String, String> {
        let mut attributes = BTreeMap::from([
            ("service.name", Some(env!("CARGO_PKG_NAME").to_owned())),
            ("service.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
            ("service.instance.id", Some(INSTANCE.clone())),
        ]);
        attributes.extend(self.map.iter().map(|(key, value)| (key.as_str(), value.clone())));
        let listed = self.list.iter().flatten();
        attributes.extend(listed.map(|attribute| (attribute.name.as_str(), attribute.text())));
        attributes.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// The same, for the SDK.
    pub(super) fn source(&self) -> Resource {
        let pairs = self.attributes().into_iter().map(|(key, value)| KeyValue::new(key, value));
        Resource::builder_empty().with_attributes(pairs).build()
    }
}

/// An attribute of the map.
struct Legacy<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Legacy<'_> {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        Option::deserialize(value).map_err(|_| {
            let message = format!("legacy resource attribute {:?} must be string or null", self.0);
            D::Error::custom(message)
        })
    }
}

/// Keys of the list's form beside `attributes`.
const KEYS: [&str; 3] = ["attributes_list", "detectors", "schema_url"];

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of attributes")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
                /// A text, null, or the list.
                struct Given(Result<Option<String>, Vec<Attribute>>);
                impl<'de> Deserialize<'de> for Given {
                    fn deserialize<D: Deserializer<'de>>(of: D) -> Result<Self, D::Error> {
                        let value = Value::deserialize(of)?;
                        let list = value.is_array();
                        if list {
                            let list = serde_json::from_value(value).map_err(D::Error::custom)?;
                            return Ok(Self(Err(list)));
                        }
                        Ok(Self(Ok(match value {
                            Value::Null => None,
                            Value::String(text) => Some(text),
                            other => {
                                let message = format!("expected type 'string', got {other}");
                                return Err(D::Error::custom(message));
                            }
                        })))
                    }
                }
                let mut config = Config::default();
                while let Some(key) = map.next_key::<String>()? {
                    if KEYS.contains(&key.as_str()) {
                        config.rest.insert(key, map.next_value()?);
                    } else if key == "attributes" {
                        match map.next_value::<Given>()?.0 {
                            Err(list) => config.list = Some(list),
                            Ok(text) => drop(config.map.insert(key, text)),
                        }
                    } else {
                        let value = map.next_value_seed(Legacy(&key))?;
                        config.map.insert(key, value);
                    }
                }
                Ok(config)
            }
            fn visit_unit<E>(self) -> Result<Config, E> {
                Ok(Config::default())
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |value: &Option<String>| value.clone().map_or(Value::Null, Value::String);
        let map = self.map.iter().map(|(key, value)| (key.clone(), text(value)));
        let rest = self.rest.iter().map(|(key, value)| (key.clone(), value.clone()));
        let list = self
            .list
            .iter()
            .map(|list| ("attributes".to_owned(), serde_json::to_value(list).unwrap_or_default()));
        serializer.collect_map(map.chain(rest).chain(list))
    }
}

impl JsonSchema for Config {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Resource".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = generator.subschema_for::<Option<String>>();
        let list = generator.subschema_for::<Vec<Attribute>>();
        json_schema!({
            "type": "object",
            "properties": {
                "attributes": list,
                "attributes_list": {"type": "string"},
                "detectors": {"type": "object"},
                "schema_url": {"type": "string"},
            },
            "additionalProperties": text,
        })
    }
}
