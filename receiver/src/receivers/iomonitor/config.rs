//! `iomonitor`'s configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use abi::group::DEFAULT_GROUPS;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::{METRICS, SIGNALS, sampling::Sampling, signal::Switch};
use crate::{
    config::{Mistakes, Raw, schema},
    ebpf::{group::GroupBy, ladder::Mode, scope},
};

/// Reading the maps takes some fraction of this.
const SHORTEST: Duration = Duration::from_millis(1);

/// More groups than processes that Linux can number (`PID_MAX_LIMIT`) have no use, and the kernel makes no map for them.
const MOST_GROUPS: u32 = 1 << 22;

/// The configuration of `iomonitor`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between two readings of the kernel's counters.
    #[serde(with = "crate::config::duration")]
    pub collection_interval: Duration,
    /// Signals that are read at intervals of their own, such as the few that are watched closely.
    pub overrides: Vec<Override>,
    /// Signals of which some events are counted for all.
    pub sampling: Vec<Sampling>,
    /// When readings are to be at whole multiples of their interval, such as the slots of a protocol.
    pub align: Align,
    /// Time before the first reading.
    #[serde(with = "crate::config::duration")]
    pub initial_delay: Duration,
    /// The mechanism by which programs may attach.
    pub mode: ModeChoice,
    /// What a series stands for.
    pub group_by: GroupBy,
    /// Groups that there is room for. What happens for more of them is counted in one overflow series.
    pub max_groups: u32,
    /// The most memory that the maps in the kernel may come to take, in MiB. The receiver does not start if
    /// they could take more.
    pub memory_budget_mib: u64,
    /// Whether the kernel measures the run time of its programs, all of them and not Fathom's alone, which
    /// adds some 40 ns to each event.
    pub run_time: bool,
    /// Pressure stall information of the scope's cgroups, or of the host if the scope names none.
    pub pressure: Switch,
    /// Pages swapped in and out, of the scope's cgroups, or of the host if the scope names none.
    pub swap: Switch,
    /// Which tasks are counted.
    pub scope: scope::Config,
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
            overrides: Vec::new(),
            sampling: Vec::new(),
            align: Align::default(),
            initial_delay: Duration::from_secs(1),
            mode: ModeChoice::Auto,
            group_by: GroupBy::Host,
            max_groups: DEFAULT_GROUPS,
            memory_budget_mib: 256,
            run_time: false,
            pressure: Switch::default(),
            swap: Switch::default(),
            scope: scope::Config::default(),
            signals: BTreeMap::new(),
            metrics: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Checks what belongs to no signal.
    pub(super) fn check(&self, wrong: &mut Mistakes) {
        check_interval(self.collection_interval, "collection_interval", wrong);
        wrong.require(self.max_groups > 0, "max_groups", "must be a positive number");
        wrong.require(
            self.max_groups <= MOST_GROUPS,
            "max_groups",
            &format!("must be at most {MOST_GROUPS}"),
        );
        wrong.require(self.memory_budget_mib > 0, "memory_budget_mib", "must be a positive number");
    }

    /// Checks which signals have an interval of their own.
    pub(super) fn check_overrides(&self, wrong: &mut Mistakes) {
        let mut named = BTreeSet::new();
        for (i, tier) in self.overrides.iter().enumerate() {
            let key = format!("overrides::{i}");
            check_interval(tier.collection_interval, &format!("{key}::collection_interval"), wrong);
            wrong.require(!tier.signals.is_empty(), &format!("{key}::signals"), "names no signal");
            for (j, name) in tier.signals.iter().enumerate() {
                let key = format!("{key}::signals::{j}");
                if !SIGNALS.iter().any(|signal| signal.name == name) {
                    let names = SIGNALS.iter().map(|signal| signal.name);
                    wrong.unknown(key, format!("no signal is called {name}"), name, names);
                } else if !named.insert(name) {
                    wrong.add(key, format!("{name} has an interval already"));
                }
            }
        }
    }

    /// The intervals of all tiers: of what is read at the receiver's own, and of each override.
    pub(super) fn intervals(&self) -> Vec<Duration> {
        let overrides = self.overrides.iter().map(|tier| tier.collection_interval);
        std::iter::once(self.collection_interval).chain(overrides).collect()
    }

    /// What is left out of a signal, if anything is.
    pub(super) fn sampling(&self, signal: &str) -> Option<&Sampling> {
        let named = |sampling: &&Sampling| sampling.signals.iter().any(|name| name == signal);
        self.sampling.iter().filter(|sampling| sampling.leaves_out()).find(named)
    }

    /// The place in [`Self::intervals`] of a signal's.
    pub(super) fn tier(&self, signal: &str) -> usize {
        let named = |tier: &Override| tier.signals.iter().any(|name| name == signal);
        self.overrides.iter().position(named).map_or(0, |i| i + 1)
    }
}

fn check_interval(interval: Duration, key: &str, wrong: &mut Mistakes) {
    wrong.require(!interval.is_zero(), key, "requires positive value");
    wrong.require(
        interval.is_zero() || interval >= SHORTEST,
        key,
        "must be at least 1ms; a number without a unit is nanoseconds",
    );
}

/// `overrides`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Override {
    /// The signals, by name.
    pub signals: Vec<String>,
    /// Time between two readings of their counters.
    #[serde(with = "crate::config::duration")]
    pub collection_interval: Duration,
}

/// `align`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Align {
    /// Whether the counters are read at `epoch` and whole multiples of the interval since then, so that the
    /// difference between two readings is what happened in one window. They are read up to some milliseconds
    /// after the boundary; a point has the time of its reading.
    pub enabled: bool,
    /// When the first window began.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub epoch: SystemTime,
}

impl Default for Align {
    fn default() -> Self {
        Self { enabled: false, epoch: SystemTime::UNIX_EPOCH }
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
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum ModeChoice {
    /// The first that works, the cheapest of those that lose nothing on this kernel first.
    Auto,
    /// Raw tracepoints with typed arguments alone.
    TpBtf,
    /// Raw tracepoints alone.
    RawTp,
    /// Classic tracepoints alone.
    Tracepoint,
    /// Classic tracepoints of single system calls alone.
    SyscallTracepoint,
    /// Trampolines at functions alone.
    Fentry,
    /// Breakpoints at functions alone.
    Kprobe,
    /// Software events of perf alone.
    PerfEvent,
}

impl ModeChoice {
    /// The one mode that is allowed, if there is one.
    pub(super) fn forced(self) -> Option<Mode> {
        match self {
            Self::Auto => None,
            Self::TpBtf => Some(Mode::TpBtf),
            Self::RawTp => Some(Mode::RawTp),
            Self::Tracepoint => Some(Mode::Tracepoint),
            Self::SyscallTracepoint => Some(Mode::SyscallTracepoint),
            Self::Fentry => Some(Mode::Fentry),
            Self::Kprobe => Some(Mode::Kprobe),
            Self::PerfEvent => Some(Mode::PerfEvent),
        }
    }
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
