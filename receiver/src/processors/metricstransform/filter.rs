//! Which metrics and points are meant.

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::Metric,
};
use regex::Regex;

use super::{config::TransformConfig, each};
use crate::{config::Mistakes, processors::matching::regexp, value};

/// A name, and attributes of points.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) name: Text,
    labels: Vec<(String, Text)>,
}

/// A text, or a pattern.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Strict(String),
    Regexp(Regex),
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Strict(wanted) => wanted == text,
            Self::Regexp(pattern) => pattern.is_match(text),
        }
    }
}

impl Filter {
    /// `None` if there are mistakes, which are noted.
    pub(super) fn new(
        config: &TransformConfig,
        strict: bool,
        wrong: &mut Mistakes,
    ) -> Option<Self> {
        let mut text = |key: &str, text: &String, prefix: &str| {
            if strict {
                return Some(Text::Strict(text.clone()));
            }
            regexp(text)
                .map(Text::Regexp)
                .map_err(|error| wrong.add(key, format!("{prefix}{error}")))
                .ok()
        };
        let name = text("include", &config.include, "\"include\", ");
        let labels = config.experimental_match_labels.iter().map(|(label, wanted)| {
            let key = format!("experimental_match_labels::{label}");
            Some((label.clone(), text(&key, wanted, "")?))
        });
        let labels: Vec<Option<_>> = labels.collect();
        Some(Self { name: name?, labels: labels.into_iter().collect::<Option<_>>()? })
    }

    /// Whether a point is meant.
    pub(super) fn means(&self, attributes: &[KeyValue]) -> bool {
        self.labels.iter().all(|(label, wanted)| wanted.matches(text(attributes, label)))
    }

    /// Whether a metric is meant: its name, and one of its points if it has any.
    pub(super) fn matches(&self, metric: &Metric) -> bool {
        self.name.matches(&metric.name)
            && each!(&metric.data, d => d.data_points.is_empty()
                || d.data_points.iter().any(|p| self.means(&p.attributes)), true)
    }

    /// Whether all points of a metric are meant.
    pub(super) fn means_all(&self, metric: &Metric) -> bool {
        self.labels.is_empty()
            || each!(&metric.data, d => d.data_points.iter().all(|p| self.means(&p.attributes)), true)
    }

    /// Leaves the points that are meant.
    pub(super) fn retain(&self, metric: &mut Metric) {
        if !self.labels.is_empty() {
            each!(&mut metric.data, d => d.data_points.retain(|p| self.means(&p.attributes)), ());
        }
    }

    /// `template` with what groups of the pattern match in `name`; empty if they match nothing.
    pub(super) fn expand(&self, template: &str, name: &str) -> String {
        let mut expanded = String::new();
        if let Text::Regexp(pattern) = &self.name
            && let Some(groups) = pattern.captures(name)
        {
            groups.expand(template, &mut expanded);
        }
        expanded
    }
}

/// The text that an attribute has; empty if it has none.
pub(super) fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    match value::get(attributes, key) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}
