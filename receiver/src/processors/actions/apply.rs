//! What the actions do.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use sha2::{Digest as _, Sha256};

use super::{Action, Does, Source, Type, Verb};
use crate::value;

impl Action {
    pub(super) fn apply(&self, attributes: &mut Vec<KeyValue>) {
        match &self.does {
            Does::Put { verb, source, default } => {
                let value = match source {
                    Source::Value(value) => Some(value.clone()),
                    Source::Attribute(from) => {
                        attributes.iter().find(|a| a.key == *from).and_then(|a| a.value.clone())
                    }
                    Source::None => None,
                };
                let Some(value) = value.or_else(|| default.clone()) else { return };
                let at = attributes.iter().position(|a| a.key == self.key);
                match (at, verb) {
                    (Some(_), Verb::Insert) | (None, Verb::Update) => {}
                    _ => put(attributes, &self.key, value),
                }
            }
            Does::Delete(keys) => attributes.retain(|a| {
                a.key != self.key && !keys.as_ref().is_some_and(|keys| keys.is_match(&a.key))
            }),
            Does::Hash(keys) => {
                for attribute in attributes {
                    // As in the Collector, what is meant by its key and by the pattern is hashed twice.
                    let by_pattern =
                        keys.as_ref().is_some_and(|keys| keys.is_match(&attribute.key));
                    for _ in 0..usize::from(attribute.key == self.key) + usize::from(by_pattern) {
                        let hashed = hash(attribute.value.take().and_then(|v| v.value));
                        attribute.value =
                            Some(AnyValue { value: Some(Value::StringValue(hashed)) });
                    }
                }
            }
            Does::Extract(pattern) => {
                let Some(Value::StringValue(text)) = value::get(attributes, &self.key) else {
                    return;
                };
                let text = text.clone();
                let Some(found) = pattern.captures(&text) else { return };
                for name in pattern.capture_names().flatten() {
                    // A group that took no part in the match is empty, as in Go.
                    let group = found.name(name).map_or("", |group| group.as_str());
                    let value = Some(Value::StringValue(group.to_owned()));
                    put(attributes, name, AnyValue { value });
                }
            }
            Does::Convert(to) => {
                let Some(attribute) = attributes.iter_mut().find(|a| a.key == self.key) else {
                    return;
                };
                let now = attribute.value.as_ref().and_then(|v| v.value.as_ref());
                if let Some(value) = convert(now, *to) {
                    attribute.value = Some(AnyValue { value: Some(value) });
                }
            }
        }
    }
}

fn put(attributes: &mut Vec<KeyValue>, key: &str, value: AnyValue) {
    match attributes.iter_mut().find(|a| a.key == key) {
        Some(attribute) => attribute.value = Some(value),
        None => attributes.push(KeyValue {
            key: key.to_owned(),
            value: Some(value),
            ..Default::default()
        }),
    }
}

/// SHA-256 in hexadecimal digits, of the bytes that the Collector hashes; of what is no scalar it is
/// empty.
fn hash(value: Option<Value>) -> String {
    let bytes = match value {
        Some(Value::StringValue(text)) => text.into_bytes(),
        Some(Value::BoolValue(value)) => vec![u8::from(value)],
        Some(Value::IntValue(value)) => value.to_le_bytes().to_vec(),
        Some(Value::DoubleValue(value)) => value.to_bits().to_le_bytes().to_vec(),
        _ => return String::new(),
    };
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value in another type; `None` if it has it already or cannot have it.
fn convert(value: Option<&Value>, to: Type) -> Option<Value> {
    Some(match (to, value) {
        (Type::Text, Some(Value::StringValue(_))) => return None,
        (Type::Text, value) => Value::StringValue(value::text(value)),
        (Type::Int, Some(Value::DoubleValue(value))) => Value::IntValue(*value as i64),
        (Type::Int, Some(Value::BoolValue(value))) => Value::IntValue((*value).into()),
        (Type::Int, Some(Value::StringValue(text))) => Value::IntValue(text.parse().ok()?),
        (Type::Double, Some(Value::IntValue(value))) => Value::DoubleValue(*value as f64),
        (Type::Double, Some(Value::BoolValue(value))) => Value::DoubleValue((*value).into()),
        (Type::Double, Some(Value::StringValue(text))) => Value::DoubleValue(text.parse().ok()?),
        _ => return None,
    })
}
