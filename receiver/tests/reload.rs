//! A change of configuration while data flows: nothing is lost, doubled or overtaken.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
    config::{Kinds, Mistakes, Plan, load},
    metric::{Kind, Metric, Points},
    pipeline::Running,
};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

const METRIC: Metric = Metric {
    name: "ebpf.test",
    unit: "1",
    kind: Kind::Counter,
    description: "",
    caveat: "A test.",
    attributes: &[],
};

/// What came to the exporters: their ids, and for each the time of each batch, which is its number,
/// with the tags of the processors that it passed.
type Arrived = BTreeMap<String, Vec<(u64, String)>>;

/// Tests share these, so each holds the lock on [`ALONE`].
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static ARRIVED: Mutex<Arrived> = Mutex::new(BTreeMap::new());
static STARTED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static SENT: AtomicU64 = AtomicU64::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Any change of it is one.
    tag: String,
    /// Where to listen.
    port: u16,
    /// Fails when it starts.
    no_start: bool,
    /// Does not end when it should.
    hang: bool,
    /// An extension.
    authenticator: String,
    /// What listens at the port.
    #[serde(skip)]
    listening: Option<TcpListener>,
}

impl Config {
    async fn start(&mut self, cx: &Context) -> Result<()> {
        if self.no_start {
            bail!("it will not start");
        }
        if self.port != 0 {
            self.listening = Some(TcpListener::bind(("127.0.0.1", self.port)).await?);
        }
        lock(&STARTED).push(cx.id.to_string());
        Ok(())
    }
}

macro_rules! component {
    ($kind:ident, $name:literal, $signals:expr) => {
        struct $kind(Config);
        impl Component for $kind {
            const NAME: &'static str = $name;
            const DESCRIPTION: &'static str = "A test.";
            const SIGNALS: &'static [Signal] = $signals;
            type Config = Config;
            fn new(config: Config) -> Result<Self, Mistakes> {
                Ok(Self(config))
            }
        }
    };
}

component!(Source, "source", &[Signal::Metrics]);
component!(Step, "step", &[Signal::Metrics]);
component!(Sink, "sink", &[Signal::Metrics]);
component!(Help, "help", &[]);

/// Sends numbered batches, more at once than a channel holds.
impl Receiver for Source {
    async fn start(&mut self, cx: &Context) -> Result<()> {
        self.0.start(cx).await
    }
    async fn run(self, cx: Context, out: Output) -> Result<()> {
        while !cx.stop.is_cancelled() {
            let number = SENT.load(Ordering::Relaxed);
            let none = Default::default();
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(number);
            let mut points = Points::new(SystemTime::UNIX_EPOCH, time, &none);
            points.counter(&METRIC, &[], number);
            out.send(points.into_batch(&[], "test")).await?;
            SENT.store(number + 1, Ordering::Relaxed);
            if number % 20 == 19 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }
}

fn metric(batch: &mut Batch) -> &mut opentelemetry_proto::tonic::metrics::v1::Metric {
    let Batch::Metrics(request) = batch else { panic!("metrics alone") };
    &mut request.resource_metrics[0].scope_metrics[0].metrics[0]
}

/// Holds three batches back, and writes its tag on each.
impl Processor for Step {
    async fn run(self, _: Context, mut input: Input, out: Output) -> Result<()> {
        let mut held = Vec::new();
        while let Some(mut batch) = input.recv().await {
            metric(&mut batch).description.push_str(&self.0.tag);
            held.push(batch);
            if held.len() > 3 {
                out.send(held.remove(0)).await?;
            }
        }
        if self.0.hang {
            std::future::pending::<()>().await;
        }
        for batch in held {
            out.send(batch).await?;
        }
        Ok(())
    }
}

/// Notes what arrives.
impl Exporter for Sink {
    async fn start(&mut self, cx: &Context) -> Result<()> {
        self.0.start(cx).await
    }
    async fn run(self, cx: Context, mut input: Input) -> Result<()> {
        let id = format!("{}{}", cx.id, self.0.tag);
        while let Some(mut batch) = input.recv().await {
            let metric = metric(&mut batch);
            let Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Sum(sum)) =
                &metric.data
            else {
                panic!("a counter")
            };
            let passed = (sum.data_points[0].time_unix_nano, metric.description.clone());
            lock(&ARRIVED).entry(id.clone()).or_default().push(passed);
        }
        if self.0.hang {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

impl Extension for Help {
    async fn start(&mut self, cx: &Context) -> Result<()> {
        self.0.start(cx).await
    }
}

fn plan(yaml: &str) -> Plan {
    let kinds = Kinds {
        receivers: &[receiver::<Source>()],
        processors: &[processor::<Step>()],
        exporters: &[exporter::<Sink>()],
        extensions: &[extension::<Help>()],
    };
    load(&[format!("yaml:{yaml}")], &[], &kinds).unwrap_or_else(|report| panic!("{report}"))
}

async fn start(yaml: &str) -> Running {
    lock(&ARRIVED).clear();
    lock(&STARTED).clear();
    SENT.store(0, Ordering::Relaxed);
    let meter = SdkMeterProvider::default().meter("test");
    Running::start(plan(yaml), &meter).await.expect("it starts")
}

/// What has started since the last call.
fn started() -> String {
    lock(&STARTED).drain(..).collect::<Vec<_>>().join(" ")
}

/// Waits until more has been sent than all channels hold.
async fn flow() {
    let from = SENT.load(Ordering::Relaxed);
    while SENT.load(Ordering::Relaxed) < from + 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn arrived(sink: &str) -> Vec<(u64, String)> {
    lock(&ARRIVED).get(sink).cloned().unwrap_or_default()
}

/// Ends it, and asserts that all that was sent came to these sinks, one after the other.
async fn whole(running: Running, sinks: &[&str]) -> Vec<(u64, String)> {
    assert!(running.shutdown().await, "nothing failed");
    let all: Vec<_> = sinks.iter().flat_map(|sink| arrived(sink)).collect();
    let numbers: Vec<u64> = all.iter().map(|(number, _)| *number).collect();
    let sent: Vec<u64> = (0..SENT.load(Ordering::Relaxed)).collect();
    assert!(sent.len() > 100 && numbers == sent, "{} sent, came: {numbers:?}", sent.len());
    all
}

/// A pipeline of one receiver, these processors and exporters.
fn one(sections: &str, processors: &str, exporters: &str) -> String {
    format!(
        "{{receivers: {{source: }}, {sections}, service: {{pipelines: {{metrics: {{receivers: [source], \
         processors: [{processors}], exporters: [{exporters}]}}}}}}}}"
    )
}

fn steps(a: &str, b: &str) -> String {
    format!("processors: {{step/a: {{tag: {a}}}, step/b: {{tag: {b}}}}}, exporters: {{sink: }}")
}

#[tokio::test]
async fn processors_change_come_go_and_move_while_data_flows() {
    let _alone = ALONE.lock().await;
    let mut running = start(&one(&steps("a", "b"), "step/a, step/b", "sink")).await;
    assert_eq!(started(), "sink source");
    for (tags, processors, changed, gone) in [
        // The same again.
        (["a", "b"], "step/a, step/b", &[][..], &[][..]),
        (["A", "b"], "step/a, step/b", &["step/a"], &[]),
        (["A", "B"], "step/a, step/b", &["step/b"], &[]),
        (["A", "B"], "step/b, step/a", &["step/a", "step/b"], &[]),
        (["A", "B"], "step/b", &[], &["step/a"]),
        (["A", "B"], "step/a, step/b", &["step/a"], &[]),
        (["a", "b"], "step/b, step/a", &["step/a", "step/b"], &[]),
        (["a", "b"], "", &[], &["step/a", "step/b"]),
        (["a", "b"], "step/a", &["step/a"], &[]),
    ] {
        flow().await;
        let next = plan(&one(&steps(tags[0], tags[1]), processors, "sink"));
        let changes = running.reload(next).await.expect("it changes");
        let name = |id: &&str| format!("processor {id} in pipeline metrics");
        let mut now = [changes.started, changes.restarted].concat();
        now.sort();
        assert_eq!(now, changed.iter().map(name).collect::<Vec<_>>(), "{processors}");
        let mut then = changes.stopped;
        then.sort();
        assert_eq!(then, gone.iter().map(name).collect::<Vec<_>>(), "{processors}");
    }
    flow().await;
    assert_eq!(started(), "", "neither the receiver nor the exporter");
    let mut passed: Vec<String> =
        whole(running, &["sink"]).await.into_iter().map(|(_, tags)| tags).collect();
    passed.dedup();
    // Each batch has passed one instance of each processor of one configuration: none is passed by.
    let expected = ["ab", "Ab", "AB", "BA", "B", "AB", "ba", "", "a"];
    let whole_or_between =
        |tags: &String| expected.contains(&tags.as_str()) || ["aB", "bA"].contains(&tags.as_str());
    assert!(passed.iter().all(whole_or_between), "{passed:?}");
    for tags in expected {
        assert!(passed.iter().any(|t| t == tags), "no {tags:?} in {passed:?}");
    }
}

#[tokio::test]
async fn an_exporter_that_changes_goes_on_where_the_old_one_ended() {
    let _alone = ALONE.lock().await;
    let sink = |tag: &str| {
        let sections = format!("processors: {{step: }}, exporters: {{sink: {{tag: '{tag}'}}}}");
        one(&sections, "step", "sink")
    };
    let mut running = start(&sink("1")).await;
    for tag in ["2", "3"] {
        flow().await;
        let changes = running.reload(plan(&sink(tag))).await.expect("it changes");
        assert_eq!((changes.started.len(), changes.stopped.len()), (0, 0));
        assert_eq!(changes.restarted, ["exporter sink"]);
    }
    flow().await;
    assert_eq!(started(), "sink source sink sink");
    whole(running, &["sink1", "sink2", "sink3"]).await;
}

#[tokio::test]
async fn pipelines_come_and_go_beside_one_that_stays() {
    let _alone = ALONE.lock().await;
    let sections = "receivers: {source: }, exporters: {sink/a: , sink/b: }, processors: {step: }";
    let of = |pipelines: &str| format!("{{{sections}, service: {{pipelines: {{{pipelines}}}}}}}");
    let stays = "metrics: {receivers: [source], exporters: [sink/a]}";
    let mut running = start(&of(stays)).await;
    flow().await;
    let both = of(&format!(
        "{stays}, metrics/2: {{receivers: [source], processors: [step], exporters: [sink/b]}}"
    ));
    let changes = running.reload(plan(&both)).await.expect("it changes");
    assert_eq!(changes.started, ["exporter sink/b", "processor step in pipeline metrics/2"]);
    flow().await;
    let changes = running.reload(plan(&of(stays))).await.expect("it changes");
    assert_eq!(changes.stopped, ["exporter sink/b", "processor step in pipeline metrics/2"]);
    flow().await;
    whole(running, &["sink/a"]).await;
    // The second has a part of it without a hole.
    let part: Vec<u64> = arrived("sink/b").iter().map(|(number, _)| *number).collect();
    assert!(part.len() >= 100 && part.windows(2).all(|w| w[0] + 1 == w[1]), "{part:?}");
}

#[tokio::test]
async fn what_cannot_start_changes_nothing() {
    let _alone = ALONE.lock().await;
    let with = |more: &str| one(&format!("exporters: {{sink: , {more}}}"), "", "sink, sink/x");
    let mut running = start(&with("sink/x: ")).await;
    started();
    flow().await;
    let refused = running.reload(plan(&with("sink/x: {no_start: true}"))).await;
    let error = refused.expect_err("it does not start").to_string();
    assert_eq!(error, "cannot start exporter \"sink/x\": it will not start");
    flow().await;
    assert_eq!(started(), "", "the old ones have gone on");
    // It is not in the way of what comes later.
    running.reload(plan(&with("sink/x: {tag: y}"))).await.expect("it changes");
    whole(running, &["sink"]).await;
}

#[tokio::test]
async fn an_address_goes_from_the_old_to_the_new_and_back_if_the_new_cannot_start() {
    let _alone = ALONE.lock().await;
    let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = other.local_addr().expect("an address").port();
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let with = |exporters: &str, used: &str| one(&format!("exporters: {{{exporters}}}"), "", used);
    let mut running = start(&with(&format!("sink: {{port: {free}}}"), "sink")).await;
    flow().await;
    // The same address with another configuration, and under another name.
    let next = with(&format!("sink: {{port: {free}, tag: a}}"), "sink");
    running.reload(plan(&next)).await.expect("the old one goes first");
    flow().await;
    let next = with(&format!("sink/b: {{port: {free}}}"), "sink/b");
    running.reload(plan(&next)).await.expect("the old one goes first");
    flow().await;
    assert_eq!(started(), "sink source sink sink/b");
    // One that somebody else has.
    let next = with(&format!("sink/b: {{port: {taken}, tag: c}}"), "sink/b");
    let error = running.reload(plan(&next)).await.expect_err("it is taken").to_string();
    assert!(error.starts_with("cannot start exporter \"sink/b\": Address"), "{error}");
    assert_eq!(started(), "sink/b", "as it was");
    flow().await;
    let next = with("sink/d: ", "sink/d");
    running.reload(plan(&next)).await.expect("it changes");
    flow().await;
    whole(running, &["sink", "sinka", "sink/b", "sink/d"]).await;
}

#[tokio::test]
async fn who_sends_with_an_extension_that_changes_starts_again() {
    let _alone = ALONE.lock().await;
    let help = |tag: &str| {
        format!(
            "{{receivers: {{source: }}, exporters: {{sink/a: {{authenticator: help}}, sink/b: }}, extensions: \
             {{help: {{tag: {tag}}}}}, service: {{extensions: [help], pipelines: {{metrics: {{receivers: \
             [source], exporters: [sink/a, sink/b]}}}}}}}}"
        )
    };
    let mut running = start(&help("x")).await;
    flow().await;
    started();
    running.reload(plan(&help("y"))).await.expect("it changes");
    assert_eq!(started(), "help sink/a");
    flow().await;
    whole(running, &["sink/b"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_given_up_and_the_rest_goes_on() {
    let _alone = ALONE.lock().await;
    let step = |hang: bool| {
        let sections = format!("processors: {{step: {{hang: {hang}}}}}, exporters: {{sink: }}");
        one(&sections, "step", "sink")
    };
    let mut running = start(&step(true)).await;
    flow().await;
    let began = tokio::time::Instant::now();
    running.reload(plan(&step(false))).await.expect("it changes");
    assert_eq!(began.elapsed().as_secs(), 10);
    flow().await;
    assert!(running.shutdown().await, "nothing failed");
    // What it held is lost, and nothing else: three batches.
    let numbers: Vec<u64> = arrived("sink").iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len() as u64, SENT.load(Ordering::Relaxed) - 3);
    assert!(numbers.is_sorted());
}

/// What listens goes on at once, and is sent to, while another exporter takes its time to end.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_end_of_another_but_its_successor() {
    let _alone = ALONE.lock().await;
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let with = |listens: &str, hangs: &str| {
        let sinks = format!(
            "sink/{listens}: {{port: {port}, tag: '{hangs}'}}, sink/z: {{hang: true, tag: '{hangs}'}}"
        );
        one(&format!("exporters: {{{sinks}}}"), "", &format!("sink/{listens}, sink/z"))
    };
    let mut running = start(&with("a", "1")).await;
    // In another way, and under another name.
    for (listens, now) in [("a", "2"), ("b", "3")] {
        flow().await;
        let began = tokio::time::Instant::now();
        let next = plan(&with(listens, now));
        let (changed, taken) = tokio::join!(running.reload(next), async {
            while arrived(&format!("sink/{listens}{now}")).is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            began.elapsed()
        });
        changed.expect("it changes");
        assert_eq!(began.elapsed().as_secs(), 10, "the one that hangs is given up");
        assert!(taken < Duration::from_secs(1), "{taken:?}");
        assert_eq!(arrived(&format!("sink/z{now}")).len(), 0, "its successor overtakes nothing");
    }
    flow().await;
    let began = tokio::time::Instant::now();
    assert!(running.shutdown().await, "nothing failed");
    assert_eq!(
        began.elapsed().as_secs(),
        fathom::pipeline::DEADLINE.as_secs(),
        "the last one that hangs is given up"
    );
    let numbers = |sinks: [&str; 3]| -> Vec<u64> {
        sinks.iter().flat_map(|sink| arrived(sink)).map(|(number, _)| number).collect()
    };
    let sent: Vec<u64> = (0..SENT.load(Ordering::Relaxed)).collect();
    assert_eq!(numbers(["sink/a1", "sink/a2", "sink/b3"]), sent);
    assert_eq!(numbers(["sink/z1", "sink/z2", "sink/z3"]), sent);
}

#[tokio::test]
async fn another_receiver_takes_the_place_of_one() {
    let _alone = ALONE.lock().await;
    let source = |id: &str, tag: &str| {
        format!(
            "{{receivers: {{{id}: {{tag: {tag}}}}}, exporters: {{sink: }}, service: {{pipelines: {{metrics: \
             {{receivers: [{id}], exporters: [sink]}}}}}}}}"
        )
    };
    let mut running = start(&source("source", "a")).await;
    for (id, tag) in [("source", "b"), ("source/2", "b")] {
        flow().await;
        running.reload(plan(&source(id, tag))).await.expect("it changes");
    }
    flow().await;
    assert_eq!(started(), "sink source source source/2");
    // They share the count, so their batches must not mix.
    whole(running, &["sink"]).await;
}
