//! Conditions in a part of the OpenTelemetry Transformation Language: paths, literals, enums,
//! comparisons, `and`, `or`, `not`, parentheses, `nil`, `IsMatch`, `HasAttrOnDatapoint` and
//! `HasAttrKeyOnDatapoint`. Everything else is a mistake with its position; what passes the parser
//! cannot fail later.

mod compare;
mod lex;
mod parse;
mod path;

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue},
    logs::v1::LogRecord,
    metrics::v1::{Metric, number_data_point},
    resource::v1::Resource,
    trace::v1::Span,
};
use regex::Regex;

use self::{
    compare::{Any, Operator},
    path::Path,
};
use crate::value;

/// What conditions are about: it decides which paths there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A resource.
    Resource,
    /// A metric.
    Metric,
    /// A data point.
    DataPoint,
    /// A log record.
    Log,
    /// A span.
    Span,
}

/// What a condition is asked about, with what it stands below.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// The resource.
    pub resource: Option<&'a Resource>,
    /// The instrumentation scope.
    pub scope: Option<&'a InstrumentationScope>,
    /// The item itself.
    pub of: Of<'a>,
}

/// The item itself.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    /// The resource is meant.
    Resource,
    /// A metric.
    Metric(&'a Metric),
    /// A data point of a metric.
    Point(About<'a>, Point<'a>),
    /// A log record.
    Log(&'a LogRecord),
    /// A span.
    Span(&'a Span),
}

/// A metric without its points.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its description.
    pub description: &'a str,
    /// Its unit.
    pub unit: &'a str,
    /// `METRIC_DATA_TYPE_…`.
    pub kind: i64,
    /// `AGGREGATION_TEMPORALITY_…`, if it has one.
    pub temporality: Option<i64>,
    /// Whether it only grows, if it is a sum.
    pub monotonic: Option<bool>,
}

/// A data point of any type.
#[derive(Clone, Copy, Default)]
pub struct Point<'a> {
    /// Its attributes.
    pub attributes: &'a [KeyValue],
    /// When it began.
    pub start: u64,
    /// When it was taken.
    pub time: u64,
    /// Its flags.
    pub flags: u32,
    /// The value of a number.
    pub number: Option<number_data_point::Value>,
    /// How often was observed, if it is a histogram or a summary.
    pub count: Option<u64>,
    /// The sum of what was observed.
    pub sum: Option<f64>,
}

/// Conditions of which one must hold.
#[derive(Clone, Debug)]
pub struct Conditions(Vec<Expression>);

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
    IsMatch(Box<Operand>, Regex),
    HasAttribute(String, Option<String>),
}

impl Conditions {
    /// Parses a list of conditions. Errors are the index of a condition and the Collector's text
    /// about it.
    pub fn new(context: Context, list: &[String]) -> Result<Self, Vec<(usize, String)>> {
        let (mut all, mut wrong) = (Vec::new(), Vec::new());
        for (i, text) in list.iter().enumerate() {
            match parse::condition(context, text) {
                Ok(expression) => all.push(expression),
                Err(error) => {
                    wrong.push((i, format!("unable to parse OTTL condition {text:?}: {error}")));
                }
            }
        }
        if wrong.is_empty() { Ok(Self(all)) } else { Err(wrong) }
    }

    /// Whether one of them holds.
    pub fn hold(&self, item: &Item<'_>) -> bool {
        self.0.iter().any(|condition| condition.holds(item))
    }
}

impl Expression {
    fn holds(&self, item: &Item<'_>) -> bool {
        match self {
            Self::Or(all) => all.iter().any(|one| one.holds(item)),
            Self::And(all) => all.iter().all(|one| one.holds(item)),
            Self::Not(one) => !one.holds(item),
            Self::Compare(left, operator, right) => {
                operator.compare(&left.value(item), &right.value(item))
            }
            Self::Is(operand) => matches!(operand.value(item), Any::Bool(true)),
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, item: &Item<'a>) -> Any<'a> {
        match self {
            Self::Nil => Any::Nil,
            Self::Bool(value) => Any::Bool(*value),
            Self::Int(value) => Any::Int(*value),
            Self::Double(value) => Any::Double(*value),
            Self::Text(text) => Any::Text(text.as_str().into()),
            Self::Bytes(bytes) => Any::Bytes(bytes),
            Self::Path(path) => path.get(item),
            Self::IsMatch(target, pattern) => Any::Bool(match target.value(item) {
                Any::Nil => false,
                Any::Text(text) => pattern.is_match(&text),
                other => pattern.is_match(&other.text()),
            }),
            Self::HasAttribute(key, wanted) => Any::Bool(match item.of {
                Of::Metric(metric) => has_attribute(metric, key, wanted.as_deref()),
                _ => false,
            }),
        }
    }
}

/// Whether the first point that has the attribute has this value, as in the Collector.
fn has_attribute(metric: &Metric, key: &str, wanted: Option<&str>) -> bool {
    use opentelemetry_proto::tonic::{common::v1::any_value::Value, metrics::v1::metric::Data};
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

impl Any<'_> {
    fn text(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Double(value) => value::float(*value),
            Self::Text(text) => text.clone().into_owned(),
            Self::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            Self::Whole(value) => value::text(Some(value)),
        }
    }
}

#[cfg(test)]
mod tests;
