//! Actions on attributes: what `attributes` and `resource` have in common.

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, any_value::Value as Proto,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::config::Mistakes;

/// One action, as configured.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The attribute that it acts on.
    pub key: String,
    /// What it does.
    #[serde(deserialize_with = "verb")]
    pub action: Option<Verb>,
    /// The value that it gives.
    pub value: Option<Value>,
    /// The attribute whose value it gives.
    pub from_attribute: String,
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
}

/// The names of actions are case-insensitive, as in the Collector.
fn verb<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Verb>, D::Error> {
    use serde::de::{Error as _, IntoDeserializer as _, value::StrDeserializer};
    let text = String::deserialize(deserializer)?.to_lowercase();
    let name: StrDeserializer<'_, D::Error> = text.as_str().into_deserializer();
    Verb::deserialize(name).map(Some).map_err(D::Error::custom)
}

/// Actions that are valid.
#[derive(Clone, Debug)]
pub struct Actions(Vec<Action>);

#[derive(Clone, Debug)]
struct Action {
    key: String,
    verb: Verb,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Value(AnyValue),
    Attribute(String),
    /// Deleting needs none.
    None,
}

impl Actions {
    /// Checks a list of actions that stands at the key `list`.
    pub fn new(list: &str, configs: Vec<Config>) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(!configs.is_empty(), list, &format!("missing required field \"{list}\""));
        let mut actions = Vec::new();
        for (i, config) in configs.into_iter().enumerate() {
            let path = format!("{list}::{i}");
            let Config { key, action, value, from_attribute } = config;
            let Some(verb) = action else {
                wrong.add(
                    &path,
                    format!("error creating AttrProc due to unsupported action \"\" at the {i}-th actions"),
                );
                continue;
            };
            if key.is_empty() {
                // `pattern` is what the Collector has besides; its text is kept.
                let field = match verb {
                    Verb::Delete => "(at least one of \"key\" and \"pattern\" have to be used)",
                    _ => "\"key\"",
                };
                wrong.add(
                    &path,
                    format!(
                        "error creating AttrProc due to missing required field {field} at the {i}-th actions"
                    ),
                );
            }
            let source = match (verb, value, from_attribute.as_str()) {
                (Verb::Delete, None, "") => Source::None,
                (Verb::Delete, ..) => {
                    wrong.add(
                        &path,
                        format!(
                            "error creating AttrProc. Action \"delete\" does not use \"value\" or \
                             \"from_attribute\" field. These must not be specified for {i}-th action"
                        ),
                    );
                    continue;
                }
                (_, Some(value), "") => match any_value(&value) {
                    Some(value) => Source::Value(value),
                    None => {
                        wrong
                            .add(format!("{path}::value"), "must be a scalar or a list of scalars");
                        continue;
                    }
                },
                (_, None, "") => {
                    wrong.add(
                        &path,
                        format!(
                            "error creating AttrProc. Either field \"value\", \"from_attribute\" or \
                             \"from_context\" setting must be specified for {i}-th action"
                        ),
                    );
                    continue;
                }
                (_, Some(_), _) => {
                    wrong.add(
                        &path,
                        format!(
                            "error creating AttrProc due to multiple value sources being set at the \
                             {i}-th actions"
                        ),
                    );
                    continue;
                }
                (_, None, from) => Source::Attribute(from.to_owned()),
            };
            actions.push(Action { key, verb, source });
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

impl Action {
    fn apply(&self, attributes: &mut Vec<KeyValue>) {
        let at = attributes.iter().position(|a| a.key == self.key);
        let value = match &self.source {
            Source::None => {
                attributes.retain(|a| a.key != self.key);
                return;
            }
            Source::Value(value) => value.clone(),
            Source::Attribute(from) => {
                let Some(source) = attributes.iter().find(|a| a.key == *from) else { return };
                let Some(value) = source.value.clone() else { return };
                value
            }
        };
        match (at, self.verb) {
            (Some(at), Verb::Update | Verb::Upsert) => attributes[at].value = Some(value),
            (None, Verb::Insert | Verb::Upsert) => attributes.push(KeyValue {
                key: self.key.clone(),
                value: Some(value),
                ..Default::default()
            }),
            _ => {}
        }
    }
}

/// A YAML value as OTLP's; maps and null have no attribute form here.
fn any_value(value: &Value) -> Option<AnyValue> {
    let value = match value {
        Value::Bool(value) => Proto::BoolValue(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Proto::IntValue(number),
            None => Proto::DoubleValue(number.as_f64()?),
        },
        Value::String(text) => Proto::StringValue(text.clone()),
        Value::Array(items) => Proto::ArrayValue(ArrayValue {
            values: items.iter().map(any_value).collect::<Option<_>>()?,
        }),
        Value::Null | Value::Object(_) => return None,
    };
    Some(AnyValue { value: Some(value) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::pairs;

    fn actions(list: Value) -> Result<Actions, Mistakes> {
        Actions::new("actions", serde_json::from_value(list).expect("of the right types"))
    }

    fn applied(list: Value, before: &[(&str, &str)]) -> Vec<KeyValue> {
        let mut attributes = pairs(before);
        actions(list).expect("valid").apply(&mut attributes);
        attributes
    }

    #[test]
    fn each_verb_does_what_it_says() {
        let one =
            |action: &str| serde_json::json!([{"key": "a", "action": action, "value": "new"}]);
        let (absent, present) = ([("b", "1")], [("a", "old"), ("b", "1")]);
        assert_eq!(applied(one("insert"), &absent), pairs(&[("b", "1"), ("a", "new")]));
        assert_eq!(applied(one("insert"), &present), pairs(&present));
        assert_eq!(applied(one("update"), &absent), pairs(&absent));
        assert_eq!(applied(one("UPDATE"), &present), pairs(&[("a", "new"), ("b", "1")]));
        assert_eq!(applied(one("upsert"), &absent), pairs(&[("b", "1"), ("a", "new")]));
        assert_eq!(applied(one("Upsert"), &present), pairs(&[("a", "new"), ("b", "1")]));
        let delete = serde_json::json!([{"key": "a", "action": "delete"}]);
        assert_eq!(applied(delete, &present), pairs(&absent));
    }

    #[test]
    fn actions_run_in_order_and_copy() {
        let list = serde_json::json!([
            {"key": "c", "action": "insert", "from_attribute": "a"},
            {"key": "a", "action": "delete"},
            {"key": "d", "action": "insert", "from_attribute": "a"},
        ]);
        assert_eq!(applied(list, &[("a", "1")]), pairs(&[("c", "1")]));
    }

    #[test]
    fn values_keep_their_type() {
        let list = serde_json::json!([{"key": "a", "action": "insert", "value": 7}]);
        let value = applied(list, &[]).remove(0).value.and_then(|v| v.value);
        assert_eq!(value, Some(Proto::IntValue(7)));
    }

    #[test]
    fn every_mistake_is_reported() {
        let wrong = actions(serde_json::json!([
            {"key": "a"},
            {"action": "delete", "key": ""},
            {"key": "a", "action": "insert"},
            {"key": "a", "action": "insert", "value": 1, "from_attribute": "b"},
            {"key": "a", "action": "delete", "value": 1},
            {"key": "a", "action": "insert", "value": {"b": 1}},
        ]))
        .expect_err("all are wrong");
        assert_eq!(wrong.0.len(), 6, "{wrong:?}");
        assert!(actions(serde_json::json!([])).is_err());
    }
}
