//! What runs and how it is connected, and what of that two configurations have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Result, anyhow};
use serde_json::Value;

use crate::{
    batch::Signal,
    channel::Output,
    component::{AnyExporter, AnyExtension, AnyProcessor, AnyReceiver, Context},
    config::{Id, Pipeline, Plan, Planned},
    status::Flow,
};

/// A component's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Extension(Id),
    Exporter(Id),
    Processor { id: Id, pipeline: Id },
    Receiver(Id),
}

impl Key {
    pub fn id(&self) -> &Id {
        match self {
            Self::Extension(id) | Self::Exporter(id) | Self::Receiver(id) => id,
            Self::Processor { id, .. } => id,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Extension(_) => "extension",
            Self::Exporter(_) => "exporter",
            Self::Processor { .. } => "processor",
            Self::Receiver(_) => "receiver",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.id())?;
        match self {
            Self::Processor { pipeline, .. } => write!(f, " in pipeline {pipeline}"),
            _ => Ok(()),
        }
    }
}

/// A component of any kind.
pub(super) enum Component {
    Extension(Box<dyn AnyExtension>),
    Exporter(Box<dyn AnyExporter>),
    Processor(Box<dyn AnyProcessor>),
    Receiver(Box<dyn AnyReceiver>),
}

impl Component {
    pub async fn start(&mut self, cx: &Context) -> Result<()> {
        match self {
            Self::Extension(extension) => extension.start(cx).await,
            Self::Exporter(exporter) => exporter.start(cx).await,
            Self::Processor(_) => Ok(()),
            Self::Receiver(receiver) => receiver.start(cx).await,
        }
    }
}

/// A component, and what it needs to run.
pub(super) struct Part {
    pub key: Key,
    /// Where its data goes; of a receiver's, which may be the source of pipelines of several signals, the one.
    pub to: Vec<(Key, Option<Signal>)>,
    /// How far from the left it is: what is further to the left ends earlier.
    pub stage: usize,
    effective: Value,
    made: Option<Component>,
    make: Box<dyn Fn() -> Result<Component> + Send>,
}

impl Part {
    /// What it sends to, as far as that runs.
    pub fn outputs(&self, outputs: &BTreeMap<Key, Output>) -> Vec<Output> {
        let output = |(key, only): &(Key, _)| Some(outputs.get(key)?.clone().only(*only));
        self.to.iter().filter_map(output).collect()
    }

    fn new<K: 'static>(
        key: Key,
        to: Vec<(Key, Option<Signal>)>,
        stage: usize,
        planned: Planned<K>,
        wrap: fn(K) -> Component,
    ) -> Self {
        let Planned { component, recipe, .. } = planned;
        let effective = recipe.effective.clone();
        let make = move || recipe.make().map(wrap).map_err(|wrong| anyhow!("{wrong:?}"));
        Self { key, to, stage, effective, made: Some(wrap(component)), make: Box::new(make) }
    }

    /// An instance that has not been used.
    pub fn make(&mut self) -> Result<Component> {
        self.made.take().map_or_else(&self.make, Ok)
    }

    /// Whether its configuration names one of these extensions to prove who it is.
    pub fn asks(&self, extensions: &BTreeSet<&Id>) -> bool {
        fn named(value: &Value, extensions: &BTreeSet<&Id>) -> bool {
            match value {
                Value::Object(map) => map.iter().any(|(key, value)| match value {
                    Value::String(id) if key == "authenticator" => {
                        Id::parse(id).is_ok_and(|id| extensions.contains(&id))
                    }
                    _ => named(value, extensions),
                }),
                Value::Array(list) => list.iter().any(|value| named(value, extensions)),
                _ => false,
            }
        }
        named(&self.effective, extensions)
    }
}

/// The stage of exporters. Extensions that authenticate end after them, and the others, with receivers.
pub(super) const EXPORTERS_STAGE: usize = usize::MAX - 1;

/// Everything that a configuration runs.
#[derive(Default)]
pub(super) struct Graph {
    /// In an order in which everything comes after what it leads to: that of the start.
    pub parts: Vec<Part>,
    /// Who belongs together where statuses are shown: the group, the name in it, and whose it is.
    pub groups: Vec<(String, String, Key)>,
    /// How the pipelines are connected, for those who look.
    pub flows: Vec<Flow>,
    /// The configuration, for the same.
    pub printed: Value,
}

impl Graph {
    pub fn new(plan: Plan) -> Self {
        let flows = plan.pipelines.iter().map(flow).collect();
        let mut graph = Self { flows, printed: plan.printed, ..Self::default() };
        for planned in plan.extensions {
            let key = Key::Extension(planned.id.clone());
            graph.show("extensions", &key);
            let stage = if planned.component.authenticates() { usize::MAX } else { 0 };
            graph.parts.push(Part::new(key, Vec::new(), stage, planned, Component::Extension));
        }
        for planned in plan.exporters {
            let key = Key::Exporter(planned.id.clone());
            let to = Vec::new();
            graph.parts.push(Part::new(key, to, EXPORTERS_STAGE, planned, Component::Exporter));
        }
        let mut sources: BTreeMap<Id, Vec<(Key, Option<Signal>)>> = BTreeMap::new();
        for Pipeline { id: pipeline, signal, receivers, processors, exporters } in plan.pipelines {
            let group = format!("pipeline:{pipeline}");
            let mut next: Vec<Key> = exporters.into_iter().map(Key::Exporter).collect();
            next.iter().for_each(|key| graph.show(&group, key));
            for (i, planned) in processors.into_iter().enumerate().rev() {
                let key = Key::Processor { id: planned.id.clone(), pipeline: pipeline.clone() };
                graph.show(&group, &key);
                let to = std::mem::replace(&mut next, vec![key.clone()]);
                let to = to.into_iter().map(|key| (key, None)).collect();
                graph.parts.push(Part::new(key, to, i + 1, planned, Component::Processor));
            }
            for id in receivers {
                graph.show(&group, &Key::Receiver(id.clone()));
                let to = next.iter().map(|key| (key.clone(), Some(signal)));
                sources.entry(id).or_default().extend(to);
            }
        }
        for planned in plan.receivers {
            let key = Key::Receiver(planned.id.clone());
            let to = sources.remove(&planned.id).unwrap_or_default();
            graph.parts.push(Part::new(key, to, 0, planned, Component::Receiver));
        }
        graph
    }

    fn show(&mut self, group: &str, key: &Key) {
        let name = format!("{}:{}", key.kind(), key.id());
        self.groups.push((group.to_owned(), name, key.clone()));
    }

    /// What of this graph goes on when `next` is to run: what is configured as before, and can go on.
    pub fn kept(&self, next: &Self) -> BTreeSet<Key> {
        let before: BTreeMap<&Key, &Part> = self.parts.iter().map(|p| (&p.key, p)).collect();
        let same = |part: &&Part| {
            before.get(&part.key).is_some_and(|before| before.effective == part.effective)
        };
        let mut kept: BTreeSet<Key> =
            next.parts.iter().filter(same).map(|part| part.key.clone()).collect();

        // What an exporter sends with, it asked for at its start.
        let extensions = self.parts.iter().chain(&next.parts).filter_map(|part| match &part.key {
            Key::Extension(id) if !kept.contains(&part.key) => Some(id),
            _ => None,
        });
        let changed: BTreeSet<&Id> = extensions.collect();
        for part in next.parts.iter().filter(|part| part.asks(&changed)) {
            kept.remove(&part.key);
        }

        // If processors change places, what is under way between them would pass one of them by.
        let order = |graph: &Self, other: &Self| -> BTreeMap<Id, Vec<Id>> {
            let mut order: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
            for part in &graph.parts {
                if let Key::Processor { id, pipeline } = &part.key
                    && other.parts.iter().any(|p| p.key == part.key)
                {
                    order.entry(pipeline.clone()).or_default().push(id.clone());
                }
            }
            order
        };
        let (was, is) = (order(self, next), order(next, self));
        kept.retain(|key| match key {
            Key::Processor { pipeline, .. } => was.get(pipeline) == is.get(pipeline),
            _ => true,
        });
        kept
    }
}

fn flow(pipeline: &Pipeline) -> Flow {
    let names = |ids: &[Id]| ids.iter().map(Id::to_string).collect();
    let processors = &pipeline.processors;
    Flow {
        id: pipeline.id.to_string(),
        signal: pipeline.signal.name(),
        mutates: processors.iter().any(|planned| planned.component.mutates_data()),
        receivers: names(&pipeline.receivers),
        processors: processors.iter().map(|planned| planned.id.to_string()).collect(),
        exporters: names(&pipeline.exporters),
    }
}

#[cfg(test)]
mod tests;
