//! Configurations as users write them, right and wrong, through the real components.

use fathom::{
    KINDS,
    config::{Plan, load},
};

const PIPELINE: &str = "
service: {pipelines: {metrics: {receivers: [iomonitor], exporters: [debug]}}}
";

fn check(yaml: &str) -> Result<Plan, String> {
    load(&[format!("yaml:{yaml}")], &[], &KINDS).map_err(|report| report.to_string())
}

/// The report about a receiver's section, which stands in the second line.
fn about(iomonitor: &str) -> String {
    let yaml = format!("receivers:\n  iomonitor: {iomonitor}\nexporters: {{debug: }}{PIPELINE}");
    check(&yaml).err().unwrap_or_default()
}

#[test]
fn an_exporter_without_an_endpoint_for_a_pipeline_s_signal_is_refused() {
    let of = |keys: &str| {
        check(&format!(
            "
receivers: {{iomonitor: }}
exporters: {{otlphttp: {keys}}}
service:
  pipelines:
    metrics: {{receivers: [iomonitor], exporters: [otlphttp]}}
"
        ))
        .map(|plan| plan.pipelines.len())
    };
    let report = of("{logs_endpoint: 'http://a:1/x'}").expect_err("nothing could be sent");
    for part in [
        "service::pipelines::metrics",
        "6:50",
        "failed to create \"otlphttp\" exporter for data type \"metrics\": \
         either endpoint or metrics_endpoint must be specified",
    ] {
        assert!(report.contains(part), "{part} is not in: {report}");
    }
    assert_eq!(of("{metrics_endpoint: 'http://a:1/x'}"), Ok(1));
}

#[test]
fn every_kind_of_mistake_is_reported_at_once_with_its_place() {
    let report = check(
        "
receivers:
  iomonitor:
    colection_interval: 10s
    initial_delay: [1]
    signals: {syscalls: {calls: [read, pred64]}}
  nop:
processors:
  batch: {send_batch_size: many}
exporters:
  debug: {verbosity: detialed}
  prometheus: {}
servce: {}
service:
  pipelines:
    metrics: {receivers: [iomonitor, iomonitor/2], processors: [batch, batch], exporters: [debug]}
    traces: {receivers: [iomonitor], exporters: [debug]}
    metrics/2: {receivers: [iomonitor]}
    spans: {receivers: [iomonitor], exporters: [debug]}
",
    )
    .err()
    .expect("all of it is wrong");
    for (path, message, place, hint) in [
        ("servce", "has invalid keys: servce", "13:1", "did you mean `service`?"),
        (
            "receivers::iomonitor::colection_interval",
            "has invalid keys: colection_interval",
            "4:5",
            "did you mean `collection_interval`?",
        ),
        ("receivers::iomonitor::initial_delay", "expected a duration", "5:20", ""),
        (
            "receivers::iomonitor::signals::syscalls::calls::1",
            "pred64 is not a system call",
            "6:40",
            "did you mean `pread64`?",
        ),
        (
            "receivers::nop",
            "unknown type: \"nop\" for id: \"nop\" (valid values: [iomonitor])",
            "7:3",
            "",
        ),
        (
            "processors::batch::send_batch_size",
            "expected type 'uint32', got unconvertible type 'string'",
            "9:28",
            "",
        ),
        (
            "exporters::debug::verbosity",
            "unknown metrics level \"detialed\", valid are: basic, normal, detailed",
            "11:22",
            "",
        ),
        ("exporters::prometheus::endpoint", "required", "12:15", ""),
        (
            "service::pipelines::metrics",
            "references receiver \"iomonitor/2\" which is not configured",
            "16:38",
            "did you mean `iomonitor`?",
        ),
        (
            "service::pipelines::metrics",
            "references processor \"batch\" multiple times",
            "16:72",
            "",
        ),
        ("service::pipelines::traces", "telemetry type is not supported", "17:26", ""),
        ("service::pipelines::metrics/2", "must have at least one exporter", "18:16", ""),
        (
            "service::pipelines::spans",
            "in \"spans\" id: unknown pipeline signal: \"spans\"",
            "19:12",
            "",
        ),
    ] {
        let said = report
            .split("\n")
            .position(|line| line.starts_with(&format!("{path}: ")) && line.contains(message))
            .unwrap_or_else(|| panic!("nothing says «{message}» of {path}:\n{report}"));
        let rest: Vec<_> = report.split('\n').skip(said + 1).take(2).collect();
        assert_eq!(rest[0].trim(), format!("at yaml::{place}"), "{path}\n{report}");
        assert!(rest[1].contains(hint), "{path}: {rest:?}");
    }
    assert!(report.ends_with("(13 mistakes)"), "{report}");
}

#[test]
fn values_are_read_as_the_field_wants_them() {
    // A list from a string, a key without a value, a path as a key, a duration of parts.
    let ok = "{collection_interval: 1m30s, signals: {syscalls: {calls: 'read,write'}}, \
              metrics: , scope::cgroups: []}";
    assert_eq!(about(ok), "");
    assert!(about("{mode: tp_bft}").contains("did you mean `tp_btf`?"));
    assert!(about("{collection_interval: 0s}").contains("requires positive value"));
    assert!(about("{collection_interval: 10}").contains("nanoseconds"));
    assert!(about("{signals: {page_cache: {enabled: \"yes\"}}}").contains("expected type 'bool'"));
    assert!(
        about("{metrics: {ebpf.fadvise.cals: }}").contains("did you mean `ebpf.fadvise.calls`?")
    );
    let whole = "'[iomonitor]' expected type 'map[string]interface {}', got unconvertible type '[]interface {}'";
    assert!(about("[]").contains(whole));
}

#[test]
fn later_sources_override_earlier_ones() {
    let base =
        format!("yaml:receivers: {{iomonitor: {{mode: auto}}}}\nexporters: {{debug: }}{PIPELINE}");
    let over = "yaml:receivers::iomonitor::mode: wrong".to_owned();
    let set = "receivers.iomonitor.mode=tracepoint".to_owned();
    assert!(load(&[base.clone(), over.clone()], &[], &KINDS).is_err());
    let nothing = "yaml:# nothing".to_owned();
    assert!(load(&[base, over, nothing], &[set], &KINDS).is_ok());
}

#[test]
fn one_mistake_does_not_hide_another() {
    let report = about("{collection_interval: 0s, collection_intervals: 5s}");
    assert!(report.contains("requires positive value"), "{report}");
    assert!(report.contains("invalid keys: collection_intervals"), "{report}");
    let yaml = "service::telemetry: {logs: {level: [1]}, metrics: {readers: []}}";
    let report = check(yaml).err().unwrap_or_default();
    assert!(report.contains("service::telemetry::logs::level: "), "{report}");
    assert!(report.contains("service::telemetry::metrics::readers: "), "{report}");
}

#[test]
fn only_what_pipelines_use_is_started() {
    let plan = check(&format!(
        "receivers: {{iomonitor: , iomonitor/unused: }}\nexporters: {{debug: , debug/unused: }}{PIPELINE}"
    ))
    .expect("valid");
    let ids = |ids: Vec<String>| ids.join(" ");
    assert_eq!(ids(plan.receivers.iter().map(|r| r.id.to_string()).collect()), "iomonitor");
    assert_eq!(ids(plan.exporters.iter().map(|e| e.id.to_string()).collect()), "debug");
}

/// What `validate` accepts must start.
#[test]
fn readers_of_the_agents_own_metrics_are_checked_whole() {
    let report = |otlp: &str| {
        let readers = format!("[{{periodic: {{exporter: {{otlp: {otlp}}}}}}}]");
        let telemetry = format!("service::telemetry::metrics::readers: {readers}");
        let yaml =
            format!("receivers: {{iomonitor: }}\nexporters: {{debug: }}\n{telemetry}{PIPELINE}");
        check(&yaml).err().unwrap_or_default()
    };
    let at = "service::telemetry::metrics::readers::0::periodic::exporter::otlp";
    assert_eq!(report("{endpoint: 'localhost:4317', insecure: true, headers: {a: b}}"), "");
    assert!(
        report("{headers: {a: \"b\\nc\"}}").starts_with(&format!("{at}::headers::a: has a value"))
    );
    // As in an example of the Collector: left out, and said.
    assert_eq!(report("{endpoint: 'localhost:4317', insecure: true, headers: {a b: c}}"), "");
    assert!(report("{endpoint: 'http://ho st:1'}").starts_with(&format!("{at}::endpoint: ")));
    assert!(report("{endpoint: ''}").starts_with(&format!("{at}::endpoint: ")));
}

#[test]
fn intervals_and_sampling_of_signals_are_checked_as_a_whole() {
    let ok = "{overrides: [{signals: syscalls, collection_interval: 100ms}], \
              align: {enabled: true, epoch: 2020-12-01T12:00:23Z}, \
              sampling: [{signals: [syscalls, dirty], mode: nth, rate: 0.1}, {signals: [faults]}]}";
    assert_eq!(about(ok), "");
    let report = about(
        "{overrides: [{signals: [block, sycalls], collection_interval: 1s}, \
         {signals: [block], collection_interval: 0s}, {collection_interval: 1s}], align: {epoch: today}}",
    );
    for wrong in [
        "overrides::0::signals::1: no signal is called sycalls",
        "overrides::1::signals::0: block has an interval already",
        "overrides::1::collection_interval: requires positive value",
        "overrides::2::signals: names no signal",
        "align",
    ] {
        assert!(report.contains(wrong), "{wrong}: {report}");
    }
    let report = about(
        "{sampling: [{signals: [block, dirty], mode: nth, rate: 0.3}, {signals: [dirty], rate: 0.5}, \
         {signals: [dir], mode: probability, rate: 0}]}",
    );
    for wrong in [
        "sampling::0::signals::0: block cannot be sampled",
        "sampling::0::rate: with mode nth",
        "sampling::1::signals::0: dirty is sampled already",
        "sampling::1::rate: with mode none",
        "sampling::2::rate: must be more than 0",
        "sampling::2::signals::0: no signal is called dir",
    ] {
        assert!(report.contains(wrong), "{wrong}: {report}");
    }
}
