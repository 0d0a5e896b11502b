//! `${env:X}`, `${file:PATH}`, `${yaml:TEXT}` inside values.

use std::{env, fs, sync::Arc};

use super::{
    Mistake, Place,
    node::{Node, Value},
    source, yaml,
};

/// Expansions that one scalar may need, values of values included.
const MAX_ROUNDS: usize = 1000;
/// How long a scalar with expressions may be, before and after.
const MAX_LENGTH: usize = 1 << 20;
/// Expressions that one scalar may open: far more than anyone writes.
const MAX_OPENED: usize = 1000;

/// Expands every scalar of the tree. `warnings` gets what is legal but looks like an oversight.
pub fn expand(node: &mut Node, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<String>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|n| expand(n, mistakes, warnings)),
        Value::Map(entries) => {
            entries.iter_mut().for_each(|(_, n)| expand(n, mistakes, warnings));
        }
        Value::String(text) if text.contains('$') => {
            let mut scalar = Scalar { rounds: 0, place: &node.place, warnings };
            match scalar.expand(text) {
                Ok(Expanded::Text(text)) => {
                    *node = Node {
                        value: Value::String(text.clone()),
                        text: Some(text),
                        place: node.place.clone(),
                    };
                }
                Ok(Expanded::Whole(mut whole)) => {
                    // The value stands where the expression stands.
                    whole.place = node.place.clone();
                    *node = whole;
                }
                Err(message) => mistakes.push(Mistake {
                    path: String::new(),
                    place: node.place.clone(),
                    message,
                    hint: None,
                }),
            }
        }
        _ => {}
    }
}

enum Expanded {
    /// The scalar was one expression: the value may be of any type.
    Whole(Node),
    Text(String),
}

struct Scalar<'a> {
    rounds: usize,
    place: &'a Option<Place>,
    warnings: &'a mut Vec<String>,
}

impl Scalar<'_> {
    fn expand(&mut self, text: &str) -> Result<Expanded, String> {
        if let Some(inner) = text.strip_prefix("${")
            && closing(inner) == Some(inner.len() - 1)
        {
            return self.value(&inner[..inner.len() - 1]).map(Expanded::Whole);
        }
        if text.len() > MAX_LENGTH || text.matches("${").count() > MAX_OPENED {
            return Err(format!(
                "a value with expressions may have {MAX_LENGTH} bytes and {MAX_OPENED} expressions"
            ));
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(inner) = after.strip_prefix('{')
                && let Some(end) = closing(inner)
            {
                let node = self.value(&inner[..end])?;
                let Some(text) = node.text else {
                    return match node.value {
                        Value::Null => {
                            rest = &inner[end + 1..];
                            continue;
                        }
                        _ => Err(format!(
                            "expanding ${{{}}} inside a string needs a scalar, got a {}",
                            &inner[..end],
                            node.kind()
                        )),
                    };
                };
                out.push_str(&text);
                rest = &inner[end + 1..];
            } else {
                out.push('$');
                rest = after;
            }
            if out.len() > MAX_LENGTH {
                return Err(format!("a value expands to more than {MAX_LENGTH} bytes"));
            }
        }
        out.push_str(rest);
        Ok(Expanded::Text(out))
    }

    /// The value of what stands between `${` and `}`.
    fn value(&mut self, expression: &str) -> Result<Node, String> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err("too many recursive expansions".to_owned());
        }
        // The innermost expressions come first.
        let uri = match expression.contains("${") {
            false => expression.to_owned(),
            true => match self.expand(expression)? {
                Expanded::Text(text) => text,
                Expanded::Whole(node) => node.text.unwrap_or_default(),
            },
        };
        let (scheme, opaque) = source::split(&uri)
            // `X:-default` is a variable with a default, not a scheme.
            .filter(|(_, opaque)| !opaque.starts_with('-'))
            .unwrap_or(("env", &uri));
        if opaque.contains('$') {
            return Err(format!(
                "the uri \"{scheme}:{opaque}\" contains unsupported characters ('$')"
            ));
        }
        let mut node = match scheme {
            "env" => self.variable(opaque)?,
            "yaml" => self.parsed(opaque),
            "file" => {
                let text = fs::read_to_string(opaque)
                    .map_err(|e| format!("unable to read the file {opaque}: {e}"))?;
                self.parsed(&text)
            }
            _ => return Err(format!("scheme \"{scheme}\" is not supported for uri \"{uri}\"")),
        };
        self.nested(&mut node)?;
        Ok(node)
    }

    /// Expands what a value itself contains.
    fn nested(&mut self, node: &mut Node) -> Result<(), String> {
        match &mut node.value {
            Value::List(items) => items.iter_mut().try_for_each(|n| self.nested(n)),
            Value::Map(entries) => entries.iter_mut().try_for_each(|(_, n)| self.nested(n)),
            Value::String(text) if text.contains('$') => {
                let place = node.place.clone();
                *node = match self.expand(text)? {
                    Expanded::Whole(whole) => whole,
                    Expanded::Text(text) => {
                        Node { value: Value::String(text.clone()), text: Some(text), place }
                    }
                };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn variable(&mut self, opaque: &str) -> Result<Node, String> {
        let (name, default) = match opaque.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (opaque, None),
        };
        let mut letters = name.chars();
        let valid = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            return Err(format!(
                "environment variable \"{name}\" has invalid name: must match regex \
                 ^[a-zA-Z_][a-zA-Z0-9_]*$"
            ));
        }
        // A variable that is set but empty does not take the default, unlike in a shell.
        let text = env::var(name).ok().or_else(|| default.map(str::to_owned));
        match text {
            Some(text) if text.is_empty() => Ok(Node {
                value: Value::String(String::new()),
                text: Some(String::new()),
                place: None,
            }),
            Some(text) => Ok(self.parsed(&text)),
            None => {
                self.warnings.push(match self.place {
                    Some(place) => {
                        format!(
                            "Configuration references unset environment variable {name} at {place}"
                        )
                    }
                    None => format!("Configuration references unset environment variable {name}"),
                });
                Ok(Node::default())
            }
        }
    }

    /// Text as YAML, or as a string where it is none; its own text is kept beside it.
    fn parsed(&self, text: &str) -> Node {
        let file: Arc<str> = self.place.as_ref().map_or_else(|| "".into(), |p| p.file.clone());
        let verbatim = text.strip_suffix('\n').unwrap_or(text);
        let string = || Value::String(verbatim.to_owned());
        let mut node = yaml::parse(text, &file)
            .unwrap_or_else(|_| Node { value: string(), ..Node::default() });
        if !matches!(node.value, Value::List(_) | Value::Map(_)) {
            node.text = Some(verbatim.to_owned());
        }
        node
    }
}

/// Where the `}` stands that ends an expression, past those of the expressions inside it.
fn closing(inner: &str) -> Option<usize> {
    let mut depth = 0;
    let bytes = inner.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if i > 0 && bytes[i - 1] == b'$' => depth += 1,
            b'}' if depth == 0 => return Some(i),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo sets these for tests, so no test has to change the environment.
    const SET: &str = "CARGO_PKG_NAME";

    fn expanded(text: &str) -> Result<(Node, Vec<String>), Mistake> {
        let mut node = yaml::parse(text, &"a".into())?;
        let (mut mistakes, mut warnings) = (Vec::new(), Vec::new());
        expand(&mut node, &mut mistakes, &mut warnings);
        match mistakes.pop() {
            Some(mistake) => Err(mistake),
            None => Ok((node, warnings)),
        }
    }

    fn value(text: &str) -> Value {
        expanded(&format!("a: {text}")).expect(text).0.nearest("a").value.clone()
    }

    #[test]
    fn expressions_are_replaced() {
        assert_eq!(value(&format!("${{env:{SET}}}")), Value::String("fathom".into()));
        assert_eq!(value(&format!("${{{SET}}}")), Value::String("fathom".into()));
        assert_eq!(value(&format!("x-${{{SET}}}-y")), Value::String("x-fathom-y".into()));
        assert_eq!(value("${env:FATHOM_NOT_SET:-5}"), Value::Int(5));
        assert_eq!(value("${FATHOM_NOT_SET:-a:b}"), Value::String("a:b".into()));
        assert_eq!(value("${env:FATHOM_NOT_SET:-}"), Value::String(String::new()));
        assert!(matches!(value("'${yaml:[1, 2]}'"), Value::List(items) if items.len() == 2));
        assert_eq!(
            value(&format!("${{env:FATHOM_NOT_SET:-${{{SET}}}}}")),
            Value::String("fathom".into())
        );
    }

    #[test]
    fn dollars_that_are_no_expressions_stay() {
        assert_eq!(value("$X"), Value::String("$X".into()));
        assert_eq!(value("$${X}"), Value::String("${X}".into()));
        assert_eq!(value("$$${CARGO_PKG_NAME}"), Value::String("$fathom".into()));
        assert_eq!(value("a$"), Value::String("a$".into()));
    }

    #[test]
    fn the_text_of_a_value_is_kept() {
        let (node, _) = expanded("a: ${env:FATHOM_NOT_SET:-0123}").expect("valid");
        let node = node.nearest("a");
        assert_eq!((&node.value, node.text.as_deref()), (&Value::Int(83), Some("0123")));
    }

    #[test]
    fn unset_variables_are_null_and_warned_of() {
        let (node, warnings) = expanded("a: ${env:FATHOM_NOT_SET}").expect("valid");
        assert_eq!(node.nearest("a").value, Value::Null);
        assert_eq!(
            warnings,
            ["Configuration references unset environment variable FATHOM_NOT_SET at a:1:4"]
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |text: &str| expanded(text).expect_err(text).message;
        assert_eq!(
            message("a: ${x:y}").replace("x:y", ""),
            "environment variable \"\" has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$"
        );
        assert_eq!(message("a: ${no:x}"), "scheme \"no\" is not supported for uri \"no:x\"");
        assert!(message("a: ${file:/no/such}").contains("unable to read the file /no/such"));
        assert!(message("a: x${yaml:[1]}").contains("needs a scalar, got a slice"));
        assert!(message(&format!("a: {}", "${".repeat(1001))).contains("1000 expressions"));
    }
}
