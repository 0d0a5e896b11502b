//! `match_type: expr`: expressions such as `MetricName == 'a' && Label('b') in ['c', 'd']`, asked of each point.
//! What a name is, is known: a mistake in types is one of the configuration.

mod lex;
mod parse;
mod value;

use std::cmp::Ordering;

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value},
    metrics::v1::{Metric, metric::Data},
};
use regex::Regex;

use self::{
    parse::{Kind, Parser},
    value::Value,
};
use crate::value::get;

/// An expression that is true or false.
#[derive(Debug)]
pub(super) struct Expression(Node);

/// An order that is asked for.
type Wanted = fn(Ordering) -> bool;

#[derive(Debug)]
enum Node {
    Constant(Value<'static>),
    MetricName,
    MetricType,
    Label(Box<Node>),
    HasLabel(Box<Node>),
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Negative(Box<Node>),
    Binary(Operator, Box<[Node; 2]>),
    /// A row of comparisons.
    Ordered(Box<Node>, Vec<(Wanted, Node)>),
    In(Box<Node>, Vec<Node>),
    Matches(Box<Node>, Regex),
    Choice(Box<[Node; 3]>),
    Call(Function, Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Len,
    Lower,
    Upper,
    Trim,
    Int,
    Float,
}

/// A metric and one of its points.
struct Asked<'a> {
    name: &'a str,
    kind: &'static str,
    attributes: &'a [KeyValue],
}

impl Expression {
    /// Reads an expression, or says what is wrong with it, and where.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let read = || {
            let tokens = lex::tokens(text)?;
            let made = Parser::new(&tokens).whole()?;
            made.must_be(Kind::Bool, |found| format!("expected bool, but got {found}"))
        };
        read().map(Self).map_err(|wrong| {
            let before = &text[..wrong.at];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("{} ({line}:{column})", wrong.message)
        })
    }

    /// Whether it is true of one of the metric's points; or why that cannot be told.
    pub(super) fn matches(&self, metric: &Metric) -> Result<bool, String> {
        macro_rules! any {
            ($data:ident, $kind:literal) => {{
                for point in &$data.data_points {
                    let attributes = &point.attributes;
                    let asked = Asked { name: &metric.name, kind: $kind, attributes };
                    if self.0.holds(&asked)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }};
        }
        match &metric.data {
            Some(Data::Gauge(data)) => any!(data, "Gauge"),
            Some(Data::Sum(data)) => any!(data, "Sum"),
            Some(Data::Histogram(data)) => any!(data, "Histogram"),
            Some(Data::ExponentialHistogram(data)) => any!(data, "ExponentialHistogram"),
            Some(Data::Summary(data)) => any!(data, "Summary"),
            None => Ok(false),
        }
    }
}

impl Node {
    fn holds(&self, asked: &Asked<'_>) -> Result<bool, String> {
        Ok(matches!(self.value(asked)?, Value::Bool(true)))
    }

    fn value<'a>(&'a self, asked: &Asked<'a>) -> Result<Value<'a>, String> {
        Ok(match self {
            Self::Constant(value) => value.borrowed(),
            Self::MetricName => Value::text(asked.name),
            Self::MetricType => Value::text(asked.kind),
            Self::Label(key) => {
                let key = key.value(asked)?;
                // What is no text is an empty one.
                Value::text(match get(asked.attributes, key.as_text()) {
                    Some(any_value::Value::StringValue(text)) => text,
                    _ => "",
                })
            }
            Self::HasLabel(key) => {
                let key = key.value(asked)?;
                Value::Bool(asked.attributes.iter().any(|a| a.key == key.as_text()))
            }
            Self::Or(all) => {
                for one in all {
                    if one.holds(asked)? {
                        return Ok(Value::Bool(true));
                    }
                }
                Value::Bool(false)
            }
            Self::And(all) => {
                for one in all {
                    if !one.holds(asked)? {
                        return Ok(Value::Bool(false));
                    }
                }
                Value::Bool(true)
            }
            Self::Not(one) => Value::Bool(!one.holds(asked)?),
            Self::Negative(one) => one.value(asked)?.negative(),
            Self::Binary(operator, sides) => {
                let [left, right] = &**sides;
                left.value(asked)?.with(*operator, right.value(asked)?)?
            }
            Self::Ordered(first, rest) => {
                let mut one = first.value(asked)?;
                for (by, other) in rest {
                    let other = other.value(asked)?;
                    if !one.compared(&other).is_some_and(by) {
                        return Ok(Value::Bool(false));
                    }
                    one = other;
                }
                Value::Bool(true)
            }
            Self::In(one, all) => {
                let one = one.value(asked)?;
                for other in all {
                    if one.equals(&other.value(asked)?) {
                        return Ok(Value::Bool(true));
                    }
                }
                Value::Bool(false)
            }
            Self::Matches(text, pattern) => {
                Value::Bool(pattern.is_match(text.value(asked)?.as_text()))
            }
            Self::Choice(parts) => {
                let [condition, yes, no] = &**parts;
                if condition.holds(asked)? { yes.value(asked)? } else { no.value(asked)? }
            }
            Self::Call(function, argument) => argument.value(asked)?.given_to(*function)?,
        })
    }
}

#[cfg(test)]
mod tests;
