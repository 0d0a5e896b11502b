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

/// What the agent does at its deadline.
async fn cut_off(task: JoinHandle<()>, cx: &Context) {
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    cx.tasks.close();
    cx.tasks.wait().await;
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
    assert_eq!(metered.gauge("otelcol_exporter_in_flight_requests"), 1);
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
    assert_eq!(metered.gauge("otelcol_exporter_in_flight_requests"), 0);
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
    let (out, cx, metered, task) = start(config, &sender);
    for _ in 0..5 {
        out.send(logs(3)).await.unwrap();
    }
    settle().await;
    assert_eq!(metered.gauge("otelcol_exporter_in_flight_requests"), 2);
    cut_off(task, &cx).await;
    assert_eq!(outcome(&metered), [0, 15, 0]);
    assert_eq!(metered.gauge("otelcol_exporter_in_flight_requests"), 0);
}

/// One batch is being sent, one waits for room, and three are still in the channel.
#[tokio::test(start_paused = true)]
async fn what_waits_for_room_is_counted_when_it_is_cut_off() {
    let sender = gated(false, Ok(Sent::default()));
    let config =
        Config { queue_size: 1, num_consumers: 1, block_on_overflow: true, ..Config::default() };
    let (out, cx, metered, task) = start(config, &sender);
    for _ in 0..5 {
        out.send(logs(3)).await.unwrap();
    }
    settle().await;
    cut_off(task, &cx).await;
    assert_eq!(outcome(&metered), [0, 15, 0]);
}

/// How many records that are never left out, and others, say that data is lost.
#[derive(Clone, Default)]
struct Said(Arc<[AtomicUsize; 2]>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Said {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() == tracing::Level::ERROR {
            self.0[usize::from(metadata.target() != KEPT)].fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_is_lost_at_the_end_is_said() {
    use tracing_subscriber::layer::SubscriberExt as _;
    let said = Said::default();
    let subscriber = tracing_subscriber::registry().with(said.clone());
    let _here = tracing::subscriber::set_default(subscriber);
    let count = || [0, 1].map(|i: usize| said.0[i].load(Ordering::SeqCst));
    let refusing = gated(true, Err(Failure::Permanent { reason: "no".to_owned() }));
    let (out, _, metered, task) = start(Config::default(), &refusing);
    out.send(logs(1)).await.unwrap();
    out.send(logs(1)).await.unwrap();
    metered.wait_for("otelcol_exporter_send_failed", 2).await;
    assert_eq!(count(), [0, 2]);
    drop(out);
    task.await.unwrap();

    let busy = gated(true, retryable());
    let (out, _, _, task) = start(Config { num_consumers: 1, ..Config::default() }, &busy);
    for _ in 0..3 {
        out.send(logs(1)).await.unwrap();
    }
    settle().await;
    drop(out);
    task.await.unwrap();
    assert_eq!(count(), [3, 2]);

    let stuck = gated(false, Ok(Sent::default()));
    let (out, cx, _, task) = start(Config { queue_size: 1, ..Config::default() }, &stuck);
    cx.stop.cancel();
    for _ in 0..3 {
        out.send(logs(1)).await.unwrap();
    }
    settle().await;
    // Two found no room, and one is under way.
    assert_eq!(count(), [5, 2]);
    cut_off(task, &cx).await;
    assert_eq!(count(), [6, 2]);
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

fn joined(config: serde_json::Value) -> Config {
    serde_json::from_value(config).unwrap()
}

/// The items of each request that was made, in the order of their beginnings.
async fn requests(config: Config, batches: Vec<Batch>) -> (Vec<usize>, Metered) {
    #[derive(Clone, Default)]
    struct Seen(Arc<std::sync::Mutex<Vec<usize>>>);
    impl Sender for Seen {
        type Kept = ();
        async fn send(&self, batch: &Batch, _: &mut ()) -> Result<Sent, Failure> {
            self.0.lock().unwrap().push(batch.items());
            Ok(Sent::default())
        }
    }
    let (cx, metered) = context("test");
    let (out, input) = channel();
    let seen = Seen::default();
    let sender = seen.clone();
    let task = tokio::spawn(async move {
        run(&cx, input, &config, &retry::Config::default(), sender).await;
    });
    for batch in batches {
        out.send(batch).await.unwrap();
    }
    drop(out);
    task.await.unwrap();
    let seen = seen.0.lock().unwrap().clone();
    (seen, metered)
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_joined_and_split() {
    for (config, given, expected) in [
        // Enough of it is sent at once, the rest at the end.
        (serde_json::json!({"min_size": 10}), vec![4, 4, 4, 3], vec![12, 3]),
        // None grows past the limit; what is left of one waits for more.
        (serde_json::json!({"min_size": 5, "max_size": 5}), vec![12, 1, 3], vec![5, 5, 5, 1]),
        (serde_json::json!({"min_size": 0, "max_size": 4}), vec![9, 2], vec![4, 4, 1, 2]),
        (serde_json::json!({"min_size": 0}), vec![1, 2], vec![1, 2]),
    ] {
        let config = joined(serde_json::json!({"num_consumers": 1, "batch": config}));
        let batches = given.iter().map(|records| logs(*records)).collect();
        let (seen, metered) = requests(config, batches).await;
        assert_eq!(seen, expected, "{given:?}");
        let all: usize = given.iter().sum();
        assert_eq!(outcome(&metered), [all as u64, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn sizes_can_be_counted_in_bytes() {
    let max = 1000;
    let config = joined(serde_json::json!({
        "num_consumers": 1, "queue_size": 1 << 20, "sizer": "bytes",
        "batch": {"min_size": 0, "max_size": max},
    }));
    let record = |size| LogRecord { severity_text: "x".repeat(size), ..Default::default() };
    let scope = ScopeLogs {
        log_records: [400, 10, 10, 700, 300, 5000, 20].map(record).to_vec(),
        ..Default::default()
    };
    let resource = ResourceLogs { scope_logs: vec![scope], ..Default::default() };
    let batch = Batch::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] });
    let mut whole = batch.clone();
    let (seen, metered) = requests(config, vec![batch]).await;
    assert_eq!(outcome(&metered), [7, 0, 0]);
    for items in seen {
        let size = Sizer::Bytes.size(&whole.take(items));
        assert!(size <= max || items == 1, "{items} items of {size} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_little_is_sent_after_a_while_and_keeps_its_room_until_then() {
    let sender = gated(true, Ok(Sent::default()));
    let config = joined(serde_json::json!({"batch": {"flush_timeout": "3s"}}));
    let (out, _, metered, task) = start(config, &sender);
    for _ in 0..3 {
        out.send(logs(2)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(outcome(&metered), [0, 0, 0]);
    assert_eq!(metered.gauge("otelcol_exporter_queue_size"), 3);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(sender.attempts.load(Ordering::SeqCst), 1);
    assert_eq!(outcome(&metered), [6, 0, 0]);
    assert_eq!(metered.gauge("otelcol_exporter_queue_size"), 0);
    drop(out);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn joined_requests_that_shutdown_cuts_off_are_counted() {
    let sender = gated(false, Ok(Sent::default()));
    let config = joined(serde_json::json!({"num_consumers": 1, "batch": {"min_size": 4}}));
    let (out, cx, metered, task) = start(config, &sender);
    for _ in 0..7 {
        out.send(logs(2)).await.unwrap();
    }
    settle().await;
    cut_off(task, &cx).await;
    assert_eq!(outcome(&metered), [0, 14, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_pipeline_can_wait_for_each_result() {
    let sender = gated(false, Ok(Sent::default()));
    let config = joined(serde_json::json!({"wait_for_result": true}));
    let (out, _, metered, task) = start(config, &sender);
    for _ in 0..3 {
        out.send(logs(1)).await.unwrap();
    }
    settle().await;
    assert_eq!(sender.attempts.load(Ordering::SeqCst), 1);
    sender.gate.add_permits(1);
    drop(out);
    task.await.unwrap();
    assert_eq!(outcome(&metered), [3, 0, 0]);
}

/// Sends forever, and takes its time to be dropped.
struct Stuck(Arc<Semaphore>);

impl Sender for Stuck {
    type Kept = ();

    async fn send(&self, _: &Batch, _: &mut ()) -> Result<Sent, Failure> {
        struct Slow;
        impl Drop for Slow {
            fn drop(&mut self) {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let _slow = Slow;
        self.0.add_permits(1);
        std::future::pending().await
    }
}

/// Consumers are cut off on other threads than the one that reads the counts then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_final_when_the_tasks_have_ended() {
    for keys in [serde_json::json!({}), serde_json::json!({"batch": {"min_size": 1}})] {
        let (cx, metered) = context("test");
        let (out, input) = channel();
        let entered = Arc::new(Semaphore::new(0));
        let (theirs, sender, config) = (cx.clone(), Stuck(entered.clone()), joined(keys));
        let task = tokio::spawn(async move {
            run(&theirs, input, &config, &retry::Config::default(), sender).await;
        });
        out.send(logs(3)).await.unwrap();
        entered.acquire().await.unwrap().forget();
        cut_off(task, &cx).await;
        assert_eq!(outcome(&metered), [0, 3, 0]);
    }
}
