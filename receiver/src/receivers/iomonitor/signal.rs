//! What a signal is: kernel programs, the metrics they feed, and how one becomes the other.

use std::collections::BTreeSet;

use anyhow::Result;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::groups::Groups;
use crate::{
    config::{Mistakes, Section, schema},
    ebpf::{
        globals::Globals,
        ladder::Probe,
        load::{Loaded, Request, Settings},
    },
    metric::{Metric, Points},
};

/// The names of metrics that the configuration has turned off.
pub type Disabled = BTreeSet<&'static str>;

/// A signal.
pub trait Signal: Sized + Send + 'static {
    /// Its name: the key in the configuration, the name of its files on both sides.
    const NAME: &'static str;
    /// One sentence for the reference.
    const DESCRIPTION: &'static str;
    /// What it answers, for the reference.
    const QUESTION: &'static str;
    /// The compiled programs.
    const OBJECT: &'static [u8];
    /// What it observes, with the ladder of each.
    const PROBES: &'static [Probe];
    /// What it emits.
    const METRICS: &'static [Metric];
    /// Its section of the configuration.
    type Config: DeserializeOwned + Serialize + JsonSchema + Default;

    /// Checks the configuration; `None` if it turns the signal off.
    fn new(config: Self::Config, disabled: &Disabled) -> Result<Option<Self>, Mistakes>;

    /// Sets what the programs must know before they are loaded.
    fn globals(&self, _: &mut Globals) -> Result<()> {
        Ok(())
    }

    /// Whether a probe is needed with this configuration.
    fn wants(&self, _probe: &str) -> bool {
        true
    }

    /// The programs that this configuration can do without: not attached. Some only find out whose something is, which
    /// nobody asks on the whole host, where everything is the host's.
    fn spared(&self, _whole_host: bool) -> &'static [&'static str] {
        &[]
    }

    /// What `*` in the targets of its programs stands for.
    fn names(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Whether each of its events stands alone, so that some can be left out.
    const SAMPLED: bool = false;

    /// Cells that a group is expected to need in each of its maps.
    const CELLS: u32 = 1;

    /// Cells that the host is expected to need in each of them, if they are sparse.
    const HOST_CELLS: u32 = 1;

    /// The entries of maps whose number depends on the configuration.
    fn sizes(&self) -> Vec<(&'static str, u32)> {
        Vec::new()
    }

    /// Reads the maps. What did not attach must not be emitted: ask [`Loaded::has`].
    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()>;

    /// What has happened since the last collection, one by one, for those who want to know more than how often.
    fn events(&mut self, _: &mut Loaded, _: &Groups) -> Result<Vec<LogRecord>> {
        Ok(Vec::new())
    }
}

/// The section of what can only be turned off.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Switch {
    /// Whether it is on.
    pub enabled: bool,
}

impl Default for Switch {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The section of what costs so much, or interests so few, that it must be asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptIn {
    /// Whether it is on.
    pub enabled: bool,
}

/// A configured signal, its type erased.
pub trait AnySignal: Send {
    /// See [`Signal::NAME`].
    fn name(&self) -> &'static str;
    /// The probes that are needed.
    fn probes(&self) -> Vec<&'static Probe>;
    /// What is to be loaded.
    fn request<'a>(&self, globals: Globals, settings: &'a Settings) -> Result<Request<'a>>;
    /// See [`Signal::read`].
    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()>;
    /// See [`Signal::events`].
    fn events(&mut self, loaded: &mut Loaded, groups: &Groups) -> Result<Vec<LogRecord>>;
}

impl<S: Signal> AnySignal for S {
    fn name(&self) -> &'static str {
        S::NAME
    }
    fn probes(&self) -> Vec<&'static Probe> {
        S::PROBES.iter().filter(|probe| self.wants(probe.name)).collect()
    }
    fn request<'a>(&self, mut globals: Globals, settings: &'a Settings) -> Result<Request<'a>> {
        self.globals(&mut globals)?;
        Ok(Request {
            signal: S::NAME,
            object: S::OBJECT,
            probes: self.probes(),
            spared: self.spared(settings.whole_host),
            globals,
            names: self.names(),
            cells: S::CELLS,
            host_cells: S::HOST_CELLS,
            sizes: self.sizes(),
            settings,
        })
    }
    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        Signal::read(self, loaded, groups, points)
    }
    fn events(&mut self, loaded: &mut Loaded, groups: &Groups) -> Result<Vec<LogRecord>> {
        Signal::events(self, loaded, groups)
    }
}

/// A signal, unless the configuration turns it off.
pub type Configured = Result<Option<Box<dyn AnySignal>>, Mistakes>;

/// A line of the list of signals.
pub struct Factory {
    /// See [`Signal::NAME`].
    pub name: &'static str,
    /// See [`Signal::DESCRIPTION`].
    pub description: &'static str,
    /// See [`Signal::QUESTION`].
    pub question: &'static str,
    /// See [`Signal::METRICS`].
    pub metrics: &'static [Metric],
    /// See [`Signal::SAMPLED`].
    pub sampled: bool,
    /// See [`Signal::PROBES`].
    pub probes: &'static [Probe],
    /// See [`Signal::OBJECT`].
    pub object: &'static [u8],
    /// The documented defaults.
    pub default_config: fn() -> serde_json::Value,
    /// The JSON Schema of a section.
    pub schema: fn() -> serde_json::Value,
    /// What a section means, with the defaults filled in.
    pub effective: fn(&Section) -> serde_json::Value,
    /// Checks a section; `None` if it turns the signal off.
    pub configure: fn(&Section, &Disabled) -> Configured,
}

/// The factory of signal `S`.
pub const fn signal<S: Signal>() -> Factory {
    Factory {
        name: S::NAME,
        description: S::DESCRIPTION,
        question: S::QUESTION,
        metrics: S::METRICS,
        sampled: S::SAMPLED,
        probes: S::PROBES,
        object: S::OBJECT,
        default_config: || {
            serde_json::to_value(S::Config::default()).expect("a configuration serialises")
        },
        schema: schema::of::<S::Config>,
        effective: Section::effective::<S::Config>,
        configure: |section, disabled| {
            let signal = section.configure(|config| S::new(config, disabled))?;
            Ok(signal.map(|s| Box::new(s) as Box<dyn AnySignal>))
        },
    }
}
