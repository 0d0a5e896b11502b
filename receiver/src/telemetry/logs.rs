//! The agent's logs: to standard error, for people or as JSON.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// `service::telemetry::logs`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The least severe level that is written.
    pub level: Level,
    /// How a record looks.
    pub encoding: Encoding,
}

/// A level of severity.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Everything.
    #[serde(alias = "DEBUG")]
    Debug,
    /// What is worth knowing.
    #[default]
    #[serde(alias = "INFO")]
    Info,
    /// What may be wrong.
    #[serde(alias = "WARN")]
    Warn,
    /// What is wrong.
    #[serde(alias = "ERROR")]
    Error,
}

/// How a record looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A line for people.
    #[default]
    Console,
    /// A line of JSON.
    Json,
}

/// The logs at work.
pub struct Logs(reload::Handle<EnvFilter, Registry>);

/// Starts logging. Once per process.
pub fn init(config: &super::Config) -> Result<Logs> {
    let (filter, handle) = reload::Layer::new(filter(config.logs.level)?);
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match config.logs.encoding {
        Encoding::Console => registry.with(lines.with_ansi(io::stderr().is_terminal())).try_init(),
        Encoding::Json => {
            registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init()
        }
    }
    .map_err(|e| anyhow!("cannot start logging: {e}"))?;
    Ok(Logs(handle))
}

impl Logs {
    /// Writes what this configuration's level asks for from now on.
    pub fn set_level(&self, config: &super::Config) -> Result<()> {
        self.0.reload(filter(config.logs.level)?).context("cannot change the level of the logs")
    }
}

fn filter(level: Level) -> Result<EnvFilter> {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    // Libraries speak of their own affairs; their warnings are enough.
    Ok(EnvFilter::try_new(format!("warn,fathom={level}"))?)
}
