//! A change of configuration while data flows.
//!
//! What is configured as before goes on: its instance, what it counts, and for a receiver its programs
//! and maps in the kernel. What is new starts while the old still runs. Then what goes comes to its end,
//! from the left, having sent what it held, while those who sent to it wait; then they are led to what
//! is new. So nothing under way is lost or overtaken.
//!
//! If something new cannot start, nothing has changed yet. One thing can be in its way that is about to
//! go: an address. Then that goes first, and the new one takes its place as soon as the address is free,
//! whatever else has yet to end; and if it still does not start, what ran before is made again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    time::Duration,
};

use anyhow::{Result, anyhow};
use tokio::{
    task::Id as TaskId,
    time::{Instant, timeout_at},
};
use tracing::{Instrument as _, debug, error};

use super::{
    Node, Running,
    graph::{Component, EXPORTERS_STAGE, Graph, Key, Part},
    span,
};
use crate::{
    channel::{Entry, Input, Output, entered},
    component::Context,
    config::{Id, Plan},
    extensions::auth::Authenticators,
    status::Reporter,
};

/// The time in which what goes has to end. Less than a shutdown has: one that is asked for meanwhile
/// waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often it is looked whether an address has become free. What had it may yet have answers to write.
const RETRY: Duration = Duration::from_millis(20);

/// What a reload has changed, each thing named.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// What is new.
    pub started: Vec<String>,
    /// What runs anew, for it is configured in another way.
    pub restarted: Vec<String>,
    /// What no longer runs.
    pub stopped: Vec<String>,
}

/// Why a reload has changed nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Refused(anyhow::Error);

/// Why a graph does not run.
pub(super) struct Failed {
    pub error: anyhow::Error,
    /// Whether parts of what ran before have been ended for it.
    disturbed: bool,
}

/// A graph on its way to be what runs.
struct Change {
    next: Graph,
    /// What is new in it.
    statuses: BTreeMap<Key, Reporter>,
    authenticators: Authenticators,
    /// What has started and does not run yet.
    ready: BTreeMap<Key, (Component, Context)>,
    /// What waits for an address of something that goes, or for an extension that does.
    blocked: BTreeSet<Key>,
    /// What waits for an address, or has: once it has started, its predecessor has handed over.
    heirs: BTreeSet<Key>,
    /// The ways to all that runs on or is new.
    outputs: BTreeMap<Key, Output>,
    /// Exporters that run when their predecessors have ended. Until then data waits for them here.
    waiting: BTreeMap<Key, (Entry, Input)>,
    /// Whether everything is led to what is new.
    led: bool,
}

impl Running {
    /// Runs `plan` from now on. On an error, what ran before runs on.
    pub async fn reload(&mut self, plan: Plan) -> Result<Changes, Refused> {
        let next = Graph::new(plan);
        let kept = self.graph.kept(&next);
        let missing = |graph: &Graph| -> Vec<String> {
            let parts = graph.parts.iter().filter(|part| !kept.contains(&part.key));
            parts.map(|part| part.key.to_string()).collect()
        };
        let mut stopped = missing(&self.graph);
        let (restarted, started): (Vec<_>, Vec<_>) =
            missing(&next).into_iter().partition(|name| stopped.contains(name));
        stopped.retain(|name| !restarted.contains(name));
        // A channel closes with its last sender, and for a while those who are kept have no other.
        let mut held = BTreeMap::new();
        for key in &kept {
            if let Some(entry) = self.nodes.get(key).and_then(|node| node.entry.as_ref()) {
                let output = entry.output().ok_or_else(|| Refused(anyhow!("{key} has ended")))?;
                held.insert(key.clone(), output);
            }
        }
        let Err(Failed { error, disturbed }) = self.apply(next, &kept, &held).await else {
            return Ok(Changes { started, restarted, stopped });
        };
        if disturbed {
            let before = mem::take(&mut self.graph);
            if let Err(again) = self.apply(before, &kept, &held).await {
                let again = again.error.context("cannot go back to the previous configuration");
                self.failed.get_or_insert(again);
            }
        }
        Err(Refused(error))
    }

    /// Makes a graph what runs. `held` has the way to all that others send to and that goes on.
    pub(super) async fn apply(
        &mut self,
        next: Graph,
        kept: &BTreeSet<Key>,
        held: &BTreeMap<Key, Output>,
    ) -> Result<(), Failed> {
        let first = self.nodes.is_empty();
        let gone: BTreeSet<Key> =
            self.nodes.keys().filter(|key| !kept.contains(key)).cloned().collect();
        let fresh = next.parts.iter().filter(|part| !kept.contains(&part.key));
        let statuses: BTreeMap<Key, Reporter> =
            fresh.map(|part| (part.key.clone(), Reporter::default())).collect();
        if first {
            // The agent is not ready before all of it is.
            self.show(&next, |key| statuses.get(key).cloned());
        }
        let mut change = Change {
            next,
            statuses,
            authenticators: self
                .authenticators
                .only(|id| kept.contains(&Key::Extension(id.clone()))),
            ready: BTreeMap::new(),
            blocked: BTreeSet::new(),
            heirs: BTreeSet::new(),
            outputs: held.clone(),
            waiting: BTreeMap::new(),
            led: false,
        };
        let new: BTreeSet<Key> = change.statuses.keys().cloned().collect();
        self.begin(&mut change, &new, !gone.is_empty(), first)
            .await
            .map_err(|error| Failed { error, disturbed: false })?;
        if !gone.is_empty() {
            self.drain(&gone, &mut change).await;
        }
        if !change.blocked.is_empty() {
            let blocked = mem::take(&mut change.blocked);
            self.begin(&mut change, &blocked, false, false)
                .await
                .map_err(|error| Failed { error, disturbed: true })?;
        }
        self.lead(&mut change, &BTreeSet::new());
        self.graph = change.next;
        for part in &self.graph.parts {
            if let Some(node) = self.nodes.get_mut(&part.key) {
                node.stage = part.stage;
            }
        }
        let nodes = &self.nodes;
        self.heritages.retain(|key, _| nodes.contains_key(key));
        self.authenticators = change.authenticators;
        self.show(&self.graph, |key| self.nodes.get(key).map(|node| node.status.clone()));
        Ok(())
    }

    /// Starts these parts of a graph. If `may_wait`, an address that is in use is no error yet.
    async fn begin(
        &mut self,
        change: &mut Change,
        which: &BTreeSet<Key>,
        may_wait: bool,
        first: bool,
    ) -> Result<()> {
        // In the order of the graph: what another one names as its authenticator comes before it.
        for at in 0..change.next.parts.len() {
            let part = &mut change.next.parts[at];
            let key = part.key.clone();
            let Some(status) = change.statuses.get(&key).filter(|_| which.contains(&key)) else {
                continue;
            };
            let extensions = change.blocked.iter().filter_map(|key| match key {
                Key::Extension(id) => Some(id),
                _ => None,
            });
            if part.asks(&extensions.collect::<BTreeSet<&Id>>()) {
                change.blocked.insert(key);
                continue;
            }
            let cx = self.context(&key, &change.authenticators, status.clone());
            let component = match start(part, &cx).await {
                Ok(component) => component,
                Err(error) if may_wait && is_address_in_use(&error) => {
                    change.heirs.insert(key.clone());
                    change.blocked.insert(key);
                    continue;
                }
                Err(error) => {
                    let what = format!("cannot start {} \"{}\"", key.kind(), key.id());
                    return Err(error.context(what));
                }
            };
            if let Component::Extension(extension) = &component {
                change.authenticators.add(key.id().clone(), extension.auth());
                // At the first start it can say how that goes on; later it takes a place that is free.
                if first || !self.nodes.contains_key(&key) && change.heirs.contains(&key) {
                    let part = &change.next.parts[at];
                    self.spawn(part, component, cx, &mut BTreeMap::new(), None);
                    continue;
                }
            }
            change.ready.insert(key, (component, cx));
        }
        Ok(())
    }

    /// Leads everything to what is new, which then runs; but an exporter whose predecessor, one of `ending`, has
    /// not ended runs later: what it is sent must not overtake what that one still holds.
    fn lead(&mut self, change: &mut Change, ending: &BTreeSet<Key>) {
        for part in &change.next.parts {
            let key = &part.key;
            let late = |key| ending.contains(key) && !change.heirs.contains(key);
            if change.ready.contains_key(key) && late(key) {
                if let Key::Exporter(_) = key
                    && !change.waiting.contains_key(key)
                {
                    let (output, entry, input) = entered();
                    change.outputs.insert(key.clone(), output);
                    change.waiting.insert(key.clone(), (entry, input));
                }
            } else if let Some((component, cx)) = change.ready.remove(key) {
                let way = change.waiting.remove(key);
                self.spawn(part, component, cx, &mut change.outputs, way);
            } else if let Some(wire) = self.nodes.get(key).and_then(|n| n.wire.as_ref())
                && !change.led
            {
                wire.lead(part.outputs(&change.outputs));
            }
        }
        change.led = true;
    }

    /// Lets what goes come to its end, from the left, while those who sent to it wait.
    async fn drain(&mut self, gone: &BTreeSet<Key>, change: &mut Change) {
        let deadline = Instant::now() + DEADLINE;
        let stays = |key: &Key| self.nodes.get(key).filter(|_| !gone.contains(key));
        // It does not make the agent unwell.
        self.show(&self.graph, |key| stays(key).map(|node| node.status.clone()));
        let mut stages: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
        for (key, node) in self.nodes.iter().filter(|(key, _)| gone.contains(key)) {
            if !matches!(key, Key::Extension(_)) {
                // As at a shutdown: receivers end, and nobody waits for retries.
                node.stop.cancel();
            }
            stages.entry(node.stage).or_default().insert(key.clone());
        }
        for (stage, keys) in stages {
            for part in
                self.graph.parts.iter().filter(|p| p.to.iter().any(|(to, _)| keys.contains(to)))
            {
                // Of those who send to it, what goes too has ended already.
                if let Some(wire) = self.nodes.get(&part.key).and_then(|n| n.wire.as_ref()) {
                    wire.pause();
                }
            }
            let nodes: Vec<Node> = keys.iter().filter_map(|key| self.nodes.remove(key)).collect();
            nodes.iter().for_each(|node| node.stop.cancel());
            let ids = nodes.iter().map(|node| node.task.id());
            let mut waited: BTreeSet<TaskId> =
                ids.filter(|id| self.names.contains_key(id)).collect();
            loop {
                self.replace(change, &waited, stage).await;
                if waited.is_empty() {
                    break;
                }
                let wake = match change.blocked.is_empty() {
                    true => deadline,
                    false => deadline.min(Instant::now() + RETRY),
                };
                if timeout_at(wake, self.joined(&mut waited)).await.is_err()
                    && Instant::now() >= deadline
                {
                    self.give_up(&waited, DEADLINE);
                    nodes.iter().for_each(|node| node.task.abort());
                    while !waited.is_empty() {
                        self.joined(&mut waited).await;
                    }
                }
            }
        }
    }

    /// Lets what is new take the place of what has ended.
    async fn replace(&mut self, change: &mut Change, waited: &BTreeSet<TaskId>, stage: usize) {
        if !change.blocked.is_empty() {
            let blocked = mem::take(&mut change.blocked);
            if let Err(error) = self.begin(change, &blocked, true, false).await {
                // What goes has to end in any case. It is tried once more then, and that decides.
                debug!("{error:#}");
                change.blocked = blocked.into_iter().filter(|k| !self.began(change, k)).collect();
            }
        }
        // All further to the left has ended, and what held addresses has given them up.
        if stage >= EXPORTERS_STAGE && change.blocked.is_empty() {
            let name = |id| self.names.get(id).map(|(key, _): &(Key, _)| key.clone());
            let ending = waited.iter().filter_map(name).collect();
            self.lead(change, &ending);
        }
    }

    fn began(&self, change: &Change, key: &Key) -> bool {
        change.ready.contains_key(key) || self.nodes.contains_key(key)
    }

    /// Waits until one of these tasks has ended.
    async fn joined(&mut self, tasks: &mut BTreeSet<TaskId>) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let (task, error) = self.ended(ended);
            match (tasks.remove(&task), error) {
                (true, Some(error)) => error!("{error:#}"),
                (false, Some(error)) => self.failed = self.failed.take().or(Some(error)),
                (true, None) => {}
                (false, None) => continue,
            }
            return;
        }
        tasks.clear();
    }
}

async fn start(part: &mut Part, cx: &Context) -> Result<Component> {
    let mut component = part.make()?;
    component.start(cx).instrument(span(&part.key)).await?;
    Ok(component)
}

fn is_address_in_use(error: &anyhow::Error) -> bool {
    let mut errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| error.kind() == io::ErrorKind::AddrInUse)
}
