//! Records as whoever reads the files sees them.

use std::fs;

use tracing::{error, error_span, info, warn};

use super::*;

/// What is in the file after `log`, with this configuration beside the file.
fn written(config: Value, log: impl FnOnce()) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let mut config: Config = serde_json::from_value(config).expect("of the right types");
    config.output_paths = vec![path.display().to_string(), format!("file://{}.2", path.display())];
    assert!(config.check().0.is_empty());
    let resource = BTreeMap::from([("service.name".to_owned(), "fathom".to_owned())]);
    let lines = config.lines(&resource).expect("it opens");
    let subscriber = tracing_subscriber::registry().with(lines).with(recent::Recent::default());
    tracing::subscriber::with_default(subscriber, log);
    let text = fs::read_to_string(&path).expect("written");
    let second = fs::read_to_string(folder.path().join("log.2")).expect("written");
    assert_eq!(text, second);
    text
}

fn log() {
    info!(probe = "a/b", count = 7, "Attached \"it\".");
    error_span!("component", otelcol.component.id = %"debug", otelcol.component.kind = "exporter")
        .in_scope(|| warn!("it is away"));
}

#[test]
fn json_has_the_layout_of_zap() {
    let text = written(json!({"encoding": "json", "initial_fields": {"dc": 5}}), log);
    let lines: Vec<_> = text.lines().collect();
    let (start, rest) = lines[0].split_once(",\"ts\":\"").expect("a time");
    assert_eq!(start, "{\"level\":\"info\"");
    let (ts, rest) = rest.split_once('"').expect("it ends");
    assert!(ts.len() == 24 && ts.ends_with('Z') && ts.as_bytes()[10] == b'T', "{ts}");
    let (caller, rest) = rest.split_once(",\"msg\":").expect("a message");
    assert!(caller.starts_with(",\"caller\":\"logs/tests.rs:"), "{caller}");
    assert_eq!(
        rest,
        "\"Attached \\\"it\\\".\",\"dc\":5,\"resource\":{\"service.name\":\"fathom\"},\"probe\":\"a/b\",\"count\":7}"
    );
    let second: Value = serde_json::from_str(lines[1]).expect("JSON");
    assert_eq!(second["level"], "warn");
    assert_eq!(second["otelcol.component.id"], "debug");
    assert_eq!(second["otelcol.component.kind"], "exporter");

    let off = json!({"encoding": "json", "disable_caller": true, "disable_zap_resource": true});
    let text = written(off, log);
    assert!(!text.contains("caller") && !text.contains("resource"), "{text}");
}

#[test]
fn the_console_has_the_layout_of_zap() {
    let text = written(json!({}), log);
    let lines: Vec<Vec<_>> = text.lines().map(|line| line.split('\t').skip(1).collect()).collect();
    assert_eq!(lines[0][0], "info");
    assert!(lines[0][1].starts_with("logs/tests.rs:"), "{text}");
    assert_eq!(lines[0][2..], ["Attached \"it\".", "{\"probe\": \"a/b\", \"count\": 7}"]);
    let of = "{\"otelcol.component.id\": \"debug\", \"otelcol.component.kind\": \"exporter\"}";
    assert_eq!(lines[1][2..], ["it is away", of]);
    let text = written(json!({"disable_caller": true}), || info!("alone"));
    assert!(text.ends_with("Z\tinfo\talone\n"), "{text}");
}

#[test]
fn what_is_said_again_and_again_is_sampled() {
    let repeat = || (0..250).for_each(|i| error!(i, "the same"));
    assert_eq!(written(json!({}), repeat).lines().count(), 10 + 2);
    let sampling = json!({"sampling": {"initial": 3, "thereafter": 0, "tick": "1h"}});
    assert_eq!(written(sampling.clone(), repeat).lines().count(), 3);
    let different = || (0..30).for_each(|i| error!("number {i}"));
    assert_eq!(written(sampling, different).lines().count(), 30);
    for off in [json!({"sampling": {"enabled": false}}), json!({"sampling": {"tick": "0s"}})] {
        assert_eq!(written(off, repeat).lines().count(), 250);
    }
}

#[test]
fn what_is_said_nowhere_else_is_not_sampled() {
    let sampling = json!({"sampling": {"initial": 0, "thereafter": 0, "tick": "1h"}});
    let text = written(sampling, || {
        (0..250).for_each(|i| error!(target: KEPT, i, "lost"));
        (0..250).for_each(|i| error!(i, "lost"));
    });
    assert_eq!(text.lines().count(), 250);
    assert!(text.contains("{\"i\": 249}"), "{text}");
}

#[test]
fn one_component_does_not_silence_another() {
    let sampling = json!({"sampling": {"initial": 2, "thereafter": 0, "tick": "1h"}});
    let text = written(sampling, || {
        let of = |id: &str| error_span!("component", otelcol.component.id = %id, otelcol.component.kind = "exporter");
        for exporter in [of("otlp/a"), of("otlp/b")] {
            exporter.in_scope(|| (0..5).for_each(|_| error!("Exporting failed")));
        }
        for pipeline in ["metrics/a", "metrics/b"] {
            error_span!("component", otelcol.component.id = %"batch", otelcol.component.kind = "processor", otelcol.pipeline.id = %pipeline)
                .in_scope(|| (0..5).for_each(|_| error!("Exporting failed")));
        }
    });
    for whose in ["\"otlp/a\"", "\"otlp/b\"", "\"metrics/a\"", "\"metrics/b\""] {
        assert_eq!(text.matches(whose).count(), 2, "{whose} in {text}");
    }
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let hostile = "a\u{1b}[2J\r\nb\u{9b}31m\u{7f}\tc";
    for encoding in ["console", "json"] {
        let config = json!({"encoding": encoding});
        let text = written(config, || error!(peer = hostile, "it says {hostile}"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(|c: char| c.is_control() && c != '\t'), "{text:?}");
    }
    let text = written(json!({}), || error!("it says {hostile}"));
    assert!(text.ends_with("it says a\\u{1b}[2J\\r\\nb\\u{9b}31m\\u{7f}\tc\n"), "{text}");
}

#[test]
fn what_cannot_be_written_to_is_said() {
    let config: Config = serde_json::from_value(json!({
        "output_paths": ["kafka://x", "file://host/x", "stderr"],
        "error_output_paths": [""],
    }))
    .expect("of the right types");
    let said: Vec<_> = config.check().0.into_iter().map(|m| (m.path, m.message)).collect();
    let expected = [
        ("output_paths::0", "no sink found for scheme \"kafka\""),
        ("output_paths::1", "file URLs must leave host empty or use localhost: got host/x"),
        ("error_output_paths::0", "must name a file, stdout or stderr"),
    ];
    assert_eq!(said, expected.map(|(path, message)| (path.to_owned(), message.to_owned())));
    let paths = |path: &str| vec![path.to_owned()];
    let error = Outputs::open(&paths("/no/such/folder/log")).err().expect("it is not there");
    assert!(format!("{error:#}").starts_with("open sink \"/no/such/folder/log\": No such file"));

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("errors").display().to_string();
    let errors = Outputs::open(&paths(&path)).expect("it opens");
    Outputs::open(&paths("/dev/full")).expect("it opens").write(b"lost\n", Some(&errors));
    let said = fs::read_to_string(&path).expect("written");
    assert!(said.starts_with("write error: /dev/full: No space left"), "{said}");
}
