//! Paths to what telemetry holds, and the enums that it is compared with.

use std::borrow::Cow;

use jiff::{Timestamp, tz::TimeZone};
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data},
    trace::v1::{Span, span::SpanKind},
};

use super::{
    About, Above, Context, Item, Of, Operand,
    compare::Any,
    hex,
    names::{Field, field},
    points,
};

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
    /// What is computed.
    Made(Box<Operand>),
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

/// Fields that have fields.
const ROOTS: [&str; 8] =
    ["body", "kind", "negative", "parent_span_id", "positive", "span_id", "status", "trace_id"];

/// Where the Collector says which paths there are.
const REFERENCE: &str = "https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/pkg/ottl/contexts/ottl";

impl Context {
    /// Whether items of another kind can be asked for by its name.
    fn has(self, name: &str) -> bool {
        match name {
            "resource" => true,
            "scope" | "instrumentation_scope" => self != Self::Resource,
            "metric" => self == Self::DataPoint,
            "span" => self == Self::SpanEvent,
            _ => false,
        }
    }
}

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
            // The first segment that leads nowhere.
            let known = fields.len() > 1
                && (fields[0] == own
                    || NAMES.contains(&fields[0]) && context.has(fields[0])
                    || ROOTS.contains(&fields[0]));
            let segment = fields[usize::from(known)];
            return Err(format!(
                "segment \"{segment}\" from path \"{name}\" is not a valid path nor a valid OTTL \
                 keyword for the {own} context - review {REFERENCE}{own} to see all valid paths"
            ));
        };
        let keyed = matches!(
            field,
            Field::ResourceAttributes
                | Field::ScopeAttributes
                | Field::MetricMetadata
                | Field::PointAttributes
                | Field::LogAttributes
                | Field::LogBody
                | Field::SpanAttributes
                | Field::SpanState
                | Field::EventAttributes
                | Field::Cache
        );
        if field == Field::SpanState && keys.len() > 1 {
            return Err("must provide exactly 1 key when accessing trace_state".to_owned());
        }
        if !keyed && !keys.is_empty() {
            return Err(format!(
                "the keys indexing \"{name}\" were not used by the context - this likely means you \
                 are trying to index a path that does not support indexing"
            ));
        }
        Ok(Self { field, keys })
    }

    /// What the path leads to; nil if the item has nothing there.
    pub fn get<'a>(&'a self, item: &Item<'a>) -> Result<Any<'a>, String> {
        let whole = self.whole(item);
        match (self.field, &whole, self.keys.is_empty()) {
            (Field::LogBody, Any::Map(_) | Any::List(_) | Any::Whole(_), _) | (_, _, true) => {}
            (Field::LogBody, other, _) => {
                return Err(format!("log bodies of type {} cannot be indexed", other.body_kind()));
            }
            (Field::SpanState, Any::Nil, _) => return Ok(Any::Nil),
            (Field::SpanState, ..) => {
                return match walk(whole, &self.keys, item, false) {
                    Ok(Any::Nil) => Ok(text("")),
                    Ok(found) => Ok(found),
                    Err(_) => Err("trace_state indexing type must be a string".to_owned()),
                };
            }
            _ => {}
        }
        walk(whole, &self.keys, item, false)
    }

    fn whole<'a>(&self, item: &Item<'a>) -> Any<'a> {
        let Above { resource, resource_schema, scope, scope_schema } = item.above;
        match (self.field, item.of) {
            (Field::ResourceAttributes, _) => map(resource.map_or(&[][..], |r| &r.attributes)),
            (Field::ResourceDropped, _) => {
                Any::Int(resource.map_or(0, |r| r.dropped_attributes_count.into()))
            }
            (Field::ResourceSchema, _) => text(resource_schema),
            (Field::ScopeSchema, _) => text(scope_schema),
            (Field::ScopeAttributes, _) => map(scope.map_or(&[][..], |s| &s.attributes)),
            (Field::Cache, _) => map(&[]),
            (Field::ScopeDropped, _) => {
                Any::Int(scope.map_or(0, |s| s.dropped_attributes_count.into()))
            }
            (Field::ScopeName, _) => text(scope.map_or("", |s| &s.name)),
            (Field::ScopeVersion, _) => text(scope.map_or("", |s| &s.version)),
            (field, Of::Metric(about)) => of_metric(field, &about),
            (field, Of::Point(about, point)) => {
                points::of_point(field, point).unwrap_or_else(|| of_metric(field, &about))
            }
            (field, Of::Log(log)) => match field {
                Field::LogBody => log.body.as_ref().and_then(|body| body.value.as_ref()).into(),
                Field::LogBodyText => {
                    let body = log.body.as_ref().and_then(|body| body.value.as_ref());
                    Any::Text(crate::value::text(body).into())
                }
                Field::LogDropped => Any::Int(log.dropped_attributes_count.into()),
                Field::LogTraceIdBytes => Any::Id(id::<16>(&log.trace_id).into()),
                Field::LogSpanIdBytes => Any::Id(id::<8>(&log.span_id).into()),
                Field::LogSeverityNumber => Any::Int(log.severity_number.into()),
                Field::LogSeverityText => text(&log.severity_text),
                Field::LogAttributes => map(&log.attributes),
                Field::LogEvent => text(&log.event_name),
                Field::LogFlags => Any::Int(log.flags.into()),
                Field::LogTimeTime => time(log.time_unix_nano),
                Field::LogObservedTime => time(log.observed_time_unix_nano),
                Field::LogTime => nanos(log.time_unix_nano),
                Field::LogObserved => nanos(log.observed_time_unix_nano),
                Field::LogTraceId => hexadecimal(id::<16>(&log.trace_id)),
                Field::LogSpanId => hexadecimal(id::<8>(&log.span_id)),
                _ => Any::Nil,
            },
            (Field::SpanState, Of::Span(span) | Of::Event(span, ..)) if !self.keys.is_empty() => {
                states(&span.trace_state)
            }
            (field, Of::Span(span)) => of_span(field, span),
            (field, Of::Event(span, event, index)) => match field {
                Field::EventName => text(&event.name),
                Field::EventTime => nanos(event.time_unix_nano),
                Field::EventTimeTime => time(event.time_unix_nano),
                Field::EventAttributes => map(&event.attributes),
                Field::EventDropped => Any::Int(event.dropped_attributes_count.into()),
                Field::EventIndex => Any::Int(index as i64),
                _ => of_span(field, span),
            },
            (_, Of::Resource | Of::Scope) => Any::Nil,
        }
    }
}

fn of_span<'a>(field: Field, span: &'a Span) -> Any<'a> {
    match field {
        Field::SpanName => text(&span.name),
        Field::SpanKind => Any::Int(span.kind.into()),
        Field::SpanStatusCode => {
            Any::Int(span.status.as_ref().map_or(0, |status| status.code.into()))
        }
        Field::SpanStatusMessage => text(span.status.as_ref().map_or("", |status| &status.message)),
        Field::SpanAttributes => map(&span.attributes),
        Field::SpanState => text(&span.trace_state),
        Field::SpanKindOldText => text(span.kind().as_str_name()),
        Field::SpanKindText => text(match span.kind() {
            SpanKind::Unspecified => "Unspecified",
            SpanKind::Internal => "Internal",
            SpanKind::Server => "Server",
            SpanKind::Client => "Client",
            SpanKind::Producer => "Producer",
            SpanKind::Consumer => "Consumer",
        }),
        Field::SpanFlags => Any::Int(span.flags.into()),
        Field::SpanStartTime => time(span.start_time_unix_nano),
        Field::SpanEndTime => time(span.end_time_unix_nano),
        Field::SpanStart => nanos(span.start_time_unix_nano),
        Field::SpanEnd => nanos(span.end_time_unix_nano),
        Field::SpanTraceId => hexadecimal(id::<16>(&span.trace_id)),
        Field::SpanId => hexadecimal(id::<8>(&span.span_id)),
        Field::SpanParentId => hexadecimal(id::<8>(&span.parent_span_id)),
        Field::SpanTraceIdBytes => Any::Id(id::<16>(&span.trace_id).into()),
        Field::SpanIdBytes => Any::Id(id::<8>(&span.span_id).into()),
        Field::SpanParentIdBytes => Any::Id(id::<8>(&span.parent_span_id).into()),
        Field::SpanStatus => Any::Held(field, None),
        Field::SpanEvents => Any::Held(field, Some(span.events.len())),
        Field::SpanLinks => Any::Held(field, Some(span.links.len())),
        Field::SpanDropped => Any::Int(span.dropped_attributes_count.into()),
        Field::SpanDroppedEvents => Any::Int(span.dropped_events_count.into()),
        Field::SpanDroppedLinks => Any::Int(span.dropped_links_count.into()),
        _ => Any::Nil,
    }
}

/// What keys lead to. What is not in a map is nil, and a failure if it `must` be there.
pub fn walk<'a>(
    mut value: Any<'a>,
    keys: &'a [Key],
    item: &Item<'a>,
    must: bool,
) -> Result<Any<'a>, String> {
    for key in keys {
        let made;
        let (name, index) = match key {
            Key::Name(name) => (Some(name.as_str()), None),
            Key::Index(index) => (None, Some(*index)),
            Key::Made(operand) => {
                made = operand.value(item)?;
                match &made {
                    Any::Text(name) => (Some(&**name), None),
                    Any::Int(index) => (None, Some(*index)),
                    other => {
                        return Err(format!(
                            "could not resolve key for map/slice, expecting 'string' but got '{}'",
                            other.shown()
                        ));
                    }
                }
            }
        };
        let beyond = |index: i64| format!("index {index} out of bounds");
        let at = |index: i64, length: usize| {
            usize::try_from(index).ok().filter(|at| *at < length).ok_or_else(|| beyond(index))
        };
        let found = match (value, name, index) {
            (Any::Nil, ..) => return Ok(Any::Nil),
            (Any::Map(Cow::Borrowed(pairs)), Some(name), _) => {
                pairs.iter().find(|pair| pair.key == name).map(of_pair)
            }
            (Any::Map(Cow::Owned(pairs)), Some(name), _) => {
                let found = pairs.into_iter().find(|pair| pair.key == name);
                found.map(|pair| pair.value.unwrap_or_default().into())
            }
            (Any::Whole(Value::KvlistValue(list)), Some(name), _) => {
                list.values.iter().find(|pair| pair.key == name).map(of_pair)
            }
            (Any::Whole(Value::ArrayValue(list)), _, Some(index)) => {
                Some(list.values[at(index, list.values.len())?].value.as_ref().into())
            }
            (Any::List(mut items), _, Some(index)) => {
                let at = at(index, items.len())?;
                Some(items.swap_remove(at))
            }
            (Any::Map(_) | Any::Whole(Value::KvlistValue(_)), ..) => {
                return Err("unable to resolve a string index in map: invalid key type".to_owned());
            }
            (Any::List(_) | Any::Whole(Value::ArrayValue(_)), ..) => {
                return Err(
                    "unable to resolve an integer index in slice: invalid key type".to_owned()
                );
            }
            (other, ..) => {
                return Err(format!("type {} does not support string indexing", other.kind()));
            }
        };
        value = match found {
            Some(found) => found,
            None if must => return Err("key not found in map".to_owned()),
            None => return Ok(Any::Nil),
        };
    }
    Ok(value)
}

fn of_pair(pair: &KeyValue) -> Any<'_> {
    pair.value.as_ref().and_then(|value| value.value.as_ref()).into()
}

/// A map.
pub fn map(pairs: &[KeyValue]) -> Any<'_> {
    Any::Map(pairs.into())
}

fn of_metric<'a>(field: Field, about: &About<'a>) -> Any<'a> {
    match field {
        Field::MetricName => text(&about.metric.name),
        Field::MetricDescription => text(&about.metric.description),
        Field::MetricUnit => text(&about.metric.unit),
        Field::MetricMetadata => map(&about.metric.metadata),
        Field::MetricPoints if about.kind != 0 => Any::Held(field, Some(about.points)),
        Field::MetricType => Any::Int(about.kind),
        Field::MetricTemporality => about.temporality.map_or(Any::Nil, Any::Int),
        Field::MetricMonotonic => about.monotonic.map_or(Any::Nil, Any::Bool),
        _ => Any::Nil,
    }
}

impl<'a> About<'a> {
    /// A metric.
    pub fn of(metric: &'a Metric) -> Self {
        Self::new(metric, metric.data.as_ref())
    }

    /// A metric whose data was taken out of it.
    pub fn new(metric: &'a Metric, data: Option<&Data>) -> Self {
        let (kind, temporality, monotonic, points) = match data {
            None => (0, None, None, 0),
            Some(Data::Gauge(d)) => (1, None, None, d.data_points.len()),
            Some(Data::Sum(d)) => {
                (2, Some(d.aggregation_temporality), Some(d.is_monotonic), d.data_points.len())
            }
            Some(Data::Histogram(d)) => {
                (3, Some(d.aggregation_temporality), None, d.data_points.len())
            }
            Some(Data::ExponentialHistogram(d)) => {
                (4, Some(d.aggregation_temporality), None, d.data_points.len())
            }
            Some(Data::Summary(d)) => (5, None, None, d.data_points.len()),
        };
        Self { metric, kind, temporality: temporality.map(i64::from), monotonic, points }
    }
}

fn text(text: &str) -> Any<'_> {
    Any::Text(text.into())
}

/// OTTL's integers are signed.
pub fn nanos(number: u64) -> Any<'static> {
    Any::Int(number as i64)
}

/// An id; one that is absent is all zeros.
fn id<const N: usize>(bytes: &[u8]) -> &[u8] {
    if bytes.is_empty() { &[0; N] } else { bytes }
}

fn hexadecimal(bytes: &[u8]) -> Any<'static> {
    Any::Text(hex(bytes).into())
}

/// A moment, in UTC.
pub fn time(nanos: u64) -> Any<'static> {
    let moment = Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
    Any::Time(moment.to_zoned(TimeZone::UTC))
}

/// The members of a trace state; nil if it is none.
fn states(text: &str) -> Any<'static> {
    let members = text.split(',').map(|member| member.trim_matches([' ', '\t']));
    let members: Option<Vec<_>> =
        members.filter(|member| !member.is_empty()).map(|member| member.split_once('=')).collect();
    let Some(members) = members else { return Any::Nil };
    let pair = |(key, value): (&str, &str)| {
        crate::metric::key_value(key, Value::StringValue(value.to_owned()))
    };
    Any::Map(members.into_iter().map(pair).collect())
}
