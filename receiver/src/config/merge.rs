//! Several sources into one tree.

use std::collections::HashMap;

use super::{
    Mistake,
    node::{Key, Node, Value},
    yaml::{MAX_DEPTH, too_deep},
};

/// Lays `over` on `base`: maps merge, everything else is replaced, null included.
pub fn merge(base: &mut Node, over: Node) {
    match (&mut base.value, over.value) {
        (Value::Map(entries), Value::Map(new)) => {
            let mut map = Map::of(std::mem::take(entries));
            new.into_iter().for_each(|(key, node)| map.add(key, node, merge));
            *entries = map.entries;
        }
        (_, value) => *base = Node { value, ..over },
    }
}

/// A map that is being put together. Keys are found in constant time, however many there are.
struct Map {
    entries: Vec<(Key, Node)>,
    at: HashMap<String, usize>,
}

impl Map {
    fn of(entries: Vec<(Key, Node)>) -> Self {
        let names = entries.iter().map(|(key, _)| key.name.clone());
        Self { at: names.zip(0..).collect(), entries }
    }

    /// Adds an entry; `join` says what becomes of two of the same key.
    fn add(&mut self, key: Key, node: Node, join: fn(&mut Node, Node)) {
        match self.at.get(&key.name) {
            Some(at) => join(&mut self.entries[*at].1, node),
            None => {
                self.at.insert(key.name.clone(), self.entries.len());
                self.entries.push((key, node));
            }
        }
    }
}

/// Turns keys like `a::b` into nested maps, everywhere.
pub fn nested(node: Node) -> Result<Node, Mistake> {
    below(node, 0)
}

/// `depth` levels in.
fn below(node: Node, depth: usize) -> Result<Node, Mistake> {
    if depth > MAX_DEPTH {
        return Err(too_deep(node.place));
    }
    let value = match node.value {
        Value::List(items) => {
            Value::List(items.into_iter().map(|n| below(n, depth + 1)).collect::<Result<_, _>>()?)
        }
        Value::Map(entries) => {
            let mut map = Map::of(Vec::new());
            for (key, node) in entries {
                let (key, node) = outermost(key, node);
                map.add(key, node, gather);
            }
            let entries = map.entries.into_iter();
            let nested = entries.map(|(key, node)| Ok((key, below(node, depth + 1)?)));
            Value::Map(nested.collect::<Result<_, _>>()?)
        }
        scalar => scalar,
    };
    Ok(Node { value, ..node })
}

/// `a::b: c` as `a: {b: c}`; what else is in the key is left for the next level.
fn outermost(key: Key, value: Node) -> (Key, Node) {
    let Some((first, rest)) = key.name.split_once("::") else { return (key, value) };
    let inner = Key { name: rest.to_owned(), place: key.place.clone() };
    let map = Value::Map(vec![(inner, value)]);
    let node = Node { value: map, place: key.place.clone(), ..Node::default() };
    (Key { name: first.to_owned(), place: key.place }, node)
}

/// As [`merge`], but keys that two maps have in common are left for the next level: each key is looked at once in each.
fn gather(base: &mut Node, over: Node) {
    match (&mut base.value, over.value) {
        (Value::Map(entries), Value::Map(new)) => entries.extend(new),
        (_, value) => *base = Node { value, ..over },
    }
}

/// `a.b.c=v` of `--set` as YAML: dots in the key become `::`.
pub fn set(argument: &str) -> Option<String> {
    let (key, value) = argument.split_once('=')?;
    (!key.is_empty()).then(|| format!("{}: {value}", key.replace('.', "::")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn read(text: &str) -> Node {
        nested(yaml::parse(text, &"a".into()).expect("valid")).expect("not deep")
    }

    #[test]
    fn maps_merge_and_the_rest_is_replaced() {
        let mut base = read("a: {x: 1, y: [1, 2]}\nb: 1");
        merge(&mut base, read("a: {y: [3], z: 4}\nb:"));
        assert_eq!(base.nearest("a::x").value, Value::Int(1));
        assert!(matches!(&base.nearest("a::y").value, Value::List(items) if items.len() == 1));
        assert_eq!(base.nearest("a::z").value, Value::Int(4));
        assert_eq!(base.nearest("b").value, Value::Null);
    }

    #[test]
    fn paths_in_keys_nest() {
        let root = read("processors::batch::timeout: 2s\nprocessors::batch:\n  send_batch_size: 1");
        assert_eq!(root.nearest("processors::batch::timeout").text.as_deref(), Some("2s"));
        assert_eq!(root.nearest("processors::batch::send_batch_size").value, Value::Int(1));
        let deep = yaml::parse(&format!("a{}: 1", "::a".repeat(100)), &"a".into()).expect("valid");
        assert!(nested(deep).expect_err("deep").message.contains("deeper than 100 levels"));
        let many: String = (0..50_000).map(|i| format!("a::b::k{i}: 1\n")).collect();
        let begun = std::time::Instant::now();
        assert_eq!(read(&many).nearest("a::b").entries().len(), 50_000);
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
        assert_eq!(set("a.b=c=d").as_deref(), Some("a::b: c=d"));
        assert_eq!(set("=c"), None);
        assert_eq!(set("a"), None);
    }
}
