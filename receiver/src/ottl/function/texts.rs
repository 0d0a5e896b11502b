//! Texts and bytes.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use encoding_rs::Encoding;

use super::{
    super::{compare::Any, hex},
    Arguments, expected, made, parsers,
};

type Value<'a> = Result<Any<'a>, String>;

fn mapped(mut arguments: Arguments<'_>, map: impl Fn(&str) -> String) -> Value<'_> {
    arguments.text().map(|text| made(map(&text)))
}

pub(super) fn to_lower_case(arguments: Arguments<'_>) -> Value<'_> {
    mapped(arguments, lower)
}

pub(super) fn to_upper_case(arguments: Arguments<'_>) -> Value<'_> {
    mapped(arguments, upper)
}

/// Character by character, as in Go: none becomes several.
fn lower(text: &str) -> String {
    text.chars().filter_map(|c| c.to_lowercase().next()).collect()
}

fn upper(text: &str) -> String {
    let one = |c: char| {
        let mut all = c.to_uppercase();
        match (all.next(), all.next()) {
            (Some(large), None) => large,
            _ => c,
        }
    };
    text.chars().map(one).collect()
}

pub(super) fn to_camel_case(arguments: Arguments<'_>) -> Value<'_> {
    mapped(arguments, camel)
}

pub(super) fn to_snake_case(arguments: Arguments<'_>) -> Value<'_> {
    mapped(arguments, snake)
}

pub(super) fn convert_case(mut arguments: Arguments<'_>) -> Value<'_> {
    let (text, case) = (arguments.text()?, arguments.text()?);
    Ok(made(match &*case {
        "lower" => lower(&text),
        "upper" => upper(&text),
        "snake" => snake(&text),
        _ => camel(&text),
    }))
}

pub(super) fn check_case(case: &str) -> Result<(), String> {
    match case {
        "lower" | "upper" | "snake" | "camel" => Ok(()),
        _ => Err(format!("invalid case: {case}, allowed cases are: lower, upper, snake, camel")),
    }
}

/// What stands between words.
fn separates(byte: char) -> bool {
    matches!(byte, ' ' | '_' | '-' | '.')
}

/// `some_name` → `SomeName`. Letters after a digit are large too; of several large ones the first stays.
fn camel(text: &str) -> String {
    // The one word that the Collector knows to be an acronym.
    let (text, acronym) = match text.trim() {
        "ID" => ("id", true),
        text => (text, false),
    };
    let (mut out, mut large, mut after_large) = (String::new(), true, false);
    for c in text.chars() {
        let is_large = c.is_ascii_uppercase();
        let c = match (large, after_large && is_large && !acronym) {
            (true, _) => c.to_ascii_uppercase(),
            (false, true) => c.to_ascii_lowercase(),
            (false, false) => c,
        };
        after_large = is_large;
        if c.is_ascii_alphabetic() {
            out.push(c);
            large = false;
        } else if c.is_ascii_digit() {
            out.push(c);
            large = true;
        } else {
            large = separates(c);
        }
    }
    out
}

/// `SomeName` → `some_name`. Digits are words.
fn snake(text: &str) -> String {
    let chars: Vec<char> = text.trim().chars().collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let small = c.to_ascii_lowercase();
        let (large, low, digit) =
            (c.is_ascii_uppercase(), c.is_ascii_lowercase(), c.is_ascii_digit());
        let next = chars.get(i + 1).copied().unwrap_or(' ');
        let (next_large, next_low, next_digit) =
            (next.is_ascii_uppercase(), next.is_ascii_lowercase(), next.is_ascii_digit());
        let changes = large && (next_low || next_digit)
            || low && (next_large || next_digit)
            || digit && (next_large || next_low);
        if changes {
            if large && next_low && i > 0 && chars[i - 1].is_ascii_uppercase() {
                out.push('_');
            }
            out.push(small);
            if low || digit || next_digit {
                out.push('_');
            }
        } else if separates(c) {
            out.push('_');
        } else {
            out.push(small);
        }
    }
    out
}

pub(super) fn concat(mut arguments: Arguments<'_>) -> Value<'_> {
    let (values, by) = (arguments.list()?, arguments.text()?);
    let text = |value: &Any<'_>| match value {
        Any::Nil => "<nil>".to_owned(),
        other => other.text(),
    };
    let texts: Vec<_> = values.iter().map(text).collect();
    Ok(made(texts.join(&by)))
}

pub(super) fn has_prefix(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(arguments.text()?.starts_with(&*arguments.text()?)))
}

pub(super) fn has_suffix(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(Any::Bool(arguments.text()?.ends_with(&*arguments.text()?)))
}

/// With a pattern that is not known beforehand.
pub(super) fn is_match(mut arguments: Arguments<'_>) -> Value<'_> {
    let target = arguments.next();
    let pattern = parsers::pattern("IsMatch", &arguments.text()?)?;
    Ok(Any::Bool(target != Any::Nil && pattern.is_match(&target.text())))
}

pub(super) fn split(mut arguments: Arguments<'_>) -> Value<'_> {
    let (target, by) = (arguments.text()?, arguments.text()?);
    Ok(match by.is_empty() {
        // Go splits into characters then.
        true => Any::List(target.chars().map(made).collect()),
        false => Any::List(target.split(&*by).map(made).collect()),
    })
}

/// By bytes, as in the Collector.
pub(super) fn substring(mut arguments: Arguments<'_>) -> Value<'_> {
    let (target, start, length) = (arguments.text()?, arguments.int()?, arguments.int()?);
    let whole = arguments.truth();
    let from = usize::try_from(start)
        .map_err(|_| format!("invalid start for substring function, {start} cannot be negative"))?;
    let length = usize::try_from(length).ok().filter(|length| *length > 0).ok_or_else(|| {
        format!("invalid length for substring function, {length} cannot be negative or zero")
    })?;
    let to = from.saturating_add(length);
    let part = target.as_bytes().get(from..to).ok_or_else(|| {
        format!(
            "invalid range for substring function, start({start})+length({length}) cannot be greater \
             than the length of target string({})",
            target.len()
        )
    })?;
    if whole {
        // No character is cut.
        let (from, to) = (target.ceil_char_boundary(from), target.floor_char_boundary(to));
        return Ok(made(target.get(from..to).unwrap_or_default()));
    }
    Ok(made(String::from_utf8_lossy(part)))
}

pub(super) fn trim(mut arguments: Arguments<'_>) -> Value<'_> {
    let (target, set) = (arguments.text()?, arguments.text_or(" ")?);
    Ok(made(target.trim_matches(|c| set.contains(c))))
}

pub(super) fn trim_prefix(mut arguments: Arguments<'_>) -> Value<'_> {
    let (target, prefix) = (arguments.text()?, arguments.text()?);
    Ok(made(target.strip_prefix(&*prefix).unwrap_or(&target)))
}

pub(super) fn trim_suffix(mut arguments: Arguments<'_>) -> Value<'_> {
    let (target, suffix) = (arguments.text()?, arguments.text()?);
    Ok(made(target.strip_suffix(&*suffix).unwrap_or(&target)))
}

pub(super) fn base64_encode(mut arguments: Arguments<'_>) -> Value<'_> {
    let text = arguments.text()?;
    let variant = arguments.text_or("base64")?;
    let engine =
        engine(&variant).ok_or_else(|| format!("unsupported base64 variant: {variant}"))?;
    Ok(made(engine.encode(&*text)))
}

pub(super) fn base64_decode(mut arguments: Arguments<'_>) -> Value<'_> {
    let bytes = STANDARD.decode(&*arguments.text()?).map_err(|error| error.to_string())?;
    Ok(made(String::from_utf8_lossy(&bytes)))
}

fn engine(variant: &str) -> Option<&'static base64::engine::GeneralPurpose> {
    Some(match variant {
        "base64" => &STANDARD,
        "base64-raw" => &STANDARD_NO_PAD,
        "base64-url" => &URL_SAFE,
        "base64-raw-url" => &URL_SAFE_NO_PAD,
        _ => return None,
    })
}

pub(super) fn check_encoding(encoding: &str) -> Result<(), String> {
    match engine(encoding).is_some() || Encoding::for_label(encoding.as_bytes()).is_some() {
        true => Ok(()),
        false => Err(format!("unsupported encoding '{encoding}'")),
    }
}

pub(super) fn decode(mut arguments: Arguments<'_>) -> Value<'_> {
    let target = arguments.next();
    let encoding = arguments.text()?;
    let bytes: &[u8] = match &target {
        Any::Bytes(bytes) => bytes,
        Any::Text(text) => text.as_bytes(),
        Any::Nil => return Err("unsupported type provided to Decode function: <nil>".to_owned()),
        other => {
            return Err(format!("unsupported type provided to Decode function: {}", other.kind()));
        }
    };
    check_encoding(&encoding)?;
    Ok(made(match engine(&encoding) {
        Some(engine) => {
            let bytes = engine.decode(bytes);
            let bytes = bytes.map_err(|error| format!("could not decode: {error}"))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        // ASCII is a part of UTF-8, and what is not in it is left as it is.
        None if matches!(&*encoding.to_ascii_lowercase(), "us-ascii" | "ascii") => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        None => match Encoding::for_label(encoding.as_bytes()) {
            Some(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
            None => String::new(),
        },
    }))
}

pub(super) fn hexadecimal(mut arguments: Arguments<'_>) -> Value<'_> {
    Ok(made(match arguments.next() {
        Any::Bytes(bytes) => hex(&bytes),
        Any::Text(text) => hex(text.as_bytes()),
        Any::Bool(value) => hex(&[u8::from(value)]),
        Any::Int(value) => hex(&value.to_be_bytes()),
        Any::Double(value) => hex(&value.to_bits().to_be_bytes()),
        Any::Nil => String::new(),
        other => return Err(expected("string or []byte", &other)),
    }))
}

pub(super) fn is_valid_luhn(mut arguments: Arguments<'_>) -> Value<'_> {
    let text = match arguments.next() {
        Any::Nil => return Err("invalid input: <nil>".to_owned()),
        other => other.text().replace(' ', ""),
    };
    let invalid = |c| format!("strconv.Atoi: parsing {:?}: invalid syntax", String::from(c));
    let digits = text.chars().map(|c| c.to_digit(10).ok_or_else(|| invalid(c)));
    let digits: Vec<u32> = digits.collect::<Result<_, _>>()?;
    let sum: u32 = (digits.iter().rev().enumerate())
        .map(|(i, digit)| match (i % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) => double / 10 + double % 10,
        })
        .sum();
    Ok(Any::Bool(!digits.is_empty() && sum.is_multiple_of(10)))
}

pub(super) fn uuid(_: Arguments<'_>) -> Value<'_> {
    Ok(made(uuid::Uuid::new_v4()))
}

pub(super) fn uuid_v7(_: Arguments<'_>) -> Value<'_> {
    Ok(made(uuid::Uuid::now_v7()))
}

/// The bytes of an id, or why they are none.
pub(super) fn read_id(function: &str, value: &Any<'_>) -> Result<Vec<u8>, String> {
    let length = if function == "SpanID" { 8 } else { 16 };
    let wrong = |what: String| format!("{function}: could not decode ID: {what}");
    let (bytes, digits): (&[u8], _) = match value {
        Any::Bytes(bytes) => (bytes, None),
        Any::Text(text) => (text.as_bytes(), Some(text)),
        Any::Nil => (&[], None),
        other => return Err(format!("unsupported type: {}", other.kind())),
    };
    match digits {
        _ if bytes.len() == length => Ok(bytes.to_vec()),
        Some(digits) if bytes.len() == 2 * length => {
            parsers::bytes(digits).map_err(|error| wrong(format!("invalid hex: {error}")))
        }
        _ => Err(wrong(format!(
            "invalid length: expected {length} or {} bytes, got {}",
            2 * length,
            bytes.len()
        ))),
    }
}

fn id<'a>(function: &str, mut arguments: Arguments<'a>) -> Value<'a> {
    read_id(function, &arguments.next()).map(|bytes| Any::Id(bytes.into()))
}

pub(super) fn span_id(arguments: Arguments<'_>) -> Value<'_> {
    id("SpanID", arguments)
}

pub(super) fn trace_id(arguments: Arguments<'_>) -> Value<'_> {
    id("TraceID", arguments)
}

pub(super) fn profile_id(arguments: Arguments<'_>) -> Value<'_> {
    id("ProfileID", arguments)
}
