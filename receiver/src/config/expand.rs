//! `${env:X}`, `${file:PATH}`, `${yaml:TEXT}`, `${https:…}` inside values.

use std::{collections::HashMap, env, mem, ops::Range, sync::Arc};

use super::{
    Mistake, Place, merge,
    node::{Node, Value},
    report::MOST,
    source, yaml,
};

/// Expansions that one scalar may need, values of values included.
const MAX_ROUNDS: usize = 1000;
/// How deep expressions may stand in the values of expressions.
const MAX_DEPTH: usize = 2 * yaml::MAX_DEPTH;
/// How long a scalar with expressions may be, before and after.
const MAX_LENGTH: usize = 1 << 20;

/// Expands every scalar of the tree. `warnings` gets what is legal but looks like an oversight.
pub fn expand(node: &mut Node, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<String>) {
    walk(node, &mut Run { mistakes, warnings, values: 0, bytes: 0, fetched: HashMap::new() });
}

/// What the expansion of one configuration has come to.
struct Run<'a> {
    mistakes: &'a mut Vec<Mistake>,
    warnings: &'a mut Vec<String>,
    /// What expressions stood for so far: a few of them could stand for each other many times.
    values: usize,
    bytes: usize,
    /// What stands behind expressions with a scheme: whoever asks twice gets the same, and it is read once.
    fetched: HashMap<String, (Node, String)>,
}

impl Run<'_> {
    /// Whether it has come to so much that there is no use in going on.
    fn is_over(&self) -> bool {
        self.values > yaml::MAX_NODES
            || self.bytes > source::MAX_BYTES
            || self.mistakes.len() >= MOST
    }

    fn took(&mut self, values: usize, bytes: usize) -> Result<(), Failure> {
        self.values += values;
        self.bytes += bytes;
        match self.is_over() {
            false => Ok(()),
            true => Err(Failure::from(format!(
                "expressions stand for more than {} values or {} MiB",
                yaml::MAX_NODES,
                source::MAX_BYTES >> 20
            ))),
        }
    }
}

/// Why something could not be expanded.
struct Failure {
    message: String,
    /// Where, if that is in what an expression stands for.
    place: Option<Place>,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, place: None }
    }
}

fn walk(node: &mut Node, run: &mut Run<'_>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|n| walk(n, run)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, n)| walk(n, run)),
        Value::String(text) if text.contains('$') && !run.is_over() => {
            let place = node.place.take();
            if looks_like_variable(text) {
                let place = place.as_ref().map_or_else(String::new, |p| format!(" at {p}"));
                // It may be a password after all.
                run.warnings.push(format!(
                    "a value that looks like `$NAME`{place} is taken as it is: write a variable as \
                     `${{env:NAME}}`"
                ));
            }
            let mut scalar = Scalar { run, rounds: 0, depth: 0, place: place.clone() };
            match scalar.expand(text) {
                // The value stands where the expression stands.
                Ok(expanded) => {
                    *node = Node { place, ..expanded };
                    unescape(node);
                }
                Err(failure) => run.mistakes.push(Mistake {
                    path: String::new(),
                    place: failure.place.or(place),
                    message: failure.message,
                    hint: None,
                }),
            }
        }
        _ => {}
    }
}

/// Whether it is what a shell, or an older Collector, would take for a variable.
fn looks_like_variable(text: &str) -> bool {
    let name = text.strip_prefix('$').and_then(|name| source::variable(name).ok());
    name.is_some_and(|(_, default)| default.is_none())
}

/// `$$` is `$`, in the end and everywhere.
fn unescape(node: &mut Node) {
    let replace = |text: &mut String| {
        if text.contains("$$") {
            *text = text.replace("$$", "$");
        }
    };
    node.text.as_mut().map(replace);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(unescape),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| unescape(node)),
        Value::String(text) => replace(text),
        _ => {}
    }
}

struct Scalar<'a, 'b> {
    run: &'a mut Run<'b>,
    rounds: usize,
    /// How deep what is being expanded stands.
    depth: usize,
    /// Where it stands.
    place: Option<Place>,
}

impl Scalar<'_, '_> {
    /// Replaces expressions by what they stand for until there is none, in the Collector's order: the one that ends
    /// first comes next. `$$` stays.
    fn expand(&mut self, text: &str) -> Result<Node, Failure> {
        let too_long = |what: &str| Err(Failure::from(format!("{what} {MAX_LENGTH} bytes")));
        if text.len() > MAX_LENGTH && text.contains('$') {
            return too_long("a value with expressions may have");
        }
        let mut text = text.to_owned();
        let mut unread = None;
        let mut time = false;
        while let Some(found) = next(&text) {
            let (mut node, original) = self.fetch(&text[found.start + 2..found.end - 1])?;
            let whole = found == (0..text.len());
            if whole && !matches!(node.value, Value::String(_)) {
                self.nested(&mut node)?;
                // The field decides which it takes. What cannot be expanded may be a comment of a value that is no text.
                let original = self.expand(&original).ok();
                // But what comes after it would stay as it is.
                self.run.took(0, 0)?;
                node.text = original
                    .filter(|node| matches!(node.value, Value::String(_)))
                    .and_then(|node| node.text);
                return Ok(node);
            }
            unread = node.unread.filter(|_| whole);
            time = whole && node.time;
            self.run.took(0, text.len())?;
            text.replace_range(found, &original);
            if text.len() > MAX_LENGTH && !whole {
                return too_long("a value expands to more than");
            }
        }
        let value = Value::String(text.clone());
        Ok(Node { value, text: Some(text), unread, place: None, time })
    }

    /// What stands behind an expression, not yet expanded, and as it is written there.
    fn fetch(&mut self, uri: &str) -> Result<(Node, String), Failure> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err("too many recursive expansions".to_owned().into());
        }
        let (scheme, opaque) = match source::split(uri) {
            // `X:-default` is a variable with a default, not a scheme.
            Some((scheme, opaque)) if scheme == "env" || !opaque.starts_with('-') => {
                (scheme, opaque)
            }
            None if uri.contains(':') && !uri.contains(":-") => {
                return Err(format!("invalid uri: {uri:?}").into());
            }
            _ => ("env", uri),
        };
        if opaque.contains('$') {
            return Err(format!(
                "the uri \"{scheme}:{opaque}\" contains unsupported characters ('$')"
            )
            .into());
        }
        // An unset variable is warned of each time, with its place.
        let fetched = if scheme == "env" {
            self.variable(opaque)?
        } else if let Some(known) = self.run.fetched.get(uri) {
            known.clone()
        } else {
            let name = match scheme {
                "file" => opaque,
                "yaml" => "yaml:",
                _ => uri,
            };
            let bytes = source::bytes(scheme, opaque)
                .ok_or_else(|| format!("scheme \"{scheme}\" is not supported for uri \"{uri}\""))?;
            let fetched = parsed(bytes?, name)?;
            self.run.fetched.insert(uri.to_owned(), fetched.clone());
            fetched
        };
        self.run.took(yaml::size(&fetched.0), fetched.1.len())?;
        Ok(fetched)
    }

    /// Expands what a value itself contains.
    fn nested(&mut self, node: &mut Node) -> Result<(), Failure> {
        if self.depth == MAX_DEPTH {
            return Err("too many recursive expansions".to_owned().into());
        }
        self.depth += 1;
        let expanded = self.below(node);
        self.depth -= 1;
        expanded
    }

    fn below(&mut self, node: &mut Node) -> Result<(), Failure> {
        match &mut node.value {
            Value::List(items) => items.iter_mut().try_for_each(|n| self.nested(n))?,
            Value::Map(entries) => entries.iter_mut().try_for_each(|(_, n)| self.nested(n))?,
            Value::String(text) if text.contains("${") => {
                let place = node.place.take();
                let outer = mem::replace(&mut self.place, place.clone());
                let expanded = self.expand(text);
                self.place = outer;
                *node = match expanded {
                    Ok(expanded) => Node { place, ..expanded },
                    Err(failure) => {
                        return Err(Failure { place: failure.place.or(place), ..failure });
                    }
                };
            }
            _ => {}
        }
        Ok(())
    }

    fn variable(&mut self, opaque: &str) -> Result<(Node, String), Failure> {
        let (name, default) = source::variable(opaque)?;
        // A variable that is set but empty does not take the default, unlike in a shell.
        match (env::var_os(name), default) {
            (Some(text), _) => Ok(parsed(text.into_encoded_bytes(), &format!("env:{name}"))?),
            (None, Some("")) => {
                let value = Value::String(String::new());
                let unread = Some(format!("environment variable {name} is not set").into());
                Ok((Node { value, unread, ..Node::default() }, String::new()))
            }
            (None, Some(default)) => Ok(parsed(default.into(), &format!("env:{name}"))?),
            (None, None) => {
                let place = self.place.as_ref().map_or_else(String::new, |p| format!(" at {p}"));
                let warning =
                    format!("Configuration references unset environment variable {name}{place}");
                if self.run.warnings.last() != Some(&warning) {
                    self.run.warnings.push(warning);
                }
                let unread = Some(format!("environment variable {name} is not set").into());
                Ok((Node { unread, ..Node::default() }, String::new()))
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
        time: false,
    };
    let node = match node {
        // Quotes and comments are part of a text.
        Ok(Node { value: Value::String(_), time, .. }) => Node { time, ..string(None) },
        Ok(node) => merge::nested(node).map_err(|m| format!("{} in {name}", m.message))?,
        Err(Mistake { place, message, .. }) => {
            let place = place.map_or_else(|| name.to_string(), |p| p.to_string());
            string(Some(format!("taken as text, for it is no YAML: {message} at {place}").into()))
        }
    };
    Ok((node, text))
}

/// The expression that ends first, from its `$` to after its `}`. One that is escaped is none; in the Collector it is
/// the end of the search.
fn next(text: &str) -> Option<Range<usize>> {
    let mut from = 0;
    loop {
        let end = from + text[from..].find('}')? + 1;
        if let Some(start) = text[from..end].rfind("${").map(|start| from + start) {
            let dollars = text[..start].bytes().rev().take_while(|b| *b == b'$').count();
            if dollars % 2 == 0 {
                return Some(start..end);
            }
        }
        from = end;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

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
    fn what_two_values_ask_for_is_read_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let uri = format!("${{http://{}/}}", listener.local_addr().expect("bound"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it comes");
            let _ = stream.read(&mut [0; 4096]).expect("it asks");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42").expect("it reads");
            // Nobody answers a second time.
        });
        let (node, _) = expanded(&format!("a: {uri}\nb: \"x{uri}\"")).expect("both are known");
        server.join().expect("it was asked");
        assert_eq!(node.nearest("a").value, Value::Int(42));
        assert_eq!(node.nearest("b").value, Value::String("x42".into()));
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
    fn a_variable_as_in_a_shell_is_text_and_warned_of() {
        for text in ["$BSIZE", "$_a"] {
            let (node, warnings) = expanded(&format!("a: {text}")).expect("valid");
            assert_eq!(node.nearest("a").value, Value::String(text.to_owned()));
            assert_eq!(
                warnings,
                [
                    "a value that looks like `$NAME` at a:1:4 is taken as it is: write a variable as \
                  `${env:NAME}`"
                ]
            );
        }
        for text in ["$1", "$$BSIZE", "a$BSIZE", "$BSIZE/x", "$"] {
            assert!(expanded(&format!("a: {text}")).expect("valid").1.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_too_much_is_said_wherever_it_is_found() {
        let text = format!("[{} '{}']", "'${yaml:x}', ".repeat(300), "-".repeat(1 << 16));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list");
        std::fs::write(&path, text).expect("written");
        let error = expanded(&format!("a: ${{file:{}}}\nb: ${{{SET}}}", path.display()));
        let message = error.expect_err("too much").message;
        assert_eq!(message, "expressions stand for more than 200000 values or 16 MiB");
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
        assert!(message("a: ${file:/no/such}").contains(
            "unable to read the file file:/no/such: open /no/such: no such file or directory"
        ));
    }
}
