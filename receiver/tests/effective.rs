//! The effective configuration of every configuration that we ship: printed and read again, it means
//! the same.

use std::{fs, path::Path};

use fathom::{
    KINDS,
    config::{Style, print, yaml},
};
use serde_json::{Value, json};

const REVEAL: Style = Style { reveal: true, nanos: false };

fn effective(uri: String, style: Style) -> Value {
    print(&[uri], &[], &KINDS, style, true).unwrap_or_else(|report| panic!("{report}")).0
}

/// Every configuration in `otelcol-config` and `examples`.
fn shipped() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut shipped = Vec::new();
    for folder in ["otelcol-config", "examples"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).unwrap_or_default();
            if path.extension().is_some_and(|e| e == "yaml") && text.contains("\nreceivers:") {
                shipped.push(path.to_str().expect("a path that is text").to_owned());
            }
        }
    }
    assert!(shipped.len() >= 5, "{shipped:?}");
    shipped
}

#[test]
fn every_shipped_configuration_survives_a_round_trip() {
    for file in shipped() {
        let printed = effective(file.clone(), REVEAL);
        let again = effective(format!("yaml:{}", yaml(&printed)), REVEAL);
        assert_eq!(printed, again, "{file}");
    }
}

#[test]
fn defaults_are_filled_in_and_secrets_are_not_shown() {
    let text = "
receivers: {iomonitor: {signals: {fadvise: {enabled: false}}}}
processors: {'attributes': {actions: [{key: a, action: insert, value: '$$${env:FATHOM_NOT_SET:-x} $${b} $c'}]}}
exporters:
  otlp: {endpoint: 'a:1', headers: {k: hid$$den}}
  debug/unused:
service: {pipelines: {metrics: {receivers: [iomonitor], processors: [attributes], exporters: [otlp]}}}
";
    let printed = effective(format!("yaml:{text}"), REVEAL);
    assert_eq!(printed.pointer("/exporters/otlp/timeout"), Some(&json!("5s")));
    assert_eq!(printed.pointer("/exporters/otlp/sending_queue/queue_size"), Some(&json!(1000)));
    assert_eq!(printed.pointer("/exporters/debug~1unused/verbosity"), Some(&json!("basic")));
    assert_eq!(printed.pointer("/service/telemetry/logs/level"), Some(&json!("info")));
    let signals = printed.pointer("/receivers/iomonitor/signals").expect("signals");
    assert_eq!(signals["fadvise"], json!({"enabled": false}));
    assert_eq!(signals["syscalls"]["enabled"], json!(true));
    // What would be an expression is escaped; what would not is left alone.
    let value = printed.pointer("/processors/attributes/actions/0/value");
    assert_eq!(value, Some(&json!("$x $${b} $c")));
    let again = effective(format!("yaml:{}", yaml(&printed)), REVEAL);
    assert_eq!(printed, again);
    assert_eq!(printed.pointer("/exporters/otlp/headers/k"), Some(&json!("hid$den")));

    let redacted = effective(format!("yaml:{text}"), Style { reveal: false, nanos: true });
    assert_eq!(redacted.pointer("/exporters/otlp/headers/k"), Some(&json!("[REDACTED]")));
    assert_eq!(redacted.pointer("/exporters/otlp/timeout"), Some(&json!(5_000_000_000_u64)));
}

#[test]
fn what_cannot_run_is_printed_if_asked_for() {
    let print =
        |text: &str, validate| print(&[format!("yaml:{text}")], &[], &KINDS, REVEAL, validate);
    let negative =
        "{exporters: {otlp: {timeout: 1s}}, service: {pipelines: {metrics: {receivers: [a]}}}}";
    assert!(print(negative, true).is_err());
    let (printed, _) = print(negative, false).expect("readable");
    assert_eq!(printed.pointer("/exporters/otlp/timeout"), Some(&json!("1s")));
    // What has no meaning cannot be printed.
    for (text, message) in [
        ("{receivers: {nop: }}", "unknown type: \"nop\""),
        ("{exporters: {otlp: {timeout: invalid}}}", "'timeout' time: invalid duration"),
        ("{exporters: {otlp: {no: 2}}}", "has invalid keys: no"),
        ("{exporters: {otlp/: }}", "the part after / should not be empty"),
        ("{service: {no: 2}}", "'service' has invalid keys: no"),
        ("{service: {telemetry: {no: 2}}}", "'service.telemetry' has invalid keys: no"),
        ("{service: {pipelines: {no: }}}", "unknown pipeline signal: \"no\""),
    ] {
        let report = print(text, false).expect_err(text).to_string();
        assert!(report.contains(message) && !report.contains("mistakes)"), "{text}: {report}");
    }
}
