//! Paths to what telemetry holds, and the enums that it is compared with.

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    logs::v1::SeverityNumber,
    metrics::v1::{AggregationTemporality, Metric, metric::Data, number_data_point},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};

use super::{About, Context, Item, Of, Point, compare::Any};

/// A path that a context has.
#[derive(Clone, Debug)]
pub struct Path {
    field: Field,
    keys: Vec<Key>,
}

/// What stands in brackets.
#[derive(Clone, Debug)]
pub enum Key {
    Name(String),
    Index(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    ResourceAttributes,
    ScopeName,
    ScopeVersion,
    ScopeAttributes,
    MetricName,
    MetricDescription,
    MetricUnit,
    MetricType,
    MetricTemporality,
    MetricMonotonic,
    PointAttributes,
    PointDouble,
    PointInt,
    PointCount,
    PointSum,
    PointFlags,
    PointStart,
    PointTime,
    LogBody,
    LogSeverityNumber,
    LogSeverityText,
    LogAttributes,
    LogEvent,
    LogFlags,
    LogTime,
    LogObserved,
    LogTraceId,
    LogSpanId,
    SpanName,
    SpanKind,
    SpanStatusCode,
    SpanStatusMessage,
    SpanAttributes,
    SpanState,
    SpanStart,
    SpanEnd,
    SpanTraceId,
    SpanId,
    SpanParentId,
    SpanTraceIdBytes,
    SpanIdBytes,
    SpanParentIdBytes,
    LogTraceIdBytes,
    LogSpanIdBytes,
    LogBodyText,
    ResourceDropped,
    LogDropped,
    SpanDropped,
    SpanDroppedEvents,
    SpanDroppedLinks,
    EventName,
    EventTime,
    EventAttributes,
    EventDropped,
    EventIndex,
}

/// What a path can begin with.
const NAMES: [&str; 8] = [
    "resource",
    "scope",
    "instrumentation_scope",
    "metric",
    "datapoint",
    "log",
    "span",
    "spanevent",
];

impl Path {
    /// The path of these fields in a context, with the keys at its end.
    pub fn new(
        context: Context,
        prefixed: bool,
        fields: &[&str],
        keys: Vec<Key>,
    ) -> Result<Self, String> {
        let own = context.name();
        if prefixed && !NAMES.contains(&fields[0]) {
            let path = fields.join(".");
            let above = match context {
                Context::DataPoint => "metric",
                Context::SpanEvent => "span",
                _ => own,
            };
            let mut options = vec![above, own, "scope", "resource"];
            options.dedup();
            options.retain(|context| field(context, fields).is_some());
            if options.is_empty() {
                options.push(own);
            }
            let options: Vec<_> = options.iter().map(|name| format!("\"{name}.{path}\"")).collect();
            return Err(format!(
                "missing context name for path \"{path}\", possibly valid options are: {}",
                options.join(", ")
            ));
        }
        let field = match fields {
            ["resource", rest @ ..] => field("resource", rest),
            ["instrumentation_scope" | "scope", rest @ ..] if context != Context::Resource => {
                field("scope", rest)
            }
            ["metric", rest @ ..] if context == Context::DataPoint => field("metric", rest),
            ["span", rest @ ..] if context == Context::SpanEvent => field("span", rest),
            [first, rest @ ..] if *first == own => field(own, rest),
            rest => field(own, rest),
        };
        let name = fields.join(".");
        let Some(field) = field else {
            return Err(format!(
                "segment \"{}\" from path \"{name}\" is not a valid path nor a valid OTTL keyword \
                 for the {own} context",
                fields.last().unwrap_or(&"")
            ));
        };
        let map = matches!(
            field,
            Field::ResourceAttributes
                | Field::ScopeAttributes
                | Field::PointAttributes
                | Field::LogAttributes
                | Field::SpanAttributes
                | Field::EventAttributes
        );
        match keys.first() {
            Some(Key::Index(_)) if map => {
                return Err(format!("path \"{name}\" has keys that are texts: {name}[\"key\"]"));
            }
            _ if map => {}
            None => {}
            Some(_) if field == Field::LogBody => {}
            Some(_) => return Err(format!("path \"{name}\" has no keys")),
        }
        Ok(Self { field, keys })
    }

    /// What the path leads to; nil if the item has nothing there.
    pub fn get<'a>(&self, item: &Item<'a>) -> Any<'a> {
        let resource = || item.resource.map_or(&[][..], |r| &r.attributes);
        let scope = || item.scope;
        match (self.field, item.of) {
            (Field::ResourceAttributes, _) => self.of_map(resource()),
            (Field::ResourceDropped, _) => {
                Any::Int(item.resource.map_or(0, |r| r.dropped_attributes_count.into()))
            }
            (Field::ScopeAttributes, _) => self.of_map(scope().map_or(&[][..], |s| &s.attributes)),
            (Field::ScopeName, _) => text(scope().map_or("", |s| &s.name)),
            (Field::ScopeVersion, _) => text(scope().map_or("", |s| &s.version)),
            (field, Of::Metric(metric)) => of_metric(field, &About::of(metric)),
            (field, Of::Point(about, point)) => match of_point(field, &point) {
                Some(value) => value,
                None if field == Field::PointAttributes => self.of_map(point.attributes),
                None => of_metric(field, &about),
            },
            (field, Of::Log(log)) => match field {
                Field::LogBody => {
                    let body = log.body.as_ref().and_then(|body| body.value.as_ref());
                    walk(body.into(), &self.keys)
                }
                Field::LogBodyText => {
                    let body = log.body.as_ref().and_then(|body| body.value.as_ref());
                    Any::Text(crate::value::text(body).into())
                }
                Field::LogDropped => Any::Int(log.dropped_attributes_count.into()),
                Field::LogTraceIdBytes => Any::Bytes(&log.trace_id),
                Field::LogSpanIdBytes => Any::Bytes(&log.span_id),
                Field::LogSeverityNumber => Any::Int(log.severity_number.into()),
                Field::LogSeverityText => text(&log.severity_text),
                Field::LogAttributes => self.of_map(&log.attributes),
                Field::LogEvent => text(&log.event_name),
                Field::LogFlags => Any::Int(log.flags.into()),
                Field::LogTime => nanos(log.time_unix_nano),
                Field::LogObserved => nanos(log.observed_time_unix_nano),
                Field::LogTraceId => hex(&log.trace_id),
                Field::LogSpanId => hex(&log.span_id),
                _ => Any::Nil,
            },
            (field, Of::Span(span)) => self.of_span(field, span),
            (field, Of::Event(span, event, index)) => match field {
                Field::EventName => text(&event.name),
                Field::EventTime => nanos(event.time_unix_nano),
                Field::EventAttributes => self.of_map(&event.attributes),
                Field::EventDropped => Any::Int(event.dropped_attributes_count.into()),
                Field::EventIndex => Any::Int(index as i64),
                _ => self.of_span(field, span),
            },
            (_, Of::Resource | Of::Scope) => Any::Nil,
        }
    }

    fn of_span<'a>(&self, field: Field, span: &'a Span) -> Any<'a> {
        match field {
            Field::SpanName => text(&span.name),
            Field::SpanKind => Any::Int(span.kind.into()),
            Field::SpanStatusCode => {
                Any::Int(span.status.as_ref().map_or(0, |status| status.code.into()))
            }
            Field::SpanStatusMessage => {
                text(span.status.as_ref().map_or("", |status| &status.message))
            }
            Field::SpanAttributes => self.of_map(&span.attributes),
            Field::SpanState => text(&span.trace_state),
            Field::SpanStart => nanos(span.start_time_unix_nano),
            Field::SpanEnd => nanos(span.end_time_unix_nano),
            Field::SpanTraceId => hex(&span.trace_id),
            Field::SpanId => hex(&span.span_id),
            Field::SpanParentId => hex(&span.parent_span_id),
            Field::SpanTraceIdBytes => Any::Bytes(&span.trace_id),
            Field::SpanIdBytes => Any::Bytes(&span.span_id),
            Field::SpanParentIdBytes => Any::Bytes(&span.parent_span_id),
            Field::SpanDropped => Any::Int(span.dropped_attributes_count.into()),
            Field::SpanDroppedEvents => Any::Int(span.dropped_events_count.into()),
            Field::SpanDroppedLinks => Any::Int(span.dropped_links_count.into()),
            _ => Any::Nil,
        }
    }

    fn of_map<'a>(&self, attributes: &'a [KeyValue]) -> Any<'a> {
        walk(Any::Map(attributes), &self.keys)
    }
}

fn field(of: &str, path: &[&str]) -> Option<Field> {
    Some(match (of, path) {
        ("resource", ["attributes"]) => Field::ResourceAttributes,
        ("resource", ["dropped_attributes_count"]) => Field::ResourceDropped,
        ("scope", ["name"]) => Field::ScopeName,
        ("scope", ["version"]) => Field::ScopeVersion,
        ("scope", ["attributes"]) => Field::ScopeAttributes,
        ("metric", ["name"]) => Field::MetricName,
        ("metric", ["description"]) => Field::MetricDescription,
        ("metric", ["unit"]) => Field::MetricUnit,
        ("metric", ["type"]) => Field::MetricType,
        ("metric", ["aggregation_temporality"]) => Field::MetricTemporality,
        ("metric", ["is_monotonic"]) => Field::MetricMonotonic,
        ("datapoint", ["attributes"]) => Field::PointAttributes,
        ("datapoint", ["value_double"]) => Field::PointDouble,
        ("datapoint", ["value_int"]) => Field::PointInt,
        ("datapoint", ["count"]) => Field::PointCount,
        ("datapoint", ["sum"]) => Field::PointSum,
        ("datapoint", ["flags"]) => Field::PointFlags,
        ("datapoint", ["start_time_unix_nano" | "start_time"]) => Field::PointStart,
        ("datapoint", ["time_unix_nano" | "time"]) => Field::PointTime,
        ("log", ["body"]) => Field::LogBody,
        ("log", ["severity_number"]) => Field::LogSeverityNumber,
        ("log", ["severity_text"]) => Field::LogSeverityText,
        ("log", ["attributes"]) => Field::LogAttributes,
        ("log", ["event_name"]) => Field::LogEvent,
        ("log", ["flags"]) => Field::LogFlags,
        ("log", ["time_unix_nano" | "time"]) => Field::LogTime,
        ("log", ["observed_time_unix_nano" | "observed_time"]) => Field::LogObserved,
        ("log", ["body", "string"]) => Field::LogBodyText,
        ("log", ["dropped_attributes_count"]) => Field::LogDropped,
        ("log", ["trace_id"]) => Field::LogTraceIdBytes,
        ("log", ["span_id"]) => Field::LogSpanIdBytes,
        ("log", ["trace_id", "string"]) => Field::LogTraceId,
        ("log", ["span_id", "string"]) => Field::LogSpanId,
        ("span", ["name"]) => Field::SpanName,
        ("span", ["kind"]) => Field::SpanKind,
        ("span", ["status", "code"]) => Field::SpanStatusCode,
        ("span", ["status", "message"]) => Field::SpanStatusMessage,
        ("span", ["attributes"]) => Field::SpanAttributes,
        ("span", ["trace_state"]) => Field::SpanState,
        ("span", ["start_time_unix_nano" | "start_time"]) => Field::SpanStart,
        ("span", ["end_time_unix_nano" | "end_time"]) => Field::SpanEnd,
        ("span", ["trace_id"]) => Field::SpanTraceIdBytes,
        ("span", ["span_id"]) => Field::SpanIdBytes,
        ("span", ["parent_span_id"]) => Field::SpanParentIdBytes,
        ("span", ["dropped_attributes_count"]) => Field::SpanDropped,
        ("span", ["dropped_events_count"]) => Field::SpanDroppedEvents,
        ("span", ["dropped_links_count"]) => Field::SpanDroppedLinks,
        ("spanevent", ["name"]) => Field::EventName,
        ("spanevent", ["time_unix_nano" | "time"]) => Field::EventTime,
        ("spanevent", ["attributes"]) => Field::EventAttributes,
        ("spanevent", ["dropped_attributes_count"]) => Field::EventDropped,
        ("spanevent", ["event_index"]) => Field::EventIndex,
        ("span", ["trace_id", "string"]) => Field::SpanTraceId,
        ("span", ["span_id", "string"]) => Field::SpanId,
        ("span", ["parent_span_id", "string"]) => Field::SpanParentId,
        _ => return None,
    })
}

/// What keys lead to; nil if there is nothing.
pub fn walk<'a>(mut value: Any<'a>, keys: &[Key]) -> Any<'a> {
    for key in keys {
        value = match (value, key) {
            (Any::Map(pairs), Key::Name(name)) => crate::value::get(pairs, name).into(),
            (Any::Whole(Value::KvlistValue(list)), Key::Name(name)) => {
                crate::value::get(&list.values, name).into()
            }
            (Any::Whole(Value::ArrayValue(list)), Key::Index(index)) => usize::try_from(*index)
                .ok()
                .and_then(|index| list.values.get(index)?.value.as_ref())
                .into(),
            (Any::List(mut items), Key::Index(index)) => match usize::try_from(*index) {
                Ok(index) if index < items.len() => items.swap_remove(index),
                _ => Any::Nil,
            },
            _ => Any::Nil,
        };
    }
    value
}

fn of_metric<'a>(field: Field, about: &About<'a>) -> Any<'a> {
    match field {
        Field::MetricName => text(about.name),
        Field::MetricDescription => text(about.description),
        Field::MetricUnit => text(about.unit),
        Field::MetricType => Any::Int(about.kind),
        Field::MetricTemporality => about.temporality.map_or(Any::Nil, Any::Int),
        Field::MetricMonotonic => about.monotonic.map_or(Any::Nil, Any::Bool),
        _ => Any::Nil,
    }
}

fn of_point<'a>(field: Field, point: &Point<'a>) -> Option<Any<'a>> {
    Some(match field {
        // A number of the other type reads as 0, as the Collector has it.
        Field::PointDouble => match point.number {
            Some(number_data_point::Value::AsDouble(value)) => Any::Double(value),
            Some(number_data_point::Value::AsInt(_)) => Any::Double(0.0),
            None => Any::Nil,
        },
        Field::PointInt => match point.number {
            Some(number_data_point::Value::AsInt(value)) => Any::Int(value),
            Some(number_data_point::Value::AsDouble(_)) => Any::Int(0),
            None => Any::Nil,
        },
        Field::PointCount => point.count.map_or(Any::Nil, nanos),
        Field::PointSum => point.sum.map_or(Any::Nil, Any::Double),
        Field::PointFlags => Any::Int(point.flags.into()),
        Field::PointStart => nanos(point.start),
        Field::PointTime => nanos(point.time),
        _ => return None,
    })
}

impl<'a> About<'a> {
    /// A metric, without its points.
    pub fn of(metric: &'a Metric) -> Self {
        Self::new(metric, metric.data.as_ref())
    }

    /// A metric whose data was taken out of it.
    pub fn new(metric: &'a Metric, data: Option<&Data>) -> Self {
        let (kind, temporality, monotonic) = match data {
            None => (0, None, None),
            Some(Data::Gauge(_)) => (1, None, None),
            Some(Data::Sum(d)) => (2, Some(d.aggregation_temporality), Some(d.is_monotonic)),
            Some(Data::Histogram(d)) => (3, Some(d.aggregation_temporality), None),
            Some(Data::ExponentialHistogram(d)) => (4, Some(d.aggregation_temporality), None),
            Some(Data::Summary(_)) => (5, None, None),
        };
        Self {
            name: &metric.name,
            description: &metric.description,
            unit: &metric.unit,
            kind,
            temporality: temporality.map(i64::from),
            monotonic,
        }
    }
}

fn text(text: &str) -> Any<'_> {
    Any::Text(text.into())
}

/// OTTL's integers are signed.
fn nanos(number: u64) -> Any<'static> {
    Any::Int(number as i64)
}

fn hex(bytes: &[u8]) -> Any<'static> {
    Any::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

/// The number that an enum's symbol stands for.
pub fn number(symbol: &str) -> Option<i64> {
    Some(match symbol {
        "METRIC_DATA_TYPE_NONE" => 0,
        "METRIC_DATA_TYPE_GAUGE" => 1,
        "METRIC_DATA_TYPE_SUM" => 2,
        "METRIC_DATA_TYPE_HISTOGRAM" => 3,
        "METRIC_DATA_TYPE_EXPONENTIAL_HISTOGRAM" => 4,
        "METRIC_DATA_TYPE_SUMMARY" => 5,
        "FLAG_NONE" => 0,
        "FLAG_NO_RECORDED_VALUE" => 1,
        _ => {
            return AggregationTemporality::from_str_name(symbol)
                .map(|found| found as i64)
                .or_else(|| SpanKind::from_str_name(symbol).map(|found| found as i64))
                .or_else(|| StatusCode::from_str_name(symbol).map(|found| found as i64))
                .or_else(|| SeverityNumber::from_str_name(symbol).map(|found| found as i64));
        }
    })
}
