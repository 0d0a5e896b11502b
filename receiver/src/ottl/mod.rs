//! Conditions in a part of the OpenTelemetry Transformation Language: paths, literals, lists, enums, arithmetic,
//! comparisons, `and`, `or`, `not`, parentheses, `nil` and the converters of [`function`]. Everything else is a
//! mistake with its position.

mod calculate;
mod compare;
mod function;
mod lex;
mod names;
mod parse;
mod path;
mod points;

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, Ordering},
};

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::{
        ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
        SummaryDataPoint,
    },
    resource::v1::Resource,
    trace::v1::{Span, span::Event},
};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tracing::{debug, warn};

use self::{
    calculate::Sign,
    compare::{Any, Operator},
    function::Function,
    path::{Key, Path},
};

/// What conditions are about: it decides which paths there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A resource.
    Resource,
    /// An instrumentation scope.
    Scope,
    /// A metric.
    Metric,
    /// A data point.
    DataPoint,
    /// A log record.
    Log,
    /// A span.
    Span,
    /// An event of a span.
    SpanEvent,
}

impl Context {
    /// As configurations name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Scope => "scope",
            Self::Metric => "metric",
            Self::DataPoint => "datapoint",
            Self::Log => "log",
            Self::Span => "span",
            Self::SpanEvent => "spanevent",
        }
    }
}

/// What to do when a condition fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("any-case" = true))]
pub enum ErrorMode {
    /// Fail.
    Propagate,
    /// Say so and go on with the next condition.
    #[default]
    Ignore,
    /// Go on with the next condition.
    Silent,
}

impl<'de> Deserialize<'de> for ErrorMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        match name.to_lowercase().as_str() {
            "propagate" => Ok(Self::Propagate),
            "ignore" => Ok(Self::Ignore),
            "silent" => Ok(Self::Silent),
            _ => Err(D::Error::custom(format!("unknown error mode {name}"))),
        }
    }
}

/// What a condition is asked about, with what it stands below.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// What it stands below.
    pub above: Above<'a>,
    /// The item itself.
    pub of: Of<'a>,
}

/// What items stand below.
#[derive(Clone, Copy, Default)]
pub struct Above<'a> {
    /// The resource.
    pub resource: Option<&'a Resource>,
    /// The schema that the resource follows.
    pub resource_schema: &'a str,
    /// The instrumentation scope.
    pub scope: Option<&'a InstrumentationScope>,
    /// The schema that the scope and its items follow.
    pub scope_schema: &'a str,
}

/// The item itself.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    /// The resource is meant.
    Resource,
    /// The instrumentation scope is meant.
    Scope,
    /// A metric.
    Metric(About<'a>),
    /// A data point of a metric.
    Point(About<'a>, Point<'a>),
    /// A log record.
    Log(&'a LogRecord),
    /// A span.
    Span(&'a Span),
    /// An event of a span, and which one it is.
    Event(&'a Span, &'a Event, usize),
}

/// A metric, and what is known of its data, which may have been taken out of it.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The metric.
    pub metric: &'a Metric,
    /// `METRIC_DATA_TYPE_…`.
    pub kind: i64,
    /// `AGGREGATION_TEMPORALITY_…`, if it has one.
    pub temporality: Option<i64>,
    /// Whether it only grows, if it is a sum.
    pub monotonic: Option<bool>,
    /// How many points it has.
    pub points: usize,
}

/// A data point of any type.
#[derive(Clone, Copy)]
pub enum Point<'a> {
    /// Of a gauge or a sum.
    Number(&'a NumberDataPoint),
    /// Of a histogram.
    Histogram(&'a HistogramDataPoint),
    /// Of an exponential histogram.
    Exponential(&'a ExponentialHistogramDataPoint),
    /// Of a summary.
    Summary(&'a SummaryDataPoint),
}

/// Conditions of which one must hold.
#[derive(Debug)]
pub struct Conditions {
    all: Vec<Condition>,
    /// Whether it was told that one fails: it fails for each item, and once is enough.
    told: AtomicBool,
}

#[derive(Debug)]
struct Condition {
    text: String,
    mode: ErrorMode,
    expression: Expression,
}

#[derive(Clone, Debug)]
enum Expression {
    Or(Vec<Expression>),
    And(Vec<Expression>),
    Not(Box<Expression>),
    Compare(Operand, Operator, Operand),
    Is(Operand),
}

#[derive(Clone, Debug)]
enum Operand {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Path(Path),
    List(Vec<Operand>),
    Map(Vec<(String, Operand)>),
    /// A pattern that is known beforehand.
    IsMatch(Box<Operand>, Regex),
    Call(&'static Function, Vec<Option<Operand>>),
    /// What stands in a list or a map that was made.
    At(Box<Operand>, Vec<Key>),
    Negate(Box<Operand>),
    Calculate(Box<Operand>, Sign, Box<Operand>),
}

impl Conditions {
    /// Parses a list of conditions. Errors are the index of a condition and the Collector's text
    /// about it.
    pub fn new(
        context: Context,
        list: &[String],
        mode: ErrorMode,
    ) -> Result<Self, Vec<(usize, String)>> {
        Self::parse(context, list, mode, false)
    }

    /// Parses conditions whose paths say what they are about, for the first of the contexts that has all paths and
    /// functions that they use.
    pub fn inferred(
        contexts: &[Context],
        list: &[String],
        mode: ErrorMode,
    ) -> Result<(Context, Self), Vec<(usize, String)>> {
        let mut wrong = Vec::new();
        for context in contexts {
            match Self::parse(*context, list, mode, true) {
                Ok(conditions) => return Ok((*context, conditions)),
                // The last context has the most paths: what it does not have is wrong.
                Err(errors) => wrong = errors,
            }
        }
        Err(wrong)
    }

    fn parse(
        context: Context,
        list: &[String],
        mode: ErrorMode,
        prefixed: bool,
    ) -> Result<Self, Vec<(usize, String)>> {
        let (mut all, mut wrong) = (Vec::new(), Vec::new());
        for (i, text) in list.iter().enumerate() {
            match parse::condition(context, text, prefixed) {
                Ok(expression) => all.push(Condition { text: text.clone(), mode, expression }),
                Err(error) => {
                    wrong.push((i, format!("unable to parse OTTL condition {text:?}: {error}")));
                }
            }
        }
        if wrong.is_empty() { Ok(Self { all, told: AtomicBool::new(false) }) } else { Err(wrong) }
    }

    /// Takes others in.
    pub fn extend(&mut self, others: Self) {
        self.all.extend(others.all);
    }

    /// Whether one of them holds, or why one fails if failures are not to be ignored.
    pub fn hold(&self, item: &Item<'_>) -> Result<bool, String> {
        for Condition { text, mode, expression } in &self.all {
            let failed = |error| format!("failed to eval condition: {text}, {error}");
            match (expression.holds(item), mode) {
                (Ok(true), _) => return Ok(true),
                (Ok(false), _) | (Err(_), ErrorMode::Silent) => {}
                (Err(error), ErrorMode::Propagate) => return Err(failed(error)),
                (Err(error), ErrorMode::Ignore) => match self.told.swap(true, Ordering::Relaxed) {
                    false => warn!("{}", failed(error)),
                    true => debug!("{}", failed(error)),
                },
            }
        }
        Ok(false)
    }
}

impl Expression {
    fn holds(&self, item: &Item<'_>) -> Result<bool, String> {
        Ok(match self {
            Self::Or(all) => {
                for one in all {
                    if one.holds(item)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::And(all) => {
                for one in all {
                    if !one.holds(item)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Not(one) => !one.holds(item)?,
            Self::Compare(left, operator, right) => {
                operator.compare(&left.value(item)?, &right.value(item)?)
            }
            Self::Is(operand) => match operand.value(item)? {
                Any::Bool(value) => value,
                other => {
                    return Err(format!(
                        "value returned from Converter in constant expression must be bool but got {}",
                        other.kind()
                    ));
                }
            },
        })
    }
}

impl Operand {
    /// Whether signs may stand beside it.
    fn calculates(&self) -> bool {
        !matches!(
            self,
            Self::Nil
                | Self::Bool(_)
                | Self::Text(_)
                | Self::Bytes(_)
                | Self::List(_)
                | Self::Map(_)
        )
    }

    /// Its value, if it is one whatever it is asked about.
    fn known(&self) -> Option<Any<'_>> {
        Some(match self {
            Self::Nil => Any::Nil,
            Self::Bool(value) => Any::Bool(*value),
            Self::Int(value) => Any::Int(*value),
            Self::Double(value) => Any::Double(*value),
            Self::Text(text) => Any::Text(text.as_str().into()),
            Self::Bytes(bytes) => Any::Bytes(bytes.as_slice().into()),
            Self::List(items) => Any::List(items.iter().map(Self::known).collect::<Option<_>>()?),
            _ => return None,
        })
    }

    fn value<'a>(&'a self, item: &Item<'a>) -> Result<Any<'a>, String> {
        Ok(match self {
            Self::Nil => Any::Nil,
            Self::Bool(value) => Any::Bool(*value),
            Self::Int(value) => Any::Int(*value),
            Self::Double(value) => Any::Double(*value),
            Self::Text(text) => Any::Text(text.as_str().into()),
            Self::Bytes(bytes) => Any::Bytes(bytes.as_slice().into()),
            Self::Path(path) => path.get(item)?,
            Self::List(items) => {
                let items = items.iter().map(|operand| operand.value(item));
                Any::List(items.collect::<Result<_, _>>()?)
            }
            Self::Map(pairs) => {
                let pair = |(key, operand): &'a (String, Self)| {
                    let value = Some(operand.value(item)?.own());
                    Ok(KeyValue { key: key.clone(), value, ..Default::default() })
                };
                Any::Map(Cow::Owned(pairs.iter().map(pair).collect::<Result<_, String>>()?))
            }
            Self::IsMatch(target, pattern) => Any::Bool(match target.value(item)? {
                Any::Nil => false,
                Any::Text(text) => pattern.is_match(&text),
                other => pattern.is_match(&other.text()),
            }),
            Self::Call(function, arguments) => {
                let value = |operand: &'a Option<Self>| {
                    operand.as_ref().map(|operand| operand.value(item)).transpose()
                };
                function.call(arguments.iter().map(value).collect::<Result<_, _>>()?, item)?
            }
            Self::At(target, keys) => path::walk(target.value(item)?, keys, item, true)?,
            Self::Negate(operand) => match operand.value(item)? {
                Any::Int(value) => Any::Int(value.wrapping_neg()),
                Any::Double(value) => Any::Double(-value),
                other => {
                    return Err(format!(
                        "unsupported unary minus operation on type {}",
                        other.kind()
                    ));
                }
            },
            Self::Calculate(left, sign, right) => {
                sign.calculate(&left.value(item)?, &right.value(item)?)?
            }
        })
    }
}

/// Whether the first point that has the attribute has this value, as in the Collector.
fn has_attribute(metric: &Metric, key: &str, wanted: Option<&str>) -> bool {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    fn first<'a>(
        mut points: impl Iterator<Item = &'a Vec<KeyValue>>,
        key: &str,
    ) -> Option<&'a KeyValue> {
        points.find_map(|attributes| attributes.iter().find(|a| a.key == key))
    }
    let found = match &metric.data {
        Some(Data::Gauge(data)) => first(data.data_points.iter().map(|p| &p.attributes), key),
        Some(Data::Sum(data)) => first(data.data_points.iter().map(|p| &p.attributes), key),
        Some(Data::Histogram(data)) => first(data.data_points.iter().map(|p| &p.attributes), key),
        Some(Data::ExponentialHistogram(data)) => {
            first(data.data_points.iter().map(|p| &p.attributes), key)
        }
        Some(Data::Summary(data)) => first(data.data_points.iter().map(|p| &p.attributes), key),
        None => None,
    };
    found.is_some_and(|found| {
        wanted.is_none_or(|wanted| match found.value.as_ref().and_then(|v| v.value.as_ref()) {
            Some(Value::StringValue(text)) => text == wanted,
            _ => wanted.is_empty(),
        })
    })
}

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
