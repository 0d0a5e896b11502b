//! The whole configuration, checked: what runs, and how it is connected.

mod references;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Id, Mistake, Mistakes, Report, Section,
    instead::{instead, key_instead},
    mistake::{MANY, dotted, hint},
    node::{Key, Node, Value},
    planned::Planned,
    report::MOST,
    resolve::resolve,
};
use crate::{
    batch::Signal,
    component::{AnyExporter, AnyExtension, AnyProcessor, AnyReceiver, Factory},
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
    /// The extensions.
    pub extensions: &'a [Factory<Box<dyn AnyExtension>>],
}

/// A configuration without mistakes.
pub struct Plan {
    /// The extensions that `service::extensions` names, in its order, those that authenticate first.
    pub extensions: Vec<Planned<Box<dyn AnyExtension>>>,
    /// The receivers that pipelines use.
    pub receivers: Vec<Planned<Box<dyn AnyReceiver>>>,
    /// The exporters that pipelines use.
    pub exporters: Vec<Planned<Box<dyn AnyExporter>>>,
    /// The pipelines.
    pub pipelines: Vec<Pipeline>,
    /// `service::telemetry`.
    pub telemetry: telemetry::Config,
    /// The whole configuration with its defaults, as it is shown: without secrets.
    pub printed: serde_json::Value,
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
    pub processors: Vec<Planned<Box<dyn AnyProcessor>>>,
    /// Where it goes.
    pub exporters: Vec<Id>,
}

/// Reads, merges and expands the sources, and checks all that they say.
pub fn load(uris: &[String], sets: &[String], kinds: &Kinds<'_>) -> Result<Plan, Report> {
    let (root, warnings) = resolve(uris, sets)?;
    check(&root, warnings, kinds, false)
}

/// Checks a configuration; `loosely` whether it can be read alone.
pub(super) fn check(
    root: &Node,
    warnings: Vec<String>,
    kinds: &Kinds<'_>,
    loosely: bool,
) -> Result<Plan, Report> {
    let mut check = Check { root, wrong: Vec::new(), refused: BTreeSet::new(), warnings, loosely };
    let plan = check.plan(kinds);
    match check.wrong.is_empty() {
        true => Ok(Plan {
            warnings: warnings::with_components(&plan, check.warnings),
            printed: super::print::effective(root, kinds),
            ..plan
        }),
        false => Err(Report { wrong: check.wrong, warnings: check.warnings }),
    }
}

const EMPTY: &str = "empty configuration file";

struct Check<'a> {
    root: &'a Node,
    wrong: Vec<Mistake>,
    /// Components that are described, but wrong.
    refused: BTreeSet<(&'static str, Id)>,
    warnings: Vec<String>,
    /// What can be read is right.
    loosely: bool,
}

/// A component that the configuration describes.
struct Described<'a, K> {
    factory: &'a Factory<K>,
    section: Section,
    /// Made already, to check it; taken by the first who uses it.
    made: Option<K>,
}

impl<K> Described<'_, K> {
    /// The first who asks takes the instance that was made to check it.
    fn take(&mut self, id: &Id) -> Option<Planned<K>> {
        let configure = self.factory.configure;
        let component = self.made.take().or_else(|| configure(&self.section).ok())?;
        Some(Planned::new(id.clone(), component, self.factory, self.section.clone()))
    }
}

/// Those of one section.
type All<'a, K> = BTreeMap<Id, Described<'a, K>>;

impl Check<'_> {
    fn push(&mut self, mistake: Mistake) {
        if self.wrong.len() < MOST {
            self.wrong.push(mistake);
        }
    }

    fn add(&mut self, path: &str, message: impl Into<String>) {
        self.add_at(path, path, message);
    }

    /// What is said of `path` stands at `place`.
    fn add_at(&mut self, path: &str, place: &str, message: impl Into<String>) {
        if self.wrong.len() < MOST {
            let place = self.root.nearest(place).place.clone();
            self.push(Mistake {
                path: path.to_owned(),
                place,
                message: message.into(),
                hint: None,
            });
        }
    }

    /// What can be read, but not be run: `path` names what at `place` does not exist, or lacks something.
    fn invalid(&mut self, path: &str, place: &str, message: impl Into<String>) {
        if !self.loosely {
            self.add_at(path, place, message);
        }
    }

    fn nest(&mut self, path: &str, wrong: Mistakes) {
        let mut nested = Mistakes::default();
        nested.nest(path, wrong);
        nested.0.into_iter().for_each(|mistake| self.push(mistake));
    }

    /// Whether a section is a map, or nothing. What is wrong with it has no consequences.
    fn is_map(&mut self, path: &str, node: &Node) -> bool {
        let map = matches!(node.value, Value::Map(_) | Value::Null);
        if !map {
            let name = dotted(path);
            self.add(path, format!("'{name}' expected a map or struct, got \"{}\"", node.kind()));
        }
        map
    }

    fn advise(&mut self, advice: &str) {
        if let Some(mistake) = self.wrong.last_mut() {
            mistake.hint = Some(advice.to_owned());
        }
    }

    fn hint(&mut self, given: &str, valid: &[&str]) {
        if let Some(mistake) = self.wrong.last_mut() {
            mistake.hint = hint(given, valid);
        }
    }

    fn hint_among<K>(&mut self, given: &Id, all: &All<'_, K>) {
        if self.loosely {
            return;
        }
        // One more than are looked at: then none is.
        let valid: Vec<_> = all.keys().take(MANY + 1).map(Id::to_string).collect();
        let valid: Vec<_> = valid.iter().map(String::as_str).collect();
        self.hint(&given.to_string(), &valid);
    }

    fn plan(&mut self, kinds: &Kinds<'_>) -> Plan {
        const SECTIONS: [&str; 6] =
            ["receivers", "processors", "exporters", "extensions", "connectors", "service"];
        let root = self.root;
        for (key, _) in root.entries().iter().filter(|(k, _)| !SECTIONS.contains(&&*k.name)) {
            self.unknown_key("", key, &SECTIONS);
        }
        let mut receivers = self.components("receivers", kinds.receivers);
        let mut processors = self.components("processors", kinds.processors);
        let mut exporters = self.components("exporters", kinds.exporters);
        let mut extensions = self.components("extensions", kinds.extensions);
        self.components::<()>("connectors", &[]);
        // A section of the wrong type has been reported as that.
        let nothing = |section: &str| {
            root.get(section)
                .is_none_or(|n| n.is_empty() && matches!(n.value, Value::Map(_) | Value::Null))
        };
        if SECTIONS[..5].iter().all(|section| nothing(section)) {
            self.invalid("", "", EMPTY);
        } else {
            for (section, what) in [("receivers", "receiver"), ("exporters", "exporter")] {
                if nothing(section) {
                    let message = format!("no {what} configuration specified in config");
                    self.invalid(section, section, message);
                }
            }
        }
        let extensions = self.extensions(&mut extensions);
        let (telemetry, pipelines) = self.service(&receivers, &mut processors, &exporters);
        let used = |ids: fn(&Pipeline) -> &Vec<Id>| -> BTreeSet<Id> {
            pipelines.iter().flat_map(ids).cloned().collect()
        };
        let receivers = take(&mut receivers, &used(|p| &p.receivers));
        let exporters = take(&mut exporters, &used(|p| &p.exporters));
        self.secured(&extensions, &exporters);
        Plan {
            extensions,
            receivers,
            exporters,
            pipelines,
            telemetry,
            warnings: Vec::new(),
            printed: serde_json::Value::Null,
        }
    }

    fn unknown_key(&mut self, holder: &str, key: &Key, valid: &[&str]) {
        if self.wrong.len() < MOST {
            self.push(Mistake {
                path: join(holder, &key.name),
                place: key.place.clone(),
                message: format!("'{}' has invalid keys: {}", dotted(holder), key.name),
                hint: hint(&key.name, valid),
            });
        }
    }

    /// Checks every component of a section, used or not.
    fn components<'a, K>(
        &mut self,
        section: &'static str,
        factories: &'a [Factory<K>],
    ) -> All<'a, K> {
        let mut all = All::new();
        let Some(node) = self.root.get(section) else { return all };
        self.is_map(section, node);
        for (key, node) in node.entries() {
            if self.wrong.len() == MOST {
                break;
            }
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
                    self.push(at_key(message));
                    continue;
                }
            };
            if all.contains_key(&id) {
                self.push(at_key(format!("duplicate name {:?} after unmarshaling {id}", key.name)));
                continue;
            }
            let Some(factory) = factories.iter().find(|f| f.is(&id.kind)) else {
                let mut valid: Vec<_> = factories.iter().map(|f| f.name).collect();
                valid.sort_unstable();
                self.push(at_key(match (section, id.kind.as_str()) {
                    ("exporters", "logging") => {
                        "the logging exporter has been deprecated, use the \
                                                 debug exporter instead"
                            .to_owned()
                    }
                    _ => format!(
                        "'{section}' unknown type: \"{}\" for id: \"{id}\" (valid values: [{}])",
                        id.kind,
                        valid.join(" ")
                    ),
                }));
                match instead(section, &id.kind) {
                    Some(advice) => self.advise(advice),
                    None => self.hint(&id.kind, &valid),
                }
                self.refused.insert((section, id));
                continue;
            };
            // A section without a value stands at its key.
            let mut node = node.clone();
            if node.value == Value::Null {
                node.place = key.place.clone();
            }
            let node = Section::new(node);
            let made = match self.loosely {
                true => (factory.unreadable)(&node).or(None),
                false => (factory.configure)(&node).map(Some),
            };
            let made = match made {
                Ok(made) => made,
                Err(mut wrong) => {
                    wrong.0.iter_mut().for_each(|mistake| decoding(mistake, &id));
                    self.nest(&path, wrong);
                    None
                }
            };
            all.insert(id, Described { factory, section: node, made });
        }
        all
    }

    /// The extensions that the service names, as far as they exist.
    fn extensions(
        &mut self,
        all: &mut All<'_, Box<dyn AnyExtension>>,
    ) -> Vec<Planned<Box<dyn AnyExtension>>> {
        let path = "service::extensions";
        let Some(named) = self.root.get("service").and_then(|s| s.get("extensions")) else {
            return Vec::new();
        };
        let mut used: Vec<Planned<Box<dyn AnyExtension>>> = Vec::new();
        for (i, id) in self.ids(path, named) {
            match all.get_mut(&id) {
                // One that is named twice is still one.
                Some(_) if used.iter().any(|planned| planned.id == id) => {}
                Some(described) => used.extend(described.take(&id)),
                // One that is configured but wrong has been reported.
                None if self.wrong.len() == MOST || self.is_refused("extensions", &id) => {}
                None => {
                    let message = format!("references extension \"{id}\" which is not configured");
                    self.invalid(path, &join(path, &i.to_string()), message);
                    self.hint_among(&id, all);
                }
            }
        }
        // Extensions serve, too, and ask others who may.
        used.sort_by_key(|planned| !planned.component.authenticates());
        used
    }

    fn service(
        &mut self,
        receivers: &All<'_, Box<dyn AnyReceiver>>,
        processors: &mut All<'_, Box<dyn AnyProcessor>>,
        exporters: &All<'_, Box<dyn AnyExporter>>,
    ) -> (telemetry::Config, Vec<Pipeline>) {
        const KEYS: [&str; 3] = ["extensions", "pipelines", "telemetry"];
        let nothing = Node::default();
        let service = self.root.get("service").unwrap_or(&nothing);
        if !self.is_map("service", service) {
            return Default::default();
        }
        for (key, _) in service.entries().iter().filter(|(k, _)| !KEYS.contains(&&*k.name)) {
            self.unknown_key("service", key, &KEYS);
        }
        let section = Section::new(service.get("telemetry").cloned().unwrap_or_default());
        let loosely = self.loosely;
        let checked = section.configure(|config: telemetry::Config| match loosely {
            true => Ok(config),
            false => config.check().map(|()| config),
        });
        let telemetry = checked.unwrap_or_else(|mut wrong| {
            for Mistake { path, message, hint, .. } in &mut wrong.0 {
                *hint = key_instead(path).or_else(|| hint.take());
                if let Some((holder, rest)) = message.split_once("' has invalid keys: ") {
                    let holder = join("service::telemetry", holder.trim_start_matches('\''));
                    let holder = dotted(holder.trim_end_matches(':'));
                    *message = format!("'{holder}' has invalid keys: {rest}");
                }
            }
            self.nest("service::telemetry", wrong);
            telemetry::Config::default()
        });
        if self.wrong.iter().any(|mistake| mistake.message == EMPTY) {
            // Whatever pipelines name is not there.
            return (telemetry, Vec::new());
        }
        let path = "service::pipelines";
        let pipelines = service.get("pipelines").unwrap_or(&nothing);
        if self.is_map(path, pipelines) && pipelines.entries().is_empty() {
            self.invalid(path, path, "service must have at least one pipeline");
        }
        (telemetry, self.pipelines(pipelines, receivers, processors, exporters))
    }

    fn pipelines(
        &mut self,
        section: &Node,
        receivers: &All<'_, Box<dyn AnyReceiver>>,
        processors: &mut All<'_, Box<dyn AnyProcessor>>,
        exporters: &All<'_, Box<dyn AnyExporter>>,
    ) -> Vec<Pipeline> {
        const KEYS: [&str; 3] = ["receivers", "processors", "exporters"];
        let mut pipelines: Vec<Pipeline> = Vec::new();
        let mut seen = BTreeSet::new();
        for (key, node) in section.entries() {
            if self.wrong.len() == MOST {
                break;
            }
            let path = join("service::pipelines", &key.name);
            let id = match Id::parse(&key.name) {
                Ok(id) => id,
                Err(message) => {
                    self.add(&path, message);
                    continue;
                }
            };
            if id.kind == "profiles" {
                let message = format!(
                    "pipeline \"{id}\": profiling signal support is at alpha level, gated under the \
                     \"service.profilesSupport\" feature gate, which this version does not have"
                );
                self.invalid(&path, &path, message);
                continue;
            }
            let Some(signal) = Signal::ALL.into_iter().find(|s| s.name() == id.kind) else {
                let message = format!("in \"{id}\" id: unknown pipeline signal: \"{}\"", id.kind);
                self.add(&path, message);
                self.hint(&id.kind, &Signal::ALL.map(Signal::name));
                continue;
            };
            if !seen.insert(id.clone()) {
                self.add(&path, format!("duplicate name {:?} after unmarshaling {id}", key.name));
                continue;
            }
            if !self.is_map(&path, node) {
                continue;
            }
            for (key, _) in node.entries().iter().filter(|(k, _)| !KEYS.contains(&&*k.name)) {
                self.unknown_key(&path, key, &KEYS);
            }
            let sources = self.references(&path, node, "receivers", "receiver", signal, receivers);
            let steps = self.references(&path, node, "processors", "processor", signal, processors);
            let sinks = self.references(&path, node, "exporters", "exporter", signal, exporters);
            for id in &sinks {
                let made = exporters.get(id).and_then(|described| described.made.as_ref());
                let wrong = made.map(|exporter| exporter.suits(signal)).unwrap_or_default();
                self.unsuited(&path, ("exporters", "exporter"), id, signal, wrong);
            }
            let mut instances = Vec::new();
            for id in steps {
                let Some(described) = processors.get_mut(&id) else { continue };
                let Some(planned) = described.take(&id) else { continue };
                self.suits(signal, &planned);
                instances.push(planned);
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
}

/// What the Collector says around mistakes of a component's section.
fn decoding(mistake: &mut Mistake, id: &Id) {
    let message = &mistake.message;
    if message.contains("' has invalid keys: ") {
        mistake.message = format!("error reading configuration for \"{id}\": {message}");
    } else if let Some(got) = message.strip_prefix("'' expected a map or struct, got ") {
        let got = match got.trim_matches('"') {
            "slice" => "[]interface {}",
            kind => kind,
        };
        mistake.message = format!(
            "'[{id}]' expected type 'map[string]interface {{}}', got unconvertible type '{got}'"
        );
    }
}

fn take<K>(all: &mut All<'_, K>, used: &BTreeSet<Id>) -> Vec<Planned<K>> {
    used.iter().filter_map(|id| all.get_mut(id)?.take(id)).collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}::{key}") }
}
