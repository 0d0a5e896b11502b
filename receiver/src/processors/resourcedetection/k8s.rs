//! Detector `k8s_downward`: what the pod's specification passes on in environment variables, by way of
//! the downward API.

use super::{Detected, Switches, Variables};

/// Attributes, and the variables that may hold it.
const SOURCES: [(&str, &[&str]); 6] = [
    ("k8s.cluster.name", &["K8S_CLUSTER_NAME"]),
    ("k8s.container.name", &["K8S_CONTAINER_NAME"]),
    ("k8s.namespace.name", &["K8S_NAMESPACE_NAME", "K8S_POD_NAMESPACE", "K8S_NAMESPACE"]),
    ("k8s.node.name", &["K8S_NODE_NAME"]),
    ("k8s.pod.name", &["K8S_POD_NAME"]),
    ("k8s.pod.uid", &["K8S_POD_UID"]),
];

/// What it can find.
pub const ATTRIBUTES: &[(&str, bool)] = &[
    ("k8s.cluster.name", true),
    ("k8s.container.name", true),
    ("k8s.namespace.name", true),
    ("k8s.node.name", true),
    ("k8s.pod.name", true),
    ("k8s.pod.uid", true),
];

/// What is set.
pub fn detect(variables: Variables<'_>, switches: &Switches) -> Detected {
    let mut found = Detected::default();
    for (key, names) in SOURCES {
        let value = names.iter().find_map(|name| variables(name).filter(|v| !v.is_empty()));
        if let Some(value) = value.filter(|_| switches.on(key)) {
            found.put(key, value);
        }
    }
    found
}
