//! `enrichment`: names what a cgroup's id or a process's number stands for.
//!
//! What has `cgroup.id` or `process.pid` among its attributes gets those of the container, pod, unit
//! and program. An attribute that is there already is left alone, and what cannot be known for sure
//! stays absent.

mod process;

use std::{
    fs, mem,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{KeyValue as Label, metrics::Counter};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use regex::Regex;
use serde::{Deserialize, Serialize};
use tracing::warn;

use self::process::{COMMAND_LINE, Processes, Reader};
use super::{attributes, resource};
use crate::{
    batch::{Batch, Signal},
    cgroup::{Counts, Known, ROOT, Resolver, mounts},
    channel::{Input, Output},
    component::{Component, Context, Processor},
    config::Mistakes,
    metric::pairs,
};

/// The attributes that a cgroup gives.
const OF_CGROUPS: [&str; 7] = [
    PATH,
    "container.id",
    "container.runtime.name",
    "k8s.pod.qos_class",
    "k8s.pod.uid",
    "systemd.unit.name",
    "systemd.user_unit.name",
];

/// Where a cgroup is below its hierarchy's mount.
const PATH: &str = "cgroup.path";

/// The configuration of `enrichment`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The attributes that may be added.
    pub attributes: Vec<String>,
    /// The most cgroups, and the most processes, that are remembered.
    pub cache_size: usize,
    /// The time that something is remembered after it was last asked for; it may have died long since.
    #[serde(with = "crate::config::duration")]
    pub stale_after: Duration,
    /// The arguments of processes.
    pub command_line: CommandLine,
    /// Where the machine's root directory is, if the agent is in a container.
    pub root_path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attributes: names().map(str::to_owned).collect(),
            cache_size: 4096,
            stale_after: Duration::from_secs(300),
            command_line: CommandLine::default(),
            root_path: PathBuf::from("/"),
        }
    }
}

/// `command_line`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CommandLine {
    /// Whether `process.command_line` is added. Arguments can hold secrets.
    pub enabled: bool,
    /// Regular expressions; what matches is replaced by `****`.
    pub redact: Vec<String>,
}

impl Default for CommandLine {
    fn default() -> Self {
        const SECRETS: &str = r"(?i)[^\s=]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|credential)[^\s=]*(?:=|\s+)\S+";
        Self { enabled: false, redact: vec![SECRETS.to_owned()] }
    }
}

/// Every attribute that can be listed.
fn names() -> impl Iterator<Item = &'static str> {
    OF_CGROUPS.into_iter().chain(process::ATTRIBUTES)
}

/// The processor.
pub struct Enrichment {
    wanted: Vec<&'static str>,
    redact: Option<Vec<Regex>>,
    config: Config,
}

impl Component for Enrichment {
    const NAME: &'static str = "enrichment";
    const DESCRIPTION: &'static str = "Names the container, pod, unit and program that a cgroup's id or a process's number stands for.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(config.cache_size > 0, "cache_size", "requires positive value");
        wrong.require(!config.stale_after.is_zero(), "stale_after", "requires positive value");
        wrong.require(config.root_path.is_absolute(), "root_path", "must be an absolute path");
        let mut wanted = Vec::new();
        for (at, given) in config.attributes.iter().enumerate() {
            let path = format!("attributes::{at}");
            match names().find(|name| name == given) {
                Some(name) => wanted.push(name),
                None if given == COMMAND_LINE => {
                    wrong.add(path, "is switched on by command_line::enabled");
                }
                None => {
                    wrong.unknown(path, format!("no attribute is called {given}"), given, names());
                }
            }
        }
        let mut redact = Vec::new();
        for (at, pattern) in config.command_line.redact.iter().enumerate() {
            match Regex::new(pattern) {
                Ok(regex) => redact.push(regex),
                Err(error) => {
                    // The expression and a mark below the fault come first; the text is the last line.
                    let error = error.to_string();
                    let reason = error.lines().last().unwrap_or(&error);
                    wrong.add(
                        format!("command_line::redact::{at}"),
                        format!("{pattern:?}: {reason}"),
                    );
                }
            }
        }
        let redact = config.command_line.enabled.then_some(redact);
        if redact.is_some() {
            wanted.push(COMMAND_LINE);
        }
        wrong.or(Self { wanted, redact, config })
    }
}

impl Processor for Enrichment {
    async fn run(self, cx: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        let mut counters = Counters::new(&cx);
        let mut names = tokio::task::block_in_place(|| {
            let hierarchy = hierarchy();
            if hierarchy.is_none() {
                warn!("No cgroup v2 hierarchy is mounted; what has cgroup.id gets no names.");
            }
            Names::new(self, hierarchy.as_deref())
        });
        while let Some(mut batch) = input.recv().await {
            // Reads what is new from the kernel's own file systems: microseconds each.
            tokio::task::block_in_place(|| names.enrich(&mut batch, Instant::now()));
            counters.add(&names);
            out.send(batch).await?;
        }
        Ok(())
    }
}

/// Where the v2 hierarchy is mounted: whole, if it is anywhere.
fn hierarchy() -> Option<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let all: Vec<_> = mounts(&mountinfo).into_iter().map(|mount| mount.point).collect();
    let whole = |point: &&PathBuf| fs::metadata(point).is_ok_and(|root| root.ino() == ROOT);
    all.iter().find(whole).or_else(|| all.first()).cloned()
}

/// What is known, and what of it is wanted.
struct Names {
    wanted: Vec<&'static str>,
    cgroups: Option<Resolver>,
    processes: Processes,
    warned: bool,
}

impl Names {
    fn new(processor: Enrichment, hierarchy: Option<&Path>) -> Self {
        let Enrichment { wanted, redact, config } = processor;
        let reader = Reader::new(&config.root_path, redact);
        Self {
            wanted,
            cgroups: hierarchy.map(|at| Resolver::new(at, config.cache_size, config.stale_after)),
            processes: Processes::new(reader, config.cache_size, config.stale_after),
            warned: false,
        }
    }

    fn enrich(&mut self, batch: &mut Batch, now: Instant) {
        resource::each(batch, |resource| {
            if let Some(resource) = resource {
                self.add(&mut resource.attributes, now);
            }
        });
        attributes::each(batch, |attributes| self.add(attributes, now));
        self.processes.expire(now);
    }

    fn add(&mut self, attributes: &mut Vec<KeyValue>, now: Instant) {
        let (mut cgroup, mut pid, mut created) = (None, None, None);
        for KeyValue { key, value, .. } in &*attributes {
            match key.as_str() {
                "cgroup.id" => cgroup = value.as_ref().and_then(number),
                "process.pid" => {
                    pid = value.as_ref().and_then(number).and_then(|n| u32::try_from(n).ok());
                }
                "process.creation.time" => created = Some(value.as_ref().and_then(time)),
                _ => {}
            }
        }
        let mut named = false;
        if let Some(known) = cgroup.and_then(|id| self.cgroup(id, now)) {
            let said = [(PATH, known.path.as_str())].into_iter().chain(known.identity.attributes());
            let said: Vec<_> = said.collect();
            self.insert(attributes, pairs(&said));
            named = true;
        }
        // A creation time that cannot be read is not the same as none: it could be another process.
        let created = match created {
            Some(None) => return,
            known => known.flatten(),
        };
        if let Some(said) = pid.and_then(|pid| self.processes.get(pid, created, now)) {
            // One container per item: that of the cgroup where there is one.
            let said = said.iter().filter(|a| !named || !OF_CGROUPS.contains(&a.key.as_str()));
            self.insert(attributes, said.cloned());
        }
    }

    fn insert(&self, to: &mut Vec<KeyValue>, said: impl IntoIterator<Item = KeyValue>) {
        for attribute in said {
            let wanted = self.wanted.contains(&attribute.key.as_str());
            if wanted && to.iter().all(|there| there.key != attribute.key) {
                to.push(attribute);
            }
        }
    }

    fn cgroup(&mut self, id: u64, now: Instant) -> Option<Arc<Known>> {
        match self.cgroups.as_mut()?.get(id, now) {
            Ok(known) => known,
            Err(error) => {
                if !mem::replace(&mut self.warned, true) {
                    warn!("cannot read the cgroup hierarchy: {error}");
                }
                None
            }
        }
    }
}

/// A whole number, as a receiver or a file may spell it.
fn number(value: &AnyValue) -> Option<u64> {
    match value.value.as_ref()? {
        // The id of a cgroup uses all 64 bits, and OTLP has no unsigned ones.
        Value::IntValue(number) => Some(number.cast_unsigned()),
        Value::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}

fn time(value: &AnyValue) -> Option<SystemTime> {
    match value.value.as_ref()? {
        Value::StringValue(text) => humantime::parse_rfc3339(text).ok(),
        _ => None,
    }
}

/// The processor's own metrics.
struct Counters {
    lookups: Counter<u64>,
    evictions: Counter<u64>,
    id: String,
    /// What was counted already: of cgroups and of processes.
    counted: [[u64; 3]; 2],
}

impl Counters {
    fn new(cx: &Context) -> Self {
        Self {
            lookups: cx.meter.u64_counter("otelcol_enrichment_lookups").build(),
            evictions: cx.meter.u64_counter("otelcol_enrichment_evictions").build(),
            id: cx.id.to_string(),
            counted: Default::default(),
        }
    }

    fn add(&mut self, names: &Names) {
        let of_cgroups = names.cgroups.as_ref().map(Resolver::counts).unwrap_or_default();
        let Counts { hits, misses, evicted, .. } = of_cgroups;
        let now = [[hits, misses, evicted], names.processes.counts()];
        for (kind, (now, before)) in ["cgroup", "process"].iter().zip(now.iter().zip(self.counted))
        {
            let [hits, misses, evicted] = [0, 1, 2].map(|at| now[at] - before[at]);
            let mut labels =
                vec![Label::new("processor", self.id.clone()), Label::new("identity", *kind)];
            self.evictions.add(evicted, &labels);
            for (outcome, count) in [("hit", hits), ("miss", misses)] {
                labels.truncate(2);
                labels.push(Label::new("outcome", outcome));
                self.lookups.add(count, &labels);
            }
        }
        self.counted = now;
    }
}

#[cfg(test)]
mod tests;
