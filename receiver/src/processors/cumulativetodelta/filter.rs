//! Which metrics are converted.

use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{
    config::Mistakes,
    processors::matching::{Regexp, regexp},
};

/// The kinds of metrics that can be converted.
const TYPES: [&str; 3] = ["sum", "histogram", "exponentialhistogram"];

/// Metrics, by name and type.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How names match: strict or regexp.
    pub match_type: String,
    /// Accepted as the Collector's; regular expressions are fast without a cache.
    pub regexp: Option<Regexp>,
    /// Names, or regular expressions that match a part of a name.
    pub metrics: Vec<String>,
    /// Of sum, histogram and exponentialhistogram.
    pub metric_types: Vec<String>,
}

/// A filter that is valid.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// `None` matches every name.
    names: Option<Names>,
    types: Vec<String>,
}

#[derive(Clone, Debug)]
enum Names {
    Strict(Vec<String>),
    Regexp(Vec<Regex>),
}

impl Filter {
    /// Checks the section `key`.
    pub(super) fn new(key: &str, config: &Config, wrong: &mut Mistakes) -> Self {
        let path = |field: &str| format!("{key}::{field}");
        let (typed, named) = (!config.match_type.is_empty(), !config.metrics.is_empty());
        let message = "match_type must be set if metrics are supplied";
        wrong.require(typed || !named, &path("match_type"), message);
        let message = "metrics must be supplied if match_type is set";
        wrong.require(named || !typed, &path("metrics"), message);
        let types: Vec<_> = config.metric_types.iter().map(|t| t.to_lowercase()).collect();
        for (given, known) in config.metric_types.iter().zip(&types) {
            if !TYPES.contains(&known.as_str()) {
                let message = format!(
                    "found invalid metric type in {key}.metric_types: {given}. Valid values are [{}]",
                    TYPES.join(" ")
                );
                wrong.unknown(path("metric_types"), message, given, TYPES);
            }
        }
        let names = match config.match_type.as_str() {
            "strict" => Some(Names::Strict(config.metrics.clone())),
            "regexp" => match config.metrics.iter().map(|name| regexp(name)).collect() {
                Ok(all) => Some(Names::Regexp(all)),
                Err(error) => {
                    wrong.add(path("metrics"), error);
                    None
                }
            },
            "" => None,
            other => {
                let message =
                    format!("unrecognized match_type: '{other}', valid types are: [regexp strict]");
                wrong.unknown(path("match_type"), message, other, ["regexp", "strict"]);
                None
            }
        };
        Self { names: names.filter(|_| named), types }
    }

    /// Whether it names this metric; one that names nothing answers `open`.
    fn names(&self, metric: &Metric, open: bool) -> bool {
        match &self.names {
            None => open,
            Some(Names::Strict(names)) => names.contains(&metric.name),
            Some(Names::Regexp(all)) => all.iter().any(|one| one.is_match(&metric.name)),
        }
    }

    fn types(&self, metric: &Metric, open: bool) -> bool {
        let kind = match &metric.data {
            Some(Data::Sum(_)) => "sum",
            Some(Data::Histogram(_)) => "histogram",
            Some(Data::ExponentialHistogram(_)) => "exponentialhistogram",
            _ => return false,
        };
        if self.types.is_empty() { open } else { self.types.iter().any(|t| t == kind) }
    }

    /// Whether an `include` takes the metric in: name and type.
    pub(super) fn includes(&self, metric: &Metric) -> bool {
        self.names(metric, true) && self.types(metric, true)
    }

    /// Whether an `exclude` leaves it out: name or type.
    pub(super) fn excludes(&self, metric: &Metric) -> bool {
        self.names(metric, false) || self.types(metric, false)
    }
}
