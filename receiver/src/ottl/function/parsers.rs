//! Texts that hold more: JSON, pairs, rows, addresses, what a pattern finds.

use std::net::IpAddr;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use regex::Regex;
use serde_json::Value as Json;

use super::{super::compare::Any, Arguments, made};
use crate::{processors::matching::regexp, value};

type Value<'a> = Result<Any<'a>, String>;

/// A pattern that a converter is given.
pub fn pattern(function: &str, text: &str) -> Result<Regex, String> {
    regexp(text).map_err(|error| {
        format!(
            "the regex pattern supplied to {function} '{:?}' is not a valid pattern: {error}",
            text
        )
    })
}

/// Bytes of their hexadecimal digits.
pub(super) fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let byte = |i| digits.get(i..i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len())
        .step_by(2)
        .map(|i| byte(i).ok_or_else(|| format!("invalid hexadecimal digits {digits:?}")))
        .collect()
}

/// A pair.
pub(super) fn pair(key: &str, value: Any<'_>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value.own()), ..Default::default() }
}

/// Later pairs take the place of earlier ones with the same key.
pub(super) fn map<'a>(pairs: impl IntoIterator<Item = KeyValue>) -> Any<'a> {
    let mut all: Vec<KeyValue> = Vec::new();
    for pair in pairs {
        match all.iter_mut().find(|known| known.key == pair.key) {
            Some(known) => *known = pair,
            None => all.push(pair),
        }
    }
    Any::Map(all.into())
}

/// All numbers are doubles, as in the Collector.
pub(super) fn parse_json(mut arguments: Arguments<'_>) -> Value<'_> {
    let parsed: Json =
        serde_json::from_str(&arguments.text()?).map_err(|error| error.to_string())?;
    match &parsed {
        Json::Array(_) | Json::Object(_) => {
            let mut whole = value::from_config(&parsed);
            doubles(&mut whole);
            Ok(whole.into())
        }
        scalar => {
            let kind = match scalar {
                Json::Null => "<nil>",
                Json::Bool(_) => "bool",
                Json::Number(_) => "float64",
                _ => "string",
            };
            Err(format!("could not convert parsed value of type {kind} to JSON object"))
        }
    }
}

fn doubles(value: &mut AnyValue) {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    match &mut value.value {
        Some(Value::IntValue(number)) => value.value = Some(Value::DoubleValue(*number as f64)),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(doubles),
        Some(Value::KvlistValue(list)) => {
            list.values.iter_mut().filter_map(|pair| pair.value.as_mut()).for_each(doubles);
        }
        _ => {}
    }
}

pub(super) fn parse_int(mut arguments: Arguments<'_>) -> Value<'_> {
    let (text, base) = (arguments.text()?, arguments.int()?);
    if text.is_empty() {
        return Err("invalid target value for ParseInt function, target cannot be empty".to_owned());
    }
    if base < 0 {
        return Err(format!(
            "invalid base value: {base} for ParseInt function, base cannot be negative"
        ));
    }
    let (digits, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(&text), false),
    };
    // Base 0 is what the digits say.
    let prefix = |what: &str| digits.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(what));
    let digits = match base {
        // Go takes `_` between digits then.
        0 if !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__") => {
            digits.replace('_', "")
        }
        _ => digits.to_owned(),
    };
    let digits = digits.as_str();
    let (digits, base) = match base {
        0 if prefix("0x") => (&digits[2..], 16),
        0 if prefix("0b") => (&digits[2..], 2),
        0 if prefix("0o") => (&digits[2..], 8),
        0 if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        0 => (digits, 10),
        base => (digits, u32::try_from(base).unwrap_or(u32::MAX)),
    };
    if !(2..=36).contains(&base) {
        return Err(format!("strconv.ParseInt: parsing {text:?}: invalid base {base}"));
    }
    let signed = format!("{}{digits}", if negative { "-" } else { "" });
    let valid = !digits.starts_with(['+', '-']);
    let number = i64::from_str_radix(&signed, base).ok().filter(|_| valid);
    number
        .map(Any::Int)
        .ok_or_else(|| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

pub(super) fn check_delimiters(by: Option<&str>, between: Option<&str>) -> Result<(), String> {
    match (by.unwrap_or("="), between.unwrap_or(" ")) {
        ("", _) => Err("delimiter cannot be set to an empty string".to_owned()),
        (_, "") => Err("pair delimiter cannot be set to an empty string".to_owned()),
        (by, between) if by == between => {
            Err(format!("pair delimiter {between:?} cannot be equal to delimiter {by:?}"))
        }
        _ => Ok(()),
    }
}

pub(super) fn parse_key_value(mut arguments: Arguments<'_>) -> Value<'_> {
    let text = arguments.text()?;
    let (by, between) = (arguments.text_or("=")?, arguments.text_or(" ")?);
    if text.is_empty() {
        return Err("cannot parse from empty target".to_owned());
    }
    let parts = parts(&text, &between)
        .map_err(|error| format!("splitting source {text:?} into pairs failed: {error}"))?;
    let pairs = parts.iter().map(|part| match part.split_once(&*by) {
        Some((key, value)) => Ok(pair(key.trim(), made(value.trim()))),
        None => Err(format!(
            "failed to split pairs into key-values: cannot split {part:?} into 2 items, got 1 item(s)"
        )),
    });
    Ok(map(pairs.collect::<Result<Vec<_>, _>>()?))
}

/// What stands between delimiters that are not in quotes. Quotes are left out.
fn parts(text: &str, delimiter: &str) -> Result<Vec<String>, String> {
    let (mut all, mut now) = (Vec::new(), String::new());
    let (mut quote, mut escaped) = (None, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if quote.is_none()
            && let Some(after) = rest.strip_prefix(delimiter)
        {
            if !now.is_empty() {
                all.push(std::mem::take(&mut now));
            }
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        if escaped {
            escaped = false;
        } else {
            match quote {
                None if c == '"' || c == '\'' => {
                    quote = Some(c);
                    continue;
                }
                Some(open) if open == c => {
                    quote = None;
                    continue;
                }
                _ => escaped = c == '\\',
            }
        }
        now.push(c);
    }
    if quote.is_some() {
        return Err("never reached the end of a quoted value".to_owned());
    }
    if !now.is_empty() {
        all.push(now);
    }
    Ok(all)
}

pub(super) fn check_csv(
    delimiter: Option<&str>,
    header_delimiter: Option<&str>,
    mode: Option<&str>,
) -> Result<(), String> {
    for (name, given) in [("delimiter", delimiter), ("header_delimiter", header_delimiter)] {
        if given.is_some_and(|given| given.chars().count() != 1) {
            return Err(format!("invalid arguments: {name} must be a single character"));
        }
    }
    match mode {
        None | Some("strict" | "lazyQuotes" | "ignoreQuotes") => Ok(()),
        Some(mode) => Err(format!("unknown mode: {mode}")),
    }
}

pub(super) fn parse_csv(mut arguments: Arguments<'_>) -> Value<'_> {
    let (row, header) = (arguments.text()?, arguments.text()?);
    let delimiter = arguments.text_or(",")?;
    let header_delimiter = arguments.text_or("")?;
    let mode = arguments.text_or("strict")?;
    if header.is_empty() {
        return Err("headers must not be an empty string".to_owned());
    }
    let between = if header_delimiter.is_empty() { &delimiter } else { &header_delimiter };
    let headers: Vec<&str> = header.split(&**between).collect();
    let fields = match &*mode {
        "ignoreQuotes" => row.split(&*delimiter).map(str::to_owned).collect(),
        mode => fields(&row, delimiter.chars().next().unwrap_or(','), mode == "lazyQuotes")?,
    };
    if fields.len() != headers.len() {
        return Err(format!(
            "map csv headers: wrong number of fields: expected {}, found {}",
            headers.len(),
            fields.len()
        ));
    }
    Ok(map(headers.iter().zip(fields).map(|(key, field)| pair(key, made(field)))))
}

/// The fields of a row. A field in quotes holds delimiters, ends of lines and doubled quotes; an end of a line elsewhere
/// belongs to its field. If `lazy`, quotes may stand in a field.
fn fields(row: &str, delimiter: char, lazy: bool) -> Result<Vec<String>, String> {
    let row = row.strip_suffix('\n').unwrap_or(row);
    if row.is_empty() {
        return Err("no csv lines found".to_owned());
    }
    let wrong = |what: &str| Err(format!("read csv line: parse error: {what} in quoted-field"));
    let mut all = vec![String::new()];
    let mut chars = row.chars().peekable();
    let (mut quoted, mut begins) = (false, true);
    while let Some(c) = chars.next() {
        let field = all.last_mut().expect("there is one");
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted => {
                let ends = chars.peek().is_none_or(|next| *next == delimiter || *next == '\n');
                match (ends, lazy) {
                    (true, _) => quoted = false,
                    (false, true) => field.push('"'),
                    (false, false) => return wrong("extraneous or missing \""),
                }
            }
            '"' if begins => quoted = true,
            '"' if !lazy => {
                return Err("read csv line: parse error: bare \" in non-quoted-field".to_owned());
            }
            c if c == delimiter && !quoted => {
                all.push(String::new());
                begins = true;
                continue;
            }
            c => field.push(c),
        }
        begins = false;
    }
    if quoted && !lazy {
        return wrong("extraneous or missing \"");
    }
    Ok(all)
}

pub(super) fn extract_patterns(mut arguments: Arguments<'_>) -> Value<'_> {
    let (text, regex) = (arguments.text()?, arguments.text()?);
    let regex = pattern("ExtractPatterns", &regex)?;
    if regex.capture_names().flatten().next().is_none() {
        return Err("at least 1 named capture group must be supplied in the given regex".to_owned());
    }
    let Some(found) = regex.captures(&text) else { return Ok(map([])) };
    let groups = regex.capture_names().flatten().map(|name| {
        // A group that took no part in the match is empty, as in Go.
        pair(name, made(found.name(name).map_or("", |group| group.as_str())))
    });
    Ok(map(groups))
}

/// An address and how many bits of it count.
pub(super) fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most)?;
        Some((address, bits))
    });
    parsed.ok_or_else(|| format!("invalid CIDR address: {text}"))
}

pub(super) fn is_in_cidr(mut arguments: Arguments<'_>) -> Value<'_> {
    let (text, networks) = (arguments.text()?, arguments.list()?);
    let Ok(address) = text.parse::<IpAddr>() else { return Ok(Any::Bool(false)) };
    for one in networks {
        let (of, bits) = network(&super::text(one)?)?;
        let within = match (of, address.to_canonical()) {
            (IpAddr::V4(of), IpAddr::V4(address)) => {
                let differ = u32::from(of) ^ u32::from(address);
                differ.checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(of), IpAddr::V6(address)) => {
                let differ = u128::from(of) ^ u128::from(address);
                differ.checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
            }
            _ => false,
        };
        if within {
            return Ok(Any::Bool(true));
        }
    }
    Ok(Any::Bool(false))
}

/// The first level in the mapping of which a criterion is met.
pub(super) fn parse_severity(mut arguments: Arguments<'_>) -> Value<'_> {
    let (target, mapping) = (arguments.next(), arguments.map()?);
    let invalid = |what: &str| Err(format!("invalid severity mapping criteria: {what}"));
    for level in &mapping {
        let criteria = Any::from(level.value.as_ref().and_then(|value| value.value.as_ref()));
        let Some(criteria) = criteria.list() else {
            return Err("severity mapping criteria must be []any".to_owned());
        };
        for one in criteria.iter() {
            let Some(one) = one.map() else {
                return Err("severity mapping criteria items must be map[string]any".to_owned());
            };
            let equals = Any::from(value::get(one, "equals"));
            let range = Any::from(value::get(one, "range"));
            let met = match &target {
                Any::Text(_) => match (equals.list(), &equals) {
                    (Some(texts), _) => texts.contains(&target),
                    (None, Any::Nil) => false,
                    _ => return invalid("equals must be a list"),
                },
                Any::Int(number) => {
                    let range = match (&range, range.map()) {
                        (Any::Nil, _) => None,
                        (Any::Text(class), _) => match &**class {
                            "2xx" => Some((200, 299)),
                            "3xx" => Some((300, 399)),
                            "4xx" => Some((400, 499)),
                            "5xx" => Some((500, 599)),
                            other => {
                                return invalid(&format!("unknown range placeholder: {other}"));
                            }
                        },
                        (_, Some(bounds)) => {
                            let bound = |name| match Any::from(value::get(bounds, name)) {
                                Any::Int(bound) => Some(bound),
                                _ => None,
                            };
                            match (bound("min"), bound("max")) {
                                (Some(min), Some(max)) => Some((min, max)),
                                _ => return invalid("range must have a min value and a max value"),
                            }
                        }
                        _ => return invalid("range must be a map or a known placeholder string"),
                    };
                    range.is_some_and(|(min, max)| (min..=max).contains(number))
                }
                other => {
                    return Err(format!(
                        "could not map log level: could not evaluate log level of value '{}': \
                         unsupported value type: {}",
                        other.shown(),
                        other.kind()
                    ));
                }
            };
            if met {
                return Ok(made(level.key.clone()));
            }
        }
    }
    Err(format!(
        "could not map log level: no matching log level found for value '{}'",
        target.shown()
    ))
}
