//! `processors` of the agent's own logs and spans: records wait, and are sent together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use opentelemetry_sdk::Resource;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, error_span, warn};

use super::{Processor, Record, write};
use crate::telemetry::{DEADLINE, KEPT, recent::OWN};

/// Where records are put. Nobody who logs waits for a network: what finds no room is counted, and lost.
#[derive(Clone)]
pub(in crate::telemetry) struct Queue<T> {
    sender: mpsc::Sender<T>,
    dropped: Arc<AtomicU64>,
}

impl<T> Queue<T> {
    pub(in crate::telemetry) fn put(&self, record: T) {
        if self.sender.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Records that wait, until they are sent.
pub(in crate::telemetry) struct Waiting<T> {
    receiver: mpsc::Receiver<T>,
    dropped: Arc<AtomicU64>,
    config: Processor,
    most: usize,
    delay: Duration,
}

/// What sends them, at work.
pub(in crate::telemetry) struct Sending {
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Records that found no room, or that nobody took.
    pub(in crate::telemetry) dropped: Arc<AtomicU64>,
}

impl<T: Record> Waiting<T> {
    /// A queue as it is configured. Records may be put there before anything sends them.
    pub(in crate::telemetry) fn new(config: &Processor) -> (Queue<T>, Self) {
        let (room, most, delay) = config.sizes();
        let (sender, receiver) = mpsc::channel(room);
        let dropped = Arc::<AtomicU64>::default();
        let queue = Queue { sender, dropped: dropped.clone() };
        (queue, Self { receiver, dropped, config: config.clone(), most, delay })
    }

    /// Begins to send.
    pub(in crate::telemetry) fn start(self, source: &Resource) -> Result<Sending> {
        let Self { mut receiver, dropped, config, most, delay } = self;
        let what = T::SIGNAL.name();
        let otlp = config.otlp();
        let stop = CancellationToken::new();
        let exporter = otlp
            .map(|(otlp, patience)| T::exporter(otlp, patience, source, stop.clone()))
            .transpose()
            .with_context(|| format!("cannot send the agent's own {what}"))?;
        let (source, stopping, lost) = (source.clone(), stop.clone(), dropped.clone());
        let sending = async move {
            loop {
                let first = tokio::select! {
                    record = receiver.recv() => record,
                    () = stopping.cancelled() => receiver.try_recv().ok(),
                };
                let Some(first) = first else { return };
                let mut records = vec![first];
                let until = Instant::now() + delay;
                while records.len() < most {
                    let more = match stopping.is_cancelled() {
                        true => receiver.try_recv().ok(),
                        false => tokio::select! {
                            record = timeout_at(until, receiver.recv()) => record.ok().flatten(),
                            () = stopping.cancelled() => continue,
                        },
                    };
                    match more {
                        Some(record) => records.push(record),
                        None => break,
                    }
                }
                let items = records.len();
                let sent = match &exporter {
                    Some(exporter) => T::export(exporter, records).await.map_err(Into::into),
                    None => write(&T::batch(records, &source)),
                };
                if let Err(error) = sent {
                    lost.fetch_add(items as u64, Ordering::Relaxed);
                    error!(dropped_items = items, "the agent's own {what} are lost: {error:#}");
                }
            }
        };
        // What goes wrong here is logged, but not sent: it would have to take the same way.
        let span =
            error_span!("component", otelcol.component.id = %what, otelcol.component.kind = OWN);
        Ok(Sending { stop, task: tokio::spawn(sending.instrument(span)), dropped })
    }
}

impl Sending {
    /// Sends what is left, until it is too late.
    pub(in crate::telemetry) async fn end(all: Vec<Self>) {
        let deadline = Instant::now() + DEADLINE;
        all.iter().for_each(|sending| sending.stop.cancel());
        for mut sending in all {
            match timeout_at(deadline, &mut sending.task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => error!("what sends the agent's own telemetry failed: {error}"),
                Err(_) => {
                    sending.task.abort();
                    warn!(
                        target: KEPT,
                        "the agent's last telemetry was not taken within {DEADLINE:?} and is lost"
                    );
                }
            }
        }
    }
}
