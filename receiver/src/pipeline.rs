//! Wires a checked configuration into running tasks, and stops them from the left.
//!
//! Start: extensions, exporters, then processors, then receivers, so that nothing is produced before it
//! can be taken. Stop: receivers are told; every other task ends when its input closes, having sent
//! what it held; when all have ended, the extensions are told. One deadline covers all.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use opentelemetry::{KeyValue, metrics::Meter};
use tokio::{
    task::{Id as TaskId, JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, error_span, info, warn};

use crate::{
    channel::{Output, channel},
    component::{Context, Task},
    config::{Id, Pipeline, Plan},
    extensions::auth::Authenticators,
    status::{Flow, Reporter, Status, Statuses},
    telemetry::Items,
};

/// The time that a shutdown may take, all stages together. Kubernetes kills after 30 s.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Pipelines at work.
pub struct Running {
    tasks: JoinSet<Result<()>>,
    names: BTreeMap<TaskId, (String, Reporter)>,
    stop: CancellationToken,
    extensions: JoinSet<Result<()>>,
    stop_extensions: CancellationToken,
    authenticators: Authenticators,
    statuses: Statuses,
}

impl Running {
    /// Starts everything that the plan names. On an error, what had started is stopped again.
    pub async fn start(plan: Plan, meter: &Meter) -> Result<Self> {
        let mut running = Self {
            tasks: JoinSet::new(),
            names: BTreeMap::new(),
            stop: CancellationToken::new(),
            extensions: JoinSet::new(),
            stop_extensions: CancellationToken::new(),
            authenticators: Authenticators::default(),
            statuses: Statuses::default(),
        };
        match running.wire(plan, meter).await {
            Ok(()) => Ok(running),
            Err(error) => {
                running.shutdown().await;
                Err(error)
            }
        }
    }

    async fn wire(&mut self, plan: Plan, meter: &Meter) -> Result<()> {
        let mut reporters = self.register(&plan);
        let mut reporter =
            |kind, id: &Id| reporters.remove(&(kind, id.clone())).unwrap_or_default();
        for (id, mut extension) in plan.extensions {
            let stop = self.stop_extensions.clone();
            let cx = Context { stop, ..self.context(&id, meter, reporter("extension", &id)) };
            extension
                .start(&cx)
                .instrument(span("extension", &id))
                .await
                .with_context(|| format!("cannot start extension \"{id}\""))?;
            self.authenticators.add(id.clone(), extension.auth());
            let status = cx.status.clone();
            status.set(Status::Ok, String::new());
            let task = extension.run(cx).instrument(span("extension", &id));
            let handle = self.extensions.spawn(task);
            self.names.insert(handle.id(), (format!("extension {id}"), status));
        }

        let mut exporters: BTreeMap<Id, Output> = BTreeMap::new();
        for (id, mut exporter) in plan.exporters {
            let cx = self.context(&id, meter, reporter("exporter", &id));
            exporter
                .start(&cx)
                .instrument(span("exporter", &id))
                .await
                .with_context(|| format!("cannot start exporter \"{id}\""))?;
            let (output, input) = channel();
            exporters.insert(id.clone(), output);
            let status = cx.status.clone();
            self.spawn("exporter", id, status, exporter.run(cx, input));
        }

        let mut sources: BTreeMap<Id, Vec<Output>> = BTreeMap::new();
        for Pipeline { id: pipeline, receivers, processors, exporters: sinks, .. } in plan.pipelines
        {
            let mut next = Output::fan_out(sinks.iter().map(|id| exporters[id].clone()));
            for (id, processor) in processors.into_iter().rev() {
                let attributes = [KeyValue::new("processor", id.to_string())];
                let count = |name| Items::by_attribute(meter, name, &attributes);
                let (output, input) = channel();
                let input = input.counting(count("otelcol_processor_incoming"));
                let out = next.counting(count("otelcol_processor_outgoing"));
                let status = Reporter::default();
                self.statuses.add(
                    &format!("pipeline:{pipeline}"),
                    format!("processor:{id}"),
                    status.clone(),
                );
                let cx = self.context(&id, meter, status.clone());
                let name = format!("{id} in pipeline {pipeline}");
                self.spawn_named("processor", &id, name, status, processor.run(cx, input, out));
                next = output;
            }
            for id in receivers {
                sources.entry(id).or_default().push(next.clone());
            }
        }
        // Only the tasks may hold the channels open: a channel closes with its last sender.
        drop(exporters);

        for (id, mut receiver) in plan.receivers {
            let cx = self.context(&id, meter, reporter("receiver", &id));
            receiver
                .start(&cx)
                .instrument(span("receiver", &id))
                .await
                .with_context(|| format!("cannot start receiver \"{id}\""))?;
            let attributes = [
                KeyValue::new("receiver", id.to_string()),
                // A scraper has no transport; the Collector leaves the attribute empty too.
                KeyValue::new("transport", ""),
            ];
            let out = Output::fan_out(sources.remove(&id).unwrap_or_default())
                .counting(Items::new(meter, "otelcol_receiver_accepted", &attributes));
            let status = cx.status.clone();
            self.spawn("receiver", id, status, receiver.run(cx, out));
        }
        Ok(())
    }

    /// Notes what will run before anything does, so that the agent is not ready before all of it is.
    fn register(&self, plan: &Plan) -> BTreeMap<(&'static str, Id), Reporter> {
        let mut reporters: BTreeMap<(&'static str, Id), Reporter> = BTreeMap::new();
        let mut add = |group: &str, kind: &'static str, id: &Id| {
            let reporter = reporters.entry((kind, id.clone())).or_default();
            self.statuses.add(group, format!("{kind}:{id}"), reporter.clone());
        };
        self.statuses.connect(plan.pipelines.iter().map(flow).collect());
        for (id, _) in &plan.extensions {
            add("extensions", "extension", id);
        }
        for pipeline in &plan.pipelines {
            let group = format!("pipeline:{}", pipeline.id);
            pipeline.receivers.iter().for_each(|id| add(&group, "receiver", id));
            pipeline.exporters.iter().for_each(|id| add(&group, "exporter", id));
        }
        reporters
    }

    fn context(&self, id: &Id, meter: &Meter, status: Reporter) -> Context {
        Context {
            id: id.clone(),
            meter: meter.clone(),
            stop: self.stop.clone(),
            authenticators: self.authenticators.clone(),
            status,
            statuses: self.statuses.clone(),
        }
    }

    fn spawn(&mut self, kind: &'static str, id: Id, status: Reporter, task: Task<'static>) {
        let name = id.to_string();
        self.spawn_named(kind, &id, name, status, task);
    }

    fn spawn_named(
        &mut self,
        kind: &'static str,
        id: &Id,
        name: String,
        status: Reporter,
        task: Task<'static>,
    ) {
        status.set(Status::Ok, String::new());
        let handle = self.tasks.spawn(task.instrument(span(kind, id)));
        self.names.insert(handle.id(), (format!("{kind} {name}"), status));
    }

    /// Returns when a component has failed, with its error.
    pub async fn failure(&mut self) -> anyhow::Error {
        loop {
            let ended = tokio::select! {
                ended = self.tasks.join_next_with_id() => ended,
                Some(ended) = self.extensions.join_next_with_id() => Some(ended),
            };
            let Some(ended) = ended else { return anyhow!("every component has ended") };
            if let Some(error) = self.ended(ended) {
                return error;
            }
        }
    }

    /// The error of an ended task, if it had one.
    fn ended(&mut self, ended: Result<(TaskId, Result<()>), JoinError>) -> Option<anyhow::Error> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(join) => join.id(),
        };
        let (name, status) = self.names.remove(&id).unwrap_or_default();
        let error = match ended {
            Ok((_, result)) => result.err().map(|error| error.context(format!("{name} failed"))),
            Err(join) => Some(anyhow!("{name} panicked: {join}")),
        };
        match &error {
            Some(error) => status.set(Status::FatalError, format!("{error:#}")),
            None => status.set(Status::Stopped, String::new()),
        }
        error
    }

    /// Stops from the left and waits until all is flushed, or the deadline has passed. True if
    /// everything ended by itself and without an error.
    pub async fn shutdown(mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        for (_, status) in self.names.values() {
            status.set(Status::Stopping, String::new());
        }
        self.stop.cancel();
        let mut clean = true;
        loop {
            let ended = async {
                if let Some(ended) = self.tasks.join_next_with_id().await {
                    return Some(ended);
                }
                self.stop_extensions.cancel();
                self.extensions.join_next_with_id().await
            };
            match timeout_at(deadline, ended).await {
                Ok(None) => break,
                Ok(Some(ended)) => {
                    if let Some(error) = self.ended(ended) {
                        error!("{error:#}");
                        clean = false;
                    }
                }
                Err(_) => {
                    for (name, _) in self.names.values() {
                        warn!("{name} did not end within {DEADLINE:?}; what it held is lost");
                    }
                    self.tasks.shutdown().await;
                    self.extensions.shutdown().await;
                    return false;
                }
            }
        }
        if clean {
            info!("Shutdown complete.");
        }
        clean
    }
}

fn flow(pipeline: &Pipeline) -> Flow {
    let names = |ids: &[Id]| ids.iter().map(Id::to_string).collect();
    Flow {
        id: pipeline.id.to_string(),
        signal: pipeline.signal.name(),
        mutates: pipeline.processors.iter().any(|(_, processor)| processor.mutates_data()),
        receivers: names(&pipeline.receivers),
        processors: pipeline.processors.iter().map(|(id, _)| id.to_string()).collect(),
        exporters: names(&pipeline.exporters),
    }
}

/// What is logged inside says whose it is. It is of the highest level, so that it is there for every record.
fn span(kind: &'static str, id: &Id) -> tracing::Span {
    error_span!("component", otelcol.component.id = %id, otelcol.component.kind = kind)
}
