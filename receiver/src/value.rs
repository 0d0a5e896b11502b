//! Attribute values: made from a configuration, and as text.

use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
};
use serde_json::Value as Json;

/// A configured value as OTLP's; null is none.
pub fn from_config(value: &Json) -> AnyValue {
    let value = match value {
        Json::Null => None,
        Json::Bool(value) => Some(Value::BoolValue(*value)),
        Json::Number(number) => Some(match number.as_i64() {
            Some(number) => Value::IntValue(number),
            None => Value::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        }),
        Json::String(text) => Some(Value::StringValue(text.clone())),
        Json::Array(items) => {
            let values = items.iter().map(from_config).collect();
            Some(Value::ArrayValue(ArrayValue { values }))
        }
        Json::Object(keys) => {
            let values = keys
                .iter()
                .map(|(key, value)| KeyValue {
                    key: key.clone(),
                    value: Some(from_config(value)),
                    ..Default::default()
                })
                .collect();
            Some(Value::KvlistValue(KeyValueList { values }))
        }
    };
    AnyValue { value }
}

/// The value of an attribute; `None` if it is absent or empty.
pub fn get<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|a| a.key == key)?.value.as_ref()?.value.as_ref()
}

/// A value as the Collector writes it as text: what is not a string as in JSON.
pub fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::DoubleValue(number)) => float(*number),
        Some(Value::BytesValue(bytes)) => STANDARD.encode(bytes),
        Some(value) => json(value).to_string(),
        None => String::new(),
    }
}

/// A number as JavaScript writes it.
pub fn float(number: f64) -> String {
    let size = number.abs();
    match size != 0.0 && size.is_finite() && !(1e-6..1e21).contains(&size) {
        true => format!("{number:e}").replace('e', if size < 1.0 { "e" } else { "e+" }),
        false => number.to_string(),
    }
}

fn json(value: &Value) -> Json {
    let inner =
        |v: &Option<AnyValue>| v.as_ref().and_then(|v| v.value.as_ref()).map_or(Json::Null, json);
    match value {
        Value::StringValue(text) => text.as_str().into(),
        Value::BoolValue(value) => (*value).into(),
        Value::IntValue(value) => (*value).into(),
        // As Go writes it: without a fraction, if there is none.
        Value::DoubleValue(value) if value.fract() == 0.0 && value.abs() < 1e15 => {
            (*value as i64).into()
        }
        Value::DoubleValue(value) => (*value).into(),
        Value::ArrayValue(array) => {
            array.values.iter().map(|v| v.value.as_ref().map_or(Json::Null, json)).collect()
        }
        Value::KvlistValue(list) => {
            list.values.iter().map(|kv| (kv.key.clone(), inner(&kv.value))).collect()
        }
        Value::BytesValue(bytes) => STANDARD.encode(bytes).into(),
        // Only profiles have a string table.
        Value::StringValueStrindex(_) => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_collector_writes_them() {
        let written = |json| text(from_config(&json).value.as_ref());
        assert_eq!(written(serde_json::json!("a")), "a");
        assert_eq!(written(serde_json::json!(7)), "7");
        assert_eq!(written(serde_json::json!(true)), "true");
        assert_eq!(written(serde_json::json!(1.0)), "1");
        assert_eq!(written(serde_json::json!(1e21)), "1e+21");
        assert_eq!(written(serde_json::json!(1.5e-7)), "1.5e-7");
        assert_eq!(written(serde_json::json!({"a": [1, null, "b"]})), r#"{"a":[1,null,"b"]}"#);
        assert_eq!(written(serde_json::json!(null)), "");
        assert_eq!(written(serde_json::json!([1.0, 0.5])), "[1,0.5]");
        assert_eq!(text(Some(&Value::BytesValue(vec![0, 1, 254]))), "AAH+");
    }
}
