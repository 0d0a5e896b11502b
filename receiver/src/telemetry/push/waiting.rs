//! `processors` of the agent's own logs and spans: records wait, and are sent together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Processor, Push, Record, Source};

/// Where records are put. Nobody who logs waits for a network: what finds no room is counted, and lost.
#[derive(Clone)]
pub(in crate::telemetry) struct Queue<T> {
    sender: mpsc::Sender<T>,
    dropped: Arc<AtomicU64>,
}

impl<T> Queue<T> {
    pub(in crate::telemetry) fn put(&self, record: T) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(record) {
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
    push: Push,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Records that found no room.
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
    pub(in crate::telemetry) async fn start(self, source: Source) -> Result<Sending> {
        let push = Push::start(self.config.make(T::SIGNAL)?, T::SIGNAL.name()).await?;
        let stop = CancellationToken::new();
        let Self { mut receiver, dropped, most, delay, .. } = self;
        let (output, stopping) = (push.output(), stop.clone());
        let task = tokio::spawn(async move {
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
                if output.send(T::batch(records, &source)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Sending { push, stop, task, dropped })
    }
}

impl Sending {
    /// Sends what is left.
    pub(in crate::telemetry) async fn end(self) {
        self.stop.cancel();
        // It does not fail; and if it did, the exporter would still be ended.
        let _ = self.task.await;
        self.push.end().await;
    }
}
