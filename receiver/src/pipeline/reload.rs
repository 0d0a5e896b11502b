//! A change of configuration while data flows.
//!
//! What is configured as before goes on: its instance, what it counts, and for a receiver its programs
//! and maps in the kernel. What is new starts while the old still runs. Then what goes comes to its end,
//! from the left, having sent what it held, while those who sent to it wait; then they are led to what
//! is new. So nothing under way is lost or overtaken.
//!
//! If something new cannot start, nothing has changed yet. One thing can be in its way that is about to
//! go: an address. Then that goes first; and if the new one still does not start, it is made again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    task::Id as TaskId,
    time::{Instant, timeout_at},
};
use tracing::{Instrument as _, error};

use super::{
    Node, Running,
    graph::{Component, Graph, Key, Part},
    span,
};
use crate::{channel::Output, component::Context, config::Plan, status::Reporter};

/// The time in which what goes has to end. Less than a shutdown has: one that is asked for meanwhile
/// waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a reload has changed, each thing named.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// What is new, or runs anew.
    pub started: Vec<String>,
    /// What no longer runs.
    pub stopped: Vec<String>,
}

/// Why a reload has changed nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Refused(anyhow::Error);

impl Running {
    /// Runs `plan` from now on. On an error, what ran before runs on.
    pub async fn reload(&mut self, plan: Plan) -> Result<Changes, Refused> {
        let next = Graph::new(plan);
        let kept = self.graph.kept(&next);
        let missing = |graph: &Graph| -> Vec<String> {
            let parts = graph.parts.iter().filter(|part| !kept.contains(&part.key));
            parts.map(|part| part.key.to_string()).collect()
        };
        let started = missing(&next);
        let mut stopped = missing(&self.graph);
        stopped.retain(|name| !started.contains(name));
        // A channel closes with its last sender, and for a while those who are kept have no other.
        let mut held = BTreeMap::new();
        for key in &kept {
            if let Some(entry) = self.nodes.get(key).and_then(|node| node.entry.as_ref()) {
                let output = entry.output().ok_or_else(|| Refused(anyhow!("{key} has ended")))?;
                held.insert(key.clone(), output);
            }
        }
        let Err(error) = self.apply(next, &kept, &held).await else {
            return Ok(Changes { started, stopped });
        };
        if self.graph.parts.iter().any(|part| !self.nodes.contains_key(&part.key)) {
            let before = mem::take(&mut self.graph);
            let again = self.apply(before, &kept, &held).await;
            if let Err(again) = again.context("cannot go back to the previous configuration") {
                self.failed.get_or_insert(again);
            }
        }
        Err(Refused(error))
    }

    /// Makes a graph what runs. `held` has the way to all that others send to and that goes on.
    pub(super) async fn apply(
        &mut self,
        mut next: Graph,
        kept: &BTreeSet<Key>,
        held: &BTreeMap<Key, Output>,
    ) -> Result<()> {
        let first = self.nodes.is_empty();
        let gone: BTreeSet<Key> =
            self.nodes.keys().filter(|key| !kept.contains(key)).cloned().collect();
        let mut drained = gone.is_empty();
        let mut authenticators =
            self.authenticators.only(|id| kept.contains(&Key::Extension(id.clone())));
        let fresh = next.parts.iter().filter(|part| !kept.contains(&part.key));
        let statuses: BTreeMap<Key, Reporter> =
            fresh.map(|part| (part.key.clone(), Reporter::default())).collect();
        if first {
            // The agent is not ready before all of it is.
            self.show(&next, |key| statuses.get(key).cloned());
        }

        let mut ready = BTreeMap::new();
        for part in &mut next.parts {
            let key = part.key.clone();
            let Some(status) = statuses.get(&key) else { continue };
            let cx = self.context(&key, &authenticators, status.clone());
            let mut started = start(part, &cx).await;
            if !drained && started.as_ref().is_err_and(is_address_in_use) {
                self.drain(&gone).await;
                drained = true;
                started = start(part, &cx).await;
            }
            let component =
                started.with_context(|| format!("cannot start {} \"{}\"", key.kind(), key.id()))?;
            if let Component::Extension(extension) = &component {
                authenticators.add(key.id().clone(), extension.auth());
                if first {
                    // It can say how the start goes on.
                    self.spawn(part, component, cx, &mut BTreeMap::new());
                    continue;
                }
            }
            ready.insert(key, (component, cx));
        }
        if !drained {
            self.drain(&gone).await;
        }

        let mut outputs = held.clone();
        for part in &next.parts {
            if let Some((component, cx)) = ready.remove(&part.key) {
                self.spawn(part, component, cx, &mut outputs);
            } else if let Some(wire) = self.nodes.get(&part.key).and_then(|n| n.wire.as_ref()) {
                wire.lead(part.outputs(&outputs));
            }
        }
        self.graph = next;
        self.authenticators = authenticators;
        self.show(&self.graph, |key| self.nodes.get(key).map(|node| node.status.clone()));
        Ok(())
    }

    /// Lets what goes come to its end, from the left, while those who sent to it wait.
    async fn drain(&mut self, gone: &BTreeSet<Key>) {
        let deadline = Instant::now() + DEADLINE;
        let stays = |key: &Key| self.nodes.get(key).filter(|_| !gone.contains(key));
        // It does not make the agent unwell.
        self.show(&self.graph, |key| stays(key).map(|node| node.status.clone()));
        let mut stages: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
        for part in self.graph.parts.iter().filter(|part| gone.contains(&part.key)) {
            if let Some(node) = self.nodes.get(&part.key)
                && !matches!(part.key, Key::Extension(_))
            {
                // As at a shutdown: receivers end, and nobody waits for retries.
                node.stop.cancel();
            }
            stages.entry(part.stage).or_default().insert(part.key.clone());
        }
        for keys in stages.into_values() {
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
            if timeout_at(deadline, self.joined(&mut waited)).await.is_err() {
                self.give_up(&waited, DEADLINE);
                nodes.iter().for_each(|node| node.task.abort());
                self.joined(&mut waited).await;
            }
        }
    }

    /// Waits until these tasks have ended.
    async fn joined(&mut self, tasks: &mut BTreeSet<TaskId>) {
        while !tasks.is_empty() {
            let Some(ended) = self.tasks.join_next_with_id().await else { return };
            let (task, error) = self.ended(ended);
            match (tasks.remove(&task), error) {
                (true, Some(error)) => error!("{error:#}"),
                (false, Some(error)) => self.failed = self.failed.take().or(Some(error)),
                (_, None) => {}
            }
        }
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
