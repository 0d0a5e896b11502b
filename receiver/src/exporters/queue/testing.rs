//! A context whose meter can be read, for the tests of exporters.

use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::Queues;
use crate::{component::Context, config::Id};

/// What was counted.
pub(crate) struct Metered {
    registry: Registry,
    _provider: SdkMeterProvider,
}

/// The context of an exporter, and the reader of its counts.
pub(crate) fn context(kind: &str) -> (Context, Metered) {
    let registry = Registry::new();
    let reader = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .without_counter_suffixes()
        .without_units()
        .without_target_info()
        .build()
        .unwrap();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let id = Id { kind: kind.to_owned(), name: String::new() };
    let meter = provider.meter("test");
    let cx = Context {
        id,
        queues: Queues::new(&meter),
        meter,
        stop: CancellationToken::new(),
        authenticators: Default::default(),
        status: Default::default(),
        statuses: Default::default(),
        tasks: Default::default(),
        heritage: Default::default(),
    };
    (cx, Metered { registry, _provider: provider })
}

impl Metered {
    /// The sum of all counters whose names start with `prefix`.
    pub(crate) fn count(&self, prefix: &str) -> u64 {
        self.sum(prefix, |metric| metric.get_counter().get_value())
    }

    /// The sum of all gauges whose names start with `prefix`.
    pub(crate) fn gauge(&self, prefix: &str) -> u64 {
        self.sum(prefix, |metric| metric.get_gauge().get_value())
    }

    /// The labels of the series of a metric.
    pub(crate) fn labels(&self, name: &str) -> Vec<String> {
        let families = self.registry.gather();
        let of = families.iter().filter(|f| f.name() == name).flat_map(|f| f.get_metric());
        of.map(|series| {
            let labels = series.get_label().iter().filter(|l| !l.name().starts_with("otel_scope"));
            let labels: Vec<_> = labels.map(|l| format!("{}={}", l.name(), l.value())).collect();
            labels.join(",")
        })
        .collect()
    }

    fn sum(&self, prefix: &str, value: impl Fn(&prometheus::proto::Metric) -> f64) -> u64 {
        let families = self.registry.gather();
        families
            .iter()
            .filter(|f| f.name().starts_with(prefix))
            .flat_map(|f| f.get_metric())
            .map(value)
            .sum::<f64>() as u64
    }

    /// Waits until `count(prefix)` is at least `at_least`.
    pub(crate) async fn wait_for(&self, prefix: &str, at_least: u64) {
        let reached = async {
            while self.count(prefix) < at_least {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let limit = Duration::from_secs(600);
        tokio::time::timeout(limit, reached).await.unwrap_or_else(|_| {
            panic!("{prefix}* reached {} of {at_least}", self.count(prefix));
        });
    }
}
