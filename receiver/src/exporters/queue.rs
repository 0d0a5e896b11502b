//! `sending_queue`: where batches wait while an exporter's peer is slow or away, and the only place
//! where data may be given up. What is given up is counted and logged.
//!
//! An exporter brings a [`Sender`], one attempt to send one batch; the waiting, the retries, the
//! counts and the shutdown are here, the same for all.

use std::{future::Future, sync::Arc, time::Duration};

use opentelemetry::{KeyValue, metrics::UpDownCounter};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, field::Empty};

pub use self::{
    config::{Config, Sizer},
    gauges::Queues,
};
use super::retry::{self, Backoff};
use crate::{
    batch::{Batch, Signal},
    channel::Input,
    component::Context,
    status::Reporter,
    telemetry::{Items, KEPT, SPANS},
};

mod config;
mod gauges;
mod join;

/// Says what is lost. Of the last that an agent or an exporter loses, nothing is left out.
macro_rules! say_lost {
    ($ending:expr, $($said:tt)*) => {
        match $ending {
            true => tracing::error!(target: KEPT, $($said)*),
            false => tracing::error!($($said)*),
        }
    };
}

/// Makes one attempt to send one batch, within the exporter's own timeout.
pub trait Sender: Send + Sync + 'static {
    /// What is kept of a batch from one attempt to the next, so that none repeats what was done.
    type Kept: Default + Send;
    /// Sends `batch`, or what is left of it.
    fn send(
        &self,
        batch: &Batch,
        kept: &mut Self::Kept,
    ) -> impl Future<Output = Result<Sent, Failure>> + Send;
    /// Where it sends a signal: attributes of what is counted as sent or as failed.
    fn peer(&self, _: Signal) -> Vec<KeyValue> {
        Vec::new()
    }
    /// The items that the peer had taken already of a batch that is given up.
    fn taken(_kept: &Self::Kept) -> usize {
        0
    }
}

/// The peer has taken a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Items of it that the peer refused for good. The sender has logged why.
    pub rejected: usize,
}

/// The peer has not taken a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may take it later.
    Retryable {
        /// Why, for the log.
        reason: String,
        /// How long the peer asks to be left alone.
        after: Option<Duration>,
    },
    /// It never will.
    Permanent {
        /// Why, for the log.
        reason: String,
    },
}

/// Sends everything that comes in, and returns when the input has ended and nothing is left.
///
/// At that end, the waits of retries are broken off first; then what is queued gets one attempt
/// each. If the caller does not wait for it and drops this future, the rest is counted as failed by the time that
/// the tasks of `cx` have ended.
pub async fn run<S: Sender>(
    cx: &Context,
    input: Input,
    queue: &Config,
    retry: &retry::Config,
    sender: S,
) {
    let attributes = [KeyValue::new("exporter", cx.id.to_string())];
    let items = |name, sender: &S| {
        let all = |signal| [attributes.to_vec(), sender.peer(signal)].concat();
        Items::each(&cx.meter, name, all)
    };
    // Where the pipeline waits for this exporter, its input cannot end before the retries do, so
    // the agent's stop itself must end them.
    let waited_for = !queue.enabled || queue.block_on_overflow || queue.wait_for_result;
    let stopping = if waited_for { cx.stop.child_token() } else { CancellationToken::new() };
    let counts = Arc::new(Counts {
        sent: items("otelcol_exporter_sent", &sender),
        send_failed: items("otelcol_exporter_send_failed", &sender),
    });
    let worker = Arc::new(Worker {
        sender,
        retry: retry.clone(),
        stopping,
        status: cx.status.clone(),
        tasks: cx.tasks.clone(),
        counts,
        in_flight: InFlight::new(cx),
    });
    let mut incoming = Incoming { input, counts: worker.counts.clone() };
    if !queue.enabled {
        while let Some(item) = incoming.next().await {
            worker.deliver(item).await;
        }
        return;
    }
    let refused = Items::new(&cx.meter, "otelcol_exporter_enqueue_failed", &attributes);
    let mut queues: [Option<Queue>; Signal::ALL.len()] = [const { None }; Signal::ALL.len()];
    let mut consumers = JoinSet::new();
    while let Some(item) = incoming.next().await {
        // A queue per signal: a flood of one does not crowd out the others.
        let signal = item.batch.signal();
        let to = queues[signal as usize]
            .get_or_insert_with(|| Queue::open(cx, signal, queue, &worker, &mut consumers));
        let items = item.batch.items();
        if let Err(reason) = to.push(item, queue).await {
            refused.add(signal, items);
            say_lost!(
                cx.stop.is_cancelled(),
                error = reason,
                dropped_items = items,
                "Exporting failed. Rejecting data. Try enabling sending_queue to survive temporary failures."
            );
        }
    }
    worker.stopping.cancel();
    // Consumers end when their channel is closed and empty.
    drop(queues);
    while let Some(ended) = consumers.join_next().await {
        if let Err(e) = ended {
            tracing::error!(error = %e, "a consumer of the sending queue failed");
        }
    }
}

/// The waiting batches of one signal.
struct Queue {
    channel: mpsc::Sender<Item>,
    /// What bounds the queue: a permit is held from entry until the batch is done with, as what
    /// is under way takes memory too.
    room: Arc<Semaphore>,
}

impl Queue {
    fn open<S: Sender>(
        cx: &Context,
        signal: Signal,
        config: &Config,
        worker: &Arc<Worker<S>>,
        consumers: &mut JoinSet<()>,
    ) -> Self {
        // What is no positive number was refused with the configuration.
        let bounded = |size| usize::try_from(size).unwrap_or(1).min(Semaphore::MAX_PERMITS);
        let capacity = bounded(config.queue_size);
        // A batch takes one permit at least, so the channel is never what is full.
        let (channel, items) = mpsc::channel(capacity);
        let room = Arc::new(Semaphore::new(capacity));
        cx.queues.add(named(cx, signal), capacity, &room);
        let consumers_allowed = bounded(config.num_consumers);
        if let Some(joined) = &config.batch {
            let joining = join::run(joined.clone(), items, consumers_allowed, Arc::clone(worker));
            consumers.spawn(worker.tasks.track_future(joining.in_current_span()));
            return Self { channel, room };
        }
        let items = Arc::new(Mutex::new(items));
        for _ in 0..consumers_allowed {
            let (tasks, worker, items) = (&worker.tasks, worker.clone(), items.clone());
            let consume = async move {
                loop {
                    // The lock is held while waiting: only one consumer can be next.
                    let next = items.lock().await.recv().await;
                    let Some(item) = next else { return };
                    worker.deliver(item).await;
                }
            };
            consumers.spawn(tasks.track_future(consume.in_current_span()));
        }
        Self { channel, room }
    }

    /// Takes an item in, or refuses it with the reason; what is refused is the caller's to count.
    async fn push(&self, mut item: Item, config: &Config) -> Result<(), &'static str> {
        let size = u32::try_from(config.sizer.size(&item.batch)).unwrap_or(u32::MAX).max(1);
        if i64::from(size) > config.queue_size {
            return Err(item.refused("element size too large"));
        }
        let (done, result) = oneshot::channel::<()>();
        let room = self.room.clone();
        let permit = if config.block_on_overflow {
            room.acquire_many_owned(size).await.map_err(|_| "sending queue is closed")
        } else {
            room.try_acquire_many_owned(size).map_err(|_| "sending queue is full")
        };
        match permit {
            Ok(permit) => item.room.push(Arc::new(Room { _permit: permit, _done: done })),
            Err(reason) => return Err(item.refused(reason)),
        }
        self.channel.send(item).await.map_err(|e| e.0.refused("sending queue is closed"))?;
        if config.wait_for_result {
            // Nothing is ever sent: it ends when the item is gone.
            let _ = result.await;
        }
        Ok(())
    }
}

/// What comes in. What is still in the channel when shutdown runs out of time is counted, too.
struct Incoming {
    input: Input,
    counts: Arc<Counts>,
}

impl Incoming {
    async fn next(&mut self) -> Option<Item> {
        Some(Item::new(self.input.recv().await?, self.counts.clone()))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        while let Some(batch) = self.input.try_recv() {
            drop(Item::new(batch, self.counts.clone()));
        }
    }
}

/// The ends that an item can come to.
struct Counts {
    sent: Items,
    send_failed: Items,
}

/// A batch that is counted exactly once, whatever happens to it.
struct Item {
    batch: Batch,
    counts: Arc<Counts>,
    settled: bool,
    /// Given back when the item is done with: shared with other items that it was joined or split into.
    room: Vec<Arc<Room>>,
}

/// What a batch takes of a queue, until nothing is left of it.
struct Room {
    _permit: OwnedSemaphorePermit,
    /// Dropped, it tells who waits for it.
    _done: oneshot::Sender<()>,
}

impl Item {
    fn new(batch: Batch, counts: Arc<Counts>) -> Self {
        Self { batch, counts, settled: false, room: Vec::new() }
    }

    /// Not taken in: counted by who hears the reason.
    fn refused(mut self, reason: &'static str) -> &'static str {
        self.settled = true;
        reason
    }

    fn sent(mut self, sent: Sent) {
        self.settled = true;
        let items = self.batch.items();
        let rejected = sent.rejected.min(items);
        self.counts.sent.add(self.batch.signal(), items - rejected);
        self.counts.send_failed.add(self.batch.signal(), rejected);
    }

    /// Given up, but for what the peer had taken of it before.
    fn lost(mut self, taken: usize, reason: &str, ending: bool) {
        self.settled = true;
        let items = self.batch.items().saturating_sub(taken);
        self.counts.sent.add(self.batch.signal(), taken);
        self.counts.send_failed.add(self.batch.signal(), items);
        say_lost!(
            ending,
            error = reason,
            dropped_items = items,
            "Exporting failed. Dropping data."
        );
    }
}

impl Drop for Item {
    /// Only what is cut off in mid-send comes here unsettled: shutdown ran out of time.
    fn drop(&mut self) {
        if !self.settled {
            let items = self.batch.items();
            self.counts.send_failed.add(self.batch.signal(), items);
            tracing::error!(
                target: KEPT,
                error = "shutdown did not wait for it",
                dropped_items = items,
                "Exporting failed. Dropping data."
            );
        }
    }
}

/// Counts the batches that are being sent, with the waits between attempts.
struct InFlight {
    count: UpDownCounter<i64>,
    /// In the order of [`Signal`].
    attributes: [[KeyValue; 2]; Signal::ALL.len()],
}

/// One of them; it ends with this, also if it is cut off.
struct UnderWay<'a>(&'a UpDownCounter<i64>, &'a [KeyValue]);

impl InFlight {
    fn new(cx: &Context) -> Self {
        let count = cx
            .meter
            .i64_up_down_counter("otelcol_exporter_in_flight_requests")
            .with_description("Batches that are being sent, with the waits between attempts")
            .build();
        let of = |signal| named(cx, signal);
        Self { count, attributes: Signal::ALL.map(of) }
    }

    fn one(&self, signal: Signal) -> UnderWay<'_> {
        let attributes = &self.attributes[signal as usize];
        self.count.add(1, attributes);
        UnderWay(&self.count, attributes)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.add(-1, self.1);
    }
}

/// The attributes of an exporter's own state for a signal.
fn named(cx: &Context, signal: Signal) -> [KeyValue; 2] {
    [KeyValue::new("exporter", cx.id.to_string()), KeyValue::new("data_type", signal.name())]
}

/// What sends.
struct Worker<S> {
    sender: S,
    retry: retry::Config,
    /// Cancelled when no more waits between attempts are allowed.
    stopping: CancellationToken,
    status: Reporter,
    tasks: TaskTracker,
    counts: Arc<Counts>,
    in_flight: InFlight,
}

impl<S: Sender> Worker<S> {
    /// Sends one item, or gives it up.
    async fn deliver(&self, item: Item) {
        let _under_way = self.in_flight.one(item.batch.signal());
        let mut kept = S::Kept::default();
        let span = tracing::trace_span!(
            target: SPANS,
            "deliver",
            signal = item.batch.signal().name(),
            items.sent = Empty,
            items.failed = Empty,
            error = Empty
        );
        let items = item.batch.items();
        match self.attempts(&item.batch, &mut kept).instrument(span.clone()).await {
            Ok(sent) => {
                let failed = sent.rejected.min(items);
                span.record("items.sent", items - failed).record("items.failed", failed);
                item.sent(sent);
            }
            Err(reason) => {
                let taken = S::taken(&kept);
                span.record("items.sent", taken)
                    .record("items.failed", items.saturating_sub(taken))
                    .record("error", reason.as_str());
                item.lost(taken, &reason, self.stopping.is_cancelled());
            }
        }
    }

    /// Tries until the batch is taken, or nothing is left to try.
    async fn attempts(&self, batch: &Batch, kept: &mut S::Kept) -> Result<Sent, String> {
        let mut backoff = Backoff::new(&self.retry);
        loop {
            let result = self.sender.send(batch, kept).await;
            match &result {
                Ok(_) => self.status.ok(),
                Err(Failure::Retryable { reason, .. } | Failure::Permanent { reason }) => {
                    self.status.recoverable(reason);
                }
            }
            let (reason, after) = match result {
                Ok(sent) => return Ok(sent),
                Err(Failure::Permanent { reason }) => return Err(reason),
                Err(Failure::Retryable { reason, after }) => (reason, after),
            };
            if !self.retry.enabled {
                return Err(reason);
            }
            if self.stopping.is_cancelled() {
                return Err(format!("interrupted due to shutdown: {reason}"));
            }
            let Some(wait) = backoff.next(after) else {
                return Err(format!("no more retries left: {reason}"));
            };
            tracing::info!(
                error = reason,
                interval = ?wait,
                "Exporting failed. Will retry the request after interval."
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stopping.cancelled() => {
                    return Err(format!("interrupted due to shutdown: {reason}"));
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
