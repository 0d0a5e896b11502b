//! The queue against senders that answer by a script, in paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use super::{
    testing::{Metered, context},
    *,
};
use crate::channel::{Output, channel};

/// Takes batches only when its gate is open, and then answers with `answer`.
#[derive(Clone)]
struct Gated {
    gate: Arc<Semaphore>,
    attempts: Arc<AtomicUsize>,
    attempted: Arc<Notify>,
    answer: Result<Sent, Failure>,
}

impl Sender for Gated {
    type Kept = ();

    async fn send(&self, _: &Batch, _: &mut ()) -> Result<Sent, Failure> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        self.attempted.notify_one();
        drop(self.gate.acquire().await.expect("the gate is never closed"));
        self.answer.clone()
    }
}

fn gated(open: bool, answer: Result<Sent, Failure>) -> Gated {
    let gate = Arc::new(Semaphore::new(usize::from(open)));
    Gated { gate, attempts: Arc::default(), attempted: Arc::default(), answer }
}

fn retryable() -> Result<Sent, Failure> {
    Err(Failure::Retryable { reason: "busy".to_owned(), after: None })
}

fn logs(records: usize) -> Batch {
    let scope =
        ScopeLogs { log_records: vec![LogRecord::default(); records], ..Default::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..Default::default() };
    Batch::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] })
}

fn spans(spans: usize) -> Batch {
    let scope = ScopeSpans { spans: vec![Span::default(); spans], ..Default::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..Default::default() };
    Batch::Traces(ExportTraceServiceRequest { resource_spans: vec![resource] })
}

fn start(config: Config, sender: &Gated) -> (Output, Context, Metered, JoinHandle<()>) {
    let (cx, metered) = context("test");
    let (out, input) = channel();
    let (theirs, sender) = (cx.clone(), sender.clone());
    let task = tokio::spawn(async move {
        run(&theirs, input, &config, &retry::Config::default(), sender).await;
    });
    (out, cx, metered, task)
}

/// Lets every task that can go on do so.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn outcome(metered: &Metered) -> [u64; 3] {
    ["sent", "send_failed", "enqueue_failed"]
        .map(|what| metered.count(&format!("otelcol_exporter_{what}_")))
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_counted_and_what_fits_is_sent() {
    let sender = gated(false, Ok(Sent::default()));
    let config = Config { queue_size: 3, num_consumers: 1, ..Config::default() };
    let (out, _, metered, task) = start(config, &sender);
    for _ in 0..5 {
        out.send(logs(10)).await.unwrap();
    }
    settle().await;
    // The batch under way takes room too.
    assert_eq!(outcome(&metered), [0, 0, 20]);
    assert_eq!(metered.gauge("otelcol_exporter_queue_size"), 3);
    assert_eq!(metered.gauge("otelcol_exporter_queue_capacity"), 3);
    // Another signal has a queue of its own.
    out.send(spans(4)).await.unwrap();
    settle().await;
    assert_eq!(metered.gauge("otelcol_exporter_queue_size"), 4);
    sender.gate.add_permits(1);
    drop(out);
    task.await.unwrap();
    assert_eq!(outcome(&metered), [34, 0, 20]);
    assert_eq!(metered.count("otelcol_exporter_sent_spans"), 4);
    assert_eq!(metered.gauge("otelcol_exporter_queue_capacity"), 0, "a gone queue shows nothing");
}

#[tokio::test(start_paused = true)]
async fn items_can_be_what_the_size_counts() {
    let sender = gated(false, Ok(Sent::default()));
    let config = Config { queue_size: 100, sizer: Sizer::Items, ..Config::default() };
    let (out, _, metered, task) = start(config, &sender);
    for records in [60, 50, 40, 101] {
        out.send(logs(records)).await.unwrap();
    }
    settle().await;
    assert_eq!(outcome(&metered), [0, 0, 151]);
    assert_eq!(metered.gauge("otelcol_exporter_queue_size"), 100);
    sender.gate.add_permits(1);
    drop(out);
    task.await.unwrap();
    assert_eq!(outcome(&metered), [100, 0, 151]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_can_make_the_pipeline_wait() {
    let sender = gated(false, Ok(Sent::default()));
    let config =
        Config { queue_size: 1, num_consumers: 1, block_on_overflow: true, ..Config::default() };
    let (out, _, metered, task) = start(config, &sender);
    let producer = tokio::spawn(async move {
        for _ in 0..50 {
            out.send(logs(1)).await.unwrap();
        }
    });
    settle().await;
    assert!(!producer.is_finished(), "50 batches fit into a queue of 1 and a channel of 16");
    sender.gate.add_permits(1);
    producer.await.unwrap();
    task.await.unwrap();
    assert_eq!(outcome(&metered), [50, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_time_allowed_for_them() {
    let sender = gated(true, retryable());
    let (out, _, metered, task) = start(Config::default(), &sender);
    let begun = Instant::now();
    out.send(logs(5)).await.unwrap();
    metered.wait_for("otelcol_exporter_send_failed", 5).await;
    let took = begun.elapsed().as_secs();
    // The last wait, of up to 45 s, was not begun as it would have ended after 300 s.
    assert!((255..=300).contains(&took), "{took} s");
    assert!(sender.attempts.load(Ordering::SeqCst) >= 9);
    drop(out);
    task.await.unwrap();
    assert_eq!(outcome(&metered), [0, 5, 0]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_breaks_off_waits_and_gives_the_queued_one_attempt_each() {
    let sender = gated(true, retryable());
    let config = Config { num_consumers: 1, ..Config::default() };
    let (out, _, metered, task) = start(config, &sender);
    for _ in 0..4 {
        out.send(logs(2)).await.unwrap();
    }
    sender.attempted.notified().await;
    settle().await;
    assert_eq!(sender.attempts.load(Ordering::SeqCst), 1, "the first waits, the others queue");
    let begun = Instant::now();
    drop(out);
    task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "shutdown took {:?}", begun.elapsed());
    assert_eq!(sender.attempts.load(Ordering::SeqCst), 4);
    assert_eq!(outcome(&metered), [0, 8, 0]);
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_the_agents_stop_ends_the_retries() {
    let sender = gated(true, retryable());
    let config = Config { enabled: false, ..Config::default() };
    let (out, cx, metered, task) = start(config, &sender);
    for _ in 0..3 {
        out.send(logs(2)).await.unwrap();
    }
    settle().await;
    assert_eq!(sender.attempts.load(Ordering::SeqCst), 1, "the pipeline waits for the first");
    let begun = Instant::now();
    cx.stop.cancel();
    drop(out);
    task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "shutdown took {:?}", begun.elapsed());
    assert_eq!(outcome(&metered), [0, 6, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_an_impatient_shutdown_cuts_off_is_still_counted() {
    let sender = gated(false, Ok(Sent::default()));
    let config = Config { num_consumers: 2, ..Config::default() };
    let (out, _, metered, task) = start(config, &sender);
    for _ in 0..5 {
        out.send(logs(3)).await.unwrap();
    }
    settle().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    settle().await;
    assert_eq!(outcome(&metered), [0, 15, 0]);
}

/// One batch is being sent, one waits for room, and three are still in the channel.
#[tokio::test(start_paused = true)]
async fn what_waits_for_room_is_counted_when_it_is_cut_off() {
    let sender = gated(false, Ok(Sent::default()));
    let config =
        Config { queue_size: 1, num_consumers: 1, block_on_overflow: true, ..Config::default() };
    let (out, _, metered, task) = start(config, &sender);
    for _ in 0..5 {
        out.send(logs(3)).await.unwrap();
    }
    settle().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    settle().await;
    assert_eq!(outcome(&metered), [0, 15, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_cannot_reject_more_than_it_got() {
    let sender = gated(true, Ok(Sent { rejected: 99 }));
    let (out, _, metered, task) = start(Config::default(), &sender);
    out.send(logs(5)).await.unwrap();
    drop(out);
    task.await.unwrap();
    assert_eq!(outcome(&metered), [0, 5, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_waits_for_a_full_queue_can_be_stopped() {
    let sender = gated(true, retryable());
    let config =
        Config { queue_size: 1, num_consumers: 1, block_on_overflow: true, ..Config::default() };
    let (out, cx, metered, task) = start(config, &sender);
    for _ in 0..3 {
        out.send(logs(2)).await.unwrap();
    }
    settle().await;
    let begun = Instant::now();
    cx.stop.cancel();
    drop(out);
    task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "shutdown took {:?}", begun.elapsed());
    assert_eq!(outcome(&metered), [0, 6, 0]);
}
