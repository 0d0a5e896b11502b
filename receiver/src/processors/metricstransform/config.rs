//! The configuration of `metricstransform`, and what is wrong with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Action, Case, Transform, aggregate::Aggregation, filter::Filter, operations::Operation,
};
use crate::config::Mistakes;

/// The configuration of `metricstransform`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What to do, in this order: each sees what the ones before have made.
    pub transforms: Vec<TransformConfig>,
}

/// What to do with some metrics.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransformConfig {
    /// The metrics that are meant: a name, or a regular expression that matches a part of one.
    pub include: String,
    /// How `include` and `experimental_match_labels` match: `strict` (the default) or `regexp`.
    pub match_type: String,
    /// Attributes that points must have, and their values. A value that matches an empty text also matches if there is
    /// no such attribute.
    pub experimental_match_labels: BTreeMap<String, String>,
    /// `update` changes the metrics, `insert` changes copies and keeps the metrics, `combine` makes one metric of
    /// them, `group` moves them to a resource of their own.
    pub action: String,
    /// The name of the metric; `$1` and `${name}` are what groups of the regular expression matched.
    pub new_name: String,
    /// Attributes that the resource of a `group` has besides those that it had.
    pub group_resource_labels: Option<BTreeMap<String, String>>,
    /// How `combine` makes one of points with the same attributes: `sum`, `mean`, `min`, `max`, `median` or `count`.
    pub aggregation_type: String,
    /// The case of attributes' values that `combine` takes from names: `lower` or `upper`; without it, as they are.
    pub submatch_case: String,
    /// What to change in the metric, in this order.
    pub operations: Vec<OperationConfig>,
}

/// A change of a metric.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OperationConfig {
    /// `add_label`, `update_label`, `delete_label_value`, `toggle_scalar_data_type`, `experimental_scale_value`,
    /// `aggregate_labels` or `aggregate_label_values`.
    pub action: String,
    /// The attribute that is meant.
    pub label: String,
    /// Its new key, or the key of the attribute that `add_label` adds.
    pub new_label: String,
    /// The attributes that `aggregate_labels` keeps.
    pub label_set: Vec<String>,
    /// How points are made one: `sum` (the default), `mean`, `min`, `max`, `median` or `count`.
    pub aggregation_type: String,
    /// The values that `aggregate_label_values` makes one.
    pub aggregated_values: Vec<String>,
    /// The value that takes their place, or that of the added attribute; `{{version}}` is the agent's version.
    pub new_value: String,
    /// The values that `update_label` changes.
    pub value_actions: Vec<ValueAction>,
    /// What `experimental_scale_value` multiplies with.
    pub experimental_scale: f64,
    /// The value whose points `delete_label_value` drops.
    pub label_value: String,
}

/// A value that is changed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValueAction {
    /// The value.
    pub value: String,
    /// What it becomes; `{{version}}` is the agent's version.
    pub new_value: String,
}

const MATCH_TYPES: [&str; 2] = ["strict", "regexp"];
const ACTIONS: [&str; 4] = ["insert", "update", "combine", "group"];
const CASES: [&str; 2] = ["lower", "upper"];
const OPERATIONS: [&str; 7] = [
    "add_label",
    "update_label",
    "delete_label_value",
    "toggle_scalar_data_type",
    "experimental_scale_value",
    "aggregate_labels",
    "aggregate_label_values",
];

/// The mistakes in a part of the configuration; `prefix` begins each message.
struct Checker {
    wrong: Mistakes,
    prefix: String,
}

impl Checker {
    fn new(prefix: String) -> Self {
        Self { wrong: Mistakes::default(), prefix }
    }

    fn one_of(&mut self, key: &str, given: &str, valid: &[&str]) {
        if !valid.contains(&given) {
            let message = format!("{}{key:?} must be in {valid:?}", self.prefix).replace(", ", " ");
            self.wrong.unknown(key, message, given, valid.iter().copied());
        }
    }

    fn needs(&mut self, present: bool, key: &str, action: &str) {
        let message =
            format!("{}missing required field {key:?} while \"action\" is {action}", self.prefix);
        self.wrong.require(present, key, &message);
    }
}

impl TransformConfig {
    /// Checks it, and makes what it says.
    pub(super) fn check(self) -> Result<Transform, Mistakes> {
        let mut check = Checker::new(String::new());
        let present = !self.include.is_empty();
        check.wrong.require(present, "include", "missing required field \"include\"");
        let strict = matches!(self.match_type.as_str(), "" | "strict");
        if !strict {
            check.one_of("match_type", &self.match_type, &MATCH_TYPES);
        }
        let filter = Filter::new(&self, strict, &mut check.wrong);
        check.one_of("action", &self.action, &ACTIONS);
        let named = !self.new_name.is_empty();
        let aggregation = Aggregation::named(&self.aggregation_type);
        let action = self.action.as_str();
        match action {
            "insert" => check.needs(named, "new_name", action),
            "combine" => {
                check.needs(named, "new_name", action);
                check.needs(!self.aggregation_type.is_empty(), "aggregation_type", action);
            }
            "group" => {
                check.needs(self.group_resource_labels.is_some(), "group_resource_labels", action);
            }
            _ => {}
        }
        if aggregation.is_none() {
            check.one_of("aggregation_type", &self.aggregation_type, &Aggregation::NAMES);
        }
        if !self.submatch_case.is_empty() {
            check.one_of("submatch_case", &self.submatch_case, &CASES);
        }
        let mut wrong = check.wrong;
        let mut operations = Vec::new();
        for (i, operation) in self.operations.into_iter().enumerate() {
            match operation.check(i) {
                Ok(operation) => operations.push(operation),
                Err(nested) => wrong.nest(&format!("operations::{i}"), nested),
            }
        }
        let action = match (action, aggregation) {
            ("insert", _) => Some(Action::Insert),
            ("combine", Some(aggregation)) => Some(Action::Combine(aggregation)),
            ("group", _) => Some(Action::Group(self.group_resource_labels.unwrap_or_default())),
            ("update", _) => Some(Action::Update),
            _ => None,
        };
        match (action, filter) {
            (Some(action), Some(filter)) => wrong.or(Transform {
                filter,
                action,
                new_name: self.new_name,
                case: match self.submatch_case.as_str() {
                    "lower" => Case::Lower,
                    "upper" => Case::Upper,
                    _ => Case::AsIs,
                },
                operations,
            }),
            // What is missing has been noted.
            _ => Err(wrong),
        }
    }
}

impl OperationConfig {
    fn check(self, index: usize) -> Result<Operation, Mistakes> {
        let mut check = Checker::new(format!("operation {}: ", index + 1));
        let action = self.action.as_str();
        check.one_of("action", action, &OPERATIONS);
        match action {
            "update_label" => check.needs(!self.label.is_empty(), "label", action),
            "add_label" => {
                check.needs(!self.new_label.is_empty(), "new_label", action);
                check.needs(!self.new_value.is_empty(), "new_value", action);
            }
            "experimental_scale_value" => {
                check.needs(self.experimental_scale != 0.0, "experimental_scale", action);
            }
            _ => {}
        }
        let aggregation = Aggregation::named(&self.aggregation_type);
        if aggregation.is_none() {
            check.one_of("aggregation_type", &self.aggregation_type, &Aggregation::NAMES);
        }
        let versioned = |text: String| text.replace("{{version}}", env!("CARGO_PKG_VERSION"));
        let (label, value) = (self.label, versioned(self.new_value));
        let operation = match (action, aggregation) {
            ("add_label", _) => Operation::AddLabel { label: self.new_label, value },
            ("update_label", _) => Operation::UpdateLabel {
                label,
                new: Some(self.new_label).filter(|label| !label.is_empty()),
                values: self
                    .value_actions
                    .into_iter()
                    .map(|action| (action.value, versioned(action.new_value)))
                    .collect(),
            },
            ("delete_label_value", _) => {
                Operation::DeleteLabelValue { label, value: self.label_value }
            }
            ("toggle_scalar_data_type", _) => Operation::ToggleType,
            ("experimental_scale_value", _) => Operation::Scale(self.experimental_scale),
            ("aggregate_labels", Some(aggregation)) => {
                Operation::AggregateLabels { keep: self.label_set, aggregation }
            }
            ("aggregate_label_values", Some(aggregation)) => Operation::AggregateLabelValues {
                label,
                values: self.aggregated_values,
                new: value,
                aggregation,
            },
            // What is missing has been noted.
            _ => return Err(check.wrong),
        };
        check.wrong.or(operation)
    }
}
