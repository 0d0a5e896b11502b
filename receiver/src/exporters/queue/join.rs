//! `batch`: joins what waits in a queue into larger requests, and splits what is too large.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::Instrument as _;

use super::{Item, Sender, Sizer, Worker, config::Joined};
use crate::batch::Batch;

/// Sends what comes out of `items`, joined, until that ends and nothing is left. As many requests as
/// there may be `consumers` are under way at a time.
pub(super) async fn run<S: Sender>(
    config: Joined,
    mut items: mpsc::Receiver<Item>,
    consumers: usize,
    worker: Arc<Worker<S>>,
) {
    let mut sending = Sending { free: Arc::new(Semaphore::new(consumers)), tasks: JoinSet::new() };
    let mut held: Option<Item> = None;
    // Set by the first item that is held.
    let mut deadline = Instant::now();
    loop {
        tokio::select! {
            item = items.recv() => {
                let Some(item) = item else { break };
                let fresh = held.is_none();
                let whole = match held.take() {
                    None => item,
                    Some(held) => held.join(item),
                };
                let mut parts = whole.split(&config);
                let renewed = fresh || parts.len() > 1;
                // What is left over waits for more.
                if parts.last().is_some_and(|last| config.size(&last.batch) < config.min_size) {
                    held = parts.pop();
                    if renewed {
                        deadline = Instant::now() + config.flush_timeout.or_zero();
                    }
                }
                for part in parts {
                    sending.send(part, &worker).await;
                }
            }
            () = sleep_until(deadline), if held.is_some() => {
                if let Some(held) = held.take() {
                    sending.send(held, &worker).await;
                }
            }
        }
    }
    if let Some(held) = held {
        sending.send(held, &worker).await;
    }
    sending.tasks.join_all().await;
}

/// The requests under way.
struct Sending {
    free: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Sending {
    /// Waits until there is a consumer.
    async fn send<S: Sender>(&mut self, item: Item, worker: &Arc<Worker<S>>) {
        let free = Arc::clone(&self.free).acquire_owned().await.expect("it is never closed");
        while self.tasks.try_join_next().is_some() {}
        let (tasks, worker) = (&worker.tasks, Arc::clone(worker));
        let deliver = async move {
            worker.deliver(item).await;
            drop(free);
        };
        self.tasks.spawn(tasks.track_future(deliver.in_current_span()));
    }
}

impl Joined {
    fn size(&self, batch: &Batch) -> i64 {
        i64::try_from(self.sizer.size(batch)).unwrap_or(i64::MAX)
    }
}

impl Item {
    /// Both in one. The room of each is kept until the whole is done with.
    fn join(mut self, mut more: Self) -> Self {
        more.settled = true;
        self.batch.join(std::mem::replace(&mut more.batch, nothing()));
        self.room.append(&mut more.room);
        self
    }

    /// Parts of which none is larger than it may be, unless it is a single item, the last one the rest.
    fn split(mut self, config: &Joined) -> Vec<Self> {
        let mut parts = Vec::new();
        let Some(max) = usize::try_from(config.max_size).ok().filter(|max| *max > 0) else {
            return vec![self];
        };
        while config.sizer.size(&self.batch) > max && self.batch.items() > 1 {
            let batch = front(&mut self.batch, config.sizer, max);
            let (counts, room) = (Arc::clone(&self.counts), self.room.clone());
            parts.push(Self { batch, counts, settled: false, room });
        }
        parts.push(self);
        parts
    }
}

/// What stands for a batch whose data has gone elsewhere.
fn nothing() -> Batch {
    Batch::Logs(ExportLogsServiceRequest::default())
}

/// Takes what is as large as it may be from the front of a batch that is too large, or else one item.
fn front(batch: &mut Batch, sizer: Sizer, max: usize) -> Batch {
    let (size, items) = (sizer.size(batch), batch.items());
    // Items are about equally large, or exactly, if they are what is counted.
    let share = (items as u128 * max as u128 / size.max(1) as u128) as usize;
    let mut front = batch.take(share.clamp(1, items - 1));
    while sizer.size(&front) > max && front.items() > 1 {
        let half = front.items() / 2;
        let mut rest = std::mem::replace(&mut front, nothing());
        front = rest.take(half);
        // Before what it was taken from.
        rest.join(std::mem::replace(batch, nothing()));
        *batch = rest;
    }
    front
}
