//! How every component is, as the Collector calls it, for whoever asks about the agent's health.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// What a component can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It is starting.
    Starting,
    /// It runs without an issue.
    Ok,
    /// It has met an error that may pass.
    RecoverableError,
    /// It has failed; the agent ends.
    FatalError,
    /// It is ending.
    Stopping,
    /// It has ended.
    Stopped,
}

impl Status {
    /// As the Collector writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "StatusStarting",
            Self::Ok => "StatusOK",
            Self::RecoverableError => "StatusRecoverableError",
            Self::FatalError => "StatusFatalError",
            Self::Stopping => "StatusStopping",
            Self::Stopped => "StatusStopped",
        }
    }

    /// Whether something is wrong.
    pub const fn is_error(self) -> bool {
        matches!(self, Self::RecoverableError | Self::FatalError)
    }
}

/// A status, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The status.
    pub status: Status,
    /// Why; empty if nothing is wrong.
    pub error: String,
    /// When it became that.
    pub time: SystemTime,
}

impl Event {
    fn new(status: Status, error: String) -> Self {
        Self { status, error, time: SystemTime::now() }
    }

    /// What several come to: what is wrong or not yet there shows, with an error's first time and the
    /// last time of all else.
    pub fn of_all<'a>(all: impl IntoIterator<Item = &'a Self> + Clone) -> Option<Self> {
        let each = || all.clone().into_iter();
        let first = each().next()?.status;
        let status = if each().all(|e| e.status == first) {
            first
        } else {
            use Status::{FatalError, RecoverableError, Starting, Stopped, Stopping};
            let order = [FatalError, Starting, Stopping, Stopped, RecoverableError];
            let found = order.into_iter().find(|s| each().any(|e| e.status == *s));
            // Some have ended: the whole is about to.
            found.map_or(Status::Ok, |s| if s == Stopped { Stopping } else { s })
        };
        if status.is_error() {
            return each().filter(|e| e.status == status).min_by_key(|e| e.time).cloned();
        }
        let time = each().map(|e| e.time).max()?;
        Some(Self { status, error: String::new(), time })
    }
}

/// What has become of one of a receiver's probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `signal/probe`.
    pub name: String,
    /// How it attached; `None` if it did not.
    pub mode: Option<&'static str>,
    /// Why better mechanisms, or all, were refused.
    pub reason: String,
    /// Events that it missed; `None` if the kernel does not say.
    pub missed: Option<u64>,
}

/// Where one component says how it is.
#[derive(Clone, Debug)]
pub struct Reporter {
    event: Arc<Mutex<Event>>,
    probes: Arc<Mutex<Vec<Probe>>>,
}

impl Default for Reporter {
    fn default() -> Self {
        let event = Event::new(Status::Starting, String::new());
        Self { event: Arc::new(Mutex::new(event)), probes: Arc::default() }
    }
}

impl Reporter {
    /// It works.
    pub fn ok(&self) {
        self.run(Status::Ok, "");
    }

    /// Something is wrong that may pass. The first error since it worked is what shows.
    pub fn recoverable(&self, error: &str) {
        self.run(Status::RecoverableError, error);
    }

    /// A change of a component that runs: one that ends stays at that.
    fn run(&self, status: Status, error: &str) {
        let mut event = lock(&self.event);
        let running = matches!(event.status, Status::Ok | Status::RecoverableError);
        if running && event.status != status {
            *event = Event::new(status, error.to_owned());
        }
    }

    /// What the agent knows of it. A failure is final.
    pub(crate) fn set(&self, status: Status, error: String) {
        let mut event = lock(&self.event);
        if event.status != Status::FatalError && event.status != status {
            *event = Event::new(status, error);
        }
    }

    /// How it is.
    pub fn event(&self) -> Event {
        lock(&self.event).clone()
    }

    /// What has become of its probes.
    pub fn probes(&self, probes: Vec<Probe>) {
        *lock(&self.probes) = probes;
    }
}

/// A pipeline's components, or the extensions, each with its status.
pub type Group = BTreeMap<String, Event>;

/// How a pipeline is connected, by ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The pipeline.
    pub id: String,
    /// What flows through it.
    pub signal: &'static str,
    /// Whether a processor changes it.
    pub mutates: bool,
    /// Where it comes from.
    pub receivers: Vec<String>,
    /// What happens to it, in order.
    pub processors: Vec<String>,
    /// Where it goes.
    pub exporters: Vec<String>,
}

/// All components: `extensions` and every `pipeline:ID`. A component that several pipelines share has
/// one status.
#[derive(Clone)]
pub struct Statuses {
    groups: Arc<Mutex<BTreeMap<String, BTreeMap<String, Reporter>>>>,
    flows: Arc<Mutex<Vec<Flow>>>,
    configuration: Arc<Mutex<Arc<str>>>,
}

impl Default for Statuses {
    fn default() -> Self {
        let configuration = Arc::new(Mutex::new("".into()));
        Self { groups: Arc::default(), flows: Arc::default(), configuration }
    }
}

impl Statuses {
    /// What there is from now on: the group, the component's name in it, and how it is.
    pub(crate) fn show<'a>(
        &self,
        all: impl IntoIterator<Item = (&'a String, &'a String, Reporter)>,
    ) {
        let mut groups: BTreeMap<String, BTreeMap<String, Reporter>> = BTreeMap::new();
        for (group, name, reporter) in all {
            groups.entry(group.clone()).or_default().insert(name.clone(), reporter);
        }
        *lock(&self.groups) = groups;
    }

    /// Notes how the pipelines are connected.
    pub(crate) fn connect(&self, flows: Vec<Flow>) {
        *lock(&self.flows) = flows;
    }

    /// How the pipelines are connected.
    pub fn flows(&self) -> Vec<Flow> {
        lock(&self.flows).clone()
    }

    /// Notes what all of it is configured as.
    pub(crate) fn configure(&self, configuration: &serde_json::Value) {
        *lock(&self.configuration) = configuration.to_string().into();
    }

    /// The configuration as JSON, without secrets; empty as long as there is none.
    pub fn configuration(&self) -> Arc<str> {
        lock(&self.configuration).clone()
    }

    /// The probes of every receiver that has some, by its id.
    pub fn probes(&self) -> BTreeMap<String, Vec<Probe>> {
        let groups = lock(&self.groups);
        let all = groups.values().flatten().filter_map(|(name, reporter)| {
            let probes = lock(&reporter.probes).clone();
            Some((name.strip_prefix("receiver:")?.to_owned(), probes))
        });
        all.filter(|(_, probes)| !probes.is_empty()).collect()
    }

    /// How all are now.
    pub fn groups(&self) -> BTreeMap<String, Group> {
        let events = |components: &BTreeMap<String, Reporter>| {
            components.iter().map(|(name, reporter)| (name.clone(), reporter.event())).collect()
        };
        lock(&self.groups).iter().map(|(group, all)| (group.clone(), events(all))).collect()
    }
}

/// A status is whole even where its holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn errors_come_and_pass_until_the_end() {
        let reporter = Reporter::default();
        reporter.ok();
        assert_eq!(reporter.event().status, Status::Starting, "only the agent ends the start");
        reporter.set(Status::Ok, String::new());
        reporter.recoverable("first");
        let began = reporter.event();
        reporter.recoverable("second");
        assert_eq!(reporter.event(), began, "the first error is when it began");
        reporter.ok();
        assert_eq!((reporter.event().status, reporter.event().error.as_str()), (Status::Ok, ""));
        reporter.set(Status::Stopping, String::new());
        reporter.recoverable("late");
        assert_eq!(reporter.event().status, Status::Stopping);
        reporter.set(Status::FatalError, "broken".to_owned());
        reporter.set(Status::Stopped, String::new());
        assert_eq!(reporter.event().error, "broken");
    }

    #[test]
    fn what_is_wrong_or_not_there_yet_shows() {
        use Status::{FatalError, Ok, RecoverableError, Starting, Stopped, Stopping};
        for (all, expected) in [
            (&[Ok, Ok][..], Ok),
            (&[Stopped, Stopped], Stopped),
            (&[Ok, RecoverableError], RecoverableError),
            (&[RecoverableError, Starting, Ok], Starting),
            (&[Stopped, RecoverableError], Stopping),
            (&[Stopped, Starting, FatalError], FatalError),
        ] {
            let start = SystemTime::UNIX_EPOCH;
            let event = |(i, status): (usize, &Status)| Event {
                status: *status,
                error: String::new(),
                time: start + Duration::from_secs(i as u64),
            };
            let events: Vec<_> = all.iter().enumerate().map(event).collect();
            assert_eq!(Event::of_all(&events).map(|e| e.status), Some(expected), "{all:?}");
        }
        assert_eq!(Event::of_all(&[]), None);
    }
}
