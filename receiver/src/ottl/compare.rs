//! Values and how they compare: numbers with numbers, otherwise only what has the same type; nil is
//! equal to nil alone.

use std::{borrow::Cow, cmp::Ordering};

use opentelemetry_proto::tonic::common::v1::any_value::Value;

/// A value at work.
#[derive(Clone, Debug, PartialEq)]
pub enum Any<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// A list or a map.
    Whole(&'a Value),
}

impl<'a> From<Option<&'a Value>> for Any<'a> {
    fn from(value: Option<&'a Value>) -> Self {
        match value {
            None | Some(Value::StringValueStrindex(_)) => Self::Nil,
            Some(Value::BoolValue(value)) => Self::Bool(*value),
            Some(Value::IntValue(value)) => Self::Int(*value),
            Some(Value::DoubleValue(value)) => Self::Double(*value),
            Some(Value::StringValue(text)) => Self::Text(text.into()),
            Some(Value::BytesValue(bytes)) => Self::Bytes(bytes),
            Some(whole) => Self::Whole(whole),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    pub fn compare(self, left: &Any<'_>, right: &Any<'_>) -> bool {
        let order = match (left, right) {
            (Any::Nil, Any::Nil) => Some(Ordering::Equal),
            (Any::Bool(a), Any::Bool(b)) => a.partial_cmp(b),
            (Any::Int(a), Any::Int(b)) => a.partial_cmp(b),
            (Any::Int(a), Any::Double(b)) => (*a as f64).partial_cmp(b),
            (Any::Double(a), Any::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Any::Double(a), Any::Double(b)) => a.partial_cmp(b),
            (Any::Text(a), Any::Text(b)) => a.partial_cmp(b),
            (Any::Bytes(a), Any::Bytes(b)) => a.partial_cmp(b),
            // Lists and maps are equal or not, and have no order.
            (Any::Whole(a), Any::Whole(b)) => {
                return match self {
                    Self::Equal => a == b,
                    Self::NotEqual => a != b,
                    _ => false,
                };
            }
            _ => None,
        };
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}
