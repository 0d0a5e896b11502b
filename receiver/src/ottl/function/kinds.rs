//! Types: asked for, and changed.

use super::{
    super::{Of, compare::Any},
    Arguments, expected,
};

type Value<'a> = Result<Any<'a>, String>;

/// What cannot be read as one is nil.
pub(super) fn bool(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(match arguments.next() {
        Any::Int(value) => Any::Bool(value != 0),
        Any::Double(value) => Any::Bool(value != 0.0),
        Any::Text(text) => match &*text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Any::Bool(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Any::Bool(false),
            _ => Any::Nil,
        },
        value @ Any::Bool(_) => value,
        Any::Nil => Any::Nil,
        other => return Err(unsupported(&other)),
    })
}

fn unsupported(value: &Any<'_>) -> String {
    format!("unsupported type: {}", value.kind())
}

pub(super) fn int(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(match arguments.next() {
        value @ Any::Int(_) => value,
        Any::Bool(value) => Any::Int(value.into()),
        Any::Double(value) => Any::Int(value as i64),
        Any::Text(text) => text.parse().map_or(Any::Nil, Any::Int),
        Any::Nil => Any::Nil,
        other => return Err(unsupported(&other)),
    })
}

fn as_double(value: Any<'_>) -> Value<'_> {
    Ok(match value {
        Any::Double(_) | Any::Nil => value,
        Any::Bool(value) => Any::Double(f64::from(u8::from(value))),
        Any::Int(value) => Any::Double(value as f64),
        Any::Text(text) => text.parse().map_or(Any::Nil, Any::Double),
        other => return Err(unsupported(&other)),
    })
}

pub(super) fn double(mut arguments: Arguments<'_>) -> Value<'_> {
    as_double(arguments.next())
}

pub(super) fn log(mut arguments: Arguments<'_>) -> Value<'_> {
    match as_double(arguments.next())? {
        Any::Double(value) if value > 0.0 => Ok(Any::Double(value.ln())),
        Any::Double(value) => Err(format!(
            "invalid input: expected number greater than zero but got {}",
            crate::value::float(value)
        )),
        other => Err(expected("float64", &other)),
    }
}

pub(super) fn string(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(match arguments.next() {
        Any::Nil => Any::Nil,
        other => Any::Text(other.text().into()),
    })
}

pub(super) fn is_bool(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(matches!(arguments.next(), Any::Bool(_))))
}

pub(super) fn is_double(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(matches!(arguments.next(), Any::Double(_))))
}

pub(super) fn is_int(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(matches!(arguments.next(), Any::Int(_))))
}

pub(super) fn is_string(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(matches!(arguments.next(), Any::Text(_))))
}

pub(super) fn is_list(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(arguments.next().list().is_some()))
}

pub(super) fn is_map(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(arguments.next().map().is_some()))
}

pub(super) fn is_root_span(arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(match arguments.item.of {
        Of::Span(span) => span.parent_span_id.iter().all(|byte| *byte == 0),
        _ => false,
    }))
}
