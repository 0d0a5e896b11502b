//! Names of values that may be written in any case, as the Collector takes some of them: `NORMAL`.
//!
//! For `#[serde(deserialize_with = "crate::config::any_case")]`. Others are taken as they are alone: so they are
//! there, too.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IntoDeserializer as _, Visitor, value::StrDeserializer},
};

use super::de::NAMED;

/// Reads a value by its name in any case.
pub fn any_case<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let name = deserializer.deserialize_newtype_struct(NAMED, Text)?;
    let read = |name: &str| {
        let name: StrDeserializer<'_, D::Error> = name.into_deserializer();
        T::deserialize(name)
    };
    // What is said of an unknown name quotes it as it was written.
    read(&name.to_lowercase()).or_else(|_| read(&name))
}

/// A name; none where the configuration is none.
struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, name: D) -> Result<String, D::Error> {
        String::deserialize(name)
    }
}

/// As [`any_case`], of a value that there may be none of.
pub fn any_case_option<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    any_case(deserializer).map(Some)
}
