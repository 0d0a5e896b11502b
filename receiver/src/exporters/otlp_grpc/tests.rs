//! What is checked without a server.

use super::*;

#[test]
fn every_mistake_is_reported() {
    let config = Config {
        headers: ("no name", "x").into(),
        retry_on_failure: retry::Config { multiplier: -1.0, ..Default::default() },
        sending_queue: queue::Config { queue_size: 0, ..Default::default() },
        ..Config::default()
    };
    let wrong = OtlpGrpc::new(config).err().expect("four mistakes");
    let paths: Vec<_> = wrong.0.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "endpoint",
            "headers::no name",
            "retry_on_failure::multiplier",
            "sending_queue::queue_size"
        ]
    );
}
