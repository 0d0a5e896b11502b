//! The agent's logs, as the Collector's logger (zap) writes them: for people, or as JSON.

mod export;
mod line;
mod output;
mod sampling;

use std::{collections::BTreeMap, mem, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, logs::SdkLogRecord, trace::SpanData};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use self::{export::Export, line::Lines, output::Outputs, sampling::Sampler};
use super::{
    metrics::Telemetry,
    push::{Processor, Sending, Waiting},
    recent,
    traces::TARGET,
};
use crate::config::Mistakes;

/// The target of records that are written however often they are the same: what they say is said nowhere else, such as
/// that data is lost when the agent ends.
pub(crate) const KEPT: &str = "fathom::kept";

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
    /// Where records go as OTLP, too. Sampling does not concern them.
    pub processors: Vec<Processor>,
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
            processors: Vec::new(),
        }
    }
}

/// A level of severity.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("any-case" = true, "also" = ["warning", ""]))]
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
#[schemars(extend("also" = [""]))]
pub enum Encoding {
    /// A line for people.
    #[default]
    #[serde(alias = "")]
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
        for (i, processor) in self.processors.iter().enumerate() {
            wrong.nest(&format!("processors::{i}"), processor.check("log"));
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

/// The logs and spans at work.
pub struct Logs {
    level: reload::Handle<EnvFilter, Registry>,
    source: Resource,
    /// Of each processor, until it is started.
    records: Vec<Waiting<SdkLogRecord>>,
    spans: Vec<Waiting<SpanData>>,
}

/// Starts logging. Once per process.
pub fn init(config: &super::Config) -> Result<Logs> {
    let (filter, level) = reload::Layer::new(filter(config.logs.level)?);
    let lines = config.logs.lines(&config.resource.attributes())?;
    let (queues, records): (Vec<_>, _) = config.logs.processors.iter().map(Waiting::new).unzip();
    let export = (!queues.is_empty()).then(|| Export::new(queues));
    let on = config.traces.is_on();
    let processors = config.traces.processors.iter().filter(|_| on);
    let (queues, spans): (Vec<_>, _) = processors.map(Waiting::new).unzip();
    let traced = config.traces.spans(queues).with_filter(filter_fn(|metadata| {
        // The spans of components say whose the others are.
        metadata.is_span() && (metadata.target() == TARGET || metadata.name() == "component")
    }));
    tracing_subscriber::registry()
        .with(lines.and_then(export).with_filter(filter))
        .with(recent::all().clone().with_filter(LevelFilter::WARN))
        .with(on.then_some(traced))
        .try_init()
        .map_err(|e| anyhow!("cannot start logging: {e}"))?;
    Ok(Logs { level, source: config.resource.source(), records, spans })
}

impl Logs {
    /// Begins to send what goes elsewhere than into files.
    pub fn start(&mut self, telemetry: &Telemetry) -> Result<Exports> {
        let mut sending = Vec::new();
        for (i, waiting) in mem::take(&mut self.records).into_iter().enumerate() {
            let started = waiting.start(&self.source);
            let at = || format!("service::telemetry::logs::processors::{i}");
            sending.push(("logs", started.with_context(at)?));
        }
        for (i, waiting) in mem::take(&mut self.spans).into_iter().enumerate() {
            let started = waiting.start(&self.source);
            let at = || format!("service::telemetry::traces::processors::{i}");
            sending.push(("traces", started.with_context(at)?));
        }
        let dropped: Vec<_> =
            sending.iter().map(|(signal, sending)| (*signal, sending.dropped.clone())).collect();
        if !dropped.is_empty() {
            telemetry
                .meter()
                .u64_observable_counter("otelcol_telemetry_dropped_records")
                .with_description(
                    "Records and spans of the agent itself that found no room in a queue, or that nobody took",
                )
                .with_callback(move |counter| {
                    for signal in ["logs", "traces"] {
                        let of = dropped.iter().filter(|(of, _)| *of == signal);
                        let all = of.map(|(_, dropped)| dropped.load(Ordering::Relaxed)).sum();
                        counter.observe(all, &[KeyValue::new("otel.signal", signal)]);
                    }
                })
                .build();
        }
        Ok(Exports(sending.into_iter().map(|(_, sending)| sending).collect()))
    }

    /// Writes what this configuration's level asks for from now on.
    pub fn set_level(&self, config: &super::Config) -> Result<()> {
        self.level.reload(filter(config.logs.level)?).context("cannot change the level of the logs")
    }
}

/// What sends logs and spans.
pub struct Exports(Vec<Sending>);

impl Exports {
    /// Sends what is left.
    pub async fn end(self) {
        Sending::end(self.0).await;
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
