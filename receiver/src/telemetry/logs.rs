//! The agent's logs: to standard error, for people or as JSON.

use std::io::{self, IsTerminal as _};

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::LevelFilter, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::recent;

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
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A line for people.
    #[default]
    Console,
    /// A line of JSON.
    Json,
}

/// Starts logging. Once per process.
pub fn init(config: &super::Config) -> Result<()> {
    let level = match config.logs.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    // Libraries speak of their own affairs; their warnings are enough.
    let filter = EnvFilter::try_new(format!("warn,fathom={level}"))?;
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let lines = match config.logs.encoding {
        Encoding::Console => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Encoding::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(recent::all().clone().with_filter(LevelFilter::WARN))
        .try_init()
        .map_err(|e| anyhow!("cannot start logging: {e}"))
}
