//! By which labels and names series are known: what one resource and scope have in common.

use std::{collections::BTreeMap, sync::Arc};

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
};

use super::proto::Label;
use crate::{
    exporters::prometheus::Conversion,
    prometheus_names::{IDENTIFYING, Names, Target},
};

/// The labels of a series, in the order of their names, `__name__` among them.
pub type Labels = Arc<[Label]>;

/// How series are named.
#[derive(Clone)]
pub struct Rules {
    pub names: Names,
    /// Labels of every series that has none of these names itself.
    pub external: BTreeMap<String, String>,
    /// Whether the scope is in labels.
    pub scope: bool,
    /// Whether the resource's attributes are labels.
    pub resource: Conversion,
    /// Whether resources are described by a series of their own.
    pub target_info: bool,
}

/// One resource and scope.
pub struct Origin<'a> {
    rules: &'a Rules,
    /// `job`, `instance` and the scope.
    fixed: Vec<(String, String)>,
    /// The resource's attributes, if they are labels.
    resource: &'a [KeyValue],
}

impl<'a> Origin<'a> {
    /// What points of `scope` in `resource` have in common.
    pub fn new(
        rules: &'a Rules,
        resource: &'a Resource,
        scope: Option<&InstrumentationScope>,
    ) -> Self {
        let mut fixed = Vec::new();
        if let Some(scope) = scope.filter(|_| rules.scope) {
            let attributes = rules.names.labels(&scope.attributes).into_iter();
            fixed.extend(attributes.map(|(key, value)| (format!("otel_scope_{key}"), value)));
            fixed.push(("otel_scope_name".to_owned(), scope.name.clone()));
            fixed.push(("otel_scope_version".to_owned(), scope.version.clone()));
        }
        let target = Target::of(resource);
        for (name, value) in [("job", target.job), ("instance", target.instance)] {
            if !value.is_empty() {
                fixed.push((name.to_owned(), value));
            }
        }
        let resource = if rules.resource.enabled { resource.attributes.as_slice() } else { &[] };
        Self { rules, fixed, resource }
    }

    /// The labels of a point, but for its name. Those without a value are none to Prometheus.
    pub fn labels(&self, attributes: &[KeyValue]) -> BTreeMap<String, String> {
        // The resource's attributes win, as in the Collector.
        let excluded = |attribute: &&KeyValue| {
            self.rules.resource.exclude_service_attributes
                && IDENTIFYING.contains(&attribute.key.as_str())
        };
        let resource = self.resource.iter().filter(|attribute| !excluded(attribute));
        let mut labels = self.rules.names.labels(attributes.iter().chain(resource));
        labels.extend(self.fixed.iter().cloned());
        for (name, value) in &self.rules.external {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        labels.retain(|name, value| !name.is_empty() && name != NAME && !value.is_empty());
        labels
    }
}

/// The label that is the metric's name.
const NAME: &str = "__name__";

/// The labels of a series of the metric `name`; `own` is one that its kind needs for itself.
pub fn series(base: &BTreeMap<String, String>, name: &str, own: Option<(&str, &str)>) -> Labels {
    let label = |(name, value): (&str, &str)| Label { name: name.into(), value: value.into() };
    let others = base.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut labels: Vec<_> = others
        .filter(|(name, _)| own.is_none_or(|own| own.0 != *name))
        .chain([(NAME, name)])
        .chain(own)
        .map(label)
        .collect();
    labels.sort_unstable();
    labels.into()
}

/// The name of the series that describes resources, and its labels for this one; `None` if it would
/// not say whom it is about, or nothing of it.
pub fn target_info(rules: &Rules, resource: &Resource) -> Option<(String, Labels)> {
    let target = Target::of(resource);
    let rest = Target::info(resource);
    let nobody = target.job.is_empty() && target.instance.is_empty();
    if !rules.target_info || rest.is_empty() || nobody {
        return None;
    }
    let name = rules.names.in_namespace("target_info");
    let own = Rules { names: rules.names.clone().keeping_underscores(), ..rules.clone() };
    let origin = Origin::new(&own, resource, None);
    let labels = series(&Origin { resource: &[], ..origin }.labels(&rest), &name, None);
    Some((name, labels))
}
