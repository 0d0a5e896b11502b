//! Prints what comes through, to see that and what it is.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue as Attribute, any_value},
    metrics::v1::{Metric, metric::Data, number_data_point},
};

use crate::{
    batch::{Batch, Signal},
    channel::Input,
    component::{Component, Context, Exporter},
    config::Mistakes,
    telemetry::Items,
};

/// How much is printed.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verbosity {
    /// One line per batch.
    #[default]
    Basic,
    /// One line per item as well.
    Normal,
    /// Every field as well.
    Detailed,
}

/// The configuration.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// How much is printed: basic, normal or detailed.
    #[serde(deserialize_with = "crate::config::any_case")]
    pub verbosity: Verbosity,
    /// Batches printed in each second before sampling begins.
    pub sampling_initial: u64,
    /// From then on every n-th batch is printed; 0 prints none.
    pub sampling_thereafter: u64,
    /// Print to the agent's own log, at level info; otherwise to standard output.
    pub use_internal_logger: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            verbosity: Verbosity::Basic,
            sampling_initial: 2,
            sampling_thereafter: 1,
            use_internal_logger: true,
        }
    }
}

/// The exporter.
pub(super) struct Debug(Config);

impl Component for Debug {
    const NAME: &'static str = "debug";
    const DESCRIPTION: &'static str = "Prints what comes through.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str = "verbosity: normal";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        Ok(Self(config))
    }
}

impl Exporter for Debug {
    async fn run(self, cx: Context, mut input: Input) -> anyhow::Result<()> {
        let exporter = KeyValue::new("exporter", cx.id.to_string());
        let sent = Items::new(&cx.meter, "otelcol_exporter_sent", &[exporter]);
        let mut sampling = Sampling { second: Instant::now(), seen: 0 };
        while let Some(batch) = input.recv().await {
            sent.add(batch.signal(), batch.items());
            if !sampling.keeps(&self.0, Instant::now()) {
                continue;
            }
            let text = describe(&batch, self.0.verbosity);
            if self.0.use_internal_logger {
                tracing::info!(exporter = %cx.id, "{text}");
            } else {
                writeln!(std::io::stdout().lock(), "{text}")?;
            }
        }
        Ok(())
    }
}

/// What was seen in the current second.
struct Sampling {
    second: Instant,
    seen: u64,
}

impl Sampling {
    fn keeps(&mut self, config: &Config, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self { second: now, seen: 0 };
        }
        self.seen += 1;
        match self.seen.checked_sub(config.sampling_initial) {
            None | Some(0) => true,
            Some(after) => after.checked_rem(config.sampling_thereafter) == Some(0),
        }
    }
}

fn describe(batch: &Batch, verbosity: Verbosity) -> String {
    let items = batch.items();
    let mut out = match batch {
        Batch::Metrics(request) => {
            let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
            let metrics: usize = scopes.map(|s| s.metrics.len()).sum();
            let resources = request.resource_metrics.len();
            format!(
                r#"Metrics {{"resource metrics": {resources}, "metrics": {metrics}, "data points": {items}}}"#
            )
        }
        Batch::Logs(request) => {
            let resources = request.resource_logs.len();
            format!(r#"Logs {{"resource logs": {resources}, "log records": {items}}}"#)
        }
        Batch::Traces(request) => {
            let resources = request.resource_spans.len();
            format!(r#"Traces {{"resource spans": {resources}, "spans": {items}}}"#)
        }
    };
    // Writing to a String cannot fail.
    let _ = match verbosity {
        Verbosity::Basic => Ok(()),
        Verbosity::Normal => lines(&mut out, batch),
        Verbosity::Detailed => match batch {
            Batch::Metrics(request) => write!(out, "\n{request:#?}"),
            Batch::Logs(request) => write!(out, "\n{request:#?}"),
            Batch::Traces(request) => write!(out, "\n{request:#?}"),
        },
    };
    out
}

fn lines(out: &mut String, batch: &Batch) -> std::fmt::Result {
    match batch {
        Batch::Metrics(request) => {
            let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
            for metric in scopes.flat_map(|s| &s.metrics) {
                points(out, metric)?;
            }
        }
        Batch::Logs(request) => {
            let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
            for record in scopes.flat_map(|s| &s.log_records) {
                let body = record.body.as_ref().map(value).unwrap_or_default();
                write!(out, "\n{body}{}", attributes(&record.attributes))?;
            }
        }
        Batch::Traces(request) => {
            let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
            for span in scopes.flat_map(|s| &s.spans) {
                write!(out, "\n{}{}", span.name, attributes(&span.attributes))?;
            }
        }
    }
    Ok(())
}

fn points(out: &mut String, metric: &Metric) -> std::fmt::Result {
    let name = &metric.name;
    match &metric.data {
        Some(Data::Gauge(gauge)) => numbers(out, name, &gauge.data_points),
        Some(Data::Sum(sum)) => numbers(out, name, &sum.data_points),
        Some(Data::Histogram(histogram)) => histogram.data_points.iter().try_for_each(|p| {
            let (attributes, sum) = (attributes(&p.attributes), p.sum.unwrap_or(f64::NAN));
            write!(out, "\n{name}{attributes} count={} sum={sum}", p.count)
        }),
        Some(Data::ExponentialHistogram(histogram)) => {
            histogram.data_points.iter().try_for_each(|p| {
                let (attributes, sum) = (attributes(&p.attributes), p.sum.unwrap_or(f64::NAN));
                write!(out, "\n{name}{attributes} count={} sum={sum} scale={}", p.count, p.scale)
            })
        }
        Some(Data::Summary(summary)) => summary.data_points.iter().try_for_each(|p| {
            let attributes = attributes(&p.attributes);
            write!(out, "\n{name}{attributes} count={} sum={}", p.count, p.sum)
        }),
        None => Ok(()),
    }
}

fn numbers(
    out: &mut String,
    name: &str,
    points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint],
) -> std::fmt::Result {
    points.iter().try_for_each(|point| {
        write!(out, "\n{name}{}", attributes(&point.attributes))?;
        match point.value {
            Some(number_data_point::Value::AsInt(value)) => write!(out, " {value}"),
            Some(number_data_point::Value::AsDouble(value)) => write!(out, " {value}"),
            None => Ok(()),
        }
    })
}

fn attributes(attributes: &[Attribute]) -> String {
    if attributes.is_empty() {
        return String::new();
    }
    let pair =
        |a: &Attribute| format!("{}={}", a.key, a.value.as_ref().map(value).unwrap_or_default());
    format!("{{{}}}", attributes.iter().map(pair).collect::<Vec<_>>().join(","))
}

fn value(value: &AnyValue) -> String {
    match &value.value {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::SystemTime};

    use super::*;
    use crate::metric::{Kind, Metric as Described, Points};

    const READS: Described = Described {
        name: "reads",
        unit: "{read}",
        kind: Kind::Counter,
        description: "",
        caveat: "",
        attributes: &[],
    };

    #[test]
    fn a_batch_in_one_line_or_one_line_per_point() {
        let now = SystemTime::now();
        let disabled = BTreeSet::new();
        let mut made = Points::new(now, now, &disabled);
        made.counter(&READS, &[("device", "sda")], 7);
        made.counter(&READS, &[("device", "sdb")], 8);
        let batch = made.into_batch(&[], "test");
        let basic = r#"Metrics {"resource metrics": 1, "metrics": 1, "data points": 2}"#;
        assert_eq!(describe(&batch, Verbosity::Basic), basic);
        let normal = format!("{basic}\nreads{{device=sda}} 7\nreads{{device=sdb}} 8");
        assert_eq!(describe(&batch, Verbosity::Normal), normal);
    }

    #[test]
    fn after_the_first_of_a_second_every_nth_is_printed() {
        let config = Config { sampling_initial: 2, sampling_thereafter: 3, ..Default::default() };
        let now = Instant::now();
        let mut sampling = Sampling { second: now, seen: 0 };
        let kept: Vec<_> = (1..=9).filter(|_| sampling.keeps(&config, now)).collect();
        assert_eq!(kept, [1, 2, 5, 8]);
        assert!(sampling.keeps(&config, now + Duration::from_secs(1)));
    }
}
