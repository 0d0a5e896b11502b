//! What text without quotes means in YAML, as Go's reader of it has it.

use std::sync::LazyLock;

use regex::Regex;

use super::node::Value;

/// What an unquoted scalar means.
pub fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    // Only what begins like a number can be one.
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return Value::String(text.to_owned());
    }
    let digits = text.replace('_', "");
    // A larger one is no integer in Go, either.
    if let Some(number) =
        integer(&digits).filter(|n| (i64::MIN.into()..=u64::MAX.into()).contains(n))
    {
        return Value::Int(number);
    }
    let float = digits.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    match digits.parse() {
        Ok(number) if float => Value::Float(number),
        _ => Value::String(text.to_owned()),
    }
}

/// Whether an unquoted scalar is a day, or a time of one.
pub fn is_time(text: &str) -> bool {
    static LAYOUT: LazyLock<Regex> = LazyLock::new(|| {
        let time = r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.,]\d+)?";
        let zone = r"(?:Z|[+-]\d\d:\d\d)";
        let layout = format!(r"^(\d{{4}})-(\d{{1,2}})-(\d{{1,2}})(?:[Tt]{time}{zone}| {time})?$");
        Regex::new(&layout).expect("it is one")
    });
    // Most of what is written is not asked further.
    if text.as_bytes().get(4) != Some(&b'-') {
        return false;
    }
    let Some(parts) = LAYOUT.captures(text) else { return false };
    let part = |i| parts.get(i).and_then(|part| part.as_str().parse::<u32>().ok());
    let (year, month, day) = (part(1).unwrap_or(0), part(2).unwrap_or(0), part(3).unwrap_or(0));
    let days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    let below = |i: usize, limit| part(i).or(part(i + 3)).is_none_or(|number| number < limit);
    (1..=days).contains(&day) && below(4, 24) && below(5, 60) && below(6, 60)
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        // YAML 1.1's octal, which go-yaml still reads: 0123 is 83.
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok().map(|n| sign * n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{mistake::Mistake, node::Node, yaml::parse};

    fn read(text: &str) -> Result<Node, Mistake> {
        parse(text, &"a.yaml".into())
    }

    #[test]
    fn plain_scalars_mean_what_go_yaml_says() {
        for (text, value) in [
            ("0123", Value::Int(83)),
            ("0xdeadbeef", Value::Int(0xdead_beef)),
            ("0X1f", Value::Int(31)),
            ("-0B11", Value::Int(-3)),
            ("0O17", Value::Int(15)),
            ("18446744073709551615", Value::Int(u64::MAX.into())),
            ("18446744073709551616", Value::Float(18_446_744_073_709_551_616.0)),
            ("-9223372036854775809", Value::Float(-9_223_372_036_854_775_809.0)),
            ("0x10000000000000000", Value::String("0x10000000000000000".into())),
            ("-5", Value::Int(-5)),
            ("1e3", Value::Float(1000.0)),
            (".5", Value::Float(0.5)),
            ("~", Value::Null),
            ("yes", Value::String("yes".into())),
            ("10s", Value::String("10s".into())),
            ("1.2.3", Value::String("1.2.3".into())),
            ("-", Value::String("-".into())),
            ("true", Value::Bool(true)),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
        let quoted = read("a: '0123'").expect("valid");
        assert_eq!(quoted.get("a").map(|n| &n.value), Some(&Value::String("0123".into())));
    }

    #[test]
    fn times_are_those_of_go_yaml() {
        for (text, time) in [
            ("2024-01-01", true),
            ("2024-1-1", true),
            ("2024-02-29", true),
            ("2023-02-29", false),
            ("2024-13-01", false),
            ("2024-00-01", false),
            ("2024-01-01T10:20:30Z", true),
            ("2024-01-01t1:2:3.5+02:00", true),
            ("2024-01-01 10:20:30.25", true),
            ("2024-01-01 24:20:30", false),
            ("2024-01-01T10:60:30Z", false),
            ("2024-01-01T10:20:30", false),
            ("2024-01-01 10:20:30Z", false),
            ("2024-01-01 10:20", false),
            ("2024-01", false),
            ("24-01-01", false),
            ("v2024-01-01", false),
            ("'2024-01-01'", false),
            ("!!str 2024-01-01", false),
        ] {
            let root = read(&format!("a: {text}")).expect("valid");
            let a = root.get("a").expect("it is there");
            assert_eq!(a.time, time, "{text}");
            assert!(matches!(a.value, Value::String(_)), "{text}");
        }
    }
}
