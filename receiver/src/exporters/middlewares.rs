//! `middlewares`: extensions that stand between a component and the network. There are none here.

use serde::{Deserialize, Serialize};

use crate::config::Mistakes;

/// `middlewares`, which must be empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Middlewares(Vec<Middleware>);

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Middleware {
    /// The id of the extension.
    pub id: String,
}

impl Middlewares {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// None of those that are named can be had.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        for (i, Middleware { id }) in self.0.iter().enumerate() {
            let message = format!(
                "failed to resolve middleware {id:?}: middleware not found: there are no such extensions; \
                 leave it out"
            );
            wrong.add(i.to_string(), message);
        }
        wrong
    }
}
