//! The bounded channels between components, and the counts taken on them.
//!
//! A full channel makes its sender wait: backpressure reaches the receiver. A channel closes when
//! its last sender is dropped: shutdown runs from the left.

use tokio::sync::mpsc;

use crate::{batch::Batch, telemetry::Items};

/// Batches that may wait between two components. Small: waiting belongs into exporters' queues,
/// where it is bounded by configuration and counted.
const CAPACITY: usize = 16;

/// The receiving end.
pub struct Input {
    channel: mpsc::Receiver<Batch>,
    counted: Option<Items>,
}

/// The sending end: one or several receivers of the same data.
#[derive(Clone)]
pub struct Output {
    channels: Vec<mpsc::Sender<Batch>>,
    counted: Vec<Items>,
}

/// Everything downstream has ended.
#[derive(Debug, thiserror::Error)]
#[error("everything downstream has ended")]
pub struct Closed;

/// A channel of one sender.
pub fn channel() -> (Output, Input) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (
        Output { channels: vec![sender], counted: Vec::new() },
        Input { channel: receiver, counted: None },
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
            reached += usize::from(channel.send(batch.clone()).await.is_ok());
        }
        reached += usize::from(last.send(batch).await.is_ok());
        if reached == 0 { Err(Closed) } else { Ok(()) }
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
