//! Pipelines, wired from YAML out of components that are real but small.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};
use fathom::{
    batch::{Batch, Signal},
    channel::{Input, Output},
    component::{
        Component, Context, Exporter, Extension, Processor, Receiver, exporter, extension,
        processor, receiver,
    },
    config::{Kinds, Mistakes, load},
    metric::{Kind, Metric, Points},
    pipeline::Running,
};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use serde::{Deserialize, Serialize};

const METRIC: Metric = Metric {
    name: "ebpf.test",
    unit: "1",
    kind: Kind::Counter,
    description: "A test.",
    caveat: "A test.",
    attributes: &[],
};

/// What happened, in order. Tests share it, so each holds the lock on [`ALONE`].
static HAPPENED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn happened() -> MutexGuard<'static, Vec<String>> {
    HAPPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(cx: &Context, what: &str) {
    happened().push(format!("{} {what}", cx.id));
}

#[derive(Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Fails when it starts.
    no_start: bool,
    /// Fails when it runs.
    no_run: bool,
    /// Does not end when it should.
    hang: bool,
}

/// Sends one batch when it starts and one when it stops.
struct Source(Config);

impl Component for Source {
    const NAME: &'static str = "source";
    const DESCRIPTION: &'static str = "A test.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    type Config = Config;
    fn new(config: Config) -> Result<Self, Mistakes> {
        Ok(Self(config))
    }
}

impl Receiver for Source {
    async fn start(&mut self, cx: &Context) -> Result<()> {
        note(cx, "started");
        if self.0.no_start { bail!("it will not start") } else { Ok(()) }
    }
    async fn run(self, cx: Context, out: Output) -> Result<()> {
        out.send(batch()).await?;
        if self.0.no_run {
            bail!("it broke");
        }
        cx.stop.cancelled().await;
        note(&cx, "stopped");
        out.send(batch()).await?;
        Ok(())
    }
}

fn batch() -> Batch {
    let none = Default::default();
    let mut points = Points::new(SystemTime::now(), SystemTime::now(), &none);
    points.counter(&METRIC, &[], 1);
    points.into_batch(&[], "test")
}

/// Holds everything back until its input ends.
struct Hold(Config);

impl Component for Hold {
    const NAME: &'static str = "hold";
    const DESCRIPTION: &'static str = "A test.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    type Config = Config;
    fn new(config: Config) -> Result<Self, Mistakes> {
        Ok(Self(config))
    }
}

impl Processor for Hold {
    async fn run(self, cx: Context, mut input: Input, out: Output) -> Result<()> {
        let mut held = Vec::new();
        while let Some(batch) = input.recv().await {
            held.push(batch);
        }
        note(&cx, &format!("ended with {}", held.len()));
        if self.0.hang {
            std::future::pending::<()>().await;
        }
        for batch in held {
            out.send(batch).await?;
        }
        Ok(())
    }
}

/// Counts what arrives.
struct Sink;

impl Component for Sink {
    const NAME: &'static str = "sink";
    const DESCRIPTION: &'static str = "A test.";
    const SIGNALS: &'static [Signal] = &[Signal::Metrics];
    type Config = Config;
    fn new(_: Config) -> Result<Self, Mistakes> {
        Ok(Self)
    }
}

impl Exporter for Sink {
    async fn start(&mut self, cx: &Context) -> Result<()> {
        note(cx, "started");
        Ok(())
    }
    async fn run(self, cx: Context, mut input: Input) -> Result<()> {
        let mut items = 0;
        while let Some(batch) = input.recv().await {
            items += batch.items();
        }
        note(&cx, &format!("got {items}"));
        Ok(())
    }
}

/// Notes when it starts and ends.
struct Help;

impl Component for Help {
    const NAME: &'static str = "help";
    const DESCRIPTION: &'static str = "A test.";
    const SIGNALS: &'static [Signal] = &[];
    type Config = Config;
    fn new(_: Config) -> Result<Self, Mistakes> {
        Ok(Self)
    }
}

impl Extension for Help {
    async fn start(&mut self, cx: &Context) -> Result<()> {
        note(cx, "started");
        Ok(())
    }
    async fn run(self, cx: Context) -> Result<()> {
        cx.stop.cancelled().await;
        note(&cx, "stopped");
        Ok(())
    }
}

/// Starts what the YAML says.
async fn start(yaml: &str) -> Result<Running> {
    let kinds = Kinds {
        receivers: &[receiver::<Source>()],
        processors: &[processor::<Hold>()],
        exporters: &[exporter::<Sink>()],
        extensions: &[extension::<Help>()],
    };
    happened().clear();
    let plan = load(&[format!("yaml:{yaml}")], &[], &kinds).expect("the YAML is valid");
    Running::start(plan, &SdkMeterProvider::default().meter("test")).await
}

const TWO_PIPELINES: &str = "
receivers: {source/a: , source/b: , source/unused: }
processors: {hold: }
exporters: {sink/x: , sink/y: }
extensions: {help/a: , help/b: , help/unused: }
service:
  extensions: [help/b, help/a]
  pipelines:
    metrics: {receivers: [source/a, source/b], processors: [hold], exporters: [sink/x, sink/y]}
    metrics/2: {receivers: [source/b], processors: [hold], exporters: [sink/y]}
";

#[tokio::test]
async fn data_fans_in_and_out_and_shutdown_runs_from_the_left() {
    let _alone = ALONE.lock().await;
    let running = start(TWO_PIPELINES).await.expect("it starts");
    assert!(running.shutdown().await, "nothing failed");
    let events = happened().clone();
    let at = |event: &str| {
        events.iter().position(|e| e == event).unwrap_or_else(|| panic!("no {event}: {events:?}"))
    };
    // Exporters before receivers; what no pipeline uses, not at all.
    assert!(at("sink/x started").max(at("sink/y started")) < at("source/a started"));
    assert!(!events.iter().any(|e| e.starts_with("source/unused")));
    // Extensions first and last, as far as the service names them, in its order.
    assert_eq!(&events[..2], ["help/b started", "help/a started"]);
    let last = events.last_chunk::<2>().expect("events");
    assert!(last.iter().all(|e| e.starts_with("help/") && e.ends_with("stopped")), "{last:?}");
    assert!(!events.iter().any(|e| e.starts_with("help/unused")));
    // Two batches of each receiver: the first pipeline has two receivers, the second one; each has a
    // processor of its own.
    let ends: Vec<_> = events.iter().filter(|e| e.starts_with("hold ended")).collect();
    assert_eq!(ends.len(), 2, "{events:?}");
    assert!(at("hold ended with 2") > at("source/b stopped"));
    assert!(at("hold ended with 4") > at("source/a stopped"));
    // Everything that the processors held has arrived.
    at("sink/x got 4");
    at("sink/y got 6");
}

#[tokio::test]
async fn if_a_component_cannot_start_none_runs() {
    let _alone = ALONE.lock().await;
    let error = start(
        "
receivers: {source: , source/bad: {no_start: true}}
exporters: {sink: }
service: {pipelines: {metrics: {receivers: [source, source/bad], exporters: [sink]}}}
",
    )
    .await
    .err()
    .expect("it does not start");
    assert_eq!(format!("{error:#}"), "cannot start receiver \"source/bad\": it will not start");
    let started = ["sink started", "source started", "source/bad started"];
    assert_eq!(*happened(), started, "nothing has run");
}

#[tokio::test]
async fn a_component_that_fails_is_named() {
    let _alone = ALONE.lock().await;
    let mut running = start(
        "
receivers: {source: {no_run: true}}
exporters: {sink: }
service: {pipelines: {metrics: {receivers: [source], exporters: [sink]}}}
",
    )
    .await
    .expect("it starts");
    let failure = running.failure().await;
    assert_eq!(format!("{failure:#}"), "receiver source failed: it broke");
    assert!(running.shutdown().await);
    assert_eq!(happened().last().map(String::as_str), Some("sink got 1"));
}

#[tokio::test(start_paused = true)]
async fn one_deadline_covers_a_stage_that_hangs() {
    let _alone = ALONE.lock().await;
    let running = start(
        "
receivers: {source: }
processors: {hold: {hang: true}}
exporters: {sink: }
service: {pipelines: {metrics: {receivers: [source], processors: [hold], exporters: [sink]}}}
",
    )
    .await
    .expect("it starts");
    let began = tokio::time::Instant::now();
    assert!(running.shutdown().await, "it was asked to end, and did");
    assert_eq!(began.elapsed().as_secs(), fathom::pipeline::DEADLINE.as_secs());
}

/// The agent's own counts, as the Collector names them.
#[tokio::test]
async fn what_passes_is_counted() {
    let _alone = ALONE.lock().await;
    let registry = prometheus::Registry::new();
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .without_counter_suffixes()
        .build()
        .expect("a reader");
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let kinds = Kinds {
        receivers: &[receiver::<Source>()],
        processors: &[processor::<Hold>()],
        exporters: &[exporter::<Sink>()],
        extensions: &[extension::<Help>()],
    };
    let plan = load(&[format!("yaml:{TWO_PIPELINES}")], &[], &kinds).expect("valid");
    let running = Running::start(plan, &provider.meter("test")).await.expect("it starts");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(running.shutdown().await);
    let counts: BTreeMap<String, f64> = registry
        .gather()
        .iter()
        .flat_map(|family| {
            family.get_metric().iter().map(|metric| {
                let id = metric
                    .get_label()
                    .iter()
                    .find(|l| ["receiver", "processor"].contains(&l.name()));
                let id = id.map_or("", |label| label.value());
                (format!("{} {id}", family.name()), metric.get_counter().get_value())
            })
        })
        .collect();
    assert_eq!(counts["otelcol_receiver_accepted_metric_points source/a"], 2.0);
    assert_eq!(counts["otelcol_receiver_accepted_metric_points source/b"], 2.0);
    assert_eq!(counts["otelcol_receiver_refused_metric_points source/a"], 0.0);
    assert_eq!(counts["otelcol_processor_incoming_items hold"], 6.0);
    assert_eq!(counts["otelcol_processor_outgoing_items hold"], 6.0);
}
