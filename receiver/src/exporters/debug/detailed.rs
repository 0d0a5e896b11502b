//! `verbosity: detailed`: every field on a line.

use std::fmt::Display;

use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Exemplar, ExponentialHistogramDataPoint, Metric, NumberDataPoint,
        exemplar, metric::Data, number_data_point::Value as Number,
    },
    resource::v1::Resource,
    trace::v1::{Span, span},
};

use super::{hex, normal::infinite, of_resource};
use crate::{batch::Batch, value};

/// The lines of a batch.
pub fn text(batch: &Batch) -> String {
    let mut lines = Lines::default();
    match batch {
        Batch::Metrics(request) => {
            for (at, of) in request.resource_metrics.iter().enumerate() {
                lines.resource("ResourceMetrics", at, &of.schema_url, &of.resource);
                for (at, of) in of.scope_metrics.iter().enumerate() {
                    lines.scope("ScopeMetrics", at, &of.schema_url, &of.scope);
                    for (at, metric) in of.metrics.iter().enumerate() {
                        lines.add(format!("Metric #{at}"));
                        lines.metric(metric);
                    }
                }
            }
        }
        Batch::Logs(request) => {
            for (at, of) in request.resource_logs.iter().enumerate() {
                lines.resource("ResourceLog", at, &of.schema_url, &of.resource);
                for (at, of) in of.scope_logs.iter().enumerate() {
                    lines.scope("ScopeLogs", at, &of.schema_url, &of.scope);
                    for (at, record) in of.log_records.iter().enumerate() {
                        lines.add(format!("LogRecord #{at}"));
                        lines.field("ObservedTimestamp", time(record.observed_time_unix_nano));
                        lines.field("Timestamp", time(record.time_unix_nano));
                        lines.field("SeverityText", &record.severity_text);
                        let (name, number) =
                            (severity(record.severity_number), record.severity_number);
                        lines.field("SeverityNumber", format!("{name}({number})"));
                        if !record.event_name.is_empty() {
                            lines.field("EventName", &record.event_name);
                        }
                        lines.field("Body", typed(record.body.as_ref()));
                        lines.attributes("", "Attributes", &record.attributes);
                        lines.field("Trace ID", hex(&record.trace_id));
                        lines.field("Span ID", hex(&record.span_id));
                        lines.field("Flags", record.flags);
                    }
                }
            }
        }
        Batch::Traces(request) => {
            for (at, of) in request.resource_spans.iter().enumerate() {
                lines.resource("ResourceSpans", at, &of.schema_url, &of.resource);
                for (at, of) in of.scope_spans.iter().enumerate() {
                    lines.scope("ScopeSpans", at, &of.schema_url, &of.scope);
                    for (at, span) in of.spans.iter().enumerate() {
                        lines.add(format!("Span #{at}"));
                        lines.span(span);
                    }
                }
            }
        }
    }
    lines.0
}

/// What is nested stands this far to the right.
const NESTED: &str = "     ";

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    fn field(&mut self, name: &str, value: impl Display) {
        self.add(format!("{name}: {value}"));
    }

    fn nested(&mut self, name: &str, value: impl Display) {
        self.add(format!("{NESTED}-> {name}: {value}"));
    }

    fn aligned(&mut self, name: &str, value: impl Display) {
        self.add(format!("    {name:<15}: {value}"));
    }

    /// Nothing if there are none.
    fn attributes(&mut self, before: &str, header: &str, attributes: &[KeyValue]) {
        if attributes.is_empty() {
            return;
        }
        let arrow = if before.is_empty() { "" } else { "-> " };
        self.add(format!("{before}{arrow}{header}:"));
        for attribute in attributes {
            let (key, value) = (&attribute.key, typed(attribute.value.as_ref()));
            self.add(format!("{before}{NESTED}-> {key}: {value}"));
        }
    }

    fn resource(&mut self, what: &str, at: usize, schema: &str, resource: &Option<Resource>) {
        self.add(format!("{what} #{at}"));
        self.field("Resource SchemaURL", schema);
        self.attributes("", "Resource attributes", of_resource(resource));
        let entities = resource.as_ref().map_or(&[][..], |resource| &resource.entity_refs);
        if !entities.is_empty() {
            self.add("Resource entity refs:");
        }
        for (at, entity) in entities.iter().enumerate() {
            self.add(format!("{NESTED}-> Entity ref #{at}:"));
            let further = NESTED.repeat(2);
            self.add(format!("{further}-> Type: {}", entity.r#type));
            if !entity.schema_url.is_empty() {
                self.add(format!("{further}-> Schema URL: {}", entity.schema_url));
            }
            for (name, keys) in
                [("ID keys", &entity.id_keys), ("Description keys", &entity.description_keys)]
            {
                if !keys.is_empty() {
                    self.add(format!("{further}-> {name}:"));
                }
                keys.iter().for_each(|key| self.add(format!("{further}{NESTED}-> {key}")));
            }
        }
    }

    fn scope(&mut self, what: &str, at: usize, schema: &str, scope: &Option<InstrumentationScope>) {
        self.add(format!("{what} #{at}"));
        self.field(&format!("{what} SchemaURL"), schema);
        let scope = scope.clone().unwrap_or_default();
        self.add(format!("InstrumentationScope {} {}", scope.name, scope.version));
        self.attributes("", "InstrumentationScope attributes", &scope.attributes);
    }

    fn metric(&mut self, metric: &Metric) {
        let kind = match metric.data {
            None => "Empty",
            Some(Data::Gauge(_)) => "Gauge",
            Some(Data::Sum(_)) => "Sum",
            Some(Data::Histogram(_)) => "Histogram",
            Some(Data::ExponentialHistogram(_)) => "ExponentialHistogram",
            Some(Data::Summary(_)) => "Summary",
        };
        self.add("Descriptor:");
        self.nested("Name", &metric.name);
        self.nested("Description", &metric.description);
        self.nested("Unit", &metric.unit);
        self.nested("DataType", kind);
        self.attributes(NESTED, "Metadata", &metric.metadata);
        match &metric.data {
            None => {}
            Some(Data::Gauge(data)) => self.numbers(&data.data_points),
            Some(Data::Sum(data)) => {
                self.nested("IsMonotonic", data.is_monotonic);
                self.temporality(data.aggregation_temporality);
                self.numbers(&data.data_points);
            }
            Some(Data::Histogram(data)) => {
                self.temporality(data.aggregation_temporality);
                for (at, p) in data.data_points.iter().enumerate() {
                    let times = (p.start_time_unix_nano, p.time_unix_nano);
                    self.point("HistogramDataPoints", at, &p.attributes, times);
                    self.counted(p.count, [("Sum", p.sum), ("Min", p.min), ("Max", p.max)]);
                    for (at, bound) in p.explicit_bounds.iter().enumerate() {
                        self.field(&format!("ExplicitBounds #{at}"), fixed(*bound));
                    }
                    for (at, count) in p.bucket_counts.iter().enumerate() {
                        self.add(format!("Buckets #{at}, Count: {count}"));
                    }
                    self.exemplars(&p.exemplars);
                }
            }
            Some(Data::ExponentialHistogram(data)) => {
                self.temporality(data.aggregation_temporality);
                for (at, point) in data.data_points.iter().enumerate() {
                    self.exponential(at, point);
                }
            }
            Some(Data::Summary(data)) => {
                for (at, p) in data.data_points.iter().enumerate() {
                    let times = (p.start_time_unix_nano, p.time_unix_nano);
                    self.point("SummaryDataPoints", at, &p.attributes, times);
                    self.counted(p.count, [("Sum", Some(p.sum)), ("", None), ("", None)]);
                    for (at, q) in p.quantile_values.iter().enumerate() {
                        let (quantile, value) = (fixed(q.quantile), fixed(q.value));
                        self.add(format!(
                            "QuantileValue #{at}: Quantile {quantile}, Value {value}"
                        ));
                    }
                }
            }
        }
    }

    fn temporality(&mut self, temporality: i32) {
        let name = match AggregationTemporality::try_from(temporality) {
            Ok(AggregationTemporality::Unspecified) => "Unspecified",
            Ok(AggregationTemporality::Delta) => "Delta",
            Ok(AggregationTemporality::Cumulative) => "Cumulative",
            Err(_) => "",
        };
        self.nested("AggregationTemporality", name);
    }

    fn point(&mut self, what: &str, at: usize, attributes: &[KeyValue], times: (u64, u64)) {
        self.add(format!("{what} #{at}"));
        self.attributes("", "Data point attributes", attributes);
        self.field("StartTimestamp", time(times.0));
        self.field("Timestamp", time(times.1));
    }

    fn counted(&mut self, count: u64, fields: [(&str, Option<f64>); 3]) {
        self.field("Count", count);
        for (name, value) in fields {
            if let Some(value) = value {
                self.field(name, fixed(value));
            }
        }
    }

    fn numbers(&mut self, points: &[NumberDataPoint]) {
        for (at, p) in points.iter().enumerate() {
            let times = (p.start_time_unix_nano, p.time_unix_nano);
            self.point("NumberDataPoints", at, &p.attributes, times);
            match p.value {
                Some(Number::AsInt(value)) => self.field("Value", value),
                Some(Number::AsDouble(value)) => self.field("Value", fixed(value)),
                None => {}
            }
            self.exemplars(&p.exemplars);
        }
    }

    fn exponential(&mut self, at: usize, p: &ExponentialHistogramDataPoint) {
        let times = (p.start_time_unix_nano, p.time_unix_nano);
        self.point("ExponentialHistogramDataPoints", at, &p.attributes, times);
        self.counted(p.count, [("Sum", p.sum), ("Min", p.min), ("Max", p.max)]);
        let bound = |index: f64| (index * std::f64::consts::LN_2 * 2_f64.powi(-p.scale)).exp();
        if let Some(negative) = &p.negative {
            for (at, count) in negative.bucket_counts.iter().enumerate().rev() {
                let index = f64::from(negative.offset) + at as f64;
                let (lower, upper) = (fixed(-bound(index + 1.0)), fixed(-bound(index)));
                self.add(format!("Bucket [{lower}, {upper}), Count: {count}"));
            }
        }
        if p.zero_count != 0 {
            self.add(format!("Bucket [0, 0], Count: {}", p.zero_count));
        }
        if let Some(positive) = &p.positive {
            for (at, count) in positive.bucket_counts.iter().enumerate() {
                let index = f64::from(positive.offset) + at as f64;
                let (lower, upper) = (fixed(bound(index)), fixed(bound(index + 1.0)));
                self.add(format!("Bucket ({lower}, {upper}], Count: {count}"));
            }
        }
        self.exemplars(&p.exemplars);
    }

    fn exemplars(&mut self, exemplars: &[Exemplar]) {
        if !exemplars.is_empty() {
            self.add("Exemplars:");
        }
        for (at, exemplar) in exemplars.iter().enumerate() {
            self.add(format!("Exemplar #{at}"));
            self.nested("Trace ID", hex(&exemplar.trace_id));
            self.nested("Span ID", hex(&exemplar.span_id));
            self.nested("Timestamp", time(exemplar.time_unix_nano));
            match exemplar.value {
                Some(exemplar::Value::AsInt(value)) => self.nested("Value", value),
                Some(exemplar::Value::AsDouble(value)) => self.nested("Value", fixed(value)),
                None => {}
            }
            self.attributes(NESTED, "FilteredAttributes", &exemplar.filtered_attributes);
        }
    }

    fn span(&mut self, span: &Span) {
        self.aligned("Trace ID", hex(&span.trace_id));
        self.aligned("Parent ID", hex(&span.parent_span_id));
        self.aligned("ID", hex(&span.span_id));
        self.aligned("Name", &span.name);
        self.aligned("Kind", kind(span.kind));
        if !span.trace_state.is_empty() {
            self.aligned("TraceState", &span.trace_state);
        }
        self.aligned("Start time", time(span.start_time_unix_nano));
        self.aligned("End time", time(span.end_time_unix_nano));
        let status = span.status.clone().unwrap_or_default();
        let code = match status.code {
            0 => "Unset",
            1 => "Ok",
            2 => "Error",
            _ => "",
        };
        self.aligned("Status code", code);
        self.aligned("Status message", status.message);
        self.aligned("DroppedAttributesCount", span.dropped_attributes_count);
        self.aligned("DroppedEventsCount", span.dropped_events_count);
        self.aligned("DroppedLinksCount", span.dropped_links_count);
        self.attributes("", "Attributes", &span.attributes);
        if !span.events.is_empty() {
            self.add("Events:");
        }
        for (at, event) in span.events.iter().enumerate() {
            self.add(format!("SpanEvent #{at}"));
            self.nested("Name", &event.name);
            self.nested("Timestamp", time(event.time_unix_nano));
            self.nested("DroppedAttributesCount", event.dropped_attributes_count);
            // With two colons, as in the Collector.
            self.attributes(NESTED, "Attributes:", &event.attributes);
        }
        if !span.links.is_empty() {
            self.add("Links:");
        }
        for (at, link) in span.links.iter().enumerate() {
            self.add(format!("SpanLink #{at}"));
            self.nested("Trace ID", hex(&link.trace_id));
            self.nested("ID", hex(&link.span_id));
            self.nested("TraceState", &link.trace_state);
            self.nested("DroppedAttributesCount", link.dropped_attributes_count);
            self.attributes(NESTED, "Attributes:", &link.attributes);
        }
    }
}

/// A value after its type.
fn typed(any: Option<&AnyValue>) -> String {
    let value = any.and_then(|any| any.value.as_ref());
    let name = match value {
        None | Some(Value::StringValueStrindex(_)) => "Empty",
        Some(Value::StringValue(_)) => "Str",
        Some(Value::BoolValue(_)) => "Bool",
        Some(Value::IntValue(_)) => "Int",
        Some(Value::DoubleValue(_)) => "Double",
        Some(Value::ArrayValue(_)) => "Slice",
        Some(Value::KvlistValue(_)) => "Map",
        Some(Value::BytesValue(_)) => "Bytes",
    };
    format!("{name}({})", value::text(value))
}

fn time(nanos: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

/// A number with six digits after the point.
fn fixed(value: f64) -> String {
    if value.is_finite() { format!("{value:.6}") } else { infinite(value) }
}

fn kind(kind: i32) -> &'static str {
    match span::SpanKind::try_from(kind) {
        Ok(span::SpanKind::Unspecified) => "Unspecified",
        Ok(span::SpanKind::Internal) => "Internal",
        Ok(span::SpanKind::Server) => "Server",
        Ok(span::SpanKind::Client) => "Client",
        Ok(span::SpanKind::Producer) => "Producer",
        Ok(span::SpanKind::Consumer) => "Consumer",
        Err(_) => "",
    }
}

fn severity(number: i32) -> String {
    const NAMES: [&str; 6] = ["Trace", "Debug", "Info", "Warn", "Error", "Fatal"];
    let known = usize::try_from(number).ok().filter(|number| (1..=24).contains(number));
    match known.map(|number| (NAMES[(number - 1) / 4], (number - 1) % 4)) {
        Some((name, 0)) => name.to_owned(),
        Some((name, further)) => format!("{name}{}", further + 1),
        None if number == 0 => "Unspecified".to_owned(),
        None => String::new(),
    }
}
