//! The agent's own metrics and logs, under the Collector's names.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use crate::{batch::Signal, config::Mistakes};

/// A count of items, one instrument per signal: `<name>_metric_points`, `_log_records`, `_spans`.
#[derive(Clone)]
pub struct Items {
    counters: [Counter<u64>; 3],
    attributes: Vec<KeyValue>,
}

impl Items {
    /// Instruments of the given name, every count with these attributes.
    pub fn new(meter: &Meter, name: &str, attributes: &[KeyValue]) -> Self {
        let counters =
            Signal::ALL.map(|s| meter.u64_counter(format!("{name}_{}", s.items())).build());
        Self { counters, attributes: attributes.to_vec() }
    }

    /// Counts `items` of `signal`.
    pub fn add(&self, signal: Signal, items: usize) {
        let at = Signal::ALL.iter().position(|s| *s == signal).unwrap_or_default();
        self.counters[at].add(items as u64, &self.attributes);
    }
}

/// `service::telemetry`.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

impl Config {
    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), Mistakes> {
        Ok(())
    }
}

/// Sets up the agent's logs.
pub fn init_logs(_: &Config) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    Ok(())
}

/// The agent's own metrics.
pub struct Telemetry {
    provider: opentelemetry_sdk::metrics::SdkMeterProvider,
    meter: Meter,
}

impl Telemetry {
    /// Starts it.
    pub async fn start(_: &Config) -> anyhow::Result<Self> {
        use opentelemetry::metrics::MeterProvider as _;
        let provider = opentelemetry_sdk::metrics::SdkMeterProvider::default();
        let meter = provider.meter("fathom");
        Ok(Self { provider, meter })
    }
    /// Makes instruments.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
    /// Flushes.
    pub async fn shutdown(self) {
        drop(self.provider);
    }
}
