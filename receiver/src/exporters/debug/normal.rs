//! `verbosity: normal`: a line for each resource, scope and item.

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue},
    metrics::v1::{
        ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
        SummaryDataPoint, metric::Data, number_data_point::Value as Number,
    },
};

use super::{hex, of_resource};
use crate::{batch::Batch, value};

/// The lines of a batch.
pub fn text(batch: &Batch) -> String {
    let mut lines = Vec::new();
    match batch {
        Batch::Metrics(request) => {
            for (at, resource) in request.resource_metrics.iter().enumerate() {
                let attributes = of_resource(&resource.resource);
                lines.push(of_whole("ResourceMetrics", at, &resource.schema_url, attributes));
                for scope in &resource.scope_metrics {
                    lines.push(of_scope("ScopeMetrics", at, &scope.schema_url, &scope.scope));
                    scope.metrics.iter().for_each(|metric| points(&mut lines, metric));
                }
            }
        }
        Batch::Logs(request) => {
            for (at, resource) in request.resource_logs.iter().enumerate() {
                let attributes = of_resource(&resource.resource);
                lines.push(of_whole("ResourceLog", at, &resource.schema_url, attributes));
                for scope in &resource.scope_logs {
                    lines.push(of_scope("ScopeLog", at, &scope.schema_url, &scope.scope));
                    lines.extend(scope.log_records.iter().map(|record| {
                        let body = record.body.as_ref().and_then(|body| body.value.as_ref());
                        format!("{} {}", value::text(body), pairs(&record.attributes, " "))
                    }));
                }
            }
        }
        Batch::Traces(request) => {
            for (at, resource) in request.resource_spans.iter().enumerate() {
                let attributes = of_resource(&resource.resource);
                lines.push(of_whole("ResourceTraces", at, &resource.schema_url, attributes));
                for scope in &resource.scope_spans {
                    lines.push(of_scope("ScopeTraces", at, &scope.schema_url, &scope.scope));
                    lines.extend(scope.spans.iter().map(|span| {
                        let (trace, id) = (hex(&span.trace_id), hex(&span.span_id));
                        format!("{} {trace} {id}{}", span.name, after(&span.attributes))
                    }));
                }
            }
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn of_whole(what: &str, at: usize, schema: &str, attributes: &[KeyValue]) -> String {
    let schema = if schema.is_empty() { String::new() } else { format!(" [{schema}]") };
    format!("{what} #{at}{schema}{}", after(attributes))
}

/// The line of a scope. Its number is that of the resource, as in the Collector.
fn of_scope(what: &str, at: usize, schema: &str, scope: &Option<InstrumentationScope>) -> String {
    let scope = scope.clone().unwrap_or_default();
    let version = match scope.version.as_str() {
        "" => String::new(),
        version => format!("@{version}"),
    };
    let named = scope.name + &version;
    let schema = if schema.is_empty() { String::new() } else { format!("[{schema}]") };
    let parts: String =
        [named, schema].iter().filter(|part| !part.is_empty()).map(|p| format!(" {p}")).collect();
    format!("{what} #{at}{parts}{}", after(&scope.attributes))
}

fn pairs(attributes: &[KeyValue], between: &str) -> String {
    let pair = |attribute: &KeyValue| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        format!("{}={}", attribute.key, value::text(value))
    };
    attributes.iter().map(pair).collect::<Vec<_>>().join(between)
}

fn after(attributes: &[KeyValue]) -> String {
    match attributes.is_empty() {
        true => String::new(),
        false => format!(" {}", pairs(attributes, " ")),
    }
}

fn points(lines: &mut Vec<String>, metric: &Metric) {
    let mut add = |attributes: &[KeyValue], value: String| {
        lines.push(format!("{}{{{}}} {value}", metric.name, pairs(attributes, ",")));
    };
    match &metric.data {
        Some(Data::Gauge(data)) => {
            data.data_points.iter().for_each(|p| add(&p.attributes, number(p)));
        }
        Some(Data::Sum(data)) => {
            data.data_points.iter().for_each(|p| add(&p.attributes, number(p)));
        }
        Some(Data::Histogram(data)) => {
            data.data_points.iter().for_each(|p| add(&p.attributes, histogram(p)));
        }
        Some(Data::ExponentialHistogram(data)) => {
            data.data_points.iter().for_each(|p| add(&p.attributes, exponential(p)));
        }
        Some(Data::Summary(data)) => {
            data.data_points.iter().for_each(|p| add(&p.attributes, summary(p)));
        }
        None => {}
    }
}

fn number(point: &NumberDataPoint) -> String {
    match point.value {
        Some(Number::AsInt(value)) => value.to_string(),
        Some(Number::AsDouble(value)) => short(value),
        None => String::new(),
    }
}

fn counted(count: u64, fields: [(&str, Option<f64>); 3]) -> String {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let rest: String = given.map(|(name, value)| format!(" {name}={}", short(value))).collect();
    format!("count={count}{rest}")
}

fn histogram(point: &HistogramDataPoint) -> String {
    let mut text =
        counted(point.count, [("sum", point.sum), ("min", point.min), ("max", point.max)]);
    let mut bounds = point.explicit_bounds.iter();
    for count in &point.bucket_counts {
        text += &match bounds.next() {
            Some(bound) => format!(" le{}={count}", short(*bound)),
            None => format!(" {count}"),
        };
    }
    text
}

fn exponential(point: &ExponentialHistogramDataPoint) -> String {
    let mut text =
        counted(point.count, [("sum", point.sum), ("min", point.min), ("max", point.max)]);
    let bound = |index: f64| (index * std::f64::consts::LN_2 * 2_f64.powi(-point.scale)).exp();
    if let Some(negative) = &point.negative {
        for (at, count) in negative.bucket_counts.iter().enumerate().rev() {
            let index = f64::from(negative.offset) + at as f64;
            text += &format!(" le{}={count}", short(-bound(index)));
        }
    }
    if point.zero_count != 0 {
        text += &format!(" zero={}", point.zero_count);
    }
    if let Some(positive) = &point.positive {
        for (at, count) in positive.bucket_counts.iter().enumerate() {
            let index = f64::from(positive.offset) + at as f64 + 1.0;
            text += &format!(" le{}={count}", short(bound(index)));
        }
    }
    text
}

fn summary(point: &SummaryDataPoint) -> String {
    let quantiles: String = point
        .quantile_values
        .iter()
        .map(|q| format!(" q{}={}", short(q.quantile), short(q.value)))
        .collect();
    format!("count={} sum={:.6}{quantiles}", point.count, point.sum)
}

/// A number as Go prints it: short, and with an exponent where it is far from 1.
pub fn short(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return infinite(value);
    };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

/// What is no finite number, as Go prints it.
pub fn infinite(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf",
        f64::NEG_INFINITY => "-Inf",
        _ => "NaN",
    }
    .to_owned()
}
