//! Texts and bytes.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use sha2::Digest;

use super::{
    super::{compare::Any, hex},
    Arguments, expected, made, parsers,
};

type Value<'a> = Result<Any<'a>, String>;

fn mapped(mut arguments: Arguments<'_>, map: impl Fn(&str) -> String) -> Value<'_> {
    arguments.text().map(|text| made(map(&text)))
}

pub(super) fn to_lower_case(arguments: Arguments<'_>) -> Value<'_> {
    mapped(arguments, str::to_lowercase)
}

pub(super) fn to_upper_case(arguments: Arguments<'_>) -> Value<'_> {
    mapped(arguments, str::to_uppercase)
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
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
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
            if !large && !c.is_ascii() {
                out.push(c);
            }
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
    let texts: Vec<_> = values.iter().map(Any::shown).collect();
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
        let (from, to) = (target.floor_char_boundary(from), target.floor_char_boundary(to));
        return Ok(made(&target[from..to]));
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

fn hashed<D: Digest>(arguments: Arguments<'_>) -> Value<'_> {
    mapped(arguments, |text| hex(&D::digest(text)))
}

pub(super) fn md5(arguments: Arguments<'_>) -> Value<'_> {
    hashed::<md5::Md5>(arguments)
}

pub(super) fn sha1(arguments: Arguments<'_>) -> Value<'_> {
    hashed::<sha1::Sha1>(arguments)
}

pub(super) fn sha256(arguments: Arguments<'_>) -> Value<'_> {
    hashed::<sha2::Sha256>(arguments)
}

pub(super) fn sha512(arguments: Arguments<'_>) -> Value<'_> {
    hashed::<sha2::Sha512>(arguments)
}

/// FNV-1a of 64 bits.
pub(super) fn fnv(mut arguments: Arguments<'_>) -> Value<'_> {
    let text = arguments.text()?;
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(Any::Int(hash.cast_signed()))
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

pub(super) fn decode(mut arguments: Arguments<'_>) -> Value<'_> {
    let target = arguments.next();
    let encoding = arguments.text()?;
    let bytes = match &target {
        Any::Bytes(bytes) => bytes.to_vec(),
        Any::Nil => return Err("unsupported type provided to Decode function: <nil>".to_owned()),
        other => other.text().into_bytes(),
    };
    let text = match (engine(&encoding), encoding.to_lowercase().as_str()) {
        (Some(engine), _) => engine.decode(bytes).map_err(|error| error.to_string())?,
        (None, "utf-8" | "utf8" | "us-ascii" | "ascii") => bytes,
        _ => return Err(format!("unsupported encoding '{encoding}'")),
    };
    Ok(made(String::from_utf8_lossy(&text)))
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

fn id<'a>(mut arguments: Arguments<'a>, length: usize, what: &str) -> Value<'a> {
    let value = arguments.next();
    let bytes = match &value {
        Any::Bytes(bytes) => {
            return match bytes.len() == length {
                true => Ok(value),
                false => Err(format!("{what} ids must be {length} bytes")),
            };
        }
        Any::Text(text) if text.len() == 2 * length => parsers::bytes(text),
        Any::Text(_) => return Err(format!("{what} ids must be {} hex characters", 2 * length)),
        other => return Err(expected("[]byte", other)),
    };
    Ok(Any::Bytes(bytes?.into()))
}

pub(super) fn span_id(arguments: Arguments<'_>) -> Value<'_> {
    id(arguments, 8, "span")
}

pub(super) fn trace_id(arguments: Arguments<'_>) -> Value<'_> {
    id(arguments, 16, "trace")
}

pub(super) fn profile_id(arguments: Arguments<'_>) -> Value<'_> {
    id(arguments, 16, "profile")
}

/// The verbs of Go's `Sprintf` that conditions have a use for.
pub(super) fn format(mut arguments: Arguments<'_>) -> Value<'_> {
    let template = arguments.text()?;
    let mut values = arguments.list()?.into_iter();
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "+-# 0".contains(*c)) {
            flags.push(flag);
        }
        let mut digits = || {
            let mut number = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                number = Some((number.unwrap_or(0_usize) * 10 + digit as usize).min(1024));
            }
            number
        };
        let width = digits().unwrap_or(0);
        let point = chars.next_if_eq(&'.').is_some();
        let mut digits = || {
            let mut number = 0_usize;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                number = (number * 10 + digit as usize).min(1024);
            }
            number
        };
        let precision = point.then(&mut digits);
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let text = printed(verb, precision, &flags, &value);
        let missing = width.saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', missing));
        } else if flags.contains('0') && "dfxXobeg".contains(verb) {
            let (sign, rest) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', missing));
            out.push_str(rest);
        } else {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(&text);
        }
    }
    let rest: Vec<_> = values.map(|value| format!("{}={}", value.kind(), value.shown())).collect();
    if !rest.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", rest.join(", ")));
    }
    Ok(made(out))
}

fn printed(verb: char, precision: Option<usize>, flags: &str, value: &Any<'_>) -> String {
    let plus = if flags.contains('+') { "+" } else { "" };
    match (verb, value) {
        ('v' | 'd', Any::Int(number)) => match number {
            0.. => format!("{plus}{number}"),
            _ => number.to_string(),
        },
        ('x', Any::Int(number)) => format!("{number:x}"),
        ('X', Any::Int(number)) => format!("{number:X}"),
        ('o', Any::Int(number)) => format!("{number:o}"),
        ('b', Any::Int(number)) => format!("{number:b}"),
        ('c', Any::Int(number)) => {
            u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
        }
        ('f' | 'F', Any::Double(number)) => format!("{number:.*}", precision.unwrap_or(6)),
        ('e', Any::Double(number)) => {
            // Go's exponents have a sign and two digits.
            let text = format!("{number:.*e}", precision.unwrap_or(6));
            match text.split_once('e') {
                Some((digits, exponent)) => match exponent.strip_prefix('-') {
                    Some(exponent) => format!("{digits}e-{exponent:0>2}"),
                    None => format!("{digits}e+{exponent:0>2}"),
                },
                None => text,
            }
        }
        ('v' | 'g', Any::Double(number)) => crate::value::float(*number),
        ('t' | 'v', Any::Bool(truth)) => truth.to_string(),
        ('q', Any::Text(text)) => format!("{text:?}"),
        ('x', Any::Text(text)) => hex(text.as_bytes()),
        ('x', Any::Bytes(bytes)) => hex(bytes),
        ('s', Any::Text(text)) => match precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.clone().into_owned(),
        },
        ('s', other @ (Any::Time(_) | Any::Duration(_))) => other.shown(),
        ('v', other) => other.shown(),
        (_, Any::Nil) => format!("%!{verb}(<nil>)"),
        (_, other) => format!("%!{verb}({}={})", other.kind(), other.shown()),
    }
}
