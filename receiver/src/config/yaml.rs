//! YAML text -> [`Node`], with the meaning that the Collector's decoder (go-yaml v3) gives it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::{
    Mistake, Place,
    node::{Key, Node, Value},
    scalar::{is_time, plain},
    source::MAX_BYTES,
};

/// Values that one source may hold. Far more than anyone writes; an alias bomb ends here.
pub const MAX_NODES: usize = 200_000;
/// How deep values may nest.
pub const MAX_DEPTH: usize = 100;

/// Reads the one document of `text`. `file` is what places name.
pub fn parse(text: &str, file: &Arc<str>) -> Result<Node, Mistake> {
    let (anchors, stack) = Default::default();
    Builder { file, anchors, stack, nodes: 0, copied: 0, root: None }.read(text)
}

/// As [`parse`], of bytes that may not be UTF-8.
pub fn parse_bytes(bytes: &[u8], file: &Arc<str>) -> Result<Node, Mistake> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text.strip_prefix('\u{feff}').unwrap_or(text), file),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
            let place = Place { file: file.clone(), line, column };
            Err(mistake(place, "invalid UTF-8".to_owned()))
        }
    }
}

fn mistake(place: Place, message: String) -> Mistake {
    Mistake { path: String::new(), place: Some(place), message, hint: None }
}

/// A list or map that is being read.
struct Open {
    anchor: usize,
    place: Place,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    /// With the key whose value comes next.
    Map(Vec<(Key, Node)>, Option<Key>),
}

/// What an anchor stands for.
struct Anchor {
    node: Node,
    size: usize,
    length: usize,
    depth: usize,
}

struct Builder<'a> {
    file: &'a Arc<str>,
    anchors: HashMap<usize, Anchor>,
    stack: Vec<Open>,
    nodes: usize,
    /// Bytes of text that anchors and aliases have copied.
    copied: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn read(mut self, text: &str) -> Result<Node, Mistake> {
        let mut documents = 0;
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                mistake(self.place(error.marker()), format!("invalid YAML: {}", error.info()))
            })?;
            let place = self.place(&span.start);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(mistake(
                            place,
                            "a second YAML document: there must be one".into(),
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let is_plain = style == ScalarStyle::Plain && tag.is_none();
                    let value = match is_plain {
                        true => plain(&text),
                        false => Value::String(text.to_string()),
                    };
                    let time = is_plain && is_time(&text);
                    let text = Some(text.into_owned());
                    let node = Node { value, text, place: Some(place), unread: None, time };
                    self.add(node, anchor)?;
                }
                Event::SequenceStart(anchor, _) => {
                    self.open(anchor, place, Items::List(Vec::new()))?
                }
                Event::MappingStart(anchor, _) => {
                    self.open(anchor, place, Items::Map(Vec::new(), None))?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Alias(anchor) => {
                    let Some(Anchor { size, length, depth, .. }) = self.anchors.get(&anchor) else {
                        return Err(mistake(place, "an alias to a value that contains it".into()));
                    };
                    // What an alias stands for counts each time it is used.
                    let (size, length, depth) = (*size, *length, *depth);
                    self.count(size - 1, &place)?;
                    self.copy(length, &place)?;
                    if self.stack.len() + depth > MAX_DEPTH {
                        return Err(too_deep(Some(place)));
                    }
                    let node = self.anchors.get(&anchor).map(|anchor| anchor.node.clone());
                    self.add(node.unwrap_or_default(), 0)?;
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(self.root.unwrap_or_default())
    }

    fn place(&self, marker: &Marker) -> Place {
        Place { file: self.file.clone(), line: marker.line(), column: marker.col() + 1 }
    }

    fn count(&mut self, nodes: usize, place: &Place) -> Result<(), Mistake> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(mistake(place.clone(), format!("more than {MAX_NODES} values")));
        }
        Ok(())
    }

    /// A few values may be much text.
    fn copy(&mut self, bytes: usize, place: &Place) -> Result<(), Mistake> {
        self.copied += bytes;
        if self.copied > MAX_BYTES {
            let message =
                format!("anchors and aliases stand for more than {} MiB", MAX_BYTES >> 20);
            return Err(mistake(place.clone(), message));
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, place: Place, items: Items) -> Result<(), Mistake> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(Some(place)));
        }
        self.stack.push(Open { anchor, place, items });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Mistake> {
        let Some(Open { anchor, place, items }) = self.stack.pop() else { return Ok(()) };
        let value = match items {
            Items::List(items) => Value::List(items),
            Items::Map(entries, _) => {
                once(&entries)?;
                Value::Map(self.merged(entries)?)
            }
        };
        self.add(Node { value, place: Some(place), ..Node::default() }, anchor)
    }

    /// A finished value: into what is open, or the root.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Mistake> {
        if let Some(place) = &node.place {
            self.count(1, place)?;
        }
        if anchor > 0 {
            // The copy takes memory, too.
            let (size, length, depth) = (size(&node), length(&node), depth(&node));
            if let Some(place) = &node.place {
                self.count(size, place)?;
                self.copy(length, place)?;
            }
            self.anchors.insert(anchor, Anchor { node: node.clone(), size, length, depth });
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.items {
            Items::List(items) => items.push(typed(node)),
            Items::Map(entries, pending) => match pending.take() {
                Some(key) => entries.push((key, typed(node))),
                None => {
                    let place = node.place.clone();
                    let Some(name) = node.text else {
                        let place = place.unwrap_or_else(|| open.place.clone());
                        return Err(mistake(place, "a key must be a scalar".to_owned()));
                    };
                    *pending = Some(Key { name, place });
                }
            },
        }
        Ok(())
    }

    /// Resolves `<<`: entries of the maps that it names, where the map has none of its own.
    fn merged(&self, entries: Vec<(Key, Node)>) -> Result<Vec<(Key, Node)>, Mistake> {
        if !entries.iter().any(|(key, _)| key.name == "<<") {
            return Ok(entries);
        }
        let (merges, mut own): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(key, _)| key.name == "<<");
        let mut known: HashSet<_> = own.iter().map(|(key, _)| key.name.clone()).collect();
        for (key, node) in merges {
            let sources = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for source in sources {
                let Value::Map(entries) = source.value else {
                    let file = self.file.clone();
                    let place = key.place.clone().unwrap_or(Place { file, line: 1, column: 1 });
                    return Err(mistake(
                        place,
                        "`<<` must name a map or a list of maps".to_owned(),
                    ));
                };
                for (key, node) in entries {
                    if known.insert(key.name.clone()) {
                        own.push((key, node));
                    }
                }
            }
        }
        Ok(own)
    }
}

/// A number is no text, whatever it looks like; a key is.
fn typed(node: Node) -> Node {
    let text = node.text.filter(|_| matches!(node.value, Value::String(_)));
    Node { text, ..node }
}

/// Each key stands in a map once.
fn once(entries: &[(Key, Node)]) -> Result<(), Mistake> {
    let mut first = HashMap::new();
    for (key, _) in entries {
        if let Some(first) = first.insert(key.name.as_str(), key) {
            let line = first.place.as_ref().map_or(0, |p| p.line);
            let message = format!("mapping key {:?} already defined at line {line}", key.name);
            return Err(Mistake {
                path: String::new(),
                place: key.place.clone(),
                message,
                hint: None,
            });
        }
    }
    Ok(())
}

/// Values in a value, itself included.
pub fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| size(node)).sum(),
        _ => 0,
    }
}

/// Bytes of the texts in a value.
fn length(node: &Node) -> usize {
    match &node.value {
        Value::String(text) => text.len(),
        Value::List(items) => items.iter().map(length).sum(),
        Value::Map(entries) => entries.iter().map(|(k, node)| k.name.len() + length(node)).sum(),
        _ => 0,
    }
}

/// Levels of lists and maps in a value. No deeper than [`MAX_DEPTH`], as everything that is added.
fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, n)| depth(n)).max().unwrap_or(0),
        _ => 0,
    }
}

/// What is said of values that nest too deep.
pub fn too_deep(place: Option<Place>) -> Mistake {
    let message = format!("values nest deeper than {MAX_DEPTH} levels");
    Mistake { path: String::new(), place, message, hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Node, Mistake> {
        parse(text, &"a.yaml".into())
    }

    #[test]
    fn values_know_their_places() {
        let root = read("a:\n  - b: 1\n    c: x\n").expect("valid");
        let c = root.nearest("a::0::c");
        assert_eq!(c.place.as_ref().map(ToString::to_string), Some("a.yaml:3:8".into()));
        // A path that leads nowhere ends at the last value on it.
        assert_eq!(root.nearest("a::0::zz::y").place.as_ref().map(|p| p.line), Some(2));
    }

    #[test]
    fn anchors_and_merges() {
        let root = read("a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  l: 3\n").expect("valid");
        assert_eq!(root.nearest("b::k").value, Value::Int(1));
        assert_eq!(root.nearest("b::l").value, Value::Int(3));
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let alias = format!("*a{}, ", i - 1).repeat(10);
            text += &format!("a{i}: &a{i} [{alias}]\n");
        }
        assert!(read(&text).expect_err("a bomb").message.contains("more than 200000 values"));
        let deep = "- ".repeat(101);
        assert!(read(&deep).expect_err("deep").message.contains("deeper than 100 levels"));
        assert!(read(&"[".repeat(5_000_000)).is_err());
        assert!(read("a: &a [*a]").is_err());
        // Depth through aliases: 20 times 97 levels.
        let mut text = format!("d0: &d0 {}{}\n", "[".repeat(97), "]".repeat(97));
        for i in 1..20 {
            let (open, close) = ("[".repeat(97), "]".repeat(97));
            text += &format!("d{i}: &d{i} {open}*d{}{close}\n", i - 1);
        }
        assert!(read(&text).expect_err("deep").message.contains("deeper than 100 levels"));
    }

    #[test]
    fn a_long_text_counts_each_time_it_is_named() {
        let text = "x".repeat(1 << 20);
        let many = format!("a: &a '{text}'\nb: [{}]", "*a, ".repeat(40));
        assert!(read(&many).expect_err("a bomb").message.contains("more than 16 MiB"));
        let nested = format!("{}'{text}'{}", "&a [".repeat(40), "]".repeat(40));
        assert!(read(&nested).expect_err("a bomb").message.contains("more than 16 MiB"));
        let few = format!("a: &a '{text}'\nb: [{}]", "*a, ".repeat(10));
        assert!(read(&few).is_ok());
    }

    #[test]
    fn what_is_wrong_is_placed() {
        let error = |text: &str| {
            let error = read(text).expect_err(text);
            (error.message, error.place.map(|p| (p.line, p.column)))
        };
        let (message, place) = error("a: 1\nb: 2\na: 3\n");
        assert_eq!(
            (message.as_str(), place),
            (r#"mapping key "a" already defined at line 1"#, Some((3, 1)))
        );
        let (message, place) = error("a: [1\nb: 2\n");
        assert!(message.starts_with("invalid YAML"), "{message}");
        assert!(place.is_some());
        assert!(error("a: 1\n---\nb: 2\n").0.contains("second YAML document"));
        let error = parse_bytes(b"a: 1\nb: \xff\n", &"a.yaml".into()).expect_err("not UTF-8");
        assert_eq!(error.place.map(|p| (p.line, p.column)), Some((2, 4)));
    }
}
