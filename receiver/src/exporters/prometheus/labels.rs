//! Where a point comes from and which labels say so.

use std::{collections::BTreeMap, fmt::Write};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue},
    resource::v1::Resource,
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{Config, name};
use crate::value;

/// One resource and scope: what every point below it has in common.
pub(super) struct Origin {
    /// Tells origins apart, whatever of them the labels show.
    identity: [u8; 32],
    /// `job`, `instance` and the scope.
    fixed: Vec<(String, String)>,
    /// The resource's attributes, if they are shown on every point.
    resource: Vec<KeyValue>,
}

impl Origin {
    pub(super) fn new(
        config: &Config,
        resource: &Resource,
        scope: Option<&InstrumentationScope>,
    ) -> Self {
        let mut bytes = Vec::new();
        encode(&mut bytes, &resource.attributes);
        let mut fixed = target(resource).labels();
        if let Some(scope) = scope {
            encode(&mut bytes, &scope.attributes);
            scope.name.encode(&mut bytes).expect("a Vec grows");
            bytes.push(0xff);
            scope.version.encode(&mut bytes).expect("a Vec grows");
            if !config.without_scope_info {
                fixed.extend(scope.attributes.iter().map(|a| {
                    (format!("otel_scope_{}", name::label(&a.key)), text(a.value.as_ref()))
                }));
                fixed.push(("otel_scope_name".to_owned(), scope.name.clone()));
                fixed.push(("otel_scope_version".to_owned(), scope.version.clone()));
            }
        }
        let shown = config.resource_to_telemetry_conversion.enabled;
        Self {
            identity: Sha256::digest(&bytes).into(),
            fixed,
            resource: if shown { resource.attributes.clone() } else { Vec::new() },
        }
    }

    /// What tells this point's series from all others of its family.
    pub(super) fn identity(&self, metric: &str, attributes: &[KeyValue]) -> Box<[u8]> {
        let mut bytes = self.identity.to_vec();
        bytes.extend(metric.as_bytes());
        bytes.push(0xff);
        encode(&mut bytes, attributes);
        bytes.into()
    }

    /// The point's labels as they are written, without braces; `own` is the label that the
    /// metric's kind needs for itself.
    pub(super) fn labels(&self, config: &Config, attributes: &[KeyValue], own: &str) -> String {
        // The resource's attributes win, as in the Collector.
        let mut labels = of(attributes.iter().chain(&self.resource));
        labels.extend(self.fixed.iter().cloned());
        labels.extend(config.const_labels.clone());
        for reserved in ["__name__", "", own] {
            labels.remove(reserved);
        }
        written(&labels)
    }
}

/// Attributes as labels: the last of a key wins, and keys of one label share it in their order.
pub(in crate::exporters) fn of<'a>(
    attributes: impl Iterator<Item = &'a KeyValue>,
) -> BTreeMap<String, String> {
    let mut by_key: BTreeMap<&str, String> = BTreeMap::new();
    for attribute in attributes {
        by_key.insert(&attribute.key, text(attribute.value.as_ref()));
    }
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in by_key {
        labels
            .entry(name::label(key))
            .and_modify(|joined| {
                joined.push(';');
                joined.push_str(&value);
            })
            .or_insert(value);
    }
    labels
}

/// What identifies a resource, and is said by the labels of its target.
pub(in crate::exporters) const IDENTIFYING: [&str; 3] =
    ["service.name", "service.namespace", "service.instance.id"];

/// What the labels `job` and `instance` are.
pub(in crate::exporters) struct Target {
    pub(in crate::exporters) job: String,
    pub(in crate::exporters) instance: String,
}

/// The target that a resource stands for.
pub(in crate::exporters) fn target(resource: &Resource) -> Target {
    let attribute = |key| {
        let found = resource.attributes.iter().find(|a| a.key == key);
        found.map(|a| text(a.value.as_ref())).unwrap_or_default()
    };
    let (name, namespace) = (attribute("service.name"), attribute("service.namespace"));
    let job =
        if name.is_empty() || namespace.is_empty() { name } else { format!("{namespace}/{name}") };
    Target { job, instance: attribute("service.instance.id") }
}

impl Target {
    fn labels(&self) -> Vec<(String, String)> {
        vec![("job".to_owned(), self.job.clone()), ("instance".to_owned(), self.instance.clone())]
    }

    /// Identity and labels of the resource's `target_info`; `None` if it would not tell one
    /// target from another, or has nothing to say.
    pub(super) fn info(&self, config: &Config, resource: &Resource) -> Option<(Box<[u8]>, String)> {
        let rest: Vec<_> = resource
            .attributes
            .iter()
            .filter(|a| !IDENTIFYING.contains(&a.key.as_str()))
            .cloned()
            .collect();
        if self.job.is_empty() || self.instance.is_empty() || rest.is_empty() {
            return None;
        }
        let origin = Origin { identity: [0; 32], fixed: self.labels(), resource: Vec::new() };
        let identity = format!("{}\0{}", self.job, self.instance).into_bytes().into();
        Some((identity, origin.labels(config, &rest, "")))
    }
}

/// A label without a value is the same as no label to Prometheus: it is left out, so that two
/// series that Prometheus takes for one are found here.
fn written(labels: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{name}=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}

/// Attributes in an order of their own, each with its type.
fn encode(out: &mut Vec<u8>, attributes: &[KeyValue]) {
    let mut sorted: Vec<_> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    for attribute in sorted {
        attribute.encode_length_delimited(out).expect("a Vec grows");
    }
    out.push(0xff);
}

/// An attribute's value as a label shows it.
fn text(value: Option<&AnyValue>) -> String {
    value::text(value.and_then(|v| v.value.as_ref()))
}
