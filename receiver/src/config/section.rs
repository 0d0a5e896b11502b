//! A part of a configuration, handed to the component that it belongs to.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Mistakes;

/// The YAML below one component's id, still knowing where each value stands.
#[derive(Clone, Debug, Default)]
pub struct Section(serde_json::Value);

impl Section {
    /// Reads it as `T`, with every unknown key and every value of the wrong type reported.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Mistakes> {
        serde_json::from_value(self.0.clone()).map_err(|e| {
            let mut wrong = Mistakes::default();
            wrong.add("", e.to_string());
            wrong
        })
    }
}

/// A field whose type is decided later, by something that the configuration names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Raw(serde_json::Value);

impl Raw {
    /// As a section of its own; its mistakes carry places, and paths relative to it.
    pub fn section(&self) -> Section {
        Section(self.0.clone())
    }
}
