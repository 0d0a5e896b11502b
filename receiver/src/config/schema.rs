//! The JSON Schema of configurations, from the types that read them: editors complete and check with it.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::Kinds;
use crate::{batch::Signal, component::Factory, telemetry};

/// An expression may stand for any value.
const EXPRESSION: &str = r"\$\{.+\}";

/// The schema of one type.
pub fn of<C: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.meta_schema = None;
        // Types of several components have the same name.
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<C>().to_value();
    if let Value::Object(schema) = &mut schema {
        // The name of the type in the code.
        schema.remove("title");
    }
    schema
}

/// The schema of a whole configuration.
pub fn schema(kinds: &Kinds<'_>) -> Value {
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Fathom",
        "description": "The configuration of Fathom.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "receivers": components("Where data comes from.", kinds.receivers),
            "processors": components("What happens to it.", kinds.processors),
            "exporters": components("Where it goes.", kinds.exporters),
            "connectors": components::<()>("There are none.", &[]),
            "extensions": components("What serves the agent itself.", kinds.extensions),
            "service": service(),
        },
    });
    lenient(&mut schema);
    schema
}

/// A section of components, by their ids.
fn components<K>(description: &str, factories: &[Factory<K>]) -> Value {
    let patterns: Map<String, Value> = factories
        .iter()
        .map(|factory| {
            let names = [&[factory.name], factory.aliases].concat().join("|");
            let mut schema = (factory.schema)();
            schema["description"] = factory.description.into();
            (format!("^({names})(/.+)?$"), schema)
        })
        .collect();
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": false,
        "patternProperties": patterns,
    })
}

fn service() -> Value {
    let ids = |description: &str| {
        json!({
            "description": description,
            "type": "array",
            "items": {"type": "string"},
        })
    };
    let signals = Signal::ALL.map(Signal::name).join("|");
    json!({
        "description": "What runs.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "extensions": ids("The extensions that run."),
            "pipelines": {
                "description": "How data flows, by signal.",
                "type": "object",
                "additionalProperties": false,
                "patternProperties": {
                    format!("^({signals})(/.+)?$"): {
                        "type": "object",
                        "additionalProperties": false,
                        "properties": {
                            "receivers": ids("Where data comes from."),
                            "processors": ids("What happens to it, in this order."),
                            "exporters": ids("Where it goes."),
                        },
                    },
                },
            },
            "telemetry": of::<telemetry::Config>(),
        },
    })
}

/// Takes the values of an enum out of its schema.
fn choices(schema: &mut Map<String, Value>) -> Option<Vec<Value>> {
    let single = |choice: &Value| choice.get("const").or(choice.get("enum")).is_some();
    if let Some(values) = schema.remove("enum") {
        schema.remove("type");
        return Some(vec![json!({"enum": values})]);
    }
    match schema.get("oneOf") {
        Some(Value::Array(choices)) if choices.iter().all(single) => {}
        _ => return None,
    }
    match schema.remove("oneOf") {
        Some(Value::Array(choices)) => Some(choices),
        _ => None,
    }
}

/// Allows what is read besides a value of the type itself: nothing, an expression, a list as text, and in
/// maps a path as a key.
fn lenient(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    for key in ["properties", "patternProperties"] {
        if let Some(Value::Object(nested)) = schema.get_mut(key) {
            nested.values_mut().for_each(lenient);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(nested) = schema.get_mut(key) {
            lenient(nested);
        }
    }
    if let Some(Value::Array(nested)) = schema.get_mut("anyOf") {
        nested.iter_mut().for_each(lenient);
    }
    if let Some(mut choices) = choices(schema) {
        choices.push(json!({"type": ["string", "null"], "pattern": EXPRESSION}));
        schema.insert("anyOf".to_owned(), choices.into());
        return;
    }
    let types = match schema.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => {
            several.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect()
        }
        _ => return,
    };
    let is = |name: &str| types.iter().any(|t| t == name);
    if is("object") && schema.get("additionalProperties") == Some(&json!(false)) {
        let patterns = schema.entry("patternProperties").or_insert_with(|| json!({}));
        patterns["::"] = json!(true);
    }
    let mut more = types.clone();
    for name in ["null", "string"] {
        if !is(name) {
            more.push(name.to_owned());
        }
    }
    if !is("string") && !is("array") {
        schema.insert("pattern".to_owned(), EXPRESSION.into());
    } else if let Some(Value::String(pattern)) = schema.get_mut("pattern") {
        *pattern = format!("{pattern}|{EXPRESSION}");
    }
    schema.insert("type".to_owned(), more.into());
}
