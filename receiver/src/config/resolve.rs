//! Sources -> one tree: read, merged, expanded.

use std::sync::Arc;

use super::{
    Mistake, expand, merge,
    node::{Node, Value},
    source, yaml,
};

/// The tree, and what is legal but looks like an oversight.
pub fn resolve(uris: &[String], sets: &[String]) -> Result<(Node, Vec<String>), Vec<Mistake>> {
    let mut wrong = Vec::new();
    let mut root = Node::default();
    for uri in uris {
        match source::read(uri) {
            // A source that says nothing changes nothing.
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(node) => merge::merge(&mut root, merge::nested(node)),
            Err(mistake) => wrong.push(mistake),
        }
    }
    for argument in sets {
        let set = merge::set(argument)
            .ok_or_else(|| Mistake {
                path: String::new(),
                place: None,
                message: format!("--set {argument}: missing equal sign"),
                hint: Some("write KEY=VALUE, as in processors.batch.timeout=2s".to_owned()),
            })
            .and_then(|text| yaml::parse(&text, &Arc::from(format!("--set {argument}"))));
        match set {
            Ok(node) => merge::merge(&mut root, merge::nested(node)),
            Err(mistake) => wrong.push(mistake),
        }
    }
    let mut warnings = Vec::new();
    expand::expand(&mut root, &mut wrong, &mut warnings);
    match wrong.is_empty() {
        true => Ok((root, warnings)),
        // What could not be read would make everything after it look wrong.
        false => Err(wrong),
    }
}
