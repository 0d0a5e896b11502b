//! Values and how they compare: numbers with numbers, otherwise only what has the same type; nil is
//! equal to nil alone.

use std::{borrow::Cow, cmp::Ordering, time::Duration};

use jiff::Zoned;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
};

use super::names::Field;
use crate::{config::duration_text, value};

/// A value at work.
#[derive(Clone, Debug, PartialEq)]
pub enum Any<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// Of a trace, a span or a profile: its own type, which has no order.
    Id(Cow<'a, [u8]>),
    /// A list or a map.
    Whole(&'a Value),
    /// A map, such as all attributes.
    Map(Cow<'a, [KeyValue]>),
    /// A list that was made.
    List(Vec<Any<'a>>),
    Time(Zoned),
    /// In nanoseconds.
    Duration(i64),
    /// What has parts that conditions cannot ask for, and how many, if it is a list of them.
    Held(Field, Option<usize>),
}

impl<'a> From<Option<&'a Value>> for Any<'a> {
    fn from(value: Option<&'a Value>) -> Self {
        match value {
            None | Some(Value::StringValueStrindex(_)) => Self::Nil,
            Some(Value::BoolValue(value)) => Self::Bool(*value),
            Some(Value::IntValue(value)) => Self::Int(*value),
            Some(Value::DoubleValue(value)) => Self::Double(*value),
            Some(Value::StringValue(text)) => Self::Text(text.into()),
            Some(Value::BytesValue(bytes)) => Self::Bytes(bytes.into()),
            Some(whole) => Self::Whole(whole),
        }
    }
}

impl From<AnyValue> for Any<'_> {
    fn from(value: AnyValue) -> Self {
        match value.value {
            None | Some(Value::StringValueStrindex(_)) => Self::Nil,
            Some(Value::BoolValue(value)) => Self::Bool(value),
            Some(Value::IntValue(value)) => Self::Int(value),
            Some(Value::DoubleValue(value)) => Self::Double(value),
            Some(Value::StringValue(text)) => Self::Text(text.into()),
            Some(Value::BytesValue(bytes)) => Self::Bytes(bytes.into()),
            Some(Value::ArrayValue(list)) => {
                Self::List(list.values.into_iter().map(Self::from).collect())
            }
            Some(Value::KvlistValue(list)) => Self::Map(list.values.into()),
        }
    }
}

impl<'a> Any<'a> {
    /// Its items, if it is a list.
    pub fn into_list(self) -> Result<Vec<Self>, Self> {
        match self {
            Self::List(items) => Ok(items),
            Self::Whole(Value::ArrayValue(list)) => {
                Ok(list.values.iter().map(|item| item.value.as_ref().into()).collect())
            }
            other => Err(other),
        }
    }

    /// Its items, if it is a list.
    pub fn list(&self) -> Option<Cow<'_, [Any<'_>]>> {
        match self {
            Self::List(items) => Some(Cow::Borrowed(items)),
            Self::Whole(Value::ArrayValue(list)) => {
                Some(list.values.iter().map(|item| item.value.as_ref().into()).collect())
            }
            _ => None,
        }
    }

    /// Its pairs, if it is a map.
    pub fn map(&self) -> Option<&[KeyValue]> {
        match self {
            Self::Map(pairs) => Some(pairs),
            Self::Whole(Value::KvlistValue(list)) => Some(&list.values),
            _ => None,
        }
    }

    /// As a value that telemetry can have.
    pub fn own(self) -> AnyValue {
        let value = match self {
            Self::Nil => None,
            Self::Bool(value) => Some(Value::BoolValue(value)),
            Self::Int(value) | Self::Duration(value) => Some(Value::IntValue(value)),
            Self::Double(value) => Some(Value::DoubleValue(value)),
            Self::Text(text) => Some(Value::StringValue(text.into_owned())),
            Self::Bytes(bytes) | Self::Id(bytes) => Some(Value::BytesValue(bytes.into_owned())),
            Self::Whole(value) => Some(value.clone()),
            Self::Map(pairs) => {
                Some(Value::KvlistValue(KeyValueList { values: pairs.into_owned() }))
            }
            Self::List(items) => {
                let values = items.into_iter().map(Self::own).collect();
                Some(Value::ArrayValue(ArrayValue { values }))
            }
            Self::Time(_) => Some(Value::StringValue(self.text())),
            Self::Held(..) => None,
        };
        AnyValue { value }
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
            Self::Id(bytes) if bytes.len() == 8 => "pcommon.SpanID",
            Self::Id(_) => "pcommon.TraceID",
            Self::Map(_) | Self::Whole(Value::KvlistValue(_)) => "pcommon.Map",
            Self::Whole(_) => "pcommon.Slice",
            Self::List(_) => "[]interface {}",
            Self::Time(_) => "time.Time",
            Self::Duration(_) => "time.Duration",
            Self::Held(field, _) => field.kind(),
        }
    }

    /// Its type, as a body's.
    pub fn body_kind(&self) -> &'static str {
        match self {
            Self::Nil => "Empty",
            Self::Bool(_) => "Bool",
            Self::Int(_) => "Int",
            Self::Double(_) => "Double",
            Self::Text(_) => "Str",
            Self::Bytes(_) => "Bytes",
            other => other.kind(),
        }
    }

    /// As a text.
    pub fn text(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Double(value) => value::float(*value),
            Self::Text(text) => text.clone().into_owned(),
            Self::Bytes(bytes) => super::hex(bytes),
            // As Go writes an array of bytes as JSON.
            Self::Id(bytes) => {
                let all: Vec<_> = bytes.iter().map(u8::to_string).collect();
                format!("[{}]", all.join(","))
            }
            Self::Whole(value) => value::text(Some(value)),
            Self::Map(pairs) => {
                let values = pairs.to_vec();
                value::text(Some(&Value::KvlistValue(KeyValueList { values })))
            }
            Self::List(items) => {
                // Texts in a list are quoted.
                let text = |item: &Any<'_>| match item {
                    Any::Nil => "null".to_owned(),
                    Any::Text(text) => format!("{text:?}"),
                    other => other.text(),
                };
                format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(","))
            }
            Self::Time(time) => {
                let zone = if time.offset().is_zero() { "Z" } else { "%:z" };
                let format = format!("\"%Y-%m-%dT%H:%M:%S%.f{zone}\"");
                time.strftime(&format).to_string()
            }
            Self::Duration(nanos) => nanos.to_string(),
            Self::Held(field, _) => field.kind().to_owned(),
        }
    }

    /// As Go prints it.
    pub fn shown(&self) -> String {
        match self {
            Self::Nil => "<nil>".to_owned(),
            Self::Id(bytes) => super::hex(bytes),
            Self::Time(time) => time.strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string(),
            Self::Duration(nanos) => {
                let sign = if *nanos < 0 { "-" } else { "" };
                let text = duration_text(Duration::from_nanos(nanos.unsigned_abs()));
                format!("{sign}{text}")
            }
            other => other.text(),
        }
    }

    fn equal(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.list(), other.list()) {
            return a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equal(b));
        }
        if let (Some(a), Some(b)) = (self.map(), other.map()) {
            return a.len() == b.len()
                && a.iter().all(|pair| {
                    let value = |of| Any::from(value::get(of, &pair.key));
                    value(a).equal(&value(b))
                });
        }
        // In lists and maps, numbers of different types are different.
        match (self, other) {
            (Any::Int(_), Any::Double(_)) | (Any::Double(_), Any::Int(_)) => false,
            _ => Operator::Equal.compare(self, other),
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
            (Any::Time(a), Any::Time(b)) => a.timestamp().partial_cmp(&b.timestamp()),
            (Any::Duration(a), Any::Duration(b)) => a.partial_cmp(b),
            (Any::Id(a), Any::Id(b)) => {
                return match self {
                    Self::Equal => a == b,
                    Self::NotEqual => a != b,
                    _ => false,
                };
            }
            // It is the item's own, and equal to itself alone; it has no order.
            (Any::Held(a, _), Any::Held(b, _)) => {
                return match self {
                    Self::Equal => a == b,
                    Self::NotEqual => a != b,
                    _ => false,
                };
            }
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
