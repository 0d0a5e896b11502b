//! Values and how they compare: numbers with numbers, otherwise only what has the same type; nil is
//! equal to nil alone.

use std::{borrow::Cow, cmp::Ordering};

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};

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
    /// All attributes.
    Map(&'a [KeyValue]),
    /// A list that was made.
    List(Vec<Any<'a>>),
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

impl<'a> Any<'a> {
    /// Its items, if it is a list.
    pub fn list(&self) -> Option<Cow<'_, [Any<'a>]>> {
        match self {
            Self::List(items) => Some(Cow::Borrowed(items)),
            Self::Whole(Value::ArrayValue(list)) => {
                Some(list.values.iter().map(|item| item.value.as_ref().into()).collect())
            }
            _ => None,
        }
    }

    /// Its pairs, if it is a map.
    pub fn map(&self) -> Option<&'a [KeyValue]> {
        match self {
            Self::Map(pairs) => Some(pairs),
            Self::Whole(Value::KvlistValue(list)) => Some(&list.values),
            _ => None,
        }
    }

    /// Its type, as Go names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int64",
            Self::Double(_) => "float64",
            Self::Text(_) => "string",
            Self::Bytes(_) => "[]uint8",
            Self::Map(_) | Self::Whole(Value::KvlistValue(_)) => "pcommon.Map",
            Self::Whole(_) => "pcommon.Slice",
            Self::List(_) => "[]interface {}",
        }
    }

    fn equal(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.list(), other.list()) {
            return a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equal(b));
        }
        if let (Some(a), Some(b)) = (self.map(), other.map()) {
            let value = |of: &'a [KeyValue], key: &str| Any::from(crate::value::get(of, key));
            return a.len() == b.len()
                && a.iter().all(|pair| value(a, &pair.key).equal(&value(b, &pair.key)));
        }
        Operator::Equal.compare(self, other)
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
            (
                Any::Whole(_) | Any::Map(_) | Any::List(_),
                Any::Whole(_) | Any::Map(_) | Any::List(_),
            ) => {
                let equal = (left.list().is_some() && right.list().is_some()
                    || left.map().is_some() && right.map().is_some())
                    && left.equal(right);
                return match self {
                    Self::Equal => equal,
                    Self::NotEqual => !equal,
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
