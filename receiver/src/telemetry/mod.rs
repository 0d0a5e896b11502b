//! The agent's own metrics, logs and spans, under the Collector's names: `service::telemetry`.

mod logs;
mod metrics;
mod push;
pub mod recent;
mod resource;
mod traces;

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::{logs::KEPT, traces::TARGET as SPANS};
pub use self::{
    logs::{Exports, Logs, init as init_logs},
    metrics::Telemetry,
};
use crate::{batch::Signal, config::Mistakes};

/// How long the last of the agent's own telemetry may take at its end, all together.
const DEADLINE: Duration = Duration::from_secs(3);

/// `service::telemetry`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The agent's logs.
    pub logs: logs::Config,
    /// The agent's metrics.
    pub metrics: metrics::Config,
    /// The agent's own spans.
    pub traces: traces::Config,
    /// Attributes of the agent itself; null takes away one that it has by itself.
    pub resource: resource::Config,
}

impl Config {
    /// The keys that differ in `next` and are read at the start alone.
    pub fn fixed_changes(&self, next: &Self) -> Vec<&'static str> {
        [
            ("service::telemetry::logs (all but level)", self.logs.is_like(&next.logs)),
            ("service::telemetry::metrics", self.metrics == next.metrics),
            ("service::telemetry::traces", self.traces == next.traces),
            ("service::telemetry::resource", self.resource == next.resource),
        ]
        .into_iter()
        .filter_map(|(key, same)| (!same).then_some(key))
        .collect()
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), Mistakes> {
        let mut wrong = Mistakes::default();
        if let Err(nested) = self.metrics.check() {
            wrong.nest("metrics", nested);
        }
        wrong.nest("logs", self.logs.check());
        wrong.nest("traces", self.traces.check());
        wrong.nest("resource", self.resource.check());
        wrong.or(())
    }
}

/// Counts of items that pass.
#[derive(Clone)]
pub struct Items {
    counters: [(Counter<u64>, Vec<KeyValue>); 3],
}

impl Items {
    /// An instrument per signal: `<name>_metric_points`, `_log_records`, `_spans`.
    pub fn new(meter: &Meter, name: &str, attributes: &[KeyValue]) -> Self {
        Self::each(meter, name, |_| attributes.to_vec())
    }

    /// The same with attributes that differ by signal.
    pub fn each(meter: &Meter, name: &str, of: impl Fn(Signal) -> Vec<KeyValue>) -> Self {
        let counters = Signal::ALL.map(|signal| {
            let counter = meter.u64_counter(format!("{name}_{}", signal.items())).build();
            (counter, of(signal))
        });
        Self { counters }
    }

    /// One instrument, `<name>_items`, with the signal as an attribute.
    pub fn by_attribute(meter: &Meter, name: &str, attributes: &[KeyValue]) -> Self {
        let counter = meter.u64_counter(format!("{name}_items")).build();
        let counters = Signal::ALL.map(|signal| {
            let mut attributes = attributes.to_vec();
            attributes.push(KeyValue::new("otel.signal", signal.name()));
            (counter.clone(), attributes)
        });
        Self { counters }
    }

    /// Counts `items` of `signal`.
    pub fn add(&self, signal: Signal, items: usize) {
        let (counter, attributes) = &self.counters[signal as usize];
        counter.add(items as u64, attributes);
    }
}
