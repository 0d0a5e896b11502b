//! The bounded channels between components, and the counts taken on them.
//!
//! A full channel makes its sender wait: backpressure reaches the receiver. A channel closes when
//! its last sender is dropped: shutdown runs from the left. A stage that must not take more says so through
//! its [`Input`], and receivers, before they send, see it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::mpsc;

use crate::{batch::Batch, telemetry::Items};

/// Batches that may wait between two components. Small: waiting belongs into exporters' queues,
/// where it is bounded by configuration and counted.
const CAPACITY: usize = 16;

/// The receiving end.
pub struct Input {
    channel: mpsc::Receiver<Batch>,
    counted: Option<Items>,
    gate: Gate,
}

/// Whether a stage refuses what is sent to it.
type Gate = Arc<AtomicBool>;

/// The sending end: one or several receivers of the same data.
#[derive(Clone)]
pub struct Output {
    channels: Vec<Connection>,
    counted: Vec<Items>,
}

/// One receiver of the data.
#[derive(Clone)]
struct Connection {
    sender: mpsc::Sender<Batch>,
    /// Those of the stage and of all behind it.
    gates: Vec<Gate>,
}

impl Connection {
    fn refuses(&self) -> bool {
        self.gates.iter().any(|gate| gate.load(Ordering::Relaxed))
    }
}

/// Everything downstream has ended.
#[derive(Debug, thiserror::Error)]
#[error("everything downstream has ended")]
pub struct Closed;

/// A channel of one sender.
pub fn channel() -> (Output, Input) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let gate = Gate::default();
    let connection = Connection { sender, gates: vec![gate.clone()] };
    (
        Output { channels: vec![connection], counted: Vec::new() },
        Input { channel: receiver, counted: None, gate },
    )
}

impl Input {
    /// The next batch; `None` when every sender has gone and nothing is left.
    pub async fn recv(&mut self) -> Option<Batch> {
        let batch = self.channel.recv().await?;
        if let Some(items) = &self.counted {
            items.add(batch.signal(), batch.items());
        }
        Some(batch)
    }

    /// A batch that is already there.
    pub fn try_recv(&mut self) -> Option<Batch> {
        self.channel.try_recv().ok()
    }

    /// Says whether what is sent now would be refused, and lost.
    pub fn refuse(&self, refuse: bool) {
        self.gate.store(refuse, Ordering::Relaxed);
    }

    /// Counts what comes in.
    pub fn counting(mut self, items: Items) -> Self {
        self.counted = Some(items);
        self
    }
}

impl Output {
    /// Sends to all that are connected, waiting for the slowest. Fails when none is left.
    pub async fn send(&self, batch: Batch) -> Result<(), Closed> {
        for items in &self.counted {
            items.add(batch.signal(), batch.items());
        }
        let Some((last, rest)) = self.channels.split_last() else { return Ok(()) };
        let mut reached = 0;
        for channel in rest {
            reached += usize::from(channel.sender.send(batch.clone()).await.is_ok());
        }
        reached += usize::from(last.sender.send(batch).await.is_ok());
        if reached == 0 { Err(Closed) } else { Ok(()) }
    }

    /// Whether one of those that are connected refuses data now. Whoever can ask a client to come back later
    /// should, before it reads what the client sends: then nothing is lost, and nothing comes twice.
    pub fn refuses_any(&self) -> bool {
        self.channels.iter().any(Connection::refuses)
    }

    /// Whether all that are connected refuse data now, so that it need not be made.
    pub fn refuses_all(&self) -> bool {
        !self.channels.is_empty() && self.channels.iter().all(Connection::refuses)
    }

    /// What it leads to sends to `next`: what refuses there refuses here.
    pub fn before(mut self, next: &Self) -> Self {
        let gates = next.channels.iter().flat_map(|connection| &connection.gates);
        let gates: Vec<Gate> = gates.cloned().collect();
        for connection in &mut self.channels {
            connection.gates.extend(gates.iter().cloned());
        }
        self
    }

    /// Sends to everything that `outputs` reach.
    pub fn fan_out(outputs: impl IntoIterator<Item = Self>) -> Self {
        let channels = outputs.into_iter().flat_map(|o| o.channels).collect();
        Self { channels, counted: Vec::new() }
    }

    /// Counts what goes out.
    pub fn counting(mut self, items: Items) -> Self {
        self.counted.push(items);
        self
    }
}
