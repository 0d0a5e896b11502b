//! Actions on attributes: what `attributes` and `resource` have in common.

mod apply;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::matching::regexp;
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
    /// A part of the request that the data came with, such as `metadata.key`, whose value it gives. What receivers make
    /// here comes with no request: there is nothing of it but an empty `client.address`.
    pub from_context: String,
    /// The value that it gives if `from_attribute` or `from_context` leads to none.
    pub default_value: Option<Value>,
    /// A regular expression. `extract` finds new attributes with its named groups; `delete` and
    /// `hash` act on all attributes whose keys it matches.
    pub pattern: String,
    /// The type that `convert` gives: `int`, `double` or `string`.
    pub converted_type: String,
}

/// What an action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("any-case" = true))]
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
    Put { verb: Verb, source: Source, default: Option<AnyValue> },
    Delete(Option<Regex>),
    Hash(Option<Regex>),
    Extract(Regex),
    Convert(Type),
}

#[derive(Clone, Debug)]
enum Source {
    Value(AnyValue),
    Attribute(String),
    /// Only the default.
    None,
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
    let Config {
        key, action, value, from_attribute, from_context, pattern, converted_type, ..
    } = config;
    let name = action.to_lowercase();
    let wrong = |what: String| {
        format!("error with key \"{key}\" ({i}-th action): error creating AttrProc{what}")
    };
    let verb = Verb::named(&name);
    let by_pattern = matches!(verb, Some(Verb::Delete | Verb::Hash));
    if key.is_empty() && (pattern.is_empty() || !by_pattern) {
        let field = match by_pattern {
            true => "(at least one of \"key\" and \"pattern\" have to be used)",
            false => "\"key\"",
        };
        return Err(format!(
            "error creating AttrProc due to missing required field {field} at the {i}-th action"
        ));
    }
    let Some(verb) = verb else {
        return Err(wrong(format!(" due to unsupported action {name:?}")));
    };
    let unused = |what: &str, many: &str| {
        wrong(format!(". Action \"{name}\" does not use {what}. {many} must not be specified"))
    };
    let regex = || {
        regexp(&pattern)
            .map_err(|_| wrong(format!(". Field \"pattern\" has invalid pattern: \"{pattern}\"")))
    };
    let sources = usize::from(value.is_some())
        + usize::from(!from_attribute.is_empty())
        + usize::from(!from_context.is_empty());
    let typed = !converted_type.is_empty();
    let no_type = || match typed {
        true => Err(unused("the \"converted_type\" field", "This")),
        false => Ok(()),
    };
    match verb {
        Verb::Insert | Verb::Update | Verb::Upsert => {
            if sources == 0 && config.default_value.is_none() {
                return Err(wrong(
                    ". Either field \"value\", \"from_attribute\", \"from_context\", or \
                     \"default_value\" must be specified"
                        .to_owned(),
                ));
            }
            if sources > 1 {
                return Err(wrong(" due to multiple value sources being set".to_owned()));
            }
            if !pattern.is_empty() {
                return Err(unused("the \"pattern\" field", "This"));
            }
            no_type()?;
            let source = match value {
                Some(value) => Source::Value(value::from_config(&value)),
                None if !from_attribute.is_empty() => Source::Attribute(from_attribute),
                // There is no request, so its address is empty and it has nothing else.
                None if from_context == "client.address" => {
                    Source::Value(value::from_config(&Value::String(String::new())))
                }
                None => Source::None,
            };
            let default = config.default_value.as_ref().map(value::from_config);
            Ok(Does::Put { verb, source, default })
        }
        Verb::Delete | Verb::Hash => {
            if value.is_some() || !from_attribute.is_empty() {
                return Err(unused("\"value\" or \"from_attribute\" field", "These"));
            }
            let keys = if pattern.is_empty() { None } else { Some(regex()?) };
            no_type()?;
            Ok(if verb == Verb::Delete { Does::Delete(keys) } else { Does::Hash(keys) })
        }
        Verb::Extract => {
            if sources > 0 {
                return Err(unused("a value source field", "These"));
            }
            if pattern.is_empty() {
                return Err(wrong(format!(
                    " due to missing required field \"pattern\" for action \"{name}\""
                )));
            }
            no_type()?;
            let regex = regex()?;
            let holds = |what: &str| wrong(format!(". Field \"pattern\" contains {what}"));
            if regex.captures_len() <= 1 {
                return Err(holds("no named matcher groups"));
            }
            if regex.capture_names().skip(1).any(|name| name.is_none()) {
                return Err(holds("at least one unnamed matcher group"));
            }
            Ok(Does::Extract(regex))
        }
        Verb::Convert => {
            if sources > 0 || !pattern.is_empty() {
                return Err(unused("value sources or \"pattern\" field", "These"));
            }
            let to = match converted_type.as_str() {
                "string" => Type::Text,
                "int" => Type::Int,
                "double" => Type::Double,
                "" => {
                    return Err(wrong(format!(
                        " due to missing required field \"converted_type\" for action \"{name}\""
                    )));
                }
                other => {
                    return Err(wrong(format!(
                        " due to invalid value \"{other}\" in field \"converted_type\" for action \
                         \"{name}\""
                    )));
                }
            };
            Ok(Does::Convert(to))
        }
    }
}

#[cfg(test)]
mod tests;
