//! The keys of `service::telemetry::metrics`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::views::View;
use crate::{config::Mistakes, telemetry::push::OtlpMetric};

/// `service::telemetry::metrics`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How much is measured.
    #[serde(deserialize_with = "crate::config::any_case")]
    pub level: Level,
    /// Where it goes.
    pub readers: Vec<Reader>,
    /// What becomes of single metrics. Only at the level `detailed`, as in the Collector.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<View>,
}

impl Default for Config {
    fn default() -> Self {
        let prometheus = Prometheus::default();
        let pull = Pull { exporter: PullExporter { prometheus: Some(prometheus) } };
        let reader = Reader { pull: Some(pull), ..Reader::default() };
        Self { level: Level::Normal, readers: vec![reader], views: Vec::new() }
    }
}

/// How much is measured. There is one amount so far: `none` turns it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase", try_from = "String")]
#[schemars(!try_from, extend("any-case" = true))]
pub enum Level {
    /// Nothing.
    None,
    /// The least.
    Basic,
    /// The usual.
    Normal,
    /// The most.
    Detailed,
}

impl TryFrom<String> for Level {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Ok(match name.as_str() {
            "none" => Self::None,
            "basic" => Self::Basic,
            "normal" => Self::Normal,
            "detailed" => Self::Detailed,
            _ => {
                return Err(format!(
                    "unknown metrics level {name:?}, valid are: none, basic, normal, detailed"
                ));
            }
        })
    }
}

/// Where metrics go: one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reader {
    /// They are fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
    /// They are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub periodic: Option<Periodic>,
    /// Read for the sake of existing files, as in the Collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producers: Option<Vec<Value>>,
}

/// Metrics that are fetched.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pull {
    /// By whom.
    pub exporter: PullExporter,
}

/// Who fetches metrics.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PullExporter {
    /// Prometheus.
    pub prometheus: Option<Prometheus>,
}

/// An endpoint for Prometheus.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Prometheus {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on.
    pub port: u16,
    /// Leaves the labels of the instrumentation scope out.
    pub without_scope_info: bool,
    /// Leaves the units out of names.
    pub without_units: bool,
    /// Leaves `_total` out of names.
    pub without_type_suffix: bool,
    /// Which attributes of the agent are labels of every series; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_resource_constant_labels: Option<IncludeExclude>,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 8888,
            without_scope_info: true,
            without_units: true,
            without_type_suffix: true,
            with_resource_constant_labels: None,
        }
    }
}

/// Metrics that are sent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Periodic {
    /// Milliseconds between two sendings, as OpenTelemetry's configuration files have it.
    pub interval: u64,
    /// Milliseconds in which they must have been sent, with all that is tried again. An attempt that is under
    /// way then may still end.
    pub timeout: u64,
    /// To whom.
    pub exporter: PushExporter,
}

impl Default for Periodic {
    fn default() -> Self {
        Self { interval: 60_000, timeout: 30_000, exporter: PushExporter::default() }
    }
}

/// To whom metrics are sent: one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PushExporter {
    /// Standard output, as lines of JSON: `console: {}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<Map<String, Value>>,
    /// An OTLP receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpMetric>,
}

/// Some of all, by their names. Without `included`, all but those that are excluded.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IncludeExclude {
    /// Those.
    pub included: Vec<String>,
    /// Not those.
    pub excluded: Vec<String>,
}

impl IncludeExclude {
    pub(super) fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        for (i, name) in self.excluded.iter().enumerate() {
            let message = "attribute cannot be in both include and exclude list";
            let both = self.included.contains(name);
            wrong.require(!both, &format!("excluded::{i}"), &format!("{message}: {name}"));
        }
        wrong
    }

    pub(super) fn selects(&self, name: &String) -> bool {
        let included = self.included.is_empty() || self.included.contains(name);
        included && !self.excluded.contains(name)
    }
}

impl Prometheus {
    /// Where it listens. An address of IPv6 stands in brackets, or does not.
    pub(super) fn address(&self) -> String {
        let host = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = host.unwrap_or(&self.host);
        match host {
            // As in Go, no host means every address.
            "" => format!("[::]:{}", self.port),
            _ if host.contains(':') => format!("[{host}]:{}", self.port),
            _ => format!("{host}:{}", self.port),
        }
    }
}

impl Config {
    pub(in crate::telemetry) fn check(&self) -> Result<(), Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(
            self.level == Level::None || !self.readers.is_empty(),
            "readers",
            "collector telemetry metrics reader should exist when metric level is not none",
        );
        wrong.require(
            self.views.is_empty() || self.level == Level::Detailed,
            "views",
            "service::telemetry::metrics::views can only be set when \
             service::telemetry::metrics::level is detailed",
        );
        for (i, view) in self.views.iter().enumerate() {
            wrong.nest(&format!("views::{i}"), view.check());
        }
        for (i, reader) in self.readers.iter().enumerate() {
            wrong.nest(&format!("readers::{i}"), reader.check());
        }
        wrong.or(())
    }
}

impl Reader {
    fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        match self {
            Self { pull: Some(_), periodic: Some(_), .. } => {
                wrong.add("", "must not specify multiple metric reader type");
            }
            Self { pull: None, periodic: None, .. } => {
                wrong.add("", "no valid metric reader: must be either pull or periodic");
            }
            Self { pull: Some(Pull { exporter }), .. } => match &exporter.prometheus {
                None => {
                    wrong.add("pull::exporter", "no valid metric exporter: there is prometheus")
                }
                Some(prometheus) => {
                    if let Some(labels) = &prometheus.with_resource_constant_labels {
                        let at = "pull::exporter::prometheus::with_resource_constant_labels";
                        wrong.nest(at, labels.check());
                    }
                }
            },
            Self { periodic: Some(periodic), .. } => {
                let positive = periodic.interval > 0;
                wrong.require(positive, "periodic::interval", "must be positive");
                match &periodic.exporter {
                    PushExporter { console: Some(_), otlp: Some(_) } => {
                        wrong.add("periodic::exporter", "must not specify multiple exporters");
                    }
                    PushExporter { console: None, otlp: None } => wrong.add(
                        "periodic::exporter",
                        "no valid metric exporter: there are otlp and console",
                    ),
                    PushExporter { otlp: Some(otlp), .. } => {
                        wrong.nest("periodic::exporter::otlp", otlp.check());
                    }
                    PushExporter { console: Some(_), .. } => {}
                }
            }
        }
        wrong
    }
}
