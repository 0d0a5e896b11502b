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
            new.into_iter().for_each(|(key, node)| map.add(key, node));
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

    fn add(&mut self, key: Key, node: Node) {
        match self.at.get(&key.name) {
            Some(at) => merge(&mut self.entries[*at].1, node),
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
    let value = match node.value {
        Value::List(items) => {
            Value::List(items.into_iter().map(|n| below(n, depth + 1)).collect::<Result<_, _>>()?)
        }
        Value::Map(entries) => {
            let mut map = Map::of(Vec::new());
            for (Key { name, place }, value) in entries {
                let parts: Vec<_> = name.split("::").collect();
                if depth + parts.len() > MAX_DEPTH {
                    return Err(too_deep(place));
                }
                let mut value = below(value, depth + parts.len())?;
                for part in parts[1..].iter().rev() {
                    let key = Key { name: (*part).to_owned(), place: place.clone() };
                    let place = place.clone();
                    value =
                        Node { value: Value::Map(vec![(key, value)]), place, ..Node::default() };
                }
                map.add(Key { name: parts[0].to_owned(), place }, value);
            }
            Value::Map(map.entries)
        }
        scalar => scalar,
    };
    Ok(Node { value, ..node })
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
        assert_eq!(set("a.b=c=d").as_deref(), Some("a::b: c=d"));
        assert_eq!(set("=c"), None);
        assert_eq!(set("a"), None);
    }
}
