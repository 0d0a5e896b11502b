//! Actions on attributes: what `attributes` and `resource` have in common.

mod apply;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{config::Mistakes, value};

/// One action, as configured.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The attribute that it acts on.
    pub key: String,
    /// What it does.
    #[schemars(with = "Verb")]
    pub action: String,
    /// The value that it gives.
    pub value: Option<Value>,
    /// The attribute whose value it gives.
    pub from_attribute: String,
    /// Not available: no receiver has the metadata of requests.
    pub from_context: String,
    /// A regular expression. `extract` finds new attributes with its named groups; `delete` and
    /// `hash` act on all attributes whose keys it matches.
    pub pattern: String,
    /// The type that `convert` gives: `int`, `double` or `string`.
    pub converted_type: String,
}

/// What an action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Adds the attribute if it is absent.
    Insert,
    /// Changes it if it is present.
    Update,
    /// Does either.
    Upsert,
    /// Removes it.
    Delete,
    /// Replaces its value by the SHA-256 of it.
    Hash,
    /// Finds further attributes in its value.
    Extract,
    /// Changes the type of its value.
    Convert,
}

impl Verb {
    const ALL: [(&'static str, Self); 7] = [
        ("insert", Self::Insert),
        ("update", Self::Update),
        ("upsert", Self::Upsert),
        ("delete", Self::Delete),
        ("hash", Self::Hash),
        ("extract", Self::Extract),
        ("convert", Self::Convert),
    ];

    /// By its name in lower case.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, verb)| *verb)
    }
}

/// Actions that are valid.
#[derive(Clone, Debug)]
pub struct Actions(Vec<Action>);

#[derive(Clone, Debug)]
struct Action {
    key: String,
    does: Does,
}

#[derive(Clone, Debug)]
enum Does {
    Put { verb: Verb, source: Source },
    Delete(Option<Regex>),
    Hash(Option<Regex>),
    Extract(Regex),
    Convert(Type),
}

#[derive(Clone, Debug)]
enum Source {
    Value(AnyValue),
    Attribute(String),
}

#[derive(Clone, Copy, Debug)]
enum Type {
    Text,
    Int,
    Double,
}

impl Actions {
    /// Checks a list of actions that stands at the key `list`.
    pub fn new(list: &str, configs: Vec<Config>) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(!configs.is_empty(), list, &format!("missing required field \"{list}\""));
        let mut actions = Vec::new();
        for (i, config) in configs.into_iter().enumerate() {
            let key = config.key.clone();
            match does(i, config) {
                Ok(does) => actions.push(Action { key, does }),
                Err(message) => wrong.add(format!("{list}::{i}"), message),
            }
        }
        wrong.or(Self(actions))
    }

    /// Applies all actions, in their order.
    pub fn apply(&self, attributes: &mut Vec<KeyValue>) {
        for action in &self.0 {
            action.apply(attributes);
        }
    }
}

/// What the `i`-th action does, or the Collector's text about what is wrong with it.
fn does(i: usize, config: Config) -> Result<Does, String> {
    let Config { key, action, value, from_attribute, from_context, pattern, converted_type } =
        config;
    let name = action.to_lowercase();
    let Some(verb) = Verb::named(&name) else {
        return Err(format!(
            "error creating AttrProc due to unsupported action {name:?} at the {i}-th actions"
        ));
    };
    if key.is_empty() && (pattern.is_empty() || !matches!(verb, Verb::Delete | Verb::Hash)) {
        let field = match verb {
            Verb::Delete | Verb::Hash => {
                "(at least one of \"key\" and \"pattern\" have to be used)"
            }
            _ => "\"key\"",
        };
        return Err(format!(
            "error creating AttrProc due to missing required field {field} at the {i}-th actions"
        ));
    }
    let unused = |what: &str, many: &str| {
        format!(
            "error creating AttrProc. Action \"{name}\" does not use {what}. {many} must not be \
             specified for {i}-th action"
        )
    };
    let regex = || {
        Regex::new(&pattern).map_err(|_| {
            format!(
                "error creating AttrProc. Field \"pattern\" has invalid pattern: \"{pattern}\" to \
                 be set at the {i}-th actions"
            )
        })
    };
    let sources = usize::from(value.is_some())
        + usize::from(!from_attribute.is_empty())
        + usize::from(!from_context.is_empty());
    if verb != Verb::Convert && !converted_type.is_empty() {
        return Err(unused("the \"converted_type\" field", "This"));
    }
    match verb {
        Verb::Insert | Verb::Update | Verb::Upsert => {
            if sources > 1 {
                return Err(format!(
                    "error creating AttrProc due to multiple value sources being set at the {i}-th \
                     actions"
                ));
            }
            if !pattern.is_empty() {
                return Err(unused("the \"pattern\" field", "This"));
            }
            let source = match value {
                Some(value) => Source::Value(value::from_config(&value)),
                None if !from_attribute.is_empty() => Source::Attribute(from_attribute),
                None if !from_context.is_empty() => {
                    return Err(
                        "from_context is not available: no receiver of this agent has the \
                                metadata of requests"
                            .to_owned(),
                    );
                }
                None => {
                    return Err(format!(
                        "error creating AttrProc. Either field \"value\", \"from_attribute\" or \
                         \"from_context\" setting must be specified for {i}-th action"
                    ));
                }
            };
            Ok(Does::Put { verb, source })
        }
        Verb::Delete | Verb::Hash => {
            if sources > 0 {
                return Err(unused("\"value\" or \"from_attribute\" field", "These"));
            }
            let keys = if pattern.is_empty() { None } else { Some(regex()?) };
            Ok(if verb == Verb::Delete { Does::Delete(keys) } else { Does::Hash(keys) })
        }
        Verb::Extract => {
            if sources > 0 {
                return Err(unused("a value source field", "These"));
            }
            if pattern.is_empty() {
                return Err(format!(
                    "error creating AttrProc due to missing required field \"pattern\" for action \
                     \"{name}\" at the {i}-th action"
                ));
            }
            let regex = regex()?;
            if regex.captures_len() <= 1 {
                return Err(format!(
                    "error creating AttrProc. Field \"pattern\" contains no named matcher groups at \
                     the {i}-th actions"
                ));
            }
            if regex.capture_names().skip(1).any(|name| name.is_none()) {
                return Err(format!(
                    "error creating AttrProc. Field \"pattern\" contains at least one unnamed \
                     matcher group at the {i}-th actions"
                ));
            }
            Ok(Does::Extract(regex))
        }
        Verb::Convert => {
            if sources > 0 || !pattern.is_empty() {
                return Err(unused("value sources or \"pattern\" field", "These"));
            }
            match converted_type.as_str() {
                "string" => Ok(Does::Convert(Type::Text)),
                "int" => Ok(Does::Convert(Type::Int)),
                "double" => Ok(Does::Convert(Type::Double)),
                "" => Err(format!(
                    "error creating AttrProc due to missing required field \"converted_type\" for \
                     action \"{name}\" at the {i}-th action"
                )),
                other => Err(format!(
                    "error creating AttrProc due to invalid value \"{other}\" in field \
                     \"converted_type\" for action \"{name}\" at the {i}-th action"
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests;
