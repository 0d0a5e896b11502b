//! The keys of `sending_queue`, under the Collector's names and with its rules.

use std::{collections::BTreeSet, time::Duration};

use prost::Message as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    batch::Batch,
    config::{Mistakes, Signed},
};

/// `sending_queue`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(from = "Given")]
#[schemars(!from, default, deny_unknown_fields)]
pub struct Config {
    /// Without a queue, each batch is sent before the next is taken: the pipeline waits.
    pub enabled: bool,
    /// Batches that are sent at the same time.
    pub num_consumers: i64,
    /// How much may wait or be under way, per signal, in units of `sizer`.
    pub queue_size: i64,
    /// What `queue_size` counts.
    pub sizer: Sizer,
    /// Makes the pipeline wait for room, instead of dropping what does not fit.
    pub block_on_overflow: bool,
    /// Makes the pipeline wait until a batch is sent or given up.
    pub wait_for_result: bool,
    /// The extension that would keep what waits over a restart. There is none of that yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// How what waits is joined into larger requests. Without it, what comes in is sent as it came.
    #[schemars(extend("switch" = true))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Joined>,
}

/// `batch`: what waits is joined until there is enough of it.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(default)]
pub struct Joined {
    /// Time after which a request is sent, however small it is.
    pub flush_timeout: Signed,
    /// What `min_size` and `max_size` count: `items` or `bytes`. That of the queue, if it has one.
    pub sizer: Sizer,
    /// The size at which a request is sent at once.
    pub min_size: i64,
    /// The size that requests do not grow past; 0 is no limit.
    pub max_size: i64,
    /// What is not joined.
    pub partition: Partition,
}

/// `partition`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Partition {
    /// Read for the sake of existing files: no receiver brings metadata of a client.
    pub metadata_keys: Vec<String>,
}

/// What a size counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", try_from = "String")]
#[schemars(!try_from)]
pub enum Sizer {
    /// Batches.
    Requests,
    /// Data points, log records, spans.
    Items,
    /// Bytes of protobuf.
    Bytes,
}

impl Sizer {
    const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Items => "items",
            Self::Bytes => "bytes",
        }
    }

    /// The size of `batch`.
    pub fn size(self, batch: &Batch) -> usize {
        match (self, batch) {
            (Self::Requests, _) => 1,
            (Self::Items, batch) => batch.items(),
            (Self::Bytes, Batch::Metrics(request)) => request.encoded_len(),
            (Self::Bytes, Batch::Logs(request)) => request.encoded_len(),
            (Self::Bytes, Batch::Traces(request)) => request.encoded_len(),
        }
    }
}

impl TryFrom<String> for Sizer {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        [Self::Requests, Self::Items, Self::Bytes]
            .into_iter()
            .find(|sizer| sizer.name() == name)
            .ok_or_else(|| format!("invalid sizer: {name:?}, valid are: requests, items, bytes"))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            num_consumers: 10,
            queue_size: 1000,
            sizer: Sizer::Requests,
            block_on_overflow: false,
            wait_for_result: false,
            storage: None,
            batch: None,
        }
    }
}

impl Default for Joined {
    fn default() -> Self {
        Self {
            flush_timeout: Duration::from_millis(200).into(),
            sizer: Sizer::Items,
            min_size: 8192,
            max_size: 0,
            partition: Partition::default(),
        }
    }
}

/// `sending_queue` as it is written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    enabled: bool,
    num_consumers: i64,
    queue_size: i64,
    sizer: Option<Sizer>,
    block_on_overflow: bool,
    wait_for_result: bool,
    storage: Option<String>,
    // Named without a value, it is on.
    #[serde(deserialize_with = "named", alias = "batch:null")]
    batch: Option<GivenBatch>,
}

/// On as soon as it is named.
fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<GivenBatch>, D::Error> {
    // Without a value it does not take the sizer of the queue.
    let empty = || GivenBatch { sizer: Some(Joined::default().sizer), ..Default::default() };
    Option::deserialize(deserializer).map(|given| Some(given.unwrap_or_else(empty)))
}

impl Default for Given {
    fn default() -> Self {
        let Config { enabled, num_consumers, queue_size, .. } = Config::default();
        Self {
            enabled,
            num_consumers,
            queue_size,
            sizer: None,
            block_on_overflow: false,
            wait_for_result: false,
            storage: None,
            batch: None,
        }
    }
}

/// `batch` as it is written.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GivenBatch {
    enabled: bool,
    flush_timeout: Signed,
    sizer: Option<Sizer>,
    min_size: i64,
    max_size: i64,
    partition: Partition,
}

impl Default for GivenBatch {
    fn default() -> Self {
        let Joined { flush_timeout, min_size, max_size, partition, .. } = Joined::default();
        Self { enabled: true, flush_timeout, sizer: None, min_size, max_size, partition }
    }
}

impl From<Given> for Config {
    fn from(given: Given) -> Self {
        let of_queue = given.sizer;
        let joined = |batch: GivenBatch| Joined {
            flush_timeout: batch.flush_timeout,
            sizer: batch.sizer.or(of_queue).unwrap_or(Joined::default().sizer),
            min_size: batch.min_size,
            max_size: batch.max_size,
            partition: batch.partition,
        };
        Self {
            enabled: given.enabled,
            num_consumers: given.num_consumers,
            queue_size: given.queue_size,
            sizer: of_queue.unwrap_or(Self::default().sizer),
            block_on_overflow: given.block_on_overflow,
            wait_for_result: given.wait_for_result,
            storage: given.storage.filter(|id| !id.is_empty()),
            batch: given.batch.filter(|batch| batch.enabled).map(joined),
        }
    }
}

impl Config {
    /// Checks what types cannot say.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        if !self.enabled {
            return wrong;
        }
        let positive = "`num_consumers` must be positive";
        wrong.require(self.num_consumers > 0, "num_consumers", positive);
        wrong.require(self.queue_size > 0, "queue_size", "`queue_size` must be positive");
        if let Some(id) = &self.storage {
            wrong.require(
                !self.wait_for_result,
                "wait_for_result",
                "`wait_for_result` is not supported with a persistent queue configured with `storage`",
            );
            wrong.add(
                "storage",
                format!(
                    "storage {id:?} cannot be had: queues are in memory alone; leave the key out, and \
                     give `queue_size` and `retry_on_failure::max_elapsed_time` room for an outage"
                ),
            );
        }
        let Some(batch) = &self.batch else { return wrong };
        wrong.require(
            batch.sizer != self.sizer || batch.min_size <= self.queue_size,
            "batch::min_size",
            "`min_size` must be less than or equal to `queue_size`",
        );
        wrong.nest("batch", batch.check());
        wrong
    }
}

impl Joined {
    fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        if self.sizer == Sizer::Requests {
            let name = self.sizer.name();
            wrong.add(
                "sizer",
                format!("`batch` supports only `items` or `bytes` sizer, found {name:?}"),
            );
        }
        if self.flush_timeout.or_zero().is_zero() {
            let nanos = self.flush_timeout.nanos();
            let message = format!("`flush_timeout` must be positive, found {nanos}");
            wrong.add("flush_timeout", message);
        }
        let (min, max) = (self.min_size, self.max_size);
        for (key, size) in [("min_size", min), ("max_size", max)] {
            if size < 0 {
                wrong.add(key, format!("`{key}` must be non-negative, found {size}"));
            }
        }
        if max > 0 && max < min {
            wrong.add(
                "max_size",
                format!("`max_size` ({max}) must be greater or equal to `min_size` ({min})"),
            );
        }
        let mut seen = BTreeSet::new();
        for (at, key) in self.partition.metadata_keys.iter().enumerate() {
            let key = key.to_lowercase();
            if seen.contains(&key) {
                wrong.add(
                    format!("partition::metadata_keys::{at}"),
                    format!("duplicate entry in metadata_keys: {key:?} (case-insensitive)"),
                );
            }
            seen.insert(key);
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Section;

    fn read(config: Value) -> Config {
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn batching_is_off_until_it_is_named_and_takes_the_sizer_of_the_queue() {
        assert_eq!(read(json!({})).batch, None);
        assert_eq!(read(json!({"batch": {}})).batch, Some(Joined::default()));
        assert_eq!(read(json!({"sizer": "requests", "batch": {"enabled": false}})).batch, None);
        let sizer = |config| read(config).batch.map(|batch| batch.sizer);
        assert_eq!(sizer(json!({"batch": {"min_size": 1}})), Some(Sizer::Items));
        assert_eq!(sizer(json!({"sizer": "bytes", "batch": {"min_size": 1}})), Some(Sizer::Bytes));
        let both = json!({"sizer": "bytes", "batch": {"sizer": "items"}});
        assert_eq!(sizer(both), Some(Sizer::Items));
    }

    #[test]
    fn a_batch_without_a_value_is_one_of_the_defaults() {
        let read = |text: &str| Section::of_text(text).unwrap().parse::<Config>().unwrap();
        assert_eq!(read("batch:").batch, Some(Joined::default()));
        assert_eq!(read("sizer: bytes\nbatch:").batch, Some(Joined::default()));
        assert_eq!(read("{}").batch, None);
        let wrong = Section::of_text("batsh: {}").unwrap().parse::<Config>().unwrap_err();
        assert_eq!(wrong.0[0].hint.as_deref(), Some("did you mean `batch`?"));
    }

    #[test]
    fn mistakes_are_reported_as_the_collector_does() {
        for (config, path, message) in [
            (json!({"num_consumers": 0}), "num_consumers", "`num_consumers` must be positive"),
            (json!({"num_consumers": -1}), "num_consumers", "`num_consumers` must be positive"),
            (json!({"queue_size": 0}), "queue_size", "`queue_size` must be positive"),
            (
                json!({"queue_size": 9, "sizer": "items", "batch": {"min_size": 10}}),
                "batch::min_size",
                "`min_size` must be less than or equal to `queue_size`",
            ),
            (
                json!({"sizer": "requests", "batch": {"min_size": 10}}),
                "batch::sizer",
                "`batch` supports only `items` or `bytes` sizer, found \"requests\"",
            ),
            (
                json!({"batch": {"flush_timeout": 0}}),
                "batch::flush_timeout",
                "`flush_timeout` must be positive, found 0",
            ),
            (
                json!({"batch": {"flush_timeout": "-1s"}}),
                "batch::flush_timeout",
                "`flush_timeout` must be positive, found -1000000000",
            ),
            (
                json!({"batch": {"min_size": -1}}),
                "batch::min_size",
                "`min_size` must be non-negative, found -1",
            ),
            (
                json!({"batch": {"min_size": 0, "max_size": -1}}),
                "batch::max_size",
                "`max_size` must be non-negative, found -1",
            ),
            (
                json!({"batch": {"min_size": 2048, "max_size": 1024}}),
                "batch::max_size",
                "`max_size` (1024) must be greater or equal to `min_size` (2048)",
            ),
            (
                json!({"batch": {"partition": {"metadata_keys": ["a", "Key1", "kEy1"]}}}),
                "batch::partition::metadata_keys::2",
                "duplicate entry in metadata_keys: \"key1\" (case-insensitive)",
            ),
        ] {
            let wrong = read(config.clone()).check().0;
            let found: Vec<_> = wrong.iter().map(|m| (&*m.path, &*m.message)).collect();
            assert_eq!(found, [(path, message)], "{config}");
            let mut off = config;
            off["enabled"] = json!(false);
            assert_eq!(read(off.clone()).check(), Mistakes::default(), "{off}");
        }
        // What other units count may be less.
        assert_eq!(read(json!({"sizer": "bytes", "batch": {"sizer": "items"}})).check().0, []);
        let wrong = read(json!({"storage": "file_storage", "wait_for_result": true})).check().0;
        let paths: Vec<_> = wrong.iter().map(|mistake| &*mistake.path).collect();
        assert_eq!(paths, ["wait_for_result", "storage"]);
        let unknown = serde_json::from_value::<Config>(json!({"sizer": "x"})).unwrap_err();
        assert!(unknown.to_string().starts_with("invalid sizer: \"x\""), "{unknown}");
    }
}
