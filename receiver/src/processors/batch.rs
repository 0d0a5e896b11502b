//! `batch`: joins small blocks into larger ones, and splits what is too large.

use std::{collections::BTreeSet, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use crate::{
    batch::{Batch, Signal},
    channel::{Closed, Input, Output},
    component::{Component, Context, Processor},
    config::{Mistakes, Signed},
};

/// The configuration of `batch`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Items that make the block be sent at once.
    pub send_batch_size: u32,
    /// Time after which a smaller block is sent; zero sends every block at once.
    pub timeout: Signed,
    /// The most items in one block; zero is no limit.
    pub send_batch_max_size: u32,
    /// Keys of the request's metadata by which blocks are kept apart. What receivers make here comes from no request and
    /// has none, so all of it goes into one block, as without a key.
    pub metadata_keys: Vec<String>,
    /// The most combinations of the metadata's values that are kept apart.
    pub metadata_cardinality_limit: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            send_batch_size: 8192,
            timeout: Duration::from_millis(200).into(),
            send_batch_max_size: 0,
            metadata_keys: Vec::new(),
            metadata_cardinality_limit: 1000,
        }
    }
}

/// The processor.
pub struct BatchProcessor(Config);

impl Component for BatchProcessor {
    const NAME: &'static str = "batch";
    const DESCRIPTION: &'static str = "Joins small blocks into larger ones.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let max = config.send_batch_max_size;
        let message = "timeout must be greater or equal to 0";
        wrong.require(!config.timeout.is_negative(), "timeout", message);
        wrong.require(
            max == 0 || max >= config.send_batch_size,
            "send_batch_max_size",
            "send_batch_max_size must be greater or equal to send_batch_size",
        );
        let mut known = BTreeSet::new();
        for (i, key) in config.metadata_keys.iter().map(|key| key.to_lowercase()).enumerate() {
            if let Some(key) = known.replace(key) {
                wrong.add(
                    format!("metadata_keys::{i}"),
                    format!("duplicate entry in metadata_keys: {key:?} (case-insensitive)"),
                );
            }
        }
        wrong.or(Self(config))
    }
}

impl Processor for BatchProcessor {
    async fn run(self, cx: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        let Config { send_batch_size: enough, timeout, send_batch_max_size: max, .. } = self.0;
        let (enough, timeout) = (enough as usize, timeout.or_zero());
        let mut held = Held { batch: None, items: 0, max: max as usize, out };
        let counts = Counts::new(&cx);
        // Set by the first block that is held.
        let mut deadline = Instant::now();
        loop {
            tokio::select! {
                batch = input.recv() => {
                    let Some(batch) = batch else { break };
                    if held.batch.is_none() {
                        deadline = Instant::now() + timeout;
                    }
                    held.add(batch);
                    while held.items > 0 && (timeout.is_zero() || held.items >= enough) {
                        counts.by_size.add(1, &counts.attributes);
                        held.send(&counts).await?;
                        deadline = Instant::now() + timeout;
                    }
                }
                () = sleep_until(deadline), if held.batch.is_some() => {
                    counts.by_timeout.add(1, &counts.attributes);
                    held.flush(&counts).await?;
                }
            }
        }
        Ok(held.flush(&counts).await?)
    }
}

/// What waits to be sent. A pipeline has one signal, so all of it is of one kind.
struct Held {
    batch: Option<Batch>,
    items: usize,
    max: usize,
    out: Output,
}

impl Held {
    fn add(&mut self, more: Batch) {
        let items = more.items();
        if items == 0 {
            // Nothing to wait for: it would be sent alone, and counted as a block.
            return;
        }
        self.items += items;
        match &mut self.batch {
            Some(held) => held.join(more),
            none => *none = Some(more),
        }
    }

    /// Sends what is held, or as much of it as one block may have.
    async fn send(&mut self, counts: &Counts) -> Result<(), Closed> {
        let Some(mut batch) = self.batch.take() else { return Ok(()) };
        let block = if self.max > 0 && self.items > self.max {
            let block = batch.take(self.max);
            self.batch = Some(batch);
            self.items -= self.max;
            counts.size.record(self.max as u64, &counts.attributes);
            block
        } else {
            counts.size.record(self.items as u64, &counts.attributes);
            self.items = 0;
            batch
        };
        self.out.send(block).await
    }

    async fn flush(&mut self, counts: &Counts) -> Result<(), Closed> {
        while self.batch.is_some() {
            self.send(counts).await?;
        }
        Ok(())
    }
}

/// The processor's own metrics, as the Collector names them.
struct Counts {
    size: Histogram<u64>,
    by_size: Counter<u64>,
    by_timeout: Counter<u64>,
    attributes: [KeyValue; 1],
}

impl Counts {
    fn new(cx: &Context) -> Self {
        let name = |what| format!("otelcol_processor_batch_{what}");
        Self {
            size: cx.meter.u64_histogram(name("batch_send_size")).build(),
            by_size: cx.meter.u64_counter(name("batch_size_trigger_send")).build(),
            by_timeout: cx.meter.u64_counter(name("timeout_trigger_send")).build(),
            attributes: [KeyValue::new("processor", cx.id.to_string())],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry_proto::tonic::metrics::v1::metric::Data;

    use super::*;
    use crate::{
        channel::channel,
        exporters::queue::testing::context,
        metric::{Kind, Metric as Described, Points},
    };

    const METRIC: Described = Described {
        name: "m",
        unit: "1",
        kind: Kind::Counter,
        description: "A metric.",
        caveat: "",
        attributes: &[],
    };

    /// A block of `n` points that are numbered from `first` on.
    fn block(first: u64, n: u64) -> Batch {
        let none = BTreeSet::new();
        let now = SystemTime::now();
        let mut points = Points::new(now, now, &none);
        for i in first..first + n {
            points.counter(&METRIC, &[], i);
        }
        points.into_batch(&[("r", "1")], "test")
    }

    fn numbers(batch: &Batch) -> Vec<i64> {
        use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt;
        let Batch::Metrics(request) = batch else { panic!("not metrics") };
        let metrics = request.resource_metrics.iter().flat_map(|r| {
            assert_eq!(r.resource.as_ref().map(|r| r.attributes.len()), Some(1));
            r.scope_metrics.iter().flat_map(|s| &s.metrics)
        });
        metrics
            .flat_map(|m| match &m.data {
                Some(Data::Sum(sum)) if sum.is_monotonic && m.name == "m" => &sum.data_points,
                other => panic!("the metric has changed: {other:?}"),
            })
            .map(|p| match p.value {
                Some(AsInt(value)) => value,
                other => panic!("the value has changed: {other:?}"),
            })
            .collect()
    }

    /// Runs the processor on these blocks; returns what came out, and after how long.
    async fn run(config: Config, blocks: Vec<Batch>, hold_open: Duration) -> Vec<(u128, Vec<i64>)> {
        let (cx, _) = context("batch");
        let (to, input) = channel();
        let (out, mut from) = channel();
        let start = Instant::now();
        let processor = BatchProcessor::new(config).expect("valid");
        let task = tokio::spawn(Processor::run(processor, cx, input, out));
        tokio::spawn(async move {
            for block in blocks {
                to.send(block).await.expect("it takes blocks");
            }
            tokio::time::sleep(hold_open).await;
        });
        let mut seen = Vec::new();
        while let Some(batch) = from.recv().await {
            seen.push((start.elapsed().as_millis(), numbers(&batch)));
        }
        task.await.expect("it does not panic").expect("it does not fail");
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_block_waits_for_the_timeout_and_a_large_one_does_not() {
        let config = Config { send_batch_size: 10, ..Config::default() };
        let blocks = vec![block(0, 4), block(4, 6), block(10, 3)];
        let seen = run(config, blocks, Duration::from_secs(1)).await;
        assert_eq!(seen, [(0, (0..10).collect()), (200, (10..13).collect())]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_sent_at_the_end() {
        let seen = run(Config::default(), vec![block(0, 3)], Duration::ZERO).await;
        assert_eq!(seen, [(0, vec![0, 1, 2])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_without_points_is_not_sent() {
        let seen = run(Config::default(), vec![block(0, 0)], Duration::from_secs(1)).await;
        assert!(seen.is_empty(), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_point_comes_out_once_in_order_and_no_block_is_too_large() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let size = random.u32(0..50);
            let config = Config {
                send_batch_size: size,
                send_batch_max_size: size + random.u32(1..20),
                timeout: Duration::from_millis(random.u64(0..3)).into(),
                ..Config::default()
            };
            let max = config.send_batch_max_size as usize;
            let mut next = 0;
            let blocks = (0..random.usize(1..20)).map(|_| {
                let n = random.u64(0..100);
                next += n;
                block(next - n, n)
            });
            let seen = run(config, blocks.collect(), Duration::ZERO).await;
            assert!(seen.iter().all(|(_, numbers)| numbers.len() <= max));
            let numbers: Vec<_> = seen.into_iter().flat_map(|(_, numbers)| numbers).collect();
            assert_eq!(numbers, (0..next as i64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cap_below_the_trigger_is_refused() {
        let config = Config { send_batch_max_size: 1, ..Config::default() };
        assert!(BatchProcessor::new(config).is_err());
    }

    #[test]
    fn a_metadata_key_that_stands_twice_is_refused() {
        let keys = |list: &[&str]| {
            let metadata_keys = list.iter().map(|key| (*key).to_owned()).collect();
            BatchProcessor::new(Config { metadata_keys, ..Config::default() }).map(drop)
        };
        assert_eq!(keys(&["a", "b"]), Ok(()));
        let Mistakes(wrong) = keys(&["myTOKEN", "b", "mytoken"]).expect_err("one is twice");
        let text = "duplicate entry in metadata_keys: \"mytoken\" (case-insensitive)";
        assert_eq!((wrong[0].path.as_str(), wrong[0].message.as_str()), ("metadata_keys::2", text));
    }
}
