//! Several sources into one tree.

use super::node::{Key, Node, Value};

/// Lays `over` on `base`: maps merge, everything else is replaced, null included.
pub fn merge(base: &mut Node, over: Node) {
    match (&mut base.value, over.value) {
        (Value::Map(entries), Value::Map(new)) => {
            for (key, node) in new {
                match entries.iter_mut().find(|(k, _)| k.name == key.name) {
                    Some((_, old)) => merge(old, node),
                    None => entries.push((key, node)),
                }
            }
        }
        (_, value) => *base = Node { value, text: over.text, place: over.place },
    }
}

/// Turns keys like `a::b` into nested maps, everywhere.
pub fn nested(node: Node) -> Node {
    let value = match node.value {
        Value::List(items) => Value::List(items.into_iter().map(nested).collect()),
        Value::Map(entries) => {
            let mut root = Node { value: Value::Map(Vec::new()), ..Node::default() };
            for (key, value) in entries {
                let mut value = nested(value);
                let mut parts: Vec<&str> = key.name.split("::").collect();
                let first = parts.remove(0).to_owned();
                for part in parts.into_iter().rev() {
                    let place = key.place.clone();
                    let key = Key { name: part.to_owned(), place: place.clone() };
                    value = Node { value: Value::Map(vec![(key, value)]), text: None, place };
                }
                let key = Key { name: first, place: key.place };
                merge(&mut root, Node { value: Value::Map(vec![(key, value)]), ..Node::default() });
            }
            root.value
        }
        scalar => scalar,
    };
    Node { value, ..node }
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
        nested(yaml::parse(text, &"a".into()).expect("valid"))
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
        assert_eq!(set("a.b=c=d").as_deref(), Some("a::b: c=d"));
        assert_eq!(set("=c"), None);
        assert_eq!(set("a"), None);
    }
}
