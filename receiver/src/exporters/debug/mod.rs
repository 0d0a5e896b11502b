//! Prints what comes through, to see that and what it is: the same lines as the Collector's exporter of
//! that name.

mod detailed;
mod normal;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use opentelemetry_proto::tonic::{common::v1::KeyValue, resource::v1::Resource};

use super::{
    queue::{self, Failure, Sender, Sent},
    retry,
};
use crate::{
    batch::{Batch, Signal},
    channel::Input,
    component::{Component, Context, Exporter},
    config::Mistakes,
};

/// How much is printed.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(try_from = "String", rename_all = "lowercase")]
#[schemars(!try_from, extend("any-case" = true))]
pub(super) enum Verbosity {
    /// One line per batch.
    #[default]
    Basic,
    /// One line per item as well.
    Normal,
    /// Every field as well.
    Detailed,
}

impl TryFrom<String> for Verbosity {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Ok(match name.to_lowercase().as_str() {
            "basic" => Self::Basic,
            "normal" => Self::Normal,
            "detailed" => Self::Detailed,
            "none" | "" => {
                return Err(
                    "verbosity level \"None\" is not supported, valid are: basic, normal, detailed"
                        .to_owned(),
                );
            }
            other => {
                return Err(format!(
                    "unknown metrics level {other:?}, valid are: basic, normal, detailed"
                ));
            }
        })
    }
}

/// The configuration.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// How much is printed: basic, normal or detailed.
    #[serde(deserialize_with = "crate::config::any_case")]
    pub verbosity: Verbosity,
    /// Batches printed in each second before sampling begins.
    pub sampling_initial: i64,
    /// From then on every n-th batch is printed; 0 prints none.
    pub sampling_thereafter: i64,
    /// Print to the agent's own log, at level info; otherwise to `output_paths`.
    pub use_internal_logger: bool,
    /// Files, `stdout` or `stderr`; standard output by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_paths: Option<Vec<String>>,
    /// Where batches wait; nowhere by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sending_queue: Option<queue::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            verbosity: Verbosity::Basic,
            sampling_initial: 2,
            sampling_thereafter: 1,
            use_internal_logger: true,
            output_paths: None,
            sending_queue: None,
        }
    }
}

/// The exporter.
pub(super) struct Debug {
    config: Config,
    outputs: Vec<Output>,
}

/// Where text goes, if not to the log.
enum Output {
    Stdout,
    Stderr,
    File(File),
}

impl Component for Debug {
    const NAME: &'static str = "debug";
    const DESCRIPTION: &'static str = "Prints what comes through.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str = "verbosity: normal";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        if let Some(paths) = &config.output_paths {
            if config.use_internal_logger {
                let message = "output_paths is not supported when use_internal_logger is true";
                wrong.add("output_paths", message);
            } else if paths.is_empty() {
                let message = "output_paths must not be empty when use_internal_logger is false";
                wrong.add("output_paths", message);
            }
        }
        if let Some(queue) = &config.sending_queue {
            wrong.nest("sending_queue", queue.check());
        }
        wrong.or(Self { config, outputs: Vec::new() })
    }
}

impl Exporter for Debug {
    async fn start(&mut self, _: &Context) -> anyhow::Result<()> {
        if self.config.use_internal_logger {
            return Ok(());
        }
        let stdout = ["stdout".to_owned()];
        for path in self.config.output_paths.as_deref().unwrap_or(&stdout) {
            self.outputs.push(match path.as_str() {
                "stdout" => Output::Stdout,
                "stderr" => Output::Stderr,
                path => {
                    let file = OpenOptions::new().create(true).append(true).open(path);
                    Output::File(file.with_context(|| format!("output_paths: {path}"))?)
                }
            });
        }
        Ok(())
    }

    async fn run(self, cx: Context, input: Input) -> anyhow::Result<()> {
        let off = || queue::Config { enabled: false, ..Default::default() };
        let queue = self.config.sending_queue.clone().unwrap_or_else(off);
        let retry = retry::Config { enabled: false, ..Default::default() };
        let sampling = Mutex::new(Sampling { second: Instant::now(), seen: 0 });
        let printer = Printer { exporter: cx.id.to_string(), debug: self, sampling };
        queue::run(&cx, input, &queue, &retry, printer).await;
        Ok(())
    }
}

/// Prints batches.
struct Printer {
    exporter: String,
    debug: Debug,
    sampling: Mutex<Sampling>,
}

impl Sender for Printer {
    type Kept = ();

    async fn send(&self, batch: &Batch, _: &mut ()) -> Result<Sent, Failure> {
        let config = &self.debug.config;
        let mut sampling = self.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        if !sampling.keeps(config, Instant::now()) {
            return Ok(Sent::default());
        }
        let text = describe(batch, config.verbosity);
        if config.use_internal_logger {
            tracing::info!(exporter = %self.exporter, "{text}");
            return Ok(Sent::default());
        }
        // Without the agent's logger, a tab stands between the message and its fields.
        let text = text.replacen(' ', "\t", 1);
        for output in &self.debug.outputs {
            let written = match output {
                Output::Stdout => writeln!(io::stdout().lock(), "{text}"),
                Output::Stderr => writeln!(io::stderr().lock(), "{text}"),
                Output::File(file) => (&mut &*file).write_all(format!("{text}\n").as_bytes()),
            };
            written.map_err(|error| Failure::Permanent { reason: error.to_string() })?;
        }
        Ok(Sent::default())
    }
}

/// What was seen in the current second.
struct Sampling {
    second: Instant,
    seen: i64,
}

impl Sampling {
    fn keeps(&mut self, config: &Config, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self { second: now, seen: 0 };
        }
        self.seen += 1;
        match self.seen.saturating_sub(config.sampling_initial.max(0)) {
            ..=0 => true,
            after => after.checked_rem(config.sampling_thereafter) == Some(0),
        }
    }
}

fn describe(batch: &Batch, verbosity: Verbosity) -> String {
    let items = batch.items();
    let line = match batch {
        Batch::Metrics(request) => {
            let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
            let metrics: usize = scopes.map(|s| s.metrics.len()).sum();
            let resources = request.resource_metrics.len();
            format!(
                r#"Metrics {{"resource metrics": {resources}, "metrics": {metrics}, "data points": {items}}}"#
            )
        }
        Batch::Logs(request) => {
            let resources = request.resource_logs.len();
            format!(r#"Logs {{"resource logs": {resources}, "log records": {items}}}"#)
        }
        Batch::Traces(request) => {
            let resources = request.resource_spans.len();
            format!(r#"Traces {{"resource spans": {resources}, "spans": {items}}}"#)
        }
    };
    match verbosity {
        Verbosity::Basic => line,
        Verbosity::Normal => format!("{line}\n{}", normal::text(batch)),
        Verbosity::Detailed => format!("{line}\n{}", detailed::text(batch)),
    }
}

/// A resource's attributes.
fn of_resource(resource: &Option<Resource>) -> &[KeyValue] {
    resource.as_ref().map_or(&[], |resource| &resource.attributes)
}

/// An id in hexadecimal; one of zeros is none.
fn hex(id: &[u8]) -> String {
    match id.iter().all(|byte| *byte == 0) {
        true => String::new(),
        false => id.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests;
