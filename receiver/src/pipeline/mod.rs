//! Wires a checked configuration into running tasks, changes it while they run, and stops them from the
//! left.
//!
//! Start: extensions, exporters, then receivers are started; then all run. Stop: receivers are told;
//! every other task ends when its input closes, having sent what it held; when all have ended, the
//! extensions are told. One deadline covers all. A reload does both at once: see `reload`.

mod graph;
mod reload;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, anyhow};
use opentelemetry::{KeyValue, metrics::Meter};
use tokio::{
    task::{AbortHandle, Id as TaskId, JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, error, error_span, info, warn};

use self::graph::{Component, Graph, Key, Part};
pub use self::reload::{Changes, Refused};
use crate::{
    channel::{Entry, Input, Output, Wire, entered},
    component::Context,
    config::Plan,
    exporters::queue::Queues,
    extensions::auth::Authenticators,
    heritage::Heritage,
    status::{Reporter, Status, Statuses},
    telemetry::{Items, KEPT},
};

/// The time that a shutdown may take, all stages together. With the last of the agent's own telemetry it is
/// 15 s; Kubernetes kills after 30 s.
pub const DEADLINE: Duration = Duration::from_secs(12);

/// Pipelines at work.
pub struct Running {
    meter: Meter,
    queues: Queues,
    graph: Graph,
    nodes: BTreeMap<Key, Node>,
    tasks: JoinSet<Result<()>>,
    names: BTreeMap<TaskId, (Key, Reporter)>,
    stop: CancellationToken,
    stop_extensions: CancellationToken,
    authenticators: Authenticators,
    statuses: Statuses,
    /// What components have started by themselves.
    started: TaskTracker,
    /// What instances leave to their successors.
    heritages: BTreeMap<Key, Heritage>,
    /// Of a component that failed during a reload.
    failed: Option<anyhow::Error>,
}

/// A component at work.
struct Node {
    task: AbortHandle,
    stop: CancellationToken,
    status: Reporter,
    /// How far from the left it is.
    stage: usize,
    /// Where others send it data.
    entry: Option<Entry>,
    /// Where it sends data.
    wire: Option<Wire>,
}

impl Running {
    /// Starts everything that the plan names. On an error, what had started is stopped again.
    pub async fn start(plan: Plan, meter: &Meter) -> Result<Self> {
        let mut running = Self {
            meter: meter.clone(),
            queues: Queues::new(meter),
            graph: Graph::default(),
            nodes: BTreeMap::new(),
            tasks: JoinSet::new(),
            names: BTreeMap::new(),
            stop: CancellationToken::new(),
            stop_extensions: CancellationToken::new(),
            authenticators: Authenticators::default(),
            statuses: Statuses::default(),
            started: TaskTracker::new(),
            heritages: BTreeMap::new(),
            failed: None,
        };
        let graph = Graph::new(plan);
        match running.apply(graph, &BTreeSet::new(), &BTreeMap::new()).await {
            Ok(()) => Ok(running),
            Err(failed) => {
                running.shutdown().await;
                Err(failed.error)
            }
        }
    }

    fn context(&mut self, key: &Key, authenticators: &Authenticators, status: Reporter) -> Context {
        let stop = match key {
            Key::Extension(_) => &self.stop_extensions,
            _ => &self.stop,
        };
        Context {
            id: key.id().clone(),
            meter: self.meter.clone(),
            queues: self.queues.clone(),
            stop: stop.child_token(),
            authenticators: authenticators.clone(),
            status,
            statuses: self.statuses.clone(),
            tasks: self.started.clone(),
            heritage: self.heritages.entry(key.clone()).or_default().clone(),
        }
    }

    /// Lets a component run that has started. `outputs` has what it leads to, and then also itself. `way` is its
    /// channel, if it has one yet.
    fn spawn(
        &mut self,
        part: &Part,
        component: Component,
        cx: Context,
        outputs: &mut BTreeMap<Key, Output>,
        way: Option<(Entry, Input)>,
    ) {
        let key = part.key.clone();
        let id = cx.id.to_string();
        let count = |name, attributes: &[_]| Items::new(&self.meter, name, attributes);
        let by_signal = |name| {
            let attributes = [KeyValue::new("processor", id.clone())];
            Items::by_attribute(&self.meter, name, &attributes)
        };
        let out = Output::fan_out(part.outputs(outputs));
        let (stop, status) = (cx.stop.clone(), cx.status.clone());
        let mut entry = None;
        let mut wire = None;
        let enter = |key: &Key| {
            let (to, input) = way.unwrap_or_else(|| {
                let (output, to, input) = entered();
                outputs.insert(key.clone(), output);
                (to, input)
            });
            entry = Some(to);
            input
        };
        let task = match component {
            Component::Extension(extension) => extension.run(cx),
            Component::Exporter(exporter) => exporter.run(cx, enter(&key)),
            Component::Processor(processor) => {
                let input = enter(&key).counting(by_signal("otelcol_processor_incoming"));
                let out = out.counting(by_signal("otelcol_processor_outgoing"));
                input.before(&out);
                wire = Some(out.wire());
                processor.run(cx, input, out)
            }
            Component::Receiver(receiver) => {
                let attributes = [
                    KeyValue::new("receiver", id.clone()),
                    // A scraper has no transport; the Collector leaves the attribute empty too.
                    KeyValue::new("transport", ""),
                ];
                let [accepted, refused] = ["otelcol_receiver_accepted", "otelcol_receiver_refused"]
                    .map(|name| count(name, &attributes));
                let out = out.admitting(accepted, refused);
                wire = Some(out.wire());
                receiver.run(cx, out)
            }
        };
        status.set(Status::Ok, String::new());
        let task = self.tasks.spawn(task.instrument(span(&key)));
        self.names.insert(task.id(), (key.clone(), status.clone()));
        self.nodes.insert(key, Node { task, stop, status, stage: part.stage, entry, wire });
    }

    /// Shows the statuses of these components of a graph.
    fn show(&self, graph: &Graph, of: impl Fn(&Key) -> Option<Reporter>) {
        let all = graph.groups.iter();
        self.statuses.connect(graph.flows.clone());
        self.statuses.configure(&graph.printed);
        self.statuses.show(all.filter_map(|(group, name, key)| Some((group, name, of(key)?))));
    }

    /// Returns when a component has failed, with its error.
    pub async fn failure(&mut self) -> anyhow::Error {
        loop {
            if let Some(error) = self.failed.take() {
                return error;
            }
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return anyhow!("every component has ended");
            };
            self.failed = self.ended(ended).1;
        }
    }

    /// Which task has ended, and its error, if it had one.
    fn ended(
        &mut self,
        ended: Result<(TaskId, Result<()>), JoinError>,
    ) -> (TaskId, Option<anyhow::Error>) {
        let task = match &ended {
            Ok((id, _)) => *id,
            Err(join) => join.id(),
        };
        // One that is not known has been given up.
        let Some((key, status)) = self.names.remove(&task) else { return (task, None) };
        let error = match ended {
            Ok((_, result)) => result.err().map(|error| error.context(format!("{key} failed"))),
            Err(join) => Some(anyhow!("{key} panicked: {join}")),
        };
        match &error {
            Some(error) => status.set(Status::FatalError, format!("{error:#}")),
            None => status.set(Status::Stopped, String::new()),
        }
        (task, error)
    }

    /// Stops from the left and waits until all is flushed, or the deadline has passed: what is given up then is counted
    /// and said. True if nothing failed.
    pub async fn shutdown(mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        for (_, status) in self.names.values() {
            status.set(Status::Stopping, String::new());
        }
        self.stop.cancel();
        let mut clean = true;
        loop {
            if self.names.values().all(|(key, _)| matches!(key, Key::Extension(_))) {
                self.stop_extensions.cancel();
            }
            match timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(None) => break,
                Ok(Some(ended)) => {
                    if let (_, Some(error)) = self.ended(ended) {
                        error!("{error:#}");
                        clean = false;
                    }
                }
                Err(_) => {
                    let all: BTreeSet<TaskId> = self.names.keys().copied().collect();
                    self.give_up(&all, DEADLINE);
                    self.tasks.shutdown().await;
                    self.started.close();
                    self.started.wait().await;
                    return clean;
                }
            }
        }
        if clean {
            info!("Shutdown complete.");
        }
        clean
    }

    /// Says which tasks have not ended in time. Who calls it ends them.
    fn give_up(&mut self, tasks: &BTreeSet<TaskId>, after: Duration) {
        for task in tasks {
            if let Some((key, _)) = self.names.remove(task) {
                warn!(target: KEPT, "{key} did not end within {after:?}; what it held is lost");
            }
        }
    }
}

/// What is logged inside says whose it is. It is of the highest level, so that it is there for every record.
fn span(key: &Key) -> tracing::Span {
    let (kind, id) = (key.kind(), key.id());
    match key {
        Key::Processor { pipeline, .. } => error_span!(
            "component",
            otelcol.component.id = %id,
            otelcol.component.kind = kind,
            otelcol.pipeline.id = %pipeline
        ),
        _ => error_span!("component", otelcol.component.id = %id, otelcol.component.kind = kind),
    }
}
