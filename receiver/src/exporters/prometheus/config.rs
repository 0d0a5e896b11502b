//! The keys of the exporter.

use std::{collections::BTreeMap, time::Duration};

use super::serve::Options;
use crate::{
    exporters::{queue, tls::server::Tls},
    extensions::server::server_config,
    prometheus_names::{IDENTIFYING, Strategy},
};

server_config! {
    /// The configuration. `endpoint`: port 0 takes a free one and logs it.
    pub struct Config at "" {
        /// Read for the sake of existing files: what comes in is served at once, and waits nowhere.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sending_queue: Option<queue::Config> = None,
        /// Comes before the name of every metric.
        pub namespace: String = String::new(),
        /// Labels on every series.
        pub const_labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Whether samples carry the time of their point instead of that of the scrape.
        pub send_timestamps: bool = false,
        /// How long a series is served after its last point.
        #[serde(with = "crate::config::duration")]
        pub metric_expiration: Duration = Duration::from_secs(300),
        /// The most series that are held; those that come later are dropped and counted. 0 is no limit.
        pub max_series: usize = 1_000_000,
        /// Whether a scraper that asks for OpenMetrics gets it, with exemplars and creation times.
        pub enable_open_metrics: bool = false,
        /// Leaves out the labels `otel_scope_…`.
        pub without_scope_info: bool = false,
        /// Whether names say their unit and kind: `_seconds`, `_total`. Without effect if there is a
        /// `translation_strategy`; and in Collectors from 0.154 on, which take it for deprecated.
        pub add_metric_suffixes: bool = true,
        /// What becomes of names: `UnderscoreEscapingWithSuffixes`,
        /// `UnderscoreEscapingWithoutSuffixes`, `NoUTF8EscapingWithSuffixes` or `NoTranslation`.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub translation_strategy: String = String::new(),
        /// Whether every resource attribute becomes a label.
        pub resource_to_telemetry_conversion: Conversion = Conversion::default(),
        /// Which resource attributes become labels; goes before `resource_to_telemetry_conversion`.
        pub resource_constant_labels: Selection = Selection::default(),
    }
}

/// Resource attributes as labels.
#[derive(
    Clone, Copy, Debug, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Conversion {
    /// Whether they are labels of every series.
    pub enabled: bool,
    /// Leaves out what `job` and `instance` say already.
    pub exclude_service_attributes: bool,
}

/// Resource attributes, by patterns of their keys in which `*` stands for anything.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Those that become labels; all if only `excluded` is given.
    pub included: Vec<String>,
    /// Those that do not.
    pub excluded: Vec<String>,
}

impl Selection {
    fn is_given(&self) -> bool {
        !self.included.is_empty() || !self.excluded.is_empty()
    }

    fn selects(&self, key: &str) -> bool {
        let one_of = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, key));
        (self.included.is_empty() || one_of(&self.included)) && !one_of(&self.excluded)
    }
}

/// Whether a pattern in which `*` stands for anything matches a whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(end)
}

impl Config {
    /// What becomes of names.
    pub(super) fn strategy(&self) -> Strategy {
        Strategy::configured(&self.translation_strategy, self.add_metric_suffixes)
    }

    /// What Collectors do otherwise.
    pub(super) fn warnings(&self) -> Vec<String> {
        let asked = !self.add_metric_suffixes && self.translation_strategy.is_empty();
        let warning = "add_metric_suffixes: Collectors from 0.154 on do not heed it: write \
                       `translation_strategy: UnderscoreEscapingWithoutSuffixes`";
        asked.then(|| warning.to_owned()).into_iter().collect()
    }

    /// Whether a resource's attribute is a label of every series.
    pub(super) fn shows(&self, key: &str) -> bool {
        if self.resource_constant_labels.is_given() {
            return self.resource_constant_labels.selects(key);
        }
        let Conversion { enabled, exclude_service_attributes } =
            self.resource_to_telemetry_conversion;
        enabled && !(exclude_service_attributes && IDENTIFYING.contains(&key))
    }

    /// How connections are served.
    pub(super) fn options(&self, tls: Option<Tls>) -> Options {
        self.server().options(tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("host.name", "host.name", true),
            ("host.name", "host.names", false),
            ("k8s.*", "k8s.pod.name", true),
            ("k8s.*", "k8s", false),
            ("k8s.*.name", "k8s.pod.name", true),
            ("k8s.*.name", "k8s.pod.uid", false),
            ("*a*a", "a", false),
            ("*a*a", "xaya", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn resource_attributes_are_labels_as_asked() {
        let list = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
        let mut config = Config::default();
        assert!(!config.shows("host.name"));
        config.resource_to_telemetry_conversion =
            Conversion { enabled: true, exclude_service_attributes: true };
        assert!(config.shows("host.name") && !config.shows("service.name"));
        config.resource_constant_labels.excluded = list(&["host.*"]);
        assert!(!config.shows("host.name") && config.shows("service.name"));
        config.resource_constant_labels.included = list(&["host.*", "os.*"]);
        assert!(!config.shows("host.name") && config.shows("os.type"));
    }
}
