//! The effective configuration: what the sources say together, with every default filled in.

use serde_json::{Map, Value, json};

use super::{
    Id, Kinds, Report, Section, check,
    node::Node,
    resolve::resolve,
    style::{self, Style},
};
use crate::{component::Factory, telemetry};

/// Reads the sources and returns their effective configuration, and what looks like an oversight in them. They must be readable, and with `validate` right.
///
/// What is written with [`Style::reveal`] and read again means the same.
pub fn print(
    uris: &[String],
    sets: &[String],
    kinds: &Kinds<'_>,
    style: Style,
    validate: bool,
) -> Result<(Value, Vec<String>), Report> {
    let (root, warnings) = resolve(uris, sets)?;
    check(&root, warnings.clone(), kinds, !validate)?;
    let mut printed = style::with(style, || effective(&root, kinds));
    if style.reveal {
        escape(&mut printed);
    }
    Ok((printed, warnings))
}

pub(super) fn effective(root: &Node, kinds: &Kinds<'_>) -> Value {
    let mut service = object(root.get("service"));
    let telemetry = root.get("service").and_then(|s| s.get("telemetry")).cloned();
    let telemetry = Section::new(telemetry.unwrap_or_default());
    service.insert("telemetry".to_owned(), telemetry.effective::<telemetry::Config>());
    json!({
        "receivers": components(root, "receivers", kinds.receivers),
        "processors": components(root, "processors", kinds.processors),
        "exporters": components(root, "exporters", kinds.exporters),
        "connectors": object(root.get("connectors")),
        "extensions": components(root, "extensions", kinds.extensions),
        "service": service,
    })
}

fn components<K>(root: &Node, section: &str, factories: &[Factory<K>]) -> Map<String, Value> {
    let entries = root.get(section).map(Node::entries).unwrap_or_default();
    let effective = entries.iter().map(|(key, node)| {
        let id = Id::parse(&key.name);
        let factory = id.as_ref().ok().and_then(|id| factories.iter().find(|f| f.is(&id.kind)));
        let value = match factory {
            Some(factory) => (factory.effective)(&Section::new(node.clone())),
            None => raw(node),
        };
        (id.map_or_else(|_| key.name.clone(), |id| id.to_string()), value)
    });
    effective.collect()
}

fn object(node: Option<&Node>) -> Map<String, Value> {
    match node.map(raw) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    }
}

fn raw(node: &Node) -> Value {
    serde_json::to_value(node).unwrap_or_default()
}

/// Writes `$` so that reading does not take it for an expression or an escape.
fn escape(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(entries) => entries.values_mut().for_each(escape),
        Value::String(text) if text.contains('$') => {
            let mut escaped = String::new();
            let mut rest = text.as_str();
            while let Some(at) = rest.find('$') {
                let after = rest[at..].trim_start_matches('$');
                let count = rest.len() - at - after.len();
                // A single one that opens nothing stays as it is.
                let doubled = if count > 1 || after.starts_with('{') { 2 * count } else { count };
                escaped += &rest[..at];
                escaped += &"$".repeat(doubled);
                rest = after;
            }
            *text = escaped + rest;
        }
        _ => {}
    }
}
