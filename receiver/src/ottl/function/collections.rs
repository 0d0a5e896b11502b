//! Lists and maps.

use std::cmp::Ordering;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

use super::{
    super::{
        Of,
        compare::{Any, Operator},
        has_attribute as has,
    },
    Arguments, expected, made, text,
};
use crate::value;

type Value<'a> = Result<Any<'a>, String>;

pub(super) fn coalesce(mut arguments: Arguments<'_>) -> Value<'_> {
    let mut values = arguments.list()?.into_iter();
    Ok(values.find(|value| *value != Any::Nil).unwrap_or(Any::Nil))
}

pub(super) fn contains(mut arguments: Arguments<'_>) -> Value<'_> {
    let items = arguments.list()?;
    let wanted = arguments.next();
    Ok(Any::Bool(items.iter().any(|item| Operator::Equal.compare(item, &wanted))))
}

pub(super) fn has_attribute(mut arguments: Arguments<'_>) -> Value<'_> {
    let key = arguments.text()?;
    let wanted = arguments.given().map(text).transpose()?;
    Ok(Any::Bool(match arguments.item.of {
        Of::Metric(about) if about.kind == 0 => return Err("unknown metric type".to_owned()),
        Of::Metric(about) => has(about.metric, &key, wanted.as_deref()),
        _ => false,
    }))
}

pub(super) fn index(mut arguments: Arguments<'_>) -> Value<'_> {
    let (target, value) = (arguments.next(), arguments.next());
    let found = match target {
        Any::Text(text) => match value {
            Any::Text(part) => text.find(&*part),
            _ => {
                return Err(
                    "invalid value type for Index function, value must be a string".to_owned()
                );
            }
        },
        other => {
            let items = other.into_list().map_err(|other| expected("pcommon.Slice", &other))?;
            items.iter().position(|item| Operator::Equal.compare(item, &value))
        }
    };
    Ok(Any::Int(found.map_or(-1, |at| at as i64)))
}

pub(super) fn len(mut arguments: Arguments<'_>) -> Value<'_> {
    let value = arguments.next();
    let length = match &value {
        Any::Text(text) => Some(text.len()),
        Any::Bytes(bytes) => Some(bytes.len()),
        Any::Held(_, length) => *length,
        other => other.map().map(<[_]>::len).or_else(|| other.list().map(|items| items.len())),
    };
    length.map(|length| Any::Int(length as i64)).ok_or_else(|| {
        "target arg must be of type string, []any, map[string]any, pcommon.Map, pcommon.Slice, or \
         pcommon.Value (of type String, Map, Slice)"
            .to_owned()
    })
}

pub(super) fn keys(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::List(arguments.map()?.into_iter().map(|pair| made(pair.key)).collect()))
}

pub(super) fn values(mut arguments: Arguments<'_>) -> Value<'_> {
    let value = |pair: KeyValue| pair.value.unwrap_or_default().into();
    Ok(Any::List(arguments.map()?.into_iter().map(value).collect()))
}

pub(super) fn slice_to_map(mut arguments: Arguments<'_>) -> Value<'_> {
    let items = arguments.list()?;
    let mut path = || -> Result<Option<Vec<String>>, String> {
        let Some(given) = arguments.given() else { return Ok(None) };
        let list = given.into_list().map_err(|other| expected("pcommon.Slice", &other))?;
        list.into_iter()
            .map(|part| text(part).map(|part| part.into_owned()))
            .collect::<Result<_, _>>()
            .map(Some)
    };
    let (key_path, value_path) = (path()?, path()?);
    let mut pairs: Vec<KeyValue> = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        let item = item.own();
        let whole = Any::from(item.value.as_ref());
        if (key_path.is_some() || value_path.is_some()) && whole.map().is_none() {
            return Err(format!(
                "slice elements must be maps when using `key_path` or `value_path`, but could not \
                 cast element of type `{}` to a map",
                whole.kind()
            ));
        }
        let at = |path: &[String], what: &str| {
            lead(&item, path).ok_or_else(|| format!("could not extract {what} from element {i}"))
        };
        let key = match &key_path {
            None => i.to_string(),
            Some(path) => match Any::from(at(path, "key")?) {
                Any::Text(text) => text.into_owned(),
                other => {
                    return Err(format!(
                        "element {i}: extracted key attribute is not of type string, got {:?}",
                        other.kind()
                    ));
                }
            },
        };
        let value = match &value_path {
            None => item,
            Some(path) => at(path, "value")?,
        };
        pairs.retain(|pair| pair.key != key);
        pairs.push(KeyValue { key, value: Some(value), ..Default::default() });
    }
    Ok(Any::Map(pairs.into()))
}

/// What a path of keys leads to.
fn lead(from: &AnyValue, path: &[String]) -> Option<AnyValue> {
    path.iter().try_fold(from.clone(), |value, key| {
        let value = Any::from(value.value.as_ref());
        value.map()?.iter().find(|pair| pair.key == *key)?.value.clone()
    })
}

pub(super) fn sort(mut arguments: Arguments<'_>) -> Value<'_> {
    let target = arguments.next();
    let mut items = target.into_list().map_err(|other| {
        format!("sort with unsupported type: '{}'. Target is not a list", other.kind())
    })?;
    let descending = arguments.text_or("asc")? == "desc";
    let numbers = items.iter().all(|item| matches!(item, Any::Int(_) | Any::Double(_)));
    let texts = items.iter().all(|item| {
        matches!(item, Any::Int(_) | Any::Double(_) | Any::Text(_) | Any::Bool(_) | Any::Nil)
    });
    // Others have no order, and stay as they are.
    if numbers || texts {
        items.sort_by(|a, b| {
            let order = match (numbers, a, b) {
                (true, Any::Int(a), Any::Int(b)) => a.cmp(b),
                (true, Any::Double(a), Any::Double(b)) => a.total_cmp(b),
                (true, Any::Int(a), Any::Double(b)) => (*a as f64).total_cmp(b),
                (true, Any::Double(a), Any::Int(b)) => a.total_cmp(&(*b as f64)),
                _ => a.text().cmp(&b.text()),
            };
            if descending { order.reverse() } else { order }
        });
    }
    Ok(Any::List(items))
}

pub(super) fn to_key_value_string(mut arguments: Arguments<'_>) -> Value<'_> {
    let mut pairs = arguments.map()?;
    let (by, between) = (arguments.text_or("=")?, arguments.text_or(" ")?);
    if arguments.truth() {
        pairs.sort_by(|a, b| -> Ordering { a.key.cmp(&b.key) });
    }
    let quoted = |text: &str| {
        let text = text.replace('"', "\\\"");
        match text.contains(&*between) || text.contains(&*by) {
            true => format!("\"{text}\""),
            false => text,
        }
    };
    let pair = |pair: &KeyValue| {
        let text = value::text(pair.value.as_ref().and_then(|value| value.value.as_ref()));
        format!("{}{by}{}", quoted(&pair.key), quoted(&text))
    };
    let all: Vec<_> = pairs.iter().map(pair).collect();
    Ok(made(all.join(&between)))
}
