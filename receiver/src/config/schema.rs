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
            (format!(r"^\s*({names})\s*(/.+)?$"), schema)
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
                    format!(r"^\s*({signals})\s*(/.+)?$"): {
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

/// A pattern of these names in any case.
fn insensitive<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let letter = |c: char| format!("[{}{}]", c.to_lowercase(), c.to_uppercase());
    let name = |name: &str| name.chars().map(letter).collect::<String>();
    format!("^({})$", names.map(name).collect::<Vec<_>>().join("|"))
}

/// Adds other spellings of an enum's values, which its type names: `any-case`, and `also` those that mean the same.
fn spellings(choices: &mut Vec<Value>, any_case: Option<Value>, also: Option<Value>) {
    if let Some(names) = also {
        choices.push(json!({"enum": names}));
    }
    if any_case == Some(Value::Bool(true)) {
        let lists = choices.iter().filter_map(|choice| choice["enum"].as_array()).flatten();
        let one = choices.iter().map(|choice| &choice["const"]);
        let pattern = insensitive(lists.chain(one).filter_map(Value::as_str));
        choices.push(json!({"type": "string", "pattern": pattern}));
    }
}

/// Gives a section that may be turned off the key that does so.
fn switch(schema: &mut Map<String, Value>) {
    if schema.remove("switch").is_none() {
        return;
    }
    let enabled = json!({"description": "Whether the section counts.", "type": "boolean"});
    let mut add = |section: &mut Map<String, Value>| {
        if section.get("type") == Some(&json!("object")) {
            let properties = section.entry("properties").or_insert_with(|| json!({}));
            properties["enabled"] = enabled.clone();
        }
    };
    let variants = schema.get_mut("anyOf").and_then(Value::as_array_mut);
    variants.into_iter().flatten().filter_map(Value::as_object_mut).for_each(&mut add);
    // With no section allowed, too, the type is one of two.
    if let Some(Value::Array(types)) = schema.get("type")
        && types.contains(&json!("object"))
    {
        schema.insert("type".to_owned(), "object".into());
    }
    add(schema);
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
    switch(schema);
    let (any_case, also) = (schema.remove("any-case"), schema.remove("also"));
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
        spellings(&mut choices, any_case, also);
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
