//! The metrics as a Prometheus knows them.

use fathom::{
    metric::{Kind, Metric},
    prometheus_names::{Names, Suffix},
    receivers::RECEIVERS,
};

/// The metric of that OpenTelemetry name.
pub fn metric(name: &str) -> &'static Metric {
    let mut metrics = RECEIVERS.iter().flat_map(|receiver| receiver.metrics);
    metrics
        .find(|metric| metric.name == name)
        .unwrap_or_else(|| panic!("no metric is called {name}"))
}

/// What a metric is called by the exporter's default translation.
pub fn name(metric: &Metric) -> String {
    let suffix = match metric.kind {
        Kind::Counter => Suffix::Total,
        Kind::Gauge => Suffix::Ratio,
        Kind::UpDownCounter | Kind::ExponentialHistogram => Suffix::None,
    };
    Names::default().metric(metric.name, metric.unit, suffix).expect("names of letters")
}

/// What a metric's attributes are called.
pub fn labels(metric: &Metric) -> Vec<String> {
    metric.attributes.iter().map(|attribute| Names::default().label(attribute.name)).collect()
}
