//! The processor as pipelines run it.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, logs::v1::ResourceLogs,
};

use super::*;
use crate::{batch::Batch, channel::channel, exporters::queue::testing::context, metric::pairs};

fn configured(config: serde_json::Value) -> Result<ResourceDetection, Mistakes> {
    ResourceDetection::new(serde_json::from_value(config).expect("of the right types"))
}

/// What a resource with these attributes has after it, in order of the keys.
async fn after(config: serde_json::Value, before: &[(&str, &str)]) -> Vec<(String, String)> {
    let processor = configured(config).expect("valid");
    let (cx, _) = context("resourcedetection");
    let ((to, input), (out, mut from)) = (channel(), channel());
    let resource = Resource { attributes: pairs(before), ..Default::default() };
    let block = ResourceLogs { resource: Some(resource), ..Default::default() };
    let batch = Batch::Logs(ExportLogsServiceRequest { resource_logs: vec![block] });
    to.send(batch).await.expect("it has room");
    drop(to);
    Processor::run(processor, cx, input, out).await.expect("it does not fail");
    let Some(Batch::Logs(request)) = from.recv().await else { panic!("nothing came out") };
    let resource = request.resource_logs[0].resource.clone().expect("a resource");
    let mut found: Vec<_> = resource
        .attributes
        .into_iter()
        .map(|a| (a.key, shown(&a.value.and_then(|v| v.value).expect("a value"))))
        .collect();
    found.sort();
    found
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn hostname() -> String {
    nix::unistd::gethostname().expect("it has one").to_string_lossy().into_owned()
}

#[tokio::test]
async fn what_is_found_replaces_what_was_there_unless_told_not_to() {
    let before = [("host.name", "theirs"), ("service.name", "kept")];
    let system = |replace| {
        serde_json::json!({
            "detectors": ["system"],
            "system": {"hostname_sources": ["os"]},
            "override": replace,
        })
    };
    let own = hostname();
    let expected = [("host.name", own.as_str()), ("os.type", "linux"), ("service.name", "kept")];
    assert_eq!(after(system(true), &before).await, owned(&expected));
    let expected = [("host.name", "theirs"), ("os.type", "linux"), ("service.name", "kept")];
    assert_eq!(after(system(false), &before).await, owned(&expected));
}

#[tokio::test]
async fn switches_choose_attributes() {
    let config = serde_json::json!({
        "detectors": ["system"],
        "system": {
            "hostname_sources": ["os"],
            "resource_attributes": {"host.name": {"enabled": false}, "host.arch": {"enabled": true}},
        },
    });
    let found = after(config, &[]).await;
    let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["host.arch", "os.type"]);
}

#[test]
fn of_several_detectors_the_first_counts() {
    let mut found = Detected::default();
    for value in ["first", "second"] {
        let mut one = Detected::default();
        one.put("a", value);
        one.put(value, "x");
        found.merge(one);
    }
    assert_eq!(found.lines(), ["a=first", "first=x", "second=x"]);
}

#[test]
fn the_downward_api_is_read() {
    let set = [("K8S_NODE_NAME", "n"), ("K8S_POD_UID", ""), ("K8S_POD_NAMESPACE", "ns")];
    let variables =
        |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
    let all = Switches::new(k8s::ATTRIBUTES, &Default::default());
    let found = k8s::detect(&variables, &all).lines();
    assert_eq!(found, ["k8s.namespace.name=ns", "k8s.node.name=n"]);
    let off = BTreeMap::from([("k8s.node.name".to_owned(), Switch { enabled: false })]);
    let found = k8s::detect(&variables, &Switches::new(k8s::ATTRIBUTES, &off)).lines();
    assert_eq!(found, ["k8s.namespace.name=ns"]);
}

#[test]
fn mistakes_are_the_collectors() {
    let wrong = configured(serde_json::json!({
        "detectors": ["env", " system ", "gpc"],
        "timeout": "0s",
        "system": {
            "hostname_sources": ["os", "invalid_source"],
            "resource_attributes": {"host.nam": {"enabled": true}},
        },
    }));
    let wrong = wrong.err().expect("it is wrong");
    let said: Vec<_> = wrong.0.iter().map(|m| (m.path.as_str(), m.message.as_str())).collect();
    let expected = [
        ("timeout", "requires positive value"),
        (
            "system::resource_attributes::host.nam",
            "'system.resource_attributes' has invalid keys: host.nam",
        ),
        ("system", "hostname_sources contains invalid value: \"invalid_source\""),
        ("detectors::2", "invalid detector key: gpc"),
    ];
    assert_eq!(said, expected);
}
