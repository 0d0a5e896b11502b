//! The agent at work: it runs until a signal or a failure ends it, and SIGHUP makes it read its
//! configuration again.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use fathom::{
    config::{Plan, Report},
    pipeline::{Changes, Running},
    telemetry::{self, Logs, Telemetry},
};
use nix::sys::signal::{SigSet, Signal};
use opentelemetry::{KeyValue, metrics::Counter};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tracing::{error, info, warn};

/// Reads the configuration from where it was read at the start.
pub(crate) type Load = Arc<dyn Fn() -> Result<Plan, Report> + Send + Sync>;

/// Lets SIGHUP wait, in this thread and in all that it starts, until it can be answered: by default it would end
/// the process while the command line and the configuration are being read.
pub(crate) fn hold_hangups() -> Result<()> {
    hangups().thread_block().context("cannot hold SIGHUP back")
}

/// Lets SIGHUP come, to this thread.
pub(crate) fn let_hangups_come() -> Result<()> {
    hangups().thread_unblock().context("cannot receive SIGHUP")
}

fn hangups() -> SigSet {
    SigSet::from_iter([Signal::SIGHUP])
}

/// Runs until a signal or a failure, then drains.
pub(crate) async fn serve(plan: Plan, mut logs: Logs, load: Load) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    let_hangups_come()?;

    let config = plan.telemetry.clone();
    let telemetry = Telemetry::start(&config).await?;
    let exports = logs.start(&telemetry)?;
    let started = tokio::select! {
        started = Running::start(plan, telemetry.meter()) => Some(started?),
        // Nothing has been collected yet that could be lost.
        _ = interrupt.recv() => { info!("Received SIGINT, not starting."); None }
        _ = terminate.recv() => { info!("Received SIGTERM, not starting."); None }
    };
    let Some(mut running) = started else {
        tokio::join!(telemetry.shutdown(), exports.end());
        return Ok(ExitCode::SUCCESS);
    };
    let mut reloads = Reloads::new(logs, config, &telemetry);
    info!("Everything is ready. Begin running and processing data.");

    // Sources may be slow: they are read beside everything else.
    let mut loading: Option<JoinHandle<_>> = None;
    let failure = loop {
        tokio::select! {
            _ = interrupt.recv() => { info!("Received SIGINT, shutting down."); break None }
            _ = terminate.recv() => { info!("Received SIGTERM, shutting down."); break None }
            failure = running.failure() => break Some(failure),
            Some(()) = hangup.recv(), if loading.is_none() => {
                info!("Received SIGHUP, reading the configuration again.");
                let load = Arc::clone(&load);
                loading = Some(tokio::task::spawn_blocking(move || load()));
            }
            Some(loaded) = async { Some(loading.as_mut()?.await) } => {
                loading = None;
                let loaded = loaded.context("reading it failed").and_then(|loaded| {
                    loaded.map_err(|report| anyhow!("{report}"))
                });
                reloads.apply(loaded, &mut running).await;
            }
        }
    };
    if let Some(failure) = &failure {
        error!("{failure:#}");
    }
    let end = async {
        let clean = running.shutdown().await;
        tokio::join!(telemetry.shutdown(), exports.end());
        clean
    };
    let clean = tokio::select! {
        clean = end => clean,
        // Who asks twice does not want to wait.
        _ = interrupt.recv() => { warn!("Received a second signal, exiting at once."); false }
        _ = terminate.recv() => { warn!("Received a second signal, exiting at once."); false }
    };
    Ok(if clean && failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a reload does beside the pipelines.
struct Reloads {
    logs: Logs,
    /// What the agent's own metrics were started with.
    telemetry: telemetry::Config,
    count: Counter<u64>,
}

impl Reloads {
    fn new(logs: Logs, telemetry: telemetry::Config, metrics: &Telemetry) -> Self {
        let count = metrics
            .meter()
            .u64_counter("otelcol_config_reloads")
            .with_description("Times that SIGHUP asked for the configuration to be read again")
            .build();
        let reloads = Self { logs, telemetry, count };
        // What is there from the start shows an increase when the first comes.
        OUTCOMES.iter().for_each(|outcome| reloads.add(outcome, 0));
        reloads
    }

    fn add(&self, outcome: &'static str, times: u64) {
        self.count.add(times, &[KeyValue::new("outcome", outcome)]);
    }

    /// Makes a configuration, if it is one, what runs.
    async fn apply(&mut self, loaded: Result<Plan>, running: &mut Running) {
        let [success, failure] = OUTCOMES;
        match self.change(loaded, running).await {
            Ok(Changes { started, restarted, stopped }) => {
                self.add(success, 1);
                if started.is_empty() && restarted.is_empty() && stopped.is_empty() {
                    info!("Configuration reloaded: every component is configured as before.");
                } else {
                    let said = |names: Vec<_>| (!names.is_empty()).then(|| names.join(", "));
                    info!(
                        started = said(started),
                        restarted = said(restarted),
                        stopped = said(stopped),
                        "Configuration reloaded: the other components run on."
                    );
                }
            }
            Err(error) => {
                self.add(failure, 1);
                error!("Configuration not reloaded, the previous one stays in effect: {error:#}");
            }
        }
    }

    async fn change(&mut self, loaded: Result<Plan>, running: &mut Running) -> Result<Changes> {
        let plan = loaded?;
        plan.warnings.iter().for_each(|text| warn!("{text}"));
        let config = plan.telemetry.clone();
        let changes = running.reload(plan).await?;
        if let Err(error) = self.logs.set_level(&config) {
            warn!("{error:#}");
        }
        for key in self.telemetry.fixed_changes(&config) {
            warn!("{key} has changed: that takes effect at the next start of the agent");
        }
        Ok(changes)
    }
}

/// What becomes of a reload.
const OUTCOMES: [&str; 2] = ["success", "failure"];
