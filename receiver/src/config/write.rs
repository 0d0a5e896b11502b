//! A value as YAML that [`super::yaml`] reads as the same value. Emitters of other dialects leave
//! `1_000` without quotes, which is a number here and in the Collector.

use serde_json::Value;

use super::{node, scalar::plain};

/// Writes a value as a document.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => block(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut out, value, 0),
        _ => {
            out += &flow(value);
            out.push('\n');
        }
    }
    out
}

/// A map or a list that is not empty, `depth` levels in, from where the line stands.
fn block(out: &mut String, value: &Value, depth: usize) {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(entries) => {
            entries.iter().map(|(k, v)| (format!("{}:", scalar(k)), v)).collect()
        }
        Value::Array(items) => items.iter().map(|v| ("-".to_owned(), v)).collect(),
        _ => return,
    };
    for (i, (head, value)) in entries.iter().enumerate() {
        if i > 0 {
            *out += &"  ".repeat(depth);
        }
        *out += head;
        let list = matches!(value, Value::Array(_));
        let nested = match value {
            Value::Object(entries) => !entries.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => false,
        };
        if !nested {
            *out += &format!(" {}\n", flow(value));
        } else if head == "-" && !list {
            // A map in a list begins beside the dash.
            out.push(' ');
            block(out, value, depth + 1);
        } else {
            out.push('\n');
            *out += &"  ".repeat(depth + 1);
            block(out, value, depth + 1);
        }
    }
}

/// What stands on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Text, quoted where it would mean something else.
fn scalar(text: &str) -> String {
    // Older readers of YAML take these for booleans.
    const WORDS: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];
    let letter = |c: char| c.is_alphanumeric() || "_./-+@:% $".contains(c);
    // And others take these for dates.
    let dated = text.starts_with(|c: char| c.is_ascii_digit()) && text.contains('-');
    let bare = text.starts_with(|c: char| c.is_alphanumeric() || "/_".contains(c))
        && text.chars().all(letter)
        && !text.ends_with([':', ' '])
        && !text.contains(": ")
        && !WORDS.contains(&text.to_lowercase().as_str())
        && !dated
        && matches!(plain(text), node::Value::String(_));
    if bare {
        return text.to_owned();
    }
    let strange = |c: char| c.is_control() || "\u{feff}\u{2028}\u{2029}".contains(c);
    if !text.contains(strange) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted += "\\n",
            c if strange(c) => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::yaml::parse;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let words = [
            "",
            "a",
            "1_000",
            "0123",
            "0o17",
            "0b1",
            "1e3",
            "+.inf",
            ".nan",
            "~",
            "null",
            "TRUE",
            "yes",
            "=",
            " x",
            "x ",
            "a: b",
            "a:",
            "a #b",
            "#",
            "- a",
            "-",
            "?",
            "[",
            "{",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "%",
            "@",
            "`",
            "'",
            "\"",
            "it's",
            "a\\b",
            "a\nb",
            "a\n\n",
            "\ta",
            "\r",
            "\u{0}\u{85}\u{feff}\u{2028}é€😀",
            "localhost:4317",
            "0x_1",
            "1_0.5",
            "2001-01-01",
            "${x}",
            "$$",
            "---",
            "...",
            "a\u{a0}b",
        ];
        let all = json!({
            "list": words.to_vec(),
            "map": words.iter().map(|w| (w.to_string(), json!([w]))).collect::<serde_json::Map<_, _>>(),
            "nested": [[[]], [[1, [2.5, null]]], {}, {"a": {"b": [{"c": true, "d": {}}]}}],
            "large": [u64::MAX, i64::MIN, 1e300],
        });
        let read = parse(&yaml(&all), &"a".into()).expect("valid");
        assert_eq!(serde_json::to_value(&read).expect("a value"), all, "{}", yaml(&all));
        for single in [json!([]), json!({}), json!("a"), json!(null)] {
            let read = parse(&yaml(&single), &"a".into()).expect("valid");
            assert_eq!(serde_json::to_value(&read).expect("a value"), single);
        }
    }
}
