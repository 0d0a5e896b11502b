//! Where a point comes from and which labels say so.

use std::{collections::BTreeMap, fmt::Write};

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::Rules;
use crate::prometheus_names::{IDENTIFYING, Target, text};

/// One resource and scope: what every point below it has in common.
pub(super) struct Origin<'a> {
    rules: &'a Rules,
    /// Tells origins apart, whatever of them the labels show.
    identity: [u8; 32],
    /// `job`, `instance` and the scope.
    fixed: Vec<(String, String)>,
    /// The resource's attributes, if they are shown on every point.
    resource: Vec<KeyValue>,
}

impl<'a> Origin<'a> {
    pub(super) fn new(
        rules: &'a Rules,
        resource: &Resource,
        scope: Option<&InstrumentationScope>,
    ) -> Self {
        let mut bytes = Vec::new();
        encode(&mut bytes, &resource.attributes);
        let mut fixed = target_labels(&Target::of(resource));
        if let Some(scope) = scope {
            encode(&mut bytes, &scope.attributes);
            scope.name.encode(&mut bytes).expect("a Vec grows");
            bytes.push(0xff);
            scope.version.encode(&mut bytes).expect("a Vec grows");
            if !rules.config.without_scope_info {
                fixed.extend(
                    scope
                        .attributes
                        .iter()
                        .map(|a| (rules.names.label(&format!("otel_scope_{}", a.key)), text(a))),
                );
                fixed.push(("otel_scope_name".to_owned(), scope.name.clone()));
                fixed.push(("otel_scope_version".to_owned(), scope.version.clone()));
            }
        }
        let shown = rules.config.resource_to_telemetry_conversion.enabled;
        Self {
            rules,
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
    pub(super) fn labels(&self, attributes: &[KeyValue], own: &str) -> String {
        // The resource's attributes win, as in the Collector.
        let mut labels = self.rules.names.labels(attributes.iter().chain(&self.resource));
        labels.extend(self.fixed.iter().cloned());
        labels.extend(self.rules.const_labels.clone());
        for reserved in ["__name__", own] {
            labels.remove(reserved);
        }
        written(&labels)
    }
}

/// Identity and labels of a resource's `target_info`; `None` if it would not tell one target from
/// another, or has nothing to say.
pub(super) fn target_info(rules: &Rules, resource: &Resource) -> Option<(Box<[u8]>, String)> {
    let target = Target::of(resource);
    let rest: Vec<_> = resource
        .attributes
        .iter()
        .filter(|attribute| !IDENTIFYING.contains(&attribute.key.as_str()))
        .cloned()
        .collect();
    if target.job.is_empty() || target.instance.is_empty() || rest.is_empty() {
        return None;
    }
    let fixed = target_labels(&target);
    let origin = Origin { rules, identity: [0; 32], fixed, resource: Vec::new() };
    let identity = format!("{}\0{}", target.job, target.instance).into_bytes().into();
    Some((identity, origin.labels(&rest, "")))
}

fn target_labels(target: &Target) -> Vec<(String, String)> {
    vec![("job".to_owned(), target.job.clone()), ("instance".to_owned(), target.instance.clone())]
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
