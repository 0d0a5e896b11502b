//! What a component is: a type with a typed configuration that is checked before anything starts,
//! and one native `async fn` that runs it. The lists in `receivers`, `processors`, `exporters` and
//! `extensions` hold a [`Factory`] each; the types are erased once, there.

use std::{future::Future, pin::Pin};

use opentelemetry::metrics::Meter;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    batch::Signal,
    channel::{Input, Output},
    config::{Id, Mistakes, Section, schema},
    ebpf::ladder::Status,
    exporters::queue::Queues,
    extensions::auth::{Auth, Authenticators},
    heritage::Heritage,
    metric::Metric,
    privilege::Needs,
    status::{Reporter, Statuses},
};

/// What every component has.
pub trait Component: Sized + Send + 'static {
    /// The type, as configurations name it.
    const NAME: &'static str;
    /// Other names that configurations may use.
    const ALIASES: &'static [&'static str] = &[];
    /// One sentence for `fathom components` and the reference.
    const DESCRIPTION: &'static str;
    /// The signals that it handles.
    const SIGNALS: &'static [Signal];
    /// How much it may still change.
    const STABILITY: Stability = Stability::Alpha;
    /// A section that shows what it is for, as YAML. Tests hold it to be valid.
    const EXAMPLE: &'static str = "";
    /// The metrics that it emits into its pipeline.
    const METRICS: &'static [Metric] = &[];
    /// The configuration; `Default` holds the documented defaults.
    type Config: DeserializeOwned + Serialize + JsonSchema + Default;
    /// Checks the whole configuration and reports every mistake in it. No I/O: `fathom validate`
    /// calls it too.
    fn new(config: Self::Config) -> Result<Self, Mistakes>;
    /// What is legal, but without the effect that one expects. Asked without I/O, as [`Component::new`].
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// How much a component may still change: the Collector's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Not for use.
    Development,
    /// Keys may change without notice.
    Alpha,
    /// Keys change with notice.
    Beta,
    /// Keys stay.
    Stable,
    /// It will be removed.
    Deprecated,
}

impl Stability {
    /// As the Collector writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Development => "Development",
            Self::Alpha => "Alpha",
            Self::Beta => "Beta",
            Self::Stable => "Stable",
            Self::Deprecated => "Deprecated",
        }
    }
}

/// Where data comes from.
pub trait Receiver: Component {
    /// What it needs beside what any process may do. What it needs to start alone it takes up by
    /// [`Raised`](crate::privilege::Raised).
    fn needs(&self) -> Needs {
        Needs::default()
    }
    /// What would become of its eBPF programs on this kernel: attaches them all, then lets go.
    fn probe(&mut self) -> anyhow::Result<Vec<Status>> {
        Ok(Vec::new())
    }
    /// Attaches, opens, binds: what can fail at start. Called after everything downstream started.
    fn start(&mut self, _: &Context) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }
    /// Runs until `cx.stop` is cancelled, then sends what it still holds and returns.
    fn run(self, cx: Context, out: Output) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Changes data on its way. One instance per pipeline that names it.
pub trait Processor: Component {
    /// Whether it may change what passes: the Collector's `MutatesData`.
    const MUTATES_DATA: bool = true;
    /// What of its configuration has no meaning in a pipeline of this signal. Asked without I/O, as [`Component::new`].
    fn suits(&self, _: Signal) -> Mistakes {
        Mistakes::default()
    }
    /// Runs until its input ends, then sends what it still holds and returns: a closing channel is
    /// the shutdown signal.
    fn run(
        self,
        cx: Context,
        input: Input,
        out: Output,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Where data goes. One instance, shared by the pipelines that name it.
pub trait Exporter: Component {
    /// Whether what secures it is among the extensions that will run. Asked without I/O, as [`Component::new`].
    fn secured(&self, _: &Authenticators) -> Mistakes {
        Mistakes::default()
    }
    /// Whether it is configured for a pipeline of this signal, one of [`Component::SIGNALS`]. Asked without I/O.
    fn suits(&self, _: Signal) -> Mistakes {
        Mistakes::default()
    }
    /// Binds, connects: what can fail at start. Called before anything upstream starts.
    fn start(&mut self, _: &Context) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }
    /// Runs until its input ends, then flushes what it still holds and returns.
    fn run(self, cx: Context, input: Input) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Serves the agent and its components; no data flows through it. It starts before everything else and
/// stops after it.
pub trait Extension: Component {
    /// Whether others may name it as their `auth`: such start first.
    const AUTHENTICATES: bool = false;
    /// Whether what secures it is among the extensions that will run. Asked without I/O, as [`Component::new`].
    fn secured(&self, _: &Authenticators) -> Mistakes {
        Mistakes::default()
    }
    /// Reads, binds: what can fail at start.
    fn start(&mut self, _: &Context) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }
    /// How it secures what other components send and serve. Asked without I/O, before and after the start.
    fn auth(&self) -> Auth {
        Auth::default()
    }
    /// Runs until `cx.stop` is cancelled, which happens when all pipelines have ended.
    fn run(self, cx: Context) -> impl Future<Output = anyhow::Result<()>> + Send {
        async move {
            cx.stop.cancelled().await;
            Ok(())
        }
    }
}

/// What the agent gives a running component.
#[derive(Clone)]
pub struct Context {
    /// The component's id in the configuration.
    pub id: Id,
    /// Makes the agent's own metrics: see `telemetry`.
    pub meter: Meter,
    /// Where exporters show their sending queues.
    pub queues: Queues,
    /// Cancelled when receivers must stop. Processors and exporters wait for their input to end.
    pub stop: CancellationToken,
    /// The extensions that secure what is sent and served, by their ids.
    pub authenticators: Authenticators,
    /// Where the component says how it is.
    pub status: Reporter,
    /// How all components are.
    pub statuses: Statuses,
    /// Where a component tracks tasks that must have ended before the agent's own metrics are read for the last time,
    /// because they count what they hold when they are cut off.
    pub tasks: TaskTracker,
    /// Of the instance that a reload puts this one in the place of, and for the one that takes the place of this.
    pub heritage: Heritage,
}

/// A boxed future of a component.
pub type Task<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// A configured receiver, its type erased.
pub trait AnyReceiver: Send {
    /// See [`Receiver::needs`].
    fn needs(&self) -> Needs;
    /// See [`Receiver::probe`].
    fn probe(&mut self) -> anyhow::Result<Vec<Status>>;
    /// See [`Receiver::start`].
    fn start<'a>(&'a mut self, cx: &'a Context) -> Task<'a>;
    /// See [`Receiver::run`].
    fn run(self: Box<Self>, cx: Context, out: Output) -> Task<'static>;
}

impl<R: Receiver> AnyReceiver for R {
    fn needs(&self) -> Needs {
        Receiver::needs(self)
    }
    fn probe(&mut self) -> anyhow::Result<Vec<Status>> {
        Receiver::probe(self)
    }
    fn start<'a>(&'a mut self, cx: &'a Context) -> Task<'a> {
        Box::pin(Receiver::start(self, cx))
    }
    fn run(self: Box<Self>, cx: Context, out: Output) -> Task<'static> {
        Box::pin(Receiver::run(*self, cx, out))
    }
}

/// A configured processor, its type erased.
pub trait AnyProcessor: Send {
    /// See [`Processor::MUTATES_DATA`].
    fn mutates_data(&self) -> bool;
    /// See [`Component::warnings`].
    fn warnings(&self) -> Vec<String>;
    /// See [`Processor::suits`].
    fn suits(&self, signal: Signal) -> Mistakes;
    /// See [`Processor::run`].
    fn run(self: Box<Self>, cx: Context, input: Input, out: Output) -> Task<'static>;
}

impl<P: Processor> AnyProcessor for P {
    fn mutates_data(&self) -> bool {
        P::MUTATES_DATA
    }
    fn warnings(&self) -> Vec<String> {
        Component::warnings(self)
    }
    fn suits(&self, signal: Signal) -> Mistakes {
        Processor::suits(self, signal)
    }
    fn run(self: Box<Self>, cx: Context, input: Input, out: Output) -> Task<'static> {
        Box::pin(Processor::run(*self, cx, input, out))
    }
}

/// A configured exporter, its type erased.
pub trait AnyExporter: Send {
    /// See [`Component::warnings`].
    fn warnings(&self) -> Vec<String>;
    /// See [`Exporter::secured`].
    fn secured(&self, known: &Authenticators) -> Mistakes;
    /// See [`Exporter::suits`].
    fn suits(&self, signal: Signal) -> Mistakes;
    /// See [`Exporter::start`].
    fn start<'a>(&'a mut self, cx: &'a Context) -> Task<'a>;
    /// See [`Exporter::run`].
    fn run(self: Box<Self>, cx: Context, input: Input) -> Task<'static>;
}

impl<E: Exporter> AnyExporter for E {
    fn warnings(&self) -> Vec<String> {
        Component::warnings(self)
    }
    fn secured(&self, known: &Authenticators) -> Mistakes {
        Exporter::secured(self, known)
    }
    fn suits(&self, signal: Signal) -> Mistakes {
        Exporter::suits(self, signal)
    }
    fn start<'a>(&'a mut self, cx: &'a Context) -> Task<'a> {
        Box::pin(Exporter::start(self, cx))
    }
    fn run(self: Box<Self>, cx: Context, input: Input) -> Task<'static> {
        Box::pin(Exporter::run(*self, cx, input))
    }
}

/// A configured extension, its type erased.
pub trait AnyExtension: Send {
    /// See [`Component::warnings`].
    fn warnings(&self) -> Vec<String>;
    /// See [`Extension::AUTHENTICATES`].
    fn authenticates(&self) -> bool;
    /// See [`Extension::secured`].
    fn secured(&self, known: &Authenticators) -> Mistakes;
    /// See [`Extension::start`].
    fn start<'a>(&'a mut self, cx: &'a Context) -> Task<'a>;
    /// See [`Extension::auth`].
    fn auth(&self) -> Auth;
    /// See [`Extension::run`].
    fn run(self: Box<Self>, cx: Context) -> Task<'static>;
}

impl<E: Extension> AnyExtension for E {
    fn warnings(&self) -> Vec<String> {
        Component::warnings(self)
    }
    fn authenticates(&self) -> bool {
        E::AUTHENTICATES
    }
    fn secured(&self, known: &Authenticators) -> Mistakes {
        Extension::secured(self, known)
    }
    fn start<'a>(&'a mut self, cx: &'a Context) -> Task<'a> {
        Box::pin(Extension::start(self, cx))
    }
    fn auth(&self) -> Auth {
        Extension::auth(self)
    }
    fn run(self: Box<Self>, cx: Context) -> Task<'static> {
        Box::pin(Extension::run(*self, cx))
    }
}

/// How a component of kind `K` (`Box<dyn AnyReceiver>`, …) is made from its configuration.
pub struct Factory<K> {
    /// The type's name.
    pub name: &'static str,
    /// Its other names.
    pub aliases: &'static [&'static str],
    /// One sentence.
    pub description: &'static str,
    /// The signals that it handles.
    pub signals: &'static [Signal],
    /// How much it may still change.
    pub stability: Stability,
    /// A section that shows what it is for, as YAML.
    pub example: &'static str,
    /// The metrics that it emits.
    pub metrics: &'static [Metric],
    /// The documented defaults.
    pub default_config: fn() -> serde_json::Value,
    /// The JSON Schema of a section.
    pub schema: fn() -> serde_json::Value,
    /// What a section means, with the defaults filled in.
    pub effective: fn(&Section) -> serde_json::Value,
    /// What of a section cannot be read.
    pub unreadable: fn(&Section) -> Mistakes,
    /// Checks a configuration and makes the component, without I/O.
    pub configure: fn(&Section) -> Result<K, Mistakes>,
}

const fn factory<C: Component, K>(configure: fn(&Section) -> Result<K, Mistakes>) -> Factory<K> {
    Factory {
        name: C::NAME,
        aliases: C::ALIASES,
        description: C::DESCRIPTION,
        signals: C::SIGNALS,
        stability: C::STABILITY,
        example: C::EXAMPLE,
        metrics: C::METRICS,
        default_config: || {
            serde_json::to_value(C::Config::default()).expect("a configuration serialises")
        },
        schema: schema::of::<C::Config>,
        effective: Section::effective::<C::Config>,
        unreadable: Section::unreadable::<C::Config>,
        configure,
    }
}

impl<K> Factory<K> {
    /// Whether a configuration means this component by a type.
    pub fn is(&self, kind: &str) -> bool {
        self.name == kind || self.aliases.contains(&kind)
    }
}

/// The factory of receiver `R`.
pub const fn receiver<R: Receiver>() -> Factory<Box<dyn AnyReceiver>> {
    factory::<R, _>(|section| section.configure(R::new).map(|made| Box::new(made) as _))
}

/// The factory of processor `P`.
pub const fn processor<P: Processor>() -> Factory<Box<dyn AnyProcessor>> {
    factory::<P, _>(|section| section.configure(P::new).map(|made| Box::new(made) as _))
}

/// The factory of exporter `E`.
pub const fn exporter<E: Exporter>() -> Factory<Box<dyn AnyExporter>> {
    factory::<E, _>(|section| section.configure(E::new).map(|made| Box::new(made) as _))
}

/// The factory of extension `E`.
pub const fn extension<E: Extension>() -> Factory<Box<dyn AnyExtension>> {
    factory::<E, _>(|section| section.configure(E::new).map(|made| Box::new(made) as _))
}
