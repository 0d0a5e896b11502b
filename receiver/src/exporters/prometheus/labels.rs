//! Where a point comes from and which labels say so.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap};

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::Rules;
use crate::prometheus_names::{Target, is_classic_label, text};

/// What tells a series from all others of its family: a hash by keys of this process, of so many bits that no two
/// series come to have the same one.
pub(super) type Identity = u128;

/// One resource and scope: what every point below it has in common.
pub(super) struct Origin<'a> {
    rules: &'a Rules,
    /// Tells origins apart, whatever of them the labels show.
    identity: [u8; 32],
    /// `job`, `instance` and the scope.
    fixed: Vec<(String, String)>,
    /// The resource's attributes, if they are shown on every point.
    resource: Vec<KeyValue>,
    /// Room for what an identity is made of.
    bytes: RefCell<Vec<u8>>,
}

impl<'a> Origin<'a> {
    pub(super) fn new(
        rules: &'a Rules,
        resource: &Resource,
        scope: Option<&InstrumentationScope>,
        schema: &str,
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
                fixed.push(("otel_scope_schema_url".to_owned(), schema.to_owned()));
            }
        }
        let shown = |attribute: &&KeyValue| rules.config.shows(&attribute.key);
        Self {
            rules,
            identity: Sha256::digest(&bytes).into(),
            fixed,
            resource: resource.attributes.iter().filter(shown).cloned().collect(),
            bytes: RefCell::default(),
        }
    }

    /// What series are made by.
    pub(super) fn rules(&self) -> &Rules {
        self.rules
    }

    /// What tells this point's series from all others of its family.
    pub(super) fn identity(&self, metric: &str, attributes: &[KeyValue]) -> Identity {
        let mut bytes = self.bytes.borrow_mut();
        bytes.clear();
        bytes.extend(self.identity);
        bytes.extend(metric.as_bytes());
        bytes.push(0xff);
        encode(&mut bytes, attributes);
        self.rules.identity(&bytes)
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
pub(super) fn target_info(rules: &Rules, resource: &Resource) -> Option<(Identity, String)> {
    let target = Target::of(resource);
    let rest = Target::info(resource);
    if target.job.is_empty() || target.instance.is_empty() || rest.is_empty() {
        return None;
    }
    let fixed = target_labels(&target);
    let bytes = RefCell::default();
    let origin = Origin { rules, identity: [0; 32], fixed, resource: Vec::new(), bytes };
    let identity = rules.identity(format!("{}\0{}", target.job, target.instance).as_bytes());
    Some((identity, origin.labels(&rest, "")))
}

fn target_labels(target: &Target) -> Vec<(String, String)> {
    vec![("job".to_owned(), target.job.clone()), ("instance".to_owned(), target.instance.clone())]
}

/// A label without a value is the same as no label to Prometheus: it is left out, so that two
/// series that Prometheus takes for one are found here.
pub(super) fn written(labels: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        if !out.is_empty() {
            out.push(',');
        }
        if is_classic_label(name) {
            out.push_str(name);
        } else {
            quote(&mut out, name);
        }
        out.push('=');
        quote(&mut out, value);
    }
    out
}

/// Text in quotation marks.
pub(super) fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Names and values of labels that [`written`] has written.
pub(super) fn pairs(written: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let mut rest = written;
    std::iter::from_fn(move || {
        let name = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside, &mut rest)?,
            None => {
                let name;
                (name, rest) = rest.split_at_checked(rest.find('=')?)?;
                Cow::Borrowed(name)
            }
        };
        let value = quoted(rest.strip_prefix("=\"")?, &mut rest)?;
        rest = rest.strip_prefix(',').unwrap_or(rest);
        Some((name, value))
    })
}

/// What stands before the closing quotation mark, and after it.
fn quoted<'a>(text: &'a str, rest: &mut &'a str) -> Option<Cow<'a, str>> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })?;
    let (inside, after) = text.split_at(end);
    *rest = &after[1..];
    if !inside.contains('\\') {
        return Some(Cow::Borrowed(inside));
    }
    let mut value = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            c => value.push(c),
        }
    }
    Some(Cow::Owned(value))
}

/// Attributes in an order of their own, each with its type.
fn encode(out: &mut Vec<u8>, attributes: &[KeyValue]) {
    let mut add =
        |attribute: &KeyValue| attribute.encode_length_delimited(out).expect("a Vec grows");
    if attributes.is_sorted_by(|a, b| a.key <= b.key) {
        attributes.iter().for_each(&mut add);
    } else {
        let mut sorted: Vec<_> = attributes.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        sorted.into_iter().for_each(&mut add);
    }
    out.push(0xff);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let labels = [
            ("a", "x"),
            ("b.c", "with \\ and \" and \n and =,{}"),
            ("d\"e\\", "\\"),
            ("empty", ""),
            ("größe", "ß"),
        ];
        let labels: BTreeMap<_, _> =
            labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let text = written(&labels);
        assert!(text.starts_with(r#"a="x","b.c"="with \\ and \" and \n"#), "{text}");
        let read = pairs(&text).map(|(name, value)| (name.into_owned(), value.into_owned()));
        let expected = labels.into_iter().filter(|(_, value)| !value.is_empty());
        assert!(read.eq(expected), "{text}");
        assert_eq!(pairs("").count(), 0);
    }
}
