//! What is checked without a server.

use super::*;

#[test]
fn every_mistake_is_reported() {
    let config = Config {
        headers: ("name", "no\nvalue").into(),
        retry_on_failure: retry::Config { multiplier: -1.0, ..Default::default() },
        sending_queue: queue::Config { queue_size: 0, ..Default::default() },
        ..Config::default()
    };
    let wrong = OtlpGrpc::new(config).err().expect("four mistakes");
    let paths: Vec<_> = wrong.0.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(
        paths,
        ["endpoint", "headers::name", "retry_on_failure::multiplier", "sending_queue::queue_size"]
    );
}

#[test]
fn a_header_that_cannot_be_sent_is_no_mistake() {
    let headers = ("can you have a . here?", "x").into();
    let config = Config { endpoint: "peer:4317".to_owned(), headers, ..Config::default() };
    assert!(OtlpGrpc::new(config).is_ok_and(|exporter| exporter.headers.is_empty()));
}
