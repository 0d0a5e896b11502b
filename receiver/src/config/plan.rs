//! The whole configuration, checked: what runs, and how it is connected.

use std::{collections::BTreeSet, fmt};

use super::{
    Id, Mistake, Mistakes, Section,
    mistake::hint,
    node::{Key, Node, Value},
    resolve::resolve,
};
use crate::{
    batch::Signal,
    component::{AnyExporter, AnyProcessor, AnyReceiver, Factory},
    telemetry,
};

/// The lists of components that a configuration may name.
pub struct Kinds<'a> {
    /// The receivers.
    pub receivers: &'a [Factory<Box<dyn AnyReceiver>>],
    /// The processors.
    pub processors: &'a [Factory<Box<dyn AnyProcessor>>],
    /// The exporters.
    pub exporters: &'a [Factory<Box<dyn AnyExporter>>],
}

/// A configuration without mistakes.
pub struct Plan {
    /// The receivers that pipelines use.
    pub receivers: Vec<(Id, Box<dyn AnyReceiver>)>,
    /// The exporters that pipelines use.
    pub exporters: Vec<(Id, Box<dyn AnyExporter>)>,
    /// The pipelines.
    pub pipelines: Vec<Pipeline>,
    /// `service::telemetry`.
    pub telemetry: telemetry::Config,
    /// What is legal but looks like an oversight.
    pub warnings: Vec<String>,
}

/// One pipeline.
pub struct Pipeline {
    /// Its id; the type is the signal.
    pub id: Id,
    /// What flows through it.
    pub signal: Signal,
    /// Where it comes from.
    pub receivers: Vec<Id>,
    /// What happens to it, in order. These instances are this pipeline's own.
    pub processors: Vec<(Id, Box<dyn AnyProcessor>)>,
    /// Where it goes.
    pub exporters: Vec<Id>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Report(pub(super) Vec<Mistake>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Mistake { path, place, message, hint }) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            if !path.is_empty() {
                write!(f, "{path}: ")?;
            }
            write!(f, "{message}")?;
            if let Some(place) = place {
                write!(f, "\n    at {place}")?;
            }
            if let Some(hint) = hint {
                write!(f, "\n    {hint}")?;
            }
        }
        if self.0.len() > 1 {
            write!(f, "\n({} mistakes)", self.0.len())?;
        }
        Ok(())
    }
}

/// Reads, merges and expands the sources, and checks all that they say.
pub fn load(uris: &[String], sets: &[String], kinds: &Kinds<'_>) -> Result<Plan, Report> {
    let (root, warnings) = resolve(uris, sets).map_err(Report)?;
    check(&root, warnings, kinds)
}

/// Checks a configuration.
pub(super) fn check(root: &Node, warnings: Vec<String>, kinds: &Kinds<'_>) -> Result<Plan, Report> {
    let mut check = Check { root, wrong: Vec::new(), warnings };
    let plan = check.plan(kinds);
    match check.wrong.is_empty() {
        true => Ok(Plan { warnings: check.warnings, ..plan }),
        false => Err(Report(check.wrong)),
    }
}

struct Check<'a> {
    root: &'a Node,
    wrong: Vec<Mistake>,
    warnings: Vec<String>,
}

/// A component that the configuration describes.
struct Described<'a, K> {
    id: Id,
    factory: &'a Factory<K>,
    section: Section,
    /// Made already, to check it; taken by the first who uses it.
    made: Option<K>,
}

impl Check<'_> {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        let place = self.root.nearest(&path).place.clone();
        self.wrong.push(Mistake { path, place, message: message.into(), hint: None });
    }

    fn hint(&mut self, given: &str, valid: &[&str]) {
        if let Some(mistake) = self.wrong.last_mut() {
            mistake.hint = hint(given, valid);
        }
    }

    fn plan(&mut self, kinds: &Kinds<'_>) -> Plan {
        const SECTIONS: [&str; 6] =
            ["receivers", "processors", "exporters", "extensions", "connectors", "service"];
        let root = self.root;
        match &root.value {
            Value::Map(entries) if !entries.is_empty() => {
                for (key, _) in entries.iter().filter(|(k, _)| !SECTIONS.contains(&k.name.as_str()))
                {
                    self.unknown_key("", key, &SECTIONS);
                }
            }
            Value::Null | Value::Map(_) => self.add("", "empty configuration file"),
            _ => self.add("", format!("'' expected a map, got '{}'", root.kind())),
        }
        let mut receivers = self.components("receivers", kinds.receivers);
        let mut processors = self.components("processors", kinds.processors);
        let mut exporters = self.components("exporters", kinds.exporters);
        for section in ["extensions", "connectors"] {
            self.components::<()>(section, &[]);
        }
        if !root.entries().is_empty() {
            for (section, what) in [("receivers", "receiver"), ("exporters", "exporter")] {
                if root.get(section).is_none_or(|s| s.entries().is_empty()) {
                    self.add(section, format!("no {what} configuration specified in config"));
                }
            }
        }
        let telemetry = self.service();
        let pipelines = self.pipelines(&receivers, &mut processors, &exporters);
        let used = |ids: fn(&Pipeline) -> &Vec<Id>| -> BTreeSet<Id> {
            pipelines.iter().flat_map(ids).cloned().collect()
        };
        Plan {
            receivers: take(&mut receivers, &used(|p| &p.receivers)),
            exporters: take(&mut exporters, &used(|p| &p.exporters)),
            pipelines,
            telemetry,
            warnings: Vec::new(),
        }
    }

    fn unknown_key(&mut self, holder: &str, key: &Key, valid: &[&str]) {
        let path = join(holder, &key.name);
        self.wrong.push(Mistake {
            path,
            place: key.place.clone(),
            message: format!("'{holder}' has invalid keys: {}", key.name),
            hint: hint(&key.name, valid),
        });
    }

    /// Checks every component of a section, used or not.
    fn components<'a, K>(
        &mut self,
        section: &str,
        factories: &'a [Factory<K>],
    ) -> Vec<Described<'a, K>> {
        let mut described: Vec<Described<'a, K>> = Vec::new();
        let Some(node) = self.root.get(section) else { return described };
        if !matches!(node.value, Value::Map(_) | Value::Null) {
            self.add(section, format!("'{section}' expected a map, got '{}'", node.kind()));
        }
        for (key, node) in node.entries() {
            let path = join(section, &key.name);
            let at_key = |message: String| Mistake {
                path: path.clone(),
                place: key.place.clone(),
                message,
                hint: None,
            };
            let id = match Id::parse(&key.name) {
                Ok(id) => id,
                Err(message) => {
                    self.wrong.push(at_key(message));
                    continue;
                }
            };
            if described.iter().any(|d| d.id == id) {
                self.wrong.push(at_key(format!("duplicate name \"{id}\" after trimming spaces")));
                continue;
            }
            let Some(factory) = factories.iter().find(|f| f.is(&id.kind)) else {
                let mut valid: Vec<_> = factories.iter().map(|f| f.name).collect();
                valid.sort_unstable();
                self.wrong.push(at_key(format!(
                    "'{section}' unknown type: \"{}\" for id: \"{id}\" (valid values: [{}])",
                    id.kind,
                    valid.join(" ")
                )));
                self.hint(&id.kind, &valid);
                continue;
            };
            // A section without a value stands at its key.
            let mut node = node.clone();
            if node.value == Value::Null {
                node.place = key.place.clone();
            }
            let section = Section::new(node);
            let made = self.configure(factory, &section, &path);
            described.push(Described { id, factory, section, made });
        }
        described
    }

    fn configure<K>(&mut self, factory: &Factory<K>, section: &Section, path: &str) -> Option<K> {
        let wrong = match (factory.configure)(section) {
            Ok(made) => return Some(made),
            Err(wrong) => wrong,
        };
        let mut nested = Mistakes::default();
        nested.nest(path, wrong);
        self.wrong.extend(nested.0);
        None
    }

    fn service(&mut self) -> telemetry::Config {
        const KEYS: [&str; 3] = ["extensions", "pipelines", "telemetry"];
        let root = self.root;
        let Some(service) = root.get("service") else { return telemetry::Config::default() };
        for (key, _) in service.entries().iter().filter(|(k, _)| !KEYS.contains(&k.name.as_str())) {
            self.unknown_key("service", key, &KEYS);
        }
        if let Some(extensions) = service.get("extensions") {
            for (_, id) in self.ids("service::extensions", extensions) {
                self.add(
                    "service::extensions",
                    format!("references extension \"{id}\" which is not configured"),
                );
            }
        }
        let section = Section::new(service.get("telemetry").cloned().unwrap_or_default());
        let checked =
            section.configure(|config: telemetry::Config| config.check().map(|()| config));
        checked.unwrap_or_else(|wrong| {
            let mut nested = Mistakes::default();
            nested.nest("service::telemetry", wrong);
            self.wrong.extend(nested.0);
            telemetry::Config::default()
        })
    }

    fn pipelines(
        &mut self,
        receivers: &[Described<'_, Box<dyn AnyReceiver>>],
        processors: &mut [Described<'_, Box<dyn AnyProcessor>>],
        exporters: &[Described<'_, Box<dyn AnyExporter>>],
    ) -> Vec<Pipeline> {
        let root = self.root;
        let mut pipelines: Vec<Pipeline> = Vec::new();
        let section = root.nearest("service::pipelines");
        let entries = match root.get("service").and_then(|s| s.get("pipelines")) {
            Some(_) => section.entries(),
            None => &[],
        };
        if entries.is_empty() && !root.entries().is_empty() {
            self.add("service::pipelines", "service must have at least one pipeline");
        }
        for (key, node) in entries {
            let path = join("service::pipelines", &key.name);
            let id = match Id::parse(&key.name) {
                Ok(id) => id,
                Err(message) => {
                    self.add(&path, message);
                    continue;
                }
            };
            let names = Signal::ALL.map(Signal::name);
            let Some(signal) = Signal::ALL.into_iter().find(|s| s.name() == id.kind) else {
                self.add(&path, format!("unknown signal \"{}\"", id.kind));
                self.hint(&id.kind, &names);
                continue;
            };
            if pipelines.iter().any(|p| p.id == id) {
                self.add(&path, format!("duplicate name \"{id}\" after trimming spaces"));
                continue;
            }
            const KEYS: [&str; 3] = ["receivers", "processors", "exporters"];
            for (key, _) in node.entries().iter().filter(|(k, _)| !KEYS.contains(&k.name.as_str()))
            {
                self.unknown_key(&path, key, &KEYS);
            }
            let sources = self.references(&path, node, "receivers", "receiver", signal, receivers);
            let steps = self.references(&path, node, "processors", "processor", signal, processors);
            let sinks = self.references(&path, node, "exporters", "exporter", signal, exporters);
            let mut instances = Vec::new();
            for id in steps {
                let Some(described) = processors.iter_mut().find(|p| p.id == id) else { continue };
                // The first pipeline takes the instance that was made to check it.
                let made = described
                    .made
                    .take()
                    .or_else(|| (described.factory.configure)(&described.section).ok());
                instances.extend(made.map(|processor| (id, processor)));
            }
            pipelines.push(Pipeline {
                id,
                signal,
                receivers: sources,
                processors: instances,
                exporters: sinks,
            });
        }
        pipelines
    }

    /// The components of one kind that a pipeline names, as far as they exist.
    fn references<K>(
        &mut self,
        pipeline: &str,
        node: &Node,
        list: &str,
        what: &str,
        signal: Signal,
        described: &[Described<'_, K>],
    ) -> Vec<Id> {
        let mut ids = Vec::new();
        let path = join(pipeline, list);
        let given = node.get(list).map(|n| self.ids(&path, n)).unwrap_or_default();
        if given.is_empty() && what != "processor" {
            self.add(pipeline, format!("must have at least one {what}"));
        }
        for (i, id) in given {
            let path = join(&path, &i.to_string());
            if ids.contains(&id) {
                // A receiver or exporter that is named twice is still one.
                if what == "processor" {
                    self.add(&path, format!("references processor \"{id}\" multiple times"));
                }
                continue;
            }
            match described.iter().find(|d| d.id == id) {
                None => {
                    // One that is configured but wrong has been reported.
                    let known = self
                        .root
                        .get(list)
                        .is_some_and(|n| n.entries().iter().any(|(k, _)| Id::parse(&k.name).as_ref() == Ok(&id)));
                    if !known {
                        self.add(&path, format!("references {what} \"{id}\" which is not configured"));
                        let valid: Vec<_> = described.iter().map(|d| d.id.to_string()).collect();
                        let valid: Vec<_> = valid.iter().map(String::as_str).collect();
                        self.hint(&id.to_string(), &valid);
                    }
                }
                Some(d) if !d.factory.signals.contains(&signal) => self.add(
                    &path,
                    format!(
                        "failed to create \"{id}\" {what} for data type \"{}\": telemetry type is not \
                         supported",
                        signal.name()
                    ),
                ),
                Some(_) => ids.push(id),
            }
        }
        ids
    }

    /// A list of ids, each with its index.
    fn ids(&mut self, path: &str, node: &Node) -> Vec<(usize, Id)> {
        let names = match Section::new(node.clone()).parse::<Vec<String>>() {
            Ok(names) => names,
            Err(wrong) => {
                let mut nested = Mistakes::default();
                nested.nest(path, wrong);
                self.wrong.extend(nested.0);
                return Vec::new();
            }
        };
        let mut ids = Vec::new();
        for (i, name) in names.iter().enumerate() {
            match Id::parse(name) {
                Ok(id) => ids.push((i, id)),
                Err(message) => self.add(join(path, &i.to_string()), message),
            }
        }
        ids
    }
}

fn take<K>(described: &mut Vec<Described<'_, K>>, used: &BTreeSet<Id>) -> Vec<(Id, K)> {
    described
        .drain(..)
        .filter(|d| used.contains(&d.id))
        .filter_map(|d| Some((d.id, d.made?)))
        .collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}::{key}") }
}
