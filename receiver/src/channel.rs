//! The bounded channels between components, and the counts taken on them.
//!
//! A full channel makes its sender wait: backpressure reaches the receiver. A channel closes when
//! its last sender is dropped: shutdown runs from the left. A stage that must not take more says so through
//! its [`Input`], and receivers, before they send, see it.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{
    mpsc::{self, error::SendError},
    watch,
};
use tracing::Instrument as _;

use crate::{
    batch::{Batch, Signal},
    telemetry::{Items, SPANS},
};

/// Batches that may wait between two components. Small: waiting belongs into exporters' queues,
/// where it is bounded by configuration and counted.
const CAPACITY: usize = 16;

/// The receiving end.
pub struct Input {
    channel: mpsc::Receiver<Batch>,
    counted: Option<Items>,
    stage: Arc<Stage>,
}

/// The sending end: one or several receivers of the same data.
#[derive(Clone)]
pub struct Output {
    route: Arc<Route>,
    counted: Vec<Items>,
    admitted: Option<Admitted>,
}

/// Counts of what was taken, and of what was not.
#[derive(Clone)]
struct Admitted {
    accepted: Items,
    refused: Items,
}

/// A batch on its way in. It is counted when that is decided, and as refused if its sender is cut off.
struct Admission<'a> {
    counts: &'a Admitted,
    signal: Signal,
    items: usize,
    accepted: bool,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let (accepted, refused) = if self.accepted { (self.items, 0) } else { (0, self.items) };
        // Both: what is there at zero shows an increase when the first comes.
        self.counts.accepted.add(self.signal, accepted);
        self.counts.refused.add(self.signal, refused);
    }
}

type Channels = Arc<[Connection]>;

/// One receiver of the data.
#[derive(Clone)]
struct Connection {
    sender: mpsc::Sender<Batch>,
    stage: Arc<Stage>,
    /// The one signal that is sent to it, if there is one.
    only: Option<Signal>,
}

impl Connection {
    fn takes(&self, signal: Signal) -> bool {
        self.only.is_none_or(|only| only == signal)
    }
}

/// What a stage says about itself to those before it.
#[derive(Default)]
struct Stage {
    /// Whether it refuses what is sent to it.
    refuses: AtomicBool,
    /// What it sends to.
    next: OnceLock<Weak<Route>>,
}

impl Stage {
    /// Whether it refuses what is sent to it, or one behind it would.
    fn refuses(&self) -> bool {
        let next = || self.next.get().and_then(Weak::upgrade)?.now();
        self.refuses.load(Ordering::Relaxed)
            || next().is_some_and(|channels| channels.iter().any(|c| c.stage.refuses()))
    }
}

/// Where an output leads; nowhere for now while a reload replaces what it led to.
struct Route(watch::Sender<Option<Channels>>);

impl Route {
    fn now(&self) -> Option<Channels> {
        self.0.borrow().clone()
    }

    /// Waits while it leads nowhere.
    async fn channels(&self) -> Channels {
        let mut led = self.0.subscribe();
        let channels = led.wait_for(Option::is_some).await.ok().and_then(|c| c.clone());
        channels.unwrap_or_default()
    }
}

/// Changes where an output leads. It does not keep what it leads to open.
pub(crate) struct Wire(Weak<Route>);

impl Wire {
    /// Who sends waits from now on, so that what it led to comes to its end.
    pub(crate) fn pause(&self) {
        self.set(None);
    }

    /// What is sent from now on goes to everything that `outputs` reach.
    pub(crate) fn lead(&self, outputs: impl IntoIterator<Item = Output>) {
        self.set(Some(Output::fan_out(outputs).route.now().unwrap_or_default()));
    }

    fn set(&self, to: Option<Channels>) {
        if let Some(route) = self.0.upgrade() {
            route.0.send_replace(to);
        }
    }
}

/// The way to a component that already runs. It does not keep its channel open.
pub(crate) struct Entry(mpsc::WeakSender<Batch>, Arc<Stage>);

impl Entry {
    /// A further sending end, unless the component has ended.
    pub(crate) fn output(&self) -> Option<Output> {
        let sender = self.0.upgrade().filter(|channel| !channel.is_closed())?;
        Some(Output::to(Arc::new([Connection { sender, stage: self.1.clone(), only: None }])))
    }
}

/// Everything downstream has ended.
#[derive(Debug, thiserror::Error)]
#[error("everything downstream has ended")]
pub struct Closed;

/// A channel of one sender.
pub fn channel() -> (Output, Input) {
    let (output, _, input) = entered();
    (output, input)
}

/// A channel that others can be led to later.
pub(crate) fn entered() -> (Output, Entry, Input) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let stage = Arc::<Stage>::default();
    let entry = Entry(sender.downgrade(), stage.clone());
    let connection = Connection { sender, stage: stage.clone(), only: None };
    (Output::to(Arc::new([connection])), entry, Input { channel: receiver, counted: None, stage })
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
        self.stage.refuses.store(refuse, Ordering::Relaxed);
    }

    /// Says what it sends to: what refuses there refuses here.
    pub fn before(&self, next: &Output) {
        // It sends to nothing else as long as it lives.
        let _ = self.stage.next.set(Arc::downgrade(&next.route));
    }

    /// Counts what comes in.
    pub fn counting(mut self, items: Items) -> Self {
        self.counted = Some(items);
        self
    }
}

impl Output {
    fn to(channels: Channels) -> Self {
        let route = Route(watch::Sender::new(Some(channels)));
        Self { route: Arc::new(route), counted: Vec::new(), admitted: None }
    }

    /// Sends to all that are connected and take the batch's signal, waiting for the slowest. Fails when none of
    /// them is left.
    pub async fn send(&self, batch: Batch) -> Result<(), Closed> {
        let signal = batch.signal();
        let counts = !self.counted.is_empty() || self.admitted.is_some();
        if !counts || !self.carries(signal) {
            return self.hand_on(batch).await;
        }
        let items = batch.items();
        self.counted.iter().for_each(|counted| counted.add(signal, items));
        let admitted = self.admitted.as_ref();
        let admission = admitted.map(|counts| Admission { counts, signal, items, accepted: false });
        let span = tracing::trace_span!(target: SPANS, "send", signal = signal.name(), items);
        let sent = self.hand_on(batch).instrument(span).await;
        if let Some(mut admission) = admission {
            admission.accepted = sent.is_ok();
        }
        sent
    }

    async fn hand_on(&self, mut batch: Batch) -> Result<(), Closed> {
        let signal = batch.signal();
        loop {
            let channels = self.route.channels().await;
            let takers: Vec<_> = channels.iter().filter(|channel| channel.takes(signal)).collect();
            let Some((last, rest)) = takers.split_last() else { return Ok(()) };
            let mut reached = 0;
            for channel in rest {
                reached += usize::from(channel.sender.send(batch.clone()).await.is_ok());
            }
            match last.sender.send(batch).await {
                Ok(()) => return Ok(()),
                Err(_) if reached > 0 => return Ok(()),
                // A reload has ended what it waited for, and leads elsewhere.
                Err(SendError(back))
                    if self.route.now().is_none_or(|now| !Arc::ptr_eq(&channels, &now)) =>
                {
                    batch = back;
                }
                Err(_) => return Err(Closed),
            }
        }
    }

    /// Whether one of those that are connected refuses data now. Whoever can ask a client to come back later
    /// should, before it reads what the client sends: then nothing is lost, and nothing comes twice.
    pub fn refuses_any(&self) -> bool {
        self.route.now().is_some_and(|channels| channels.iter().any(|c| c.stage.refuses()))
    }

    /// Whether all that are connected refuse data now, so that it need not be made.
    pub fn refuses_all(&self) -> bool {
        let all = |channels: Channels| {
            !channels.is_empty() && channels.iter().all(|connection| connection.stage.refuses())
        };
        self.route.now().is_some_and(all)
    }

    /// Whether a signal is sent to anyone, as far as is known while a reload replaces those.
    pub fn carries(&self, signal: Signal) -> bool {
        self.route.now().is_none_or(|channels| channels.iter().any(|c| c.takes(signal)))
    }

    /// Sends one signal alone, if one is named.
    pub fn only(self, signal: Option<Signal>) -> Self {
        let channels = self.route.now().unwrap_or_default();
        let only = channels.iter().map(|channel| Connection { only: signal, ..channel.clone() });
        Self { route: Self::to(only.collect()).route, ..self }
    }

    /// Sends to everything that `outputs` reach.
    pub fn fan_out(outputs: impl IntoIterator<Item = Self>) -> Self {
        let all = outputs.into_iter().filter_map(|output| output.route.now());
        Self::to(all.flat_map(|channels| channels.to_vec()).collect())
    }

    /// By what it can be led elsewhere.
    pub(crate) fn wire(&self) -> Wire {
        Wire(Arc::downgrade(&self.route))
    }

    /// Counts what is taken, and what is not.
    pub fn admitting(mut self, accepted: Items, refused: Items) -> Self {
        self.admitted = Some(Admitted { accepted, refused });
        self
    }

    /// Counts what goes out.
    pub fn counting(mut self, items: Items) -> Self {
        self.counted.push(items);
        self
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };

    use super::*;
    use crate::exporters::testing::context;

    fn spans(spans: usize) -> Batch {
        let scope = ScopeSpans { spans: vec![Span::default(); spans], ..Default::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..Default::default() };
        Batch::Traces(ExportTraceServiceRequest { resource_spans: vec![resource] })
    }

    #[tokio::test]
    async fn what_is_not_taken_is_refused_and_not_accepted() {
        let (cx, metered) = context("test");
        let items = |name| Items::new(&cx.meter, name, &[]);
        let (out, input) = channel();
        let out = out.admitting(items("accepted"), items("refused"));
        let counted = || (metered.count("accepted_spans"), metered.count("refused_spans"));
        for _ in 0..CAPACITY {
            out.send(spans(2)).await.expect("there is room");
        }
        assert_eq!(counted(), (32, 0));
        // It waits for room, and is cut off.
        let waiting = std::future::poll_fn(|cx| {
            let mut sending = Box::pin(out.send(spans(3)));
            assert!(sending.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        });
        waiting.await;
        assert_eq!(counted(), (32, 3));
        drop(input);
        out.send(spans(4)).await.expect_err("nobody is there");
        assert_eq!(counted(), (32, 7));
    }
}
