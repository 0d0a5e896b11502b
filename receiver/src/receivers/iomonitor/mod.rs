//! `iomonitor`: what the kernel does for the I/O of a host or of cgroups, counted in the kernel and
//! read once per interval.
//!
//! Each signal is a file of its own and a line in [`SIGNALS`]; this file knows none of them by name.

mod errors;
mod fadvise;
mod page_cache;
mod reclaim;
pub mod signal;
mod syscalls;
mod system_call;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use abi::scope::MAX_CGROUPS;
use anyhow::{Result, bail, ensure};
use opentelemetry::{KeyValue, metrics::Counter};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{error, info, warn};

use self::signal::{AnySignal, Disabled, Factory, signal};
use crate::{
    batch::{Batch, Signal as Telemetry},
    channel::Output,
    component::{Component, Context, Receiver},
    config::{Mistakes, Raw, schema},
    ebpf::{
        capability,
        globals::Globals,
        ladder::{Mode, Status},
        load::{Kernel, Loaded},
        memory, scope,
    },
    metric::{Attribute, Kind, Metric, Points},
};

/// Every signal.
pub const SIGNALS: &[Factory] = &[
    signal::<page_cache::PageCache>(),
    signal::<fadvise::Fadvise>(),
    signal::<reclaim::Reclaim>(),
    signal::<syscalls::Syscalls>(),
];

/// Reading the maps takes some fraction of this.
const SHORTEST: Duration = Duration::from_millis(1);

const PROBE: Attribute =
    Attribute { name: "probe", description: "the signal and its probe, such as `page_cache/adds`" };

const STATUS: Metric = Metric {
    name: "ebpf.probe.status",
    // Not "1": the translation to Prometheus would call it a ratio.
    unit: "{probe}",
    kind: Kind::Gauge,
    description: "1 if the probe is attached, 0 if it is not.",
    caveat: "The metrics of a probe that is not attached are absent, not zero.",
    attributes: &[
        PROBE,
        Attribute { name: "mode", description: "how it attached; absent if it did not" },
        Attribute { name: "reason", description: "why better mechanisms, or all, were refused" },
    ],
};

const MISSED: Metric = Metric {
    name: "ebpf.probe.missed",
    unit: "{event}",
    kind: Kind::Counter,
    description: "Events for which the kernel did not run a program, because it was running already.",
    caveat: "While it is 0, counts are exact. Kernels before 5.12 do not count it.",
    attributes: &[PROBE],
};

/// What a probe's programs saw but could not keep.
pub(crate) const DROPPED: Metric = Metric {
    name: "ebpf.probe.dropped",
    unit: "{event}",
    kind: Kind::Counter,
    description: "Events that a program saw but found no room for.",
    caveat: "While it is 0, counts are exact.",
    attributes: &[PROBE, Attribute { name: "reason", description: "what there was too much of" }],
};

/// The receiver's own metrics and those of every signal.
const METRICS: &[Metric] = &all_metrics();

/// Joins the lists of the signals at compile time.
const fn all_metrics() -> [Metric; count_metrics()] {
    let mut all = [STATUS; count_metrics()];
    all[1] = MISSED;
    all[2] = DROPPED;
    let (mut next, mut i) = (3, 0);
    while i < SIGNALS.len() {
        let mut j = 0;
        while j < SIGNALS[i].metrics.len() {
            all[next] = SIGNALS[i].metrics[j];
            next += 1;
            j += 1;
        }
        i += 1;
    }
    all
}

const fn count_metrics() -> usize {
    let (mut count, mut i) = (3, 0);
    while i < SIGNALS.len() {
        count += SIGNALS[i].metrics.len();
        i += 1;
    }
    count
}

/// The configuration of `iomonitor`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between two readings of the kernel's counters.
    #[serde(with = "crate::config::duration")]
    pub collection_interval: Duration,
    /// Time before the first reading.
    #[serde(with = "crate::config::duration")]
    pub initial_delay: Duration,
    /// The mechanism by which programs may attach.
    pub mode: ModeChoice,
    /// What a series stands for.
    pub group_by: GroupBy,
    /// Which tasks are counted.
    pub scope: Scope,
    /// The signals' own sections, by name. A signal that is not named has its defaults.
    #[serde(serialize_with = "effective_signals")]
    #[schemars(schema_with = "signals_schema")]
    pub signals: BTreeMap<String, Raw>,
    /// Switches for single metrics, by name.
    #[schemars(schema_with = "metrics_schema")]
    pub metrics: BTreeMap<String, MetricSwitch>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            collection_interval: Duration::from_secs(10),
            initial_delay: Duration::from_secs(1),
            mode: ModeChoice::Auto,
            group_by: GroupBy::Host,
            scope: Scope::default(),
            signals: BTreeMap::new(),
            metrics: BTreeMap::new(),
        }
    }
}

/// Every signal, with the defaults filled in.
fn effective_signals<S: Serializer>(
    signals: &BTreeMap<String, Raw>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(SIGNALS.iter().map(|signal| {
        let section = signals.get(signal.name).map(Raw::section).unwrap_or_default();
        (signal.name, (signal.effective)(&section))
    }))
}

/// Every signal, by its name.
fn signals_schema(_: &mut SchemaGenerator) -> Schema {
    let signals = SIGNALS.iter().map(|signal| {
        let mut schema = (signal.schema)();
        schema["description"] = signal.description.into();
        (signal.name.to_owned(), schema)
    });
    let signals: serde_json::Map<_, _> = signals.collect();
    json_schema!({"type": "object", "additionalProperties": false, "properties": signals})
}

/// Every metric, by its name.
fn metrics_schema(_: &mut SchemaGenerator) -> Schema {
    let metrics = METRICS.iter().map(|metric| {
        let mut schema = schema::of::<MetricSwitch>();
        schema["description"] = metric.description.into();
        (metric.name.to_owned(), schema)
    });
    let metrics: serde_json::Map<_, _> = metrics.collect();
    json_schema!({"type": "object", "additionalProperties": false, "properties": metrics})
}

/// `mode`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModeChoice {
    /// The first that works.
    Auto,
    /// `tp_btf` alone.
    TpBtf,
    /// Classic tracepoints alone.
    Tracepoint,
}

/// `group_by`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// The host.
    Host,
}

/// `scope`: what is set must all hold. Empty: every task.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Directories in the cgroup v2 hierarchy; tasks in them or below them are counted.
    pub cgroups: Vec<PathBuf>,
}

/// `metrics::<name>`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricSwitch {
    /// Whether the metric is emitted.
    pub enabled: bool,
}

impl Default for MetricSwitch {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The receiver.
pub struct IoMonitor {
    interval: Duration,
    delay: Duration,
    mode: Option<Mode>,
    cgroups: Vec<PathBuf>,
    signals: Vec<Box<dyn AnySignal>>,
    disabled: Disabled,
    running: Option<Attached>,
}

/// What has been attached.
struct Attached {
    start: SystemTime,
    signals: Vec<(Box<dyn AnySignal>, Loaded)>,
    statuses: Vec<Status>,
    resource: Vec<(&'static str, String)>,
}

impl Component for IoMonitor {
    const NAME: &'static str = "iomonitor";
    const DESCRIPTION: &'static str = "Page cache, fadvise, memory reclaim and system calls, counted by \
                                       eBPF programs.";
    const SIGNALS: &'static [Telemetry] = &[Telemetry::Metrics];
    const EXAMPLE: &'static str = "scope:\n  cgroups: [/sys/fs/cgroup/system.slice]\nsignals:\n  syscalls:\n    calls: [read, pread64, fsync]";
    const METRICS: &'static [Metric] = METRICS;
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(
            !config.collection_interval.is_zero(),
            "collection_interval",
            "requires positive value",
        );
        wrong.require(
            config.collection_interval.is_zero() || config.collection_interval >= SHORTEST,
            "collection_interval",
            "must be at least 1ms; a number without a unit is nanoseconds",
        );
        wrong.require(
            config.scope.cgroups.len() <= MAX_CGROUPS,
            "scope::cgroups",
            &format!("more than {MAX_CGROUPS} cgroups cannot be scoped to"),
        );
        let mut disabled = Disabled::new();
        for (name, switch) in &config.metrics {
            match METRICS.iter().find(|m| m.name == name) {
                Some(metric) if !switch.enabled => drop(disabled.insert(metric.name)),
                Some(_) => {}
                None => wrong.unknown(
                    format!("metrics::{name}"),
                    format!("no metric is called {name}"),
                    name,
                    METRICS.iter().map(|m| m.name),
                ),
            }
        }
        for name in config.signals.keys().filter(|n| !SIGNALS.iter().any(|s| s.name == n.as_str()))
        {
            wrong.unknown(
                format!("signals::{name}"),
                format!("no signal is called {name}"),
                name,
                SIGNALS.iter().map(|s| s.name),
            );
        }
        let mut signals = Vec::new();
        for factory in SIGNALS {
            let section = config.signals.get(factory.name).map(Raw::section).unwrap_or_default();
            match (factory.configure)(&section, &disabled) {
                Ok(signal) => signals.extend(signal),
                Err(nested) => wrong.nest(&format!("signals::{}", factory.name), nested),
            }
        }
        let mode = match config.mode {
            ModeChoice::Auto => None,
            ModeChoice::TpBtf => Some(Mode::TpBtf),
            ModeChoice::Tracepoint => Some(Mode::Tracepoint),
        };
        wrong.or(Self {
            interval: config.collection_interval,
            delay: config.initial_delay,
            mode,
            cgroups: config.scope.cgroups,
            signals,
            disabled,
            running: None,
        })
    }
}

impl Receiver for IoMonitor {
    async fn start(&mut self, _: &Context) -> Result<()> {
        // Loading is work for the CPU, for some 100 ms, and nothing else runs yet on this thread.
        let attached = tokio::task::block_in_place(|| self.attach())?;
        memory::release();
        for status in &attached.statuses {
            match (status.mode, status.reason()) {
                (Some(mode), reason) if reason.is_empty() => {
                    info!(probe = status.probe, %mode, "Attached.");
                }
                (Some(mode), reason) => info!(probe = status.probe, %mode, reason, "Attached."),
                (None, reason) => warn!(probe = status.probe, reason, "Not attached."),
            }
        }
        ensure!(
            attached.signals.is_empty() || attached.signals.iter().any(|(_, l)| l.has_any()),
            "no probe attached: {}",
            attached.statuses.first().map(Status::reason).unwrap_or_default(),
        );
        self.running = Some(attached);
        Ok(())
    }

    async fn run(mut self, cx: Context, out: Output) -> Result<()> {
        let Some(mut attached) = self.running.take() else { bail!("it was not started") };
        let scraped = Scraped::new(&cx);
        let mut ticks = interval_at(Instant::now() + self.delay, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopped = tokio::select! {
                biased;
                () = cx.stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            // A few system calls, well under a millisecond: not worth another thread.
            let batch = tokio::task::block_in_place(|| attached.collect(&self.disabled, &scraped));
            scraped.points.add(batch.items() as u64, &scraped.attributes);
            if out.send(batch).await.is_err() || stopped {
                return Ok(());
            }
        }
    }
}

impl IoMonitor {
    fn attach(&mut self) -> Result<Attached> {
        capability::check()?;
        let kernel = Kernel::running()?;
        let mut attached = Attached {
            // Every counter is zero at this moment.
            start: SystemTime::now(),
            signals: Vec::new(),
            statuses: Vec::new(),
            resource: resource(),
        };
        for signal in self.signals.drain(..) {
            let mut globals = Globals::default();
            scope::set(&mut globals, &self.cgroups)?;
            signal.globals(&mut globals)?;
            let (name, probes) = (signal.name(), signal.probes());
            match Loaded::new(&kernel, signal.object(), name, &probes, globals, self.mode) {
                Ok((loaded, statuses)) => {
                    attached.signals.push((signal, loaded));
                    attached.statuses.extend(statuses);
                }
                Err(error) => attached.statuses.extend(probes.iter().map(|probe| Status {
                    probe: format!("{name}/{}", probe.name),
                    mode: None,
                    refused: probe.rungs.iter().map(|r| (r.mode, format!("{error:#}"))).collect(),
                })),
            }
        }
        Ok(attached)
    }
}

/// What would become of every probe on this kernel: loads and attaches them all, then lets go.
pub fn probe(config: Config) -> Result<Vec<Status>> {
    let mut receiver = IoMonitor::new(config).map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
    Ok(receiver.attach()?.statuses)
}

impl Attached {
    fn collect(&mut self, disabled: &Disabled, scraped: &Scraped) -> Batch {
        let mut points = Points::new(self.start, SystemTime::now(), disabled);
        for status in &self.statuses {
            let reason = status.reason();
            let mut attributes = vec![(PROBE.name, status.probe.as_str())];
            attributes.extend(status.mode.map(|mode| ("mode", mode.name())));
            if !reason.is_empty() {
                attributes.push(("reason", &reason));
            }
            points.gauge(&STATUS, &attributes, status.mode.is_some().into());
        }
        for (signal, loaded) in &mut self.signals {
            for (probe, missed) in loaded.missed() {
                points.counter(&MISSED, &[(PROBE.name, probe)], missed);
            }
            if let Err(error) = signal.read(loaded, &mut points) {
                error!(signal = signal.name(), "cannot read its maps: {error:#}");
                scraped.errors.add(1, &scraped.attributes);
            }
        }
        let resource: Vec<_> = self.resource.iter().map(|(k, v)| (*k, v.as_str())).collect();
        points.into_batch(&resource, "fathom/iomonitor")
    }
}

/// What the metrics are about. `service.*` become Prometheus' `job` and `instance`; they are the
/// same after a restart, so that its series go on.
fn resource() -> Vec<(&'static str, String)> {
    let host = nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    vec![
        ("service.name", env!("CARGO_PKG_NAME").to_owned()),
        ("service.instance.id", host.clone()),
        ("host.name", host),
        ("os.type", "linux".to_owned()),
    ]
}

/// Counts of a scraper, as the Collector names them.
struct Scraped {
    points: Counter<u64>,
    errors: Counter<u64>,
    attributes: [KeyValue; 2],
}

impl Scraped {
    fn new(cx: &Context) -> Self {
        Self {
            points: cx.meter.u64_counter("otelcol_scraper_scraped_metric_points").build(),
            errors: cx.meter.u64_counter("otelcol_scraper_errored_metric_points").build(),
            attributes: [
                KeyValue::new("receiver", cx.id.to_string()),
                KeyValue::new("scraper", IoMonitor::NAME),
            ],
        }
    }
}
