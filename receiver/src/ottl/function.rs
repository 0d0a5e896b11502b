//! Converters: functions that make a value of values. Times and durations are nanoseconds.

use std::{ops::RangeInclusive, time::SystemTime};

use super::{
    Context, Item, Of,
    compare::{Any, Operator},
};

use crate::metric::nanos;

/// A converter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Bool,
    Concat,
    ContainsValue,
    Double,
    Duration,
    HasPrefix,
    HasSuffix,
    Int,
    IsBool,
    IsDouble,
    IsInt,
    IsList,
    IsMap,
    IsRootSpan,
    IsString,
    Len,
    Now,
    SpanId,
    Split,
    String,
    Substring,
    ToLowerCase,
    ToUpperCase,
    TraceId,
    Trim,
    TrimPrefix,
    TrimSuffix,
}

impl Function {
    /// The converter of this name, and how many arguments it takes.
    pub fn named(name: &str, context: Context) -> Option<(Self, RangeInclusive<usize>)> {
        Some(match name {
            "Bool" => (Self::Bool, 1..=1),
            "Concat" => (Self::Concat, 2..=2),
            "ContainsValue" => (Self::ContainsValue, 2..=2),
            "Double" => (Self::Double, 1..=1),
            "Duration" => (Self::Duration, 1..=1),
            "HasPrefix" => (Self::HasPrefix, 2..=2),
            "HasSuffix" => (Self::HasSuffix, 2..=2),
            "Int" => (Self::Int, 1..=1),
            "IsBool" => (Self::IsBool, 1..=1),
            "IsDouble" => (Self::IsDouble, 1..=1),
            "IsInt" => (Self::IsInt, 1..=1),
            "IsList" => (Self::IsList, 1..=1),
            "IsMap" => (Self::IsMap, 1..=1),
            "IsRootSpan" if context == Context::Span => (Self::IsRootSpan, 0..=0),
            "IsString" => (Self::IsString, 1..=1),
            "Len" => (Self::Len, 1..=1),
            "Now" => (Self::Now, 0..=0),
            "SpanID" => (Self::SpanId, 1..=1),
            "Split" => (Self::Split, 2..=2),
            "String" => (Self::String, 1..=1),
            "Substring" => (Self::Substring, 3..=3),
            "ToLowerCase" => (Self::ToLowerCase, 1..=1),
            "ToUpperCase" => (Self::ToUpperCase, 1..=1),
            "TraceID" => (Self::TraceId, 1..=1),
            "Trim" => (Self::Trim, 1..=2),
            "TrimPrefix" => (Self::TrimPrefix, 2..=2),
            "TrimSuffix" => (Self::TrimSuffix, 2..=2),
            _ => return None,
        })
    }

    /// The value; fails on values of a type that the converter does not take.
    pub fn call<'a>(self, arguments: Vec<Any<'a>>, item: &Item<'a>) -> Result<Any<'a>, String> {
        let mut arguments = arguments.into_iter();
        // The parser has counted them.
        let mut next = || arguments.next().unwrap_or(Any::Nil);
        Ok(match self {
            Self::Bool => bool(next()),
            Self::Concat => concat(&next(), &text(next())?)?,
            Self::ContainsValue => {
                let list = next();
                let items = list.list().ok_or_else(|| expected("pcommon.Slice", &list))?;
                let wanted = next();
                Any::Bool(items.iter().any(|item| Operator::Equal.compare(item, &wanted)))
            }
            Self::Double => double(next()),
            Self::Duration => {
                let text = text(next())?;
                let duration = crate::config::parse_duration(&text)?;
                Any::Int(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
            }
            Self::HasPrefix => Any::Bool(text(next())?.starts_with(&*text(next())?)),
            Self::HasSuffix => Any::Bool(text(next())?.ends_with(&*text(next())?)),
            Self::Int => int(next()),
            Self::IsBool => Any::Bool(matches!(next(), Any::Bool(_))),
            Self::IsDouble => Any::Bool(matches!(next(), Any::Double(_))),
            Self::IsInt => Any::Bool(matches!(next(), Any::Int(_))),
            Self::IsList => Any::Bool(next().list().is_some()),
            Self::IsMap => Any::Bool(next().map().is_some()),
            Self::IsRootSpan => Any::Bool(match item.of {
                Of::Span(span) => span.parent_span_id.iter().all(|byte| *byte == 0),
                _ => false,
            }),
            Self::IsString => Any::Bool(matches!(next(), Any::Text(_))),
            Self::Len => Any::Int(length(&next())? as i64),
            Self::Now => Any::Int(nanos(SystemTime::now()) as i64),
            Self::SpanId => id(next(), 8, "span")?,
            Self::Split => {
                let (target, by) = (text(next())?, text(next())?);
                let part = |part: &str| Any::Text(part.to_owned().into());
                match by.is_empty() {
                    // Go splits into characters then.
                    true => Any::List(target.chars().map(|c| part(&c.to_string())).collect()),
                    false => Any::List(target.split(&*by).map(part).collect()),
                }
            }
            Self::String => match next() {
                Any::Nil => Any::Nil,
                other => Any::Text(other.text().into()),
            },
            Self::Substring => substring(&text(next())?, number(next())?, number(next())?)?,
            Self::ToLowerCase => Any::Text(text(next())?.to_lowercase().into()),
            Self::ToUpperCase => Any::Text(text(next())?.to_uppercase().into()),
            Self::TraceId => id(next(), 16, "trace")?,
            Self::Trim => {
                let target = text(next())?;
                let set = match next() {
                    Any::Nil => " ".into(),
                    given => text(given)?,
                };
                Any::Text(target.trim_matches(|c| set.contains(c)).to_owned().into())
            }
            Self::TrimPrefix => {
                let (target, prefix) = (text(next())?, text(next())?);
                Any::Text(target.strip_prefix(&*prefix).unwrap_or(&target).to_owned().into())
            }
            Self::TrimSuffix => {
                let (target, suffix) = (text(next())?, text(next())?);
                Any::Text(target.strip_suffix(&*suffix).unwrap_or(&target).to_owned().into())
            }
        })
    }
}

fn expected(what: &str, found: &Any<'_>) -> String {
    format!("expected {what} but got {}", found.kind())
}

fn text(value: Any<'_>) -> Result<std::borrow::Cow<'_, str>, String> {
    match value {
        Any::Text(text) => Ok(text),
        other => Err(expected("string", &other)),
    }
}

fn number(value: Any<'_>) -> Result<i64, String> {
    match value {
        Any::Int(value) => Ok(value),
        other => Err(expected("int64", &other)),
    }
}

/// What cannot be read as one is nil.
fn bool(value: Any<'_>) -> Any<'_> {
    match value {
        Any::Int(value) => Any::Bool(value != 0),
        Any::Double(value) => Any::Bool(value != 0.0),
        Any::Text(text) => match &*text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Any::Bool(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Any::Bool(false),
            _ => Any::Nil,
        },
        Any::Bool(_) => value,
        _ => Any::Nil,
    }
}

fn int(value: Any<'_>) -> Any<'_> {
    match value {
        Any::Int(_) => value,
        Any::Bool(value) => Any::Int(value.into()),
        Any::Double(value) => Any::Int(value as i64),
        Any::Text(text) => text.parse().map_or(Any::Nil, Any::Int),
        _ => Any::Nil,
    }
}

fn double(value: Any<'_>) -> Any<'_> {
    match value {
        Any::Double(_) => value,
        Any::Bool(value) => Any::Double(f64::from(u8::from(value))),
        Any::Int(value) => Any::Double(value as f64),
        Any::Text(text) => text.parse().map_or(Any::Nil, Any::Double),
        _ => Any::Nil,
    }
}

fn concat<'a>(values: &Any<'_>, by: &str) -> Result<Any<'a>, String> {
    let values = values.list().ok_or_else(|| expected("[]interface {}", values))?;
    let texts: Vec<_> = values.iter().map(Any::shown).collect();
    Ok(Any::Text(texts.join(by).into()))
}

fn length(value: &Any<'_>) -> Result<usize, String> {
    if let Any::Text(text) = value {
        return Ok(text.len());
    }
    let list = || value.list().map(|items| items.len());
    value.map().map(<[_]>::len).or_else(list).ok_or_else(|| {
        "target arg must be of type string, []any, map[string]any, pcommon.Map, pcommon.Slice, or \
         pcommon.Value (of type String, Map, Slice)"
            .to_owned()
    })
}

/// By bytes, as in the Collector.
fn substring<'a>(target: &str, start: i64, length: i64) -> Result<Any<'a>, String> {
    let from = usize::try_from(start)
        .map_err(|_| format!("invalid start for substring function, {start} cannot be negative"))?;
    let length = usize::try_from(length).ok().filter(|length| *length > 0).ok_or_else(|| {
        format!("invalid length for substring function, {length} cannot be negative or zero")
    })?;
    let to = from.saturating_add(length);
    let part = target.as_bytes().get(from..to).ok_or_else(|| {
        format!(
            "invalid range for substring function, {to} cannot be greater than the length of \
             target string({})",
            target.len()
        )
    })?;
    Ok(Any::Text(String::from_utf8_lossy(part).into_owned().into()))
}

fn id<'a>(value: Any<'a>, length: usize, what: &str) -> Result<Any<'a>, String> {
    match value {
        Any::Bytes(bytes) if bytes.len() == length => Ok(value),
        Any::Bytes(_) => Err(format!("{what} ids must be {length} bytes")),
        other => Err(expected("[]byte", &other)),
    }
}
