//! `resourcedetection`: says of every resource where the agent runs.

mod config;
mod container;
mod env;
mod k8s;
mod system;

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context as _;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{info, warn};

use self::config::{Config, ELSEWHERE};
use super::resource;
use crate::{
    batch::Signal,
    channel::{Input, Output},
    component::{Component, Context, Processor},
    config::Mistakes,
};

/// `env`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EnvConfig {
    /// The attributes that are taken; null: all.
    pub allowlist: Option<Vec<String>>,
}

/// `system`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SystemConfig {
    /// Where the host's name comes from: the first source that has one.
    pub hostname_sources: Vec<String>,
    /// Switches for single attributes, by name.
    pub resource_attributes: BTreeMap<String, Switch>,
}

impl Default for SystemConfig {
    fn default() -> Self {
        Self {
            hostname_sources: ["dns", "os"].map(str::to_owned).into(),
            resource_attributes: BTreeMap::new(),
        }
    }
}

/// `container` and `k8s_downward`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorConfig {
    /// Switches for single attributes, by name.
    pub resource_attributes: BTreeMap<String, Switch>,
}

/// `resource_attributes::<name>`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// Whether the attribute is added.
    pub enabled: bool,
}

/// The attributes of one detector that are on.
#[derive(Clone, Debug)]
struct Switches(Vec<&'static str>);

impl Switches {
    fn new(all: &'static [(&'static str, bool)], given: &BTreeMap<String, Switch>) -> Self {
        let on = |name, default| given.get(name).map_or(default, |switch: &Switch| switch.enabled);
        Self(all.iter().filter(|(name, default)| on(*name, *default)).map(|(n, _)| *n).collect())
    }

    fn on(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

/// A detector with what it needs.
enum Detector {
    Env(Option<Vec<String>>),
    System(Vec<system::Source>, Switches),
    Container(Switches),
    K8sDownward(Switches),
}

impl Detector {
    const NAMES: [&'static str; 4] = ["container", "env", "k8s_downward", "system"];

    fn name(&self) -> &'static str {
        match self {
            Self::Env(_) => "env",
            Self::System(..) => "system",
            Self::Container(_) => "container",
            Self::K8sDownward(_) => "k8s_downward",
        }
    }

    async fn detect(&self, deadline: Instant) -> anyhow::Result<Detected> {
        let root = Path::new("/");
        let variables =
            |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        match self {
            Self::Env(allowlist) => env::detect(&variables, allowlist.as_deref()),
            Self::System(sources, on) => system::detect(root, sources, on, deadline).await,
            Self::Container(on) => Ok(container::detect(root, on)),
            Self::K8sDownward(on) => Ok(k8s::detect(&variables, on)),
        }
    }
}

/// The environment, as far as it is asked for.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Attributes that were found.
#[derive(Debug, Default)]
struct Detected(BTreeMap<String, Value>);

impl Detected {
    fn put(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.put_value(key, Value::StringValue(value.into()));
    }

    fn put_value(&mut self, key: impl Into<String>, value: Value) {
        self.0.insert(key.into(), value);
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| keep(key));
    }

    /// Takes in what another detector found, where this has nothing.
    fn merge(&mut self, other: Self) {
        for (key, value) in other.0 {
            self.0.entry(key).or_insert(value);
        }
    }

    /// As lines, for people.
    fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect()
    }

    /// Adds it to a resource.
    fn apply(&self, resource: &mut Option<Resource>, replace: bool) {
        if self.0.is_empty() {
            return;
        }
        let attributes = &mut resource.get_or_insert_default().attributes;
        for (key, value) in &self.0 {
            let value = Some(AnyValue { value: Some(value.clone()) });
            match attributes.iter_mut().find(|there| there.key == *key) {
                Some(there) if replace => there.value = value,
                Some(_) => {}
                None => attributes.push(KeyValue { key: key.clone(), value, ..Default::default() }),
            }
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::ArrayValue(list) => {
            let values = list.values.iter().filter_map(|v| v.value.as_ref()).map(shown);
            values.collect::<Vec<_>>().join(",")
        }
        other => format!("{other:?}"),
    }
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.to_owned())) }
}

/// The processor.
pub struct ResourceDetection {
    detectors: Vec<Detector>,
    /// Those that the Collector has and that are not here.
    missing: Vec<String>,
    replace: bool,
    timeout: Duration,
    refresh: Duration,
}

impl Component for ResourceDetection {
    const NAME: &'static str = "resourcedetection";
    const ALIASES: &'static [&'static str] = &["resource_detection"];
    const DESCRIPTION: &'static str = "Adds to every resource what is known of the machine, the container and the pod of the agent.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(!config.timeout.is_zero(), "timeout", "requires positive value");
        let system = &config.system.resource_attributes;
        let (container, k8s) =
            (&config.container.resource_attributes, &config.k8s_downward.resource_attributes);
        known(&mut wrong, "system", system::ATTRIBUTES, system);
        known(&mut wrong, "container", container::ATTRIBUTES, container);
        known(&mut wrong, "k8s_downward", k8s::ATTRIBUTES, k8s);
        let mut sources = Vec::new();
        for given in &config.system.hostname_sources {
            match given.parse() {
                Ok(source) => sources.push(source),
                Err(()) => wrong.unknown(
                    "system",
                    format!("hostname_sources contains invalid value: {given:?}"),
                    given,
                    system::Source::NAMES,
                ),
            }
        }
        if config.system.hostname_sources.is_empty() {
            // As in the Collector, none is not a way to have no name.
            sources = vec![system::Source::Dns, system::Source::Os];
        }
        let (mut detectors, mut missing) = (Vec::new(), Vec::new());
        for (at, given) in config.detectors.iter().enumerate() {
            detectors.push(match given.trim() {
                "env" => Detector::Env(config.env.allowlist.clone()),
                "system" => {
                    Detector::System(sources.clone(), Switches::new(system::ATTRIBUTES, system))
                }
                "container" => Detector::Container(Switches::new(container::ATTRIBUTES, container)),
                "k8s_downward" => Detector::K8sDownward(Switches::new(k8s::ATTRIBUTES, k8s)),
                other if ELSEWHERE.contains(&other) => {
                    missing.push(other.to_owned());
                    continue;
                }
                other => {
                    let message = format!("invalid detector key: {other}");
                    wrong.unknown(format!("detectors::{at}"), message, other, Detector::NAMES);
                    continue;
                }
            });
        }
        wrong.or(Self {
            detectors,
            missing,
            replace: config.r#override,
            timeout: config.timeout,
            refresh: config.refresh_interval.or_zero(),
        })
    }

    fn warnings(&self) -> Vec<String> {
        let say = |name: &String| {
            format!(
                "detector {name} is not here: what it would find is missing; give it in \
                 OTEL_RESOURCE_ATTRIBUTES, which detector env reads"
            )
        };
        self.missing.iter().map(say).collect()
    }
}

/// Notes switches for attributes that a detector does not have.
fn known(
    wrong: &mut Mistakes,
    detector: &str,
    all: &[(&'static str, bool)],
    given: &BTreeMap<String, Switch>,
) {
    for name in given.keys().filter(|name| !all.iter().any(|(known, _)| known == name)) {
        wrong.unknown(
            format!("{detector}::resource_attributes::{name}"),
            format!("'{detector}.resource_attributes' has invalid keys: {name}"),
            name,
            all.iter().map(|(known, _)| *known),
        );
    }
}

impl Processor for ResourceDetection {
    async fn run(self, _: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        let mut found = self.detect().await?;
        info!(resource = ?found.lines(), "Detected resource information.");
        // One that never ticks, if nothing is to be done again.
        let again = Some(self.refresh).filter(|period| !period.is_zero());
        let mut ticks = again.map(|period| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        loop {
            let tick = async {
                match &mut ticks {
                    Some(ticks) => ticks.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                batch = input.recv() => {
                    let Some(mut batch) = batch else { return Ok(()) };
                    resource::each(&mut batch, |resource| found.apply(resource, self.replace));
                    out.send(batch).await?;
                }
                _ = tick => match self.detect().await {
                    Ok(new) => found = new,
                    Err(error) => warn!("resource refresh failed; keeping previous snapshot: {error:#}"),
                },
            }
        }
    }
}

impl ResourceDetection {
    /// What all detectors find; the error of the first that fails.
    async fn detect(&self) -> anyhow::Result<Detected> {
        let deadline = Instant::now() + self.timeout;
        let mut found = Detected::default();
        for detector in &self.detectors {
            let name = detector.name();
            let new = detector.detect(deadline).await;
            found.merge(new.with_context(|| format!("detector {name} failed"))?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
