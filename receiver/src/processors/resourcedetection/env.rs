//! Detector `env`: what whoever started the agent says in `OTEL_RESOURCE_ATTRIBUTES`.

use std::sync::LazyLock;

use anyhow::{Result, bail};
use regex::Regex;

use super::{Detected, Variables};

/// Older than the specification.
const DEPRECATED: &str = "OTEL_RESOURCE";

/// A key, a value, and what ends them; blanks around both are ignored. As in the Collector.
static PAIR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[\t\n\f\r ]*([[:ascii:]]{1,256}?)[\t\n\f\r ]*=[\t\n\f\r ]*([[:ascii:]]{0,256}?)[\t\n\f\r ]*(?:,|$)")
        .expect("a valid expression")
});

/// The pairs, with `service.name` from `OTEL_SERVICE_NAME`, which wins over one in the list.
pub fn detect(variables: Variables<'_>, allowlist: Option<&[String]>) -> Result<Detected> {
    let list = ["OTEL_RESOURCE_ATTRIBUTES", DEPRECATED]
        .into_iter()
        .filter_map(variables)
        .map(|list| list.trim().to_owned())
        .find(|list| !list.is_empty());
    let mut found = match list {
        Some(list) => parse(&list)?,
        None => Detected::default(),
    };
    if let Some(name) = variables("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        found.put("service.name", name);
    }
    if let Some(allowed) = allowlist {
        found.retain(|key| allowed.iter().any(|name| name == key));
    }
    Ok(found)
}

fn parse(list: &str) -> Result<Detected> {
    let mut found = Detected::default();
    let mut end = 0;
    for pair in PAIR.captures_iter(list) {
        let (whole, [key, value]) = pair.extract();
        let start = pair.get_match().start();
        if start != end {
            bail!("invalid resource format, invalid text: {:?}", &list[end..start]);
        }
        let value = match unescape(value) {
            Ok(value) => value,
            Err(escape) => bail!(
                "invalid resource format in attribute: {whole:?}, err: invalid URL escape {escape:?}"
            ),
        };
        found.put(key, value);
        end = pair.get_match().end();
    }
    if end == 0 {
        bail!("invalid resource format: {list:?}");
    }
    if end != list.len() {
        bail!("invalid resource format, invalid text: {:?}", &list[end..]);
    }
    Ok(found)
}

/// Takes back percent-encoding, and `+` for a blank: what Go's `url.QueryUnescape` does. The error is
/// the text that is no escape.
fn unescape(value: &str) -> Result<String, &str> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let code = after.get(..2).and_then(|hex| {
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    Some((digit(hex[0])? * 16 + digit(hex[1])?) as u8)
                });
                let at = value.len() - after.len() - 1;
                let Some(code) = code else {
                    return Err(&value[at..value.len().min(at + 3)]);
                };
                rest = &after[2..];
                code
            }
            _ => byte,
        });
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(list: &str) -> String {
        match parse(list) {
            Ok(found) => found.lines().join("; "),
            Err(error) => error.to_string(),
        }
    }

    /// The cases of the Collector's own test, and some more.
    #[test]
    fn lists_are_read_as_the_collector_does() {
        let cases = [
            (
                r#" example.org/test-1 =  test $ %3A \" ,  Abc=Def  "#,
                r#"Abc=Def; example.org/test-1=test $ : \""#,
            ),
            ("single=key", "single=key"),
            (
                "invalid=url-%3-encoding",
                r#"invalid resource format in attribute: "invalid=url-%3-encoding", err: invalid URL escape "%3-""#,
            ),
            ("invalid-char-ü=test", r#"invalid resource format: "invalid-char-ü=test""#),
            ("invalid-char=ü-test", r#"invalid resource format: "invalid-char=ü-test""#),
            ("extra=chars, a", r#"invalid resource format, invalid text: " a""#),
            ("invalid=char,übetween=attributes", r#"invalid resource format, invalid text: "ü""#),
            ("a=b=c,d=", "a=b=c; d="),
            ("a=1,", "a=1"),
            ("a=1,a=2", "a=2"),
            ("a=b+c%20d%2Ce%3Df%C3%BC", "a=b c d,e=fü"),
            ("a=%", r#"invalid resource format in attribute: "a=%", err: invalid URL escape "%""#),
            (
                "a=%zz1",
                r#"invalid resource format in attribute: "a=%zz1", err: invalid URL escape "%zz""#,
            ),
            ("a", r#"invalid resource format: "a""#),
            ("=", r#"invalid resource format: "=""#),
        ];
        for (list, expected) in cases {
            assert_eq!(text(list), expected, "{list}");
        }
    }

    #[test]
    fn variables_are_tried_in_their_order() {
        let detect = |set: &[(&str, &str)], allowed: Option<&[String]>| {
            let variables = |name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            detect(&variables, allowed).map(|found| found.lines().join("; ")).ok()
        };
        let new = ("OTEL_RESOURCE_ATTRIBUTES", "a=1,service.name=listed");
        let old = ("OTEL_RESOURCE", "b=2");
        let service = ("OTEL_SERVICE_NAME", "named");
        assert_eq!(detect(&[], None).as_deref(), Some(""));
        assert_eq!(detect(&[new, old], None).as_deref(), Some("a=1; service.name=listed"));
        assert_eq!(detect(&[("OTEL_RESOURCE_ATTRIBUTES", " "), old], None).as_deref(), Some("b=2"));
        assert_eq!(detect(&[new, service], None).as_deref(), Some("a=1; service.name=named"));
        assert_eq!(detect(&[service], None).as_deref(), Some("service.name=named"));
        assert_eq!(detect(&[("OTEL_RESOURCE_ATTRIBUTES", "a")], None), None);
        let allowed = ["a".to_owned()];
        assert_eq!(detect(&[new, service], Some(&allowed)).as_deref(), Some("a=1"));
        assert_eq!(detect(&[new], Some(&[])).as_deref(), Some(""));
    }
}
