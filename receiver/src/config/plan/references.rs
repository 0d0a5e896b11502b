//! What names something else: pipelines and the service name components, components name who secures them.

use std::collections::BTreeSet;

use super::{All, Check, join};
use crate::{
    batch::Signal,
    component::{AnyExporter, AnyExtension, AnyProcessor},
    config::{
        Id, Mistake, Mistakes, Section,
        mistake::dotted,
        node::{Node, Value},
        planned::Planned,
        report::MOST,
    },
    extensions::auth::Authenticators,
};

impl Check<'_> {
    /// Checks that what runs is secured by what runs.
    pub(super) fn secured(
        &mut self,
        extensions: &[Planned<Box<dyn AnyExtension>>],
        exporters: &[Planned<Box<dyn AnyExporter>>],
    ) {
        const SECTION: &str = "extensions";
        let lacking =
            |m: &Mistake| m.path.starts_with(SECTION) || m.path.starts_with("service::extensions");
        if self.wrong.iter().any(lacking) {
            // The one that is missing may be the one that is wrong.
            return;
        }
        let mut known = Authenticators::default();
        for extension in extensions {
            known.add(extension.id.clone(), extension.component.auth());
        }
        let asked = extensions.iter().map(|e| (SECTION, &e.id, e.component.secured(&known)));
        let more = exporters.iter().map(|e| ("exporters", &e.id, e.component.secured(&known)));
        for (section, id, wrong) in asked.chain(more) {
            for mistake in wrong.0 {
                let path = format!("{section}::{id}::{}", mistake.path);
                self.invalid(&path, &path, mistake.message);
            }
        }
    }

    /// Checks that a processor's configuration has a meaning for a pipeline's signal.
    pub(super) fn suits(&mut self, signal: Signal, planned: &Planned<Box<dyn AnyProcessor>>) {
        for Mistake { path, message, .. } in planned.component.suits(signal).0 {
            let path = format!("processors::{}::{path}", planned.id);
            // Another pipeline of this signal may name it, too.
            if !self.wrong.iter().any(|said| said.path == path && said.message == message) {
                self.invalid(&path, &path, message);
            }
        }
    }

    /// The components of one kind that a pipeline names, as far as they exist.
    pub(super) fn references<K>(
        &mut self,
        pipeline: &str,
        node: &Node,
        list: &'static str,
        what: &str,
        signal: Signal,
        all: &All<'_, K>,
    ) -> Vec<Id> {
        let mut ids = Vec::new();
        let mut seen = BTreeSet::new();
        let path = join(pipeline, list);
        let given = node.get(list);
        if given.is_none_or(Node::is_empty) && what != "processor" {
            self.invalid(pipeline, pipeline, format!("must have at least one {what}"));
        }
        for (i, id) in given.map(|given| self.ids(&path, given)).unwrap_or_default() {
            let at = join(&path, &i.to_string());
            if !seen.insert(id.clone()) {
                // A receiver or exporter that is named twice is still one.
                if what == "processor" {
                    let message = format!("references processor \"{id}\" multiple times");
                    self.invalid(pipeline, &at, message);
                }
                continue;
            }
            match all.get(&id) {
                // One that is configured but wrong has been reported.
                None if self.wrong.len() == MOST || self.is_refused(list, &id) => {}
                None => {
                    let message = format!("references {what} \"{id}\" which is not configured");
                    self.invalid(pipeline, &at, message);
                    self.hint_among(&id, all);
                }
                Some(described) if !described.factory.signals.contains(&signal) => {
                    let message = uncreated(&id, what, signal, "telemetry type is not supported");
                    self.invalid(pipeline, &at, message);
                }
                Some(_) => ids.push(id),
            }
        }
        ids
    }

    /// Reports why a component that a pipeline's list names is not configured for the pipeline's signal.
    pub(super) fn unsuited(
        &mut self,
        pipeline: &str,
        (list, what): (&str, &str),
        id: &Id,
        signal: Signal,
        wrong: Mistakes,
    ) {
        for Mistake { message, .. } in wrong.0 {
            let message = uncreated(id, what, signal, &message);
            self.invalid(pipeline, &join(pipeline, list), message);
        }
    }

    /// Whether it has been said of a component that it is wrong, or of its section.
    pub(super) fn is_refused(&self, section: &'static str, id: &Id) -> bool {
        self.refused.contains(&(section, id.clone()))
            || self.wrong.iter().any(|mistake| mistake.path == section)
    }

    /// A list of ids, each with its index.
    pub(super) fn ids(&mut self, path: &str, node: &Node) -> Vec<(usize, Id)> {
        if let Value::String(_) = node.value {
            let name = dotted(path);
            let message = format!("'{name}' source data must be an array or slice, got string");
            self.add(path, message);
            return Vec::new();
        }
        let names = match Section::new(node.clone()).parse::<Vec<String>>() {
            Ok(names) => names,
            Err(wrong) => {
                self.nest(path, wrong);
                return Vec::new();
            }
        };
        let mut ids = Vec::new();
        for (i, name) in names.iter().enumerate() {
            match Id::parse(name) {
                Ok(id) => ids.push((i, id)),
                Err(message) => self.add(&join(path, &i.to_string()), message),
            }
        }
        ids
    }
}

/// The Collector's words for a component that a pipeline cannot have.
fn uncreated(id: &Id, what: &str, signal: Signal, why: &str) -> String {
    format!("failed to create \"{id}\" {what} for data type \"{}\": {why}", signal.name())
}
