//! What two configurations have in common.

use super::*;
use crate::{KINDS, config::load};

const BASE: &str = "
receivers: {iomonitor: , iomonitor/2: }
processors:
  batch: {timeout: 1s}
  attributes/a: {actions: [{key: a, value: 1, action: insert}]}
  attributes/b: {actions: [{key: b, value: 1, action: insert}]}
exporters:
  debug:
  otlp_http: {endpoint: 'http://localhost:1', auth: {authenticator: basicauth}}
extensions:
  basicauth: {client_auth: {username: a, password: b}}
  health_check:
service:
  extensions: [basicauth, health_check]
  pipelines:
    metrics: {receivers: [iomonitor], processors: [attributes/a, attributes/b, batch], exporters: [debug]}
    metrics/2: {receivers: [iomonitor, iomonitor/2], processors: [attributes/a], exporters: [otlp_http]}
";

fn graph(sources: &[&str]) -> Graph {
    let uris: Vec<String> = sources.iter().map(|yaml| format!("yaml:{yaml}")).collect();
    Graph::new(load(&uris, &[], &KINDS).unwrap_or_else(|report| panic!("{report}")))
}

/// What does not go on when `change` comes over the base.
fn restarted(change: &str) -> Vec<String> {
    let (before, next) = (graph(&[BASE]), graph(&[BASE, change]));
    let kept = before.kept(&next);
    next.parts.iter().map(|p| &p.key).filter(|k| !kept.contains(k)).map(Key::to_string).collect()
}

#[test]
fn what_is_written_differently_is_the_same() {
    for change in [
        "",
        "processors: {batch: {timeout: 1000ms, send_batch_size: 8192}}",
        "receivers: {iomonitor: {collection_interval: 10s}}",
        "exporters: {otlp_http: {tls: {insecure: false}}}",
        "service: {telemetry: {logs: {level: debug}}}",
        "exporters: {debug/unused: }",
    ] {
        assert_eq!(restarted(change), [""; 0], "{change}");
    }
}

#[test]
fn what_changes_is_what_restarts() {
    let a = "processor attributes/a in pipeline metrics";
    let b = "processor attributes/b in pipeline metrics";
    let batch = "processor batch in pipeline metrics";
    for (change, expected) in [
        ("receivers: {iomonitor/2: {collection_interval: 1s}}", &["receiver iomonitor/2"][..]),
        ("exporters: {debug: {verbosity: detailed}}", &["exporter debug"]),
        ("processors: {batch: {timeout: 2s}}", &[batch]),
        // It is in two pipelines.
        (
            "processors: {attributes/a: {actions: [{key: a, value: 2, action: insert}]}}",
            &["processor attributes/a in pipeline metrics/2", a],
        ),
        // Secrets count, though nothing shows them; and who sends with them asked for them once.
        (
            "extensions: {basicauth: {client_auth: {password: c}}}",
            &["extension basicauth", "exporter otlp_http"],
        ),
        ("extensions: {health_check: {path: /x}}", &["extension health_check"]),
        // Others stay when one comes or goes …
        ("service: {pipelines: {metrics: {processors: [attributes/b, batch]}}}", &[]),
        ("service: {pipelines: {metrics/2: {receivers: [iomonitor], exporters: [debug]}}}", &[]),
        (
            "service: {pipelines: {metrics/2: {processors: [batch, attributes/a]}}}",
            &["processor batch in pipeline metrics/2"],
        ),
        // … but not when they change places.
        (
            "service: {pipelines: {metrics: {processors: [attributes/b, attributes/a, batch]}}}",
            &[a, b, batch],
        ),
        // A pipeline of another name is another one.
        (
            "service: {pipelines: {metrics/3: {receivers: [iomonitor], processors: [batch], exporters: [debug]}}}",
            &["processor batch in pipeline metrics/3"],
        ),
    ] {
        let mut restarted = restarted(change);
        restarted.sort();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(restarted, expected, "{change}");
    }
}

#[test]
fn everything_comes_after_what_it_leads_to() {
    let graph = graph(&[BASE]);
    for (i, part) in graph.parts.iter().enumerate() {
        for (to, _) in &part.to {
            let at = graph.parts.iter().position(|p| p.key == *to).expect("it leads somewhere");
            assert!(at < i && part.stage < graph.parts[at].stage, "{} to {to}", part.key);
        }
    }
    let receiver = graph.parts.iter().find(|p| p.key.to_string() == "receiver iomonitor");
    assert_eq!(receiver.expect("it is there").to.len(), 2, "one for each pipeline");
}
