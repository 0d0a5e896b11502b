//! Regular expressions as Go reads them.

use regex::Regex;

/// A regular expression; errors have Go's text.
pub fn regexp(text: &str) -> Result<Regex, String> {
    // What is wrong is said about the text as it was written.
    Regex::new(&translated(text))
        .or_else(|_| Regex::new(text))
        .map_err(|error| explained(text, &error))
}

/// The same in the library's syntax, where that means something else: `\w` is ASCII in Go, `{` may stand for itself, `\<` is
/// no boundary, and classes hold no classes.
fn translated(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // In a class, whether something stands in it already.
    let mut class: Option<bool> = None;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = after;
        match (c, class) {
            ('\\', _) => {
                let Some(escaped) = after.chars().next() else {
                    out.push(c);
                    break;
                };
                rest = &after[escaped.len_utf8()..];
                if escaped == 'Q' && class.is_none() {
                    let (literal, more) = rest.split_once("\\E").unwrap_or((rest, ""));
                    out.push_str(&regex::escape(literal));
                    rest = more;
                    continue;
                }
                escape(&mut out, escaped, class.is_some());
                class = class.map(|_| true);
            }
            ('[', None) => {
                out.push('[');
                if let Some(more) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = more;
                }
                class = Some(false);
            }
            ('[', Some(_)) => {
                class = Some(true);
                match rest.strip_prefix(':').and_then(|name| name.split_once(":]")) {
                    Some((name, more)) => {
                        out.push_str(&format!("[:{name}:]"));
                        rest = more;
                    }
                    None => out.push_str("\\["),
                }
            }
            (']', Some(true)) => {
                out.push(']');
                class = None;
            }
            (']', Some(false)) => {
                out.push_str("\\]");
                class = Some(true);
            }
            // Operators between classes.
            ('&' | '~', Some(_)) => {
                out.push('\\');
                out.push(c);
                class = Some(true);
            }
            ('-', Some(_)) if rest.starts_with('-') => {
                out.push_str("\\-");
                class = Some(true);
            }
            ('{', None) if !repeats(rest) => out.push_str("\\{"),
            _ => {
                out.push(c);
                class = class.map(|_| true);
            }
        }
    }
    out
}

fn escape(out: &mut String, escaped: char, in_class: bool) {
    const SPACE: &str = r"\t\n\f\r ";
    const WORD: &str = "0-9A-Za-z_";
    let class = |out: &mut String, negated: &str, of: &str| {
        match (in_class, negated) {
            (true, "") => out.push_str(of),
            _ => out.push_str(&format!("[{negated}{of}]")),
        };
    };
    match escaped {
        'd' => class(out, "", "0-9"),
        'D' => class(out, "^", "0-9"),
        'w' => class(out, "", WORD),
        'W' => class(out, "^", WORD),
        's' => class(out, "", SPACE),
        'S' => class(out, "^", SPACE),
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        'B' if !in_class => out.push_str(r"(?-u:\B)"),
        '<' | '>' => out.push(escaped),
        other => {
            out.push('\\');
            out.push(other);
        }
    }
}

/// Whether what follows a `{` says how often.
fn repeats(rest: &str) -> bool {
    let Some((inner, _)) = rest.split_once('}') else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

fn explained(text: &str, error: &regex::Error) -> String {
    // The library draws where the mistake is, on several lines: the pattern, indented, and marks below it.
    let error = error.to_string();
    let marks = error.lines().rev().nth(1).unwrap_or_default();
    let reason = error.lines().last().unwrap_or_default();
    let (reason, part) = match reason.strip_prefix("error: ").unwrap_or(reason) {
        "unclosed character class" => ("missing closing ]", Some(true)),
        "unclosed group" => ("missing closing )", None),
        "unopened group" => ("unexpected )", None),
        "repetition operator missing expression" => {
            ("missing argument to repetition operator", Some(false))
        }
        "unrecognized escape sequence" => ("invalid escape sequence", Some(false)),
        other => (other, None),
    };
    // Some parts of it are said: what is marked, or all from there on.
    let from = marks.find('^').and_then(|column| column.checked_sub(4));
    let length = marks.trim().len();
    let shown = match (part, from) {
        (Some(true), Some(from)) => text.chars().skip(from).collect(),
        (Some(false), Some(from)) => text.chars().skip(from).take(length).collect(),
        _ => text.to_owned(),
    };
    format!("error parsing regexp: {reason}: `{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (pattern, text, found) in [
            (r"\w+", "äb", Some("b")),
            (r"\d", "٣", None),
            (r"\s", "\u{a0}", None),
            (r"[\w.]+", "é.a_1-", Some(".a_1")),
            (r"[^\s]+", " a\u{a0}b ", Some("a\u{a0}b")),
            (r"[\W]+", "aé-b", Some("é-")),
            (r"\bb", "äb", Some("b")),
            (r"a{,2}", "xa{,2}", Some("a{,2}")),
            (r"a{2}", "aaa", Some("aa")),
            (r"\<a\>", "<a>", Some("<a>")),
            (r"[a[]+", "x[a]", Some("[a")),
            (r"[[:alpha:]&&]+", "1a&&b", Some("a&&b")),
            (r"[]a]+", "x]a", Some("]a")),
            (r"\Qa.b\E+", "aab a.bb", Some("a.bb")),
            (r"(?i)k.*", "xK\n", Some("K")),
        ] {
            let regex = regexp(pattern).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(regex.find(text).map(|found| found.as_str()), found, "{pattern}");
        }
        for wrong in ["(", "[", r"(?=a)", r"\1"] {
            let error = regexp(wrong).expect_err(wrong);
            assert!(error.starts_with("error parsing regexp: "), "{error}");
        }
    }
}
