//! The agent's logs, as the Collector's logger (zap) writes them: for people, or as JSON.

mod line;
mod output;
mod sampling;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, filter::LevelFilter, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

use self::{line::Lines, output::Outputs, sampling::Sampler};
use super::recent;
use crate::config::Mistakes;

/// `service::telemetry::logs`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The least severe level that is written.
    #[serde(deserialize_with = "crate::config::any_case")]
    pub level: Level,
    /// How a record looks.
    pub encoding: Encoding,
    /// Accepted without effect: there are no levels that would panic.
    pub development: bool,
    /// Leaves out where in the source a record comes from.
    pub disable_caller: bool,
    /// Accepted without effect: records have no stack traces.
    pub disable_stacktrace: bool,
    /// Leaves the agent's resource out of JSON.
    pub disable_zap_resource: bool,
    /// Records that say the same are not written without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// Where records go: `stderr`, `stdout`, or files.
    pub output_paths: Vec<String>,
    /// Where it is said that a record could not be written.
    pub error_output_paths: Vec<String>,
    /// What every record says besides.
    pub initial_fields: BTreeMap<String, Value>,
}

impl Default for Config {
    fn default() -> Self {
        let stderr = || vec!["stderr".to_owned()];
        Self {
            level: Level::default(),
            encoding: Encoding::default(),
            development: false,
            disable_caller: false,
            disable_stacktrace: false,
            disable_zap_resource: false,
            sampling: Some(Sampling::default()),
            output_paths: stderr(),
            error_output_paths: stderr(),
            initial_fields: BTreeMap::new(),
        }
    }
}

/// A level of severity.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Everything.
    Debug,
    /// What is worth knowing.
    #[default]
    #[serde(alias = "")]
    Info,
    /// What may be wrong.
    #[serde(alias = "warning")]
    Warn,
    /// What is wrong.
    Error,
    /// Nothing, as the levels below: the agent logs no worse than errors.
    Dpanic,
    /// Nothing.
    Panic,
    /// Nothing.
    Fatal,
}

/// How a record looks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A line for people.
    #[default]
    Console,
    /// A line of JSON.
    Json,
}

/// `sampling`: of records of one level and message.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Whether any are left out.
    pub enabled: bool,
    /// The time after which it begins anew.
    #[serde(with = "crate::config::duration")]
    pub tick: Duration,
    /// The first that are written.
    pub initial: u64,
    /// Every how manyth is written after them; 0 is none.
    pub thereafter: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { enabled: true, tick: Duration::from_secs(10), initial: 10, thereafter: 100 }
    }
}

impl Config {
    /// Whether the same is written in the same way to the same places, but for the level.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        *self == Self { level: self.level, ..other.clone() }
    }

    pub(super) fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        for (key, paths) in
            [("output_paths", &self.output_paths), ("error_output_paths", &self.error_output_paths)]
        {
            for (i, path) in paths.iter().enumerate() {
                if let Err(message) = output::target(path) {
                    wrong.add(format!("{key}::{i}"), message);
                }
            }
        }
        wrong
    }

    fn lines(&self, resource: &BTreeMap<String, String>) -> Result<Lines> {
        let errors = Outputs::open(&self.error_output_paths)
            .context("service::telemetry::logs::error_output_paths")?;
        let outputs =
            Outputs::open(&self.output_paths).context("service::telemetry::logs::output_paths")?;
        let mut fixed: Map<String, Value> = self.initial_fields.clone().into_iter().collect();
        if self.encoding == Encoding::Json && !self.disable_zap_resource && !resource.is_empty() {
            fixed.insert("resource".to_owned(), json!(resource));
        }
        let sampler = self.sampling.as_ref().filter(|s| s.enabled).map(Sampler::new);
        Ok(Lines {
            json: self.encoding == Encoding::Json,
            caller: !self.disable_caller,
            fixed,
            sampler,
            outputs,
            errors,
        })
    }
}

/// The logs at work.
pub struct Logs(reload::Handle<EnvFilter, Registry>);

/// Starts logging. Once per process.
pub fn init(config: &super::Config) -> Result<Logs> {
    let (filter, handle) = reload::Layer::new(filter(config.logs.level)?);
    let lines = config.logs.lines(&super::metrics::attributes(config))?;
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(recent::all().clone().with_filter(LevelFilter::WARN))
        .try_init()
        .map_err(|e| anyhow!("cannot start logging: {e}"))?;
    Ok(Logs(handle))
}

impl Logs {
    /// Writes what this configuration's level asks for from now on.
    pub fn set_level(&self, config: &super::Config) -> Result<()> {
        self.0.reload(filter(config.logs.level)?).context("cannot change the level of the logs")
    }
}

/// Libraries speak of their own affairs; their warnings are enough.
fn filter(level: Level) -> Result<EnvFilter> {
    Ok(EnvFilter::try_new(match level {
        Level::Debug => "warn,fathom=debug",
        Level::Info => "warn,fathom=info",
        Level::Warn => "warn",
        Level::Error => "error",
        Level::Dpanic | Level::Panic | Level::Fatal => "off",
    })?)
}

#[cfg(test)]
mod tests;
