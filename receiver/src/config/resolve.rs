//! Sources -> one tree: read, merged, expanded.

use std::sync::Arc;

use super::{
    Mistake, Report, expand, merge,
    node::{Node, Value},
    source, yaml,
};

/// The tree, and what is legal but looks like an oversight.
pub fn resolve(uris: &[String], sets: &[String]) -> Result<(Node, Vec<String>), Report> {
    let mut wrong = Vec::new();
    let mut root = Node::default();
    let read = uris.iter().map(|uri| source::read(uri));
    for source in read.chain(sets.iter().map(|argument| set(argument))) {
        match source.and_then(map) {
            // A source that says nothing changes nothing.
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(node) => merge::merge(&mut root, node),
            Err(mistake) => wrong.push(mistake),
        }
    }
    let mut warnings = Vec::new();
    expand::expand(&mut root, &mut wrong, &mut warnings);
    match wrong.is_empty() {
        true => Ok((root, warnings)),
        // What could not be read would make everything after it look wrong.
        false => Err(Report { wrong, warnings }),
    }
}

fn set(argument: &str) -> Result<Node, Mistake> {
    let text = merge::set(argument).ok_or_else(|| Mistake {
        path: String::new(),
        place: None,
        message: format!("--set {argument}: missing equal sign"),
        hint: Some("write KEY=VALUE, as in processors.batch.timeout=2s".to_owned()),
    })?;
    yaml::parse(&text, &Arc::from(format!("--set {argument}")))
}

/// With its paths as maps. What is said of a source that is none are the Collector's words, and Go's.
fn map(node: Node) -> Result<Node, Mistake> {
    let kind = match node.value {
        Value::Map(_) | Value::Null => return merge::nested(node),
        Value::List(_) => "[]interface {}",
        _ => node.kind(),
    };
    let message = format!("retrieved value (type={kind}) cannot be used as a Conf");
    Err(Mistake { path: String::new(), place: node.place, message, hint: None })
}
