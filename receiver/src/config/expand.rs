//! `${env:X}`, `${file:PATH}`, `${yaml:TEXT}` inside values.

use std::{env, sync::Arc};

use super::{
    Mistake, Place, merge,
    node::{Node, Value},
    report::MOST,
    source, yaml,
};

/// Expansions that one scalar may need, values of values included.
const MAX_ROUNDS: usize = 1000;
/// How deep expressions may stand in expressions and in the values of expressions.
const MAX_DEPTH: usize = 2 * yaml::MAX_DEPTH;
/// How long a scalar with expressions may be, before and after.
const MAX_LENGTH: usize = 1 << 20;
/// Expressions that one scalar may open: far more than anyone writes.
const MAX_OPENED: usize = 1000;

/// Expands every scalar of the tree. `warnings` gets what is legal but looks like an oversight.
pub fn expand(node: &mut Node, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<String>) {
    walk(node, &mut Run { mistakes, warnings, values: 0, bytes: 0 });
}

/// What the expansion of one configuration has come to.
struct Run<'a> {
    mistakes: &'a mut Vec<Mistake>,
    warnings: &'a mut Vec<String>,
    /// What expressions stood for so far: a few of them could stand for each other many times.
    values: usize,
    bytes: usize,
}

impl Run<'_> {
    /// Whether it has come to so much that there is no use in going on.
    fn is_over(&self) -> bool {
        self.values > yaml::MAX_NODES
            || self.bytes > source::MAX_BYTES
            || self.mistakes.len() >= MOST
    }
}

fn walk(node: &mut Node, run: &mut Run<'_>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|n| walk(n, run)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, n)| walk(n, run)),
        Value::String(text) if text.contains('$') && !run.is_over() => {
            let mut scalar = Scalar { run, rounds: 0, depth: 0, place: &node.place };
            match scalar.expand(text) {
                Ok(Expanded::Text(text)) => {
                    node.value = Value::String(text.clone());
                    node.text = Some(text);
                }
                // The value stands where the expression stands.
                Ok(Expanded::Whole(whole)) => *node = Node { place: node.place.take(), ..whole },
                Err(message) => run.mistakes.push(Mistake {
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

struct Scalar<'a, 'b> {
    run: &'a mut Run<'b>,
    rounds: usize,
    /// How deep what is being expanded stands.
    depth: usize,
    place: &'a Option<Place>,
}

impl Scalar<'_, '_> {
    fn expand(&mut self, text: &str) -> Result<Expanded, String> {
        if let Some(inner) = text.strip_prefix("${")
            && closing(inner).is_some_and(|end| end + 1 == inner.len())
        {
            let expression = &inner[..inner.len() - 1];
            return self.deeper(|scalar| scalar.value(expression)).map(Expanded::Whole);
        }
        self.text(text).map(Expanded::Text)
    }

    /// Expands into text: an expression is replaced by the text of its value.
    fn text(&mut self, text: &str) -> Result<String, String> {
        if !text.contains('$') {
            return Ok(text.to_owned());
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
                out.push_str(&self.deeper(|scalar| {
                    let (_, text) = scalar.fetch(&inner[..end])?;
                    scalar.text(&text)
                })?);
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
        Ok(out)
    }

    /// The value of what stands between `${` and `}`, with its text: the field decides which it takes.
    fn value(&mut self, expression: &str) -> Result<Node, String> {
        let (mut node, text) = self.fetch(expression)?;
        match node.value {
            Value::String(_) => match self.expand(&text)? {
                Expanded::Whole(whole) => node = whole,
                Expanded::Text(text) => {
                    node.value = Value::String(text.clone());
                    node.text = Some(text);
                }
            },
            _ => {
                self.nested(&mut node)?;
                // What cannot be expanded may be a comment of a value that is no text.
                node.text = self.text(&text).ok();
            }
        }
        Ok(node)
    }

    /// What stands behind an expression, not yet expanded, and as it is written there.
    fn fetch(&mut self, expression: &str) -> Result<(Node, String), String> {
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
        let (scheme, opaque) = match source::split(&uri) {
            // `X:-default` is a variable with a default, not a scheme.
            Some((scheme, opaque)) if scheme == "env" || !opaque.starts_with('-') => {
                (scheme, opaque)
            }
            None if uri.contains(':') && !uri.contains(":-") => {
                return Err(format!("invalid uri: {uri:?}"));
            }
            _ => ("env", uri.as_str()),
        };
        if opaque.contains('$') {
            return Err(format!(
                "the uri \"{scheme}:{opaque}\" contains unsupported characters ('$')"
            ));
        }
        let fetched = match (scheme, source::bytes(scheme, opaque)) {
            ("env", _) => self.variable(opaque)?,
            ("file", Some(bytes)) => parsed(bytes?, opaque)?,
            ("yaml", Some(bytes)) => parsed(bytes?, "yaml:")?,
            (_, Some(bytes)) => parsed(bytes?, &uri)?,
            _ => return Err(format!("scheme \"{scheme}\" is not supported for uri \"{uri}\"")),
        };
        self.run.values += yaml::size(&fetched.0);
        self.run.bytes += fetched.1.len();
        if self.run.is_over() {
            return Err(format!(
                "expressions stand for more than {} values or {} MiB",
                yaml::MAX_NODES,
                source::MAX_BYTES >> 20
            ));
        }
        Ok(fetched)
    }

    /// Expands what a value itself contains.
    fn nested(&mut self, node: &mut Node) -> Result<(), String> {
        self.deeper(|scalar| scalar.each(node))
    }

    fn deeper<T>(
        &mut self,
        expand: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        if self.depth == MAX_DEPTH {
            return Err("too many recursive expansions".to_owned());
        }
        self.depth += 1;
        let expanded = expand(self);
        self.depth -= 1;
        expanded
    }

    fn each(&mut self, node: &mut Node) -> Result<(), String> {
        match &mut node.value {
            Value::List(items) => items.iter_mut().try_for_each(|n| self.nested(n)),
            Value::Map(entries) => entries.iter_mut().try_for_each(|(_, n)| self.nested(n)),
            Value::String(text) if text.contains('$') => {
                let place = node.place.clone();
                *node = match self.expand(text)? {
                    Expanded::Whole(whole) => Node { place, ..whole },
                    Expanded::Text(text) => Node {
                        value: Value::String(text.clone()),
                        text: Some(text),
                        place,
                        ..Node::default()
                    },
                };
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn variable(&mut self, opaque: &str) -> Result<(Node, String), String> {
        let (name, default) = source::variable(opaque)?;
        // A variable that is set but empty does not take the default, unlike in a shell.
        match (env::var_os(name), default) {
            (Some(text), _) => parsed(text.into_encoded_bytes(), &format!("env:{name}")),
            (None, Some("")) => {
                let value = Value::String(String::new());
                Ok((Node { value, ..Node::default() }, String::new()))
            }
            (None, Some(default)) => parsed(default.into(), &format!("env:{name}")),
            (None, None) => {
                let place = self.place.as_ref().map_or_else(String::new, |p| format!(" at {p}"));
                let warning =
                    format!("Configuration references unset environment variable {name}{place}");
                if self.run.warnings.last() != Some(&warning) {
                    self.run.warnings.push(warning);
                }
                Ok(Default::default())
            }
        }
    }
}

/// Text as YAML, or as a string where it is none, and the text itself.
fn parsed(bytes: Vec<u8>, name: &str) -> Result<(Node, String), String> {
    let name = Arc::from(name);
    let node = yaml::parse_bytes(&bytes, &name);
    let text = String::from_utf8(bytes).map_err(|_| match &node {
        Err(Mistake { place: Some(place), message, .. }) => format!("{message} at {place}"),
        _ => format!("{name} is no UTF-8"),
    })?;
    // A file ends with a line break; a password in it does not.
    let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
    let string = |unread| Node {
        value: Value::String(text.clone()),
        text: Some(text.clone()),
        place: Some(Place { file: name.clone(), line: 1, column: 1 }),
        unread,
    };
    let node = match node {
        // Quotes and comments are part of a text.
        Ok(Node { value: Value::String(_), .. }) => string(None),
        Ok(node) => merge::nested(node).map_err(|m| format!("{} in {name}", m.message))?,
        Err(Mistake { place, message, .. }) => {
            let place = place.map_or_else(|| name.to_string(), |p| p.to_string());
            string(Some(format!("taken as text, for it is no YAML: {message} at {place}").into()))
        }
    };
    Ok((node, text))
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
        assert_eq!(value("${"), Value::String("${".into()));
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
        assert_eq!(message("a: ${g_c_s:VALUE}"), "invalid uri: \"g_c_s:VALUE\"");
        assert_eq!(
            message("a: ${env:x%y}"),
            "environment variable \"x%y\" has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$"
        );
        assert_eq!(message("a: ${no:x}"), "scheme \"no\" is not supported for uri \"no:x\"");
        assert!(message("a: ${file:/no/such}").contains("unable to read the file /no/such"));
        assert!(message(&format!("a: {}", "${".repeat(1001))).contains("1000 expressions"));
    }
}
