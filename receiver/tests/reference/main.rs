//! The documents that are generated from the code. These tests write them if `FATHOM_GENERATE` is set
//! (`cargo xtask generate`), and otherwise compare them.

mod components;
mod dashboard;
mod rules;
mod series;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use fathom::{
    KINDS,
    config::{Style, load, print, schema::schema},
    exporters::EXPORTERS,
    extensions::EXTENSIONS,
    metric::{Kind, Metric},
    processors::PROCESSORS,
    receivers::{RECEIVERS, iomonitor::SIGNALS},
};
use jsonschema::Validator;
use serde_json::Value;

use self::components::Component;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Writes a document, or compares it with the committed one.
fn current(path: &str, text: &str) {
    let file = root().join(path);
    if env::var_os("FATHOM_GENERATE").is_some() {
        fs::create_dir_all(file.parent().expect("a folder")).expect("docs can be written");
        fs::write(&file, text).expect("docs can be written");
        return;
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == text, "{path} is out of date: run `cargo xtask generate`");
}

#[test]
fn the_page_of_signals_is_what_the_constants_say() {
    current("docs/signals.md", &page());
}

#[test]
fn the_schema_is_what_the_types_say() {
    let text = serde_json::to_string_pretty(&schema(&KINDS)).expect("a value");
    current("docs/schema.json", &format!("{text}\n"));
}

#[test]
fn the_dashboard_and_the_rules_are_what_the_constants_say() {
    let board = serde_json::to_string_pretty(&dashboard::dashboard()).expect("a value");
    current("examples/grafana/fathom.json", &format!("{board}\n"));
    current("examples/prometheus/rules.yaml", &rules::rules());
    assert!(rules::panels_are_recorded());
}

fn all_components() -> Vec<Component> {
    let mut all = components::of("receivers", RECEIVERS);
    all.extend(components::of("processors", PROCESSORS));
    all.extend(components::of("exporters", EXPORTERS));
    all.extend(components::of("extensions", EXTENSIONS));
    all
}

#[test]
fn the_pages_of_components_are_what_their_types_say() {
    let all = all_components();
    let mut pages = BTreeMap::from([("README.md".to_owned(), components::index(&all))]);
    for component in &all {
        pages.insert(
            format!("{}/{}.md", component.kind, component.name),
            components::page(component),
        );
    }
    for (path, text) in &pages {
        current(&format!("docs/components/{path}"), text);
    }
    let folder = root().join("docs/components");
    for kind in ["receivers", "processors", "exporters", "extensions"] {
        for entry in fs::read_dir(folder.join(kind)).expect("a folder") {
            let file = entry.expect("an entry").path();
            let path = file.strip_prefix(&folder).expect("a path below").to_string_lossy();
            if !pages.contains_key(&*path) && env::var_os("FATHOM_GENERATE").is_some() {
                fs::remove_file(&file).expect("docs can be written");
            } else {
                assert!(pages.contains_key(&*path), "{path} is a page of no component");
            }
        }
    }
}

const AROUND: &str = "yaml:{receivers: {iomonitor/around: }, exporters: {debug/around: }, service: \
                      {pipelines: {metrics: {receivers: [iomonitor/around], exporters: [debug/around]}}}}";

#[test]
fn examples_of_components_are_valid() {
    let validator = validator();
    for component in all_components() {
        let uris = [AROUND.to_owned(), format!("yaml:{}", component.example)];
        if let Err(report) = load(&uris, &[], &KINDS) {
            panic!("{}: give it an EXAMPLE that is valid: {report}", component.name);
        }
        conforms(&validator, component.name, &parsed(&component.example));
    }
}

fn validator() -> Validator {
    jsonschema::validator_for(&schema(&KINDS)).expect("a JSON Schema")
}

fn parsed(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).expect("YAML")
}

fn conforms(validator: &Validator, name: &str, value: &Value) {
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{name}: {}", errors.join("\n"));
}

#[test]
fn the_schema_accepts_what_we_ship_and_what_it_means() {
    let validator = validator();
    let mut seen = 0;
    for folder in ["otelcol-config", "examples"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let file = entry.expect("an entry").path();
            let text = fs::read_to_string(&file).unwrap_or_default();
            if file.extension().is_none_or(|e| e != "yaml") || !text.contains("\nreceivers:") {
                continue;
            }
            seen += 1;
            let name = file.to_string_lossy();
            conforms(&validator, &name, &parsed(&text));
            for nanos in [false, true] {
                let style = Style { reveal: !nanos, nanos };
                let uris = [name.to_string()];
                let effective = print(&uris, &[], &KINDS, style, true).expect("valid");
                conforms(&validator, &name, &effective.0);
            }
        }
    }
    assert!(seen >= 5, "{seen}");
}

/// An editor must not find fault with what the agent takes.
#[test]
fn the_schema_accepts_what_is_valid() {
    let validator = validator();
    for valid in [
        "{exporters: {debug: {verbosity: Detailed}, ' debug / 2 ': {verbosity: NORMAL}}}",
        "{service: {telemetry: {logs: {level: WARNING, encoding: ''}, metrics: {level: None}}}}",
        "{service: {telemetry: {logs: {level: ''}, traces: {level: Basic}}}}",
        "{processors: {filter: {error_mode: IGNORE}}}",
        "{processors: {attributes: {actions: [{key: a, action: INSERT, value: 1}]}}}",
        "{processors: {resource_detection: {detectors: [env, ec2], ec2: {tags: [a]}, proxy_url: a}}}",
        "{processors: {cumulativetodelta: {max_staleness: -1s}}}",
        "{exporters: {otlp: {endpoint: 'a:1', compression: '', keepalive: {enabled: false}}}}",
        "{exporters: {otlp_http: {endpoint: 'http://a:1', auth: {enabled: false}, cookies: {enabled: false}}}}",
        "{exporters: {otlp: {endpoint: 'a:1', retry_on_failure: {enabled: false, initial_interval: -1s}}}}",
        "{exporters: {otlp: {endpoint: 'a:1', sending_queue: {batch: {enabled: true}}}}}",
        "{exporters: {otlp: {endpoint: 'a:1', sending_queue: {enabled: false}, tls: {tpm: {enabled: false}}}}}",
        "{exporters: {prometheus: {endpoint: 'a:1', tls: {enabled: false}, cors: {exposed_headers: [a]}}}}",
        "{exporters: {prometheusremotewrite: {endpoint: 'http://a:1', wal: {enabled: false}}}}",
        "{exporters: {file: {path: a, rotation: , compression: ''}}}",
        "{extensions: {health_check: {use_v2: true, http: , grpc: {endpoint: 'a:1'}}}}",
    ] {
        let uris = [AROUND.to_owned(), format!("yaml:{valid}")];
        if let Err(report) = load(&uris, &[], &KINDS) {
            panic!("{valid}: {report}");
        }
        conforms(&validator, valid, &parsed(valid));
    }
}

#[test]
fn the_schema_tells_right_from_wrong() {
    let validator = validator();
    for right in [
        "{}",
        "{receivers: {iomonitor: , iomonitor/2: {collection_interval: 1m30s, signals: {syscalls: {calls: 'a,b'}}}}}",
        "{exporters: {otlp/x: {timeout: 5000000000, tls: '${file:tls.yaml}', retry_on_failure: {multiplier: 2}}}}",
        "{exporters: {debug: {verbosity: '${env:V:-basic}', sampling_initial: '${N}'}}}",
        "{exporters: {otlp: {sending_queue: {batch: {enabled: false}, sizer: bytes}, compression: snappy}}}",
        "{'processors::batch::timeout': 2s, processors: {batch: {timeout: '.5s'}}}",
        "{service: {pipelines: {metrics/a: {receivers: [iomonitor], exporters: '${X}'}}, telemetry: {resource: {a: }}}}",
    ] {
        conforms(&validator, right, &parsed(right));
    }
    for (wrong, path) in [
        ("{recievers: {}}", ""),
        ("{receivers: {nop: }}", "/receivers"),
        ("{receivers: []}", "/receivers"),
        ("{receivers: {iomonitor: {collection_intervall: 1s}}}", "/receivers/iomonitor"),
        (
            "{receivers: {iomonitor: {collection_interval: often}}}",
            "/receivers/iomonitor/collection_interval",
        ),
        (
            "{receivers: {iomonitor: {collection_interval: -1}}}",
            "/receivers/iomonitor/collection_interval",
        ),
        ("{receivers: {iomonitor: {signals: {sycalls: }}}}", "/receivers/iomonitor/signals"),
        ("{receivers: {iomonitor: {metrics: {no.such: }}}}", "/receivers/iomonitor/metrics"),
        ("{exporters: {debug: {verbosity: detialed}}}", "/exporters/debug/verbosity"),
        ("{exporters: {otlp: {compression: lz4}}}", "/exporters/otlp/compression"),
        ("{exporters: {otlp: {sending_queue: {sise: 1}}}}", "/exporters/otlp/sending_queue"),
        ("{exporters: {debug: {sampling_initial: many}}}", "/exporters/debug/sampling_initial"),
        ("{service: {pipelines: {spans: }}}", "/service/pipelines"),
        ("{service: {telemetry: {logs: {level: loud}}}}", "/service/telemetry/logs/level"),
    ] {
        let wrong = parsed(wrong);
        let error = validator.validate(&wrong).expect_err("wrong");
        assert_eq!(error.instance_path().as_str(), path, "{wrong}: {error}");
    }
}

fn page() -> String {
    let mut page = "<!-- Generated by `cargo xtask generate`. -->\n# Signals\n\n\
        What each metric of the receivers means, and what it does not mean. Counters are cumulative: they \
        count from the moment the agent attached, which is their start time. A metric whose probe did not \
        attach is absent.\n"
        .to_owned();
    for signal in SIGNALS {
        let about = format!("{} It answers: *{}*", signal.description, signal.question);
        section(&mut page, signal.name, &about, signal.metrics.iter());
    }
    let of_signals = |metric: &&Metric| {
        SIGNALS.iter().flat_map(|s| s.metrics).any(|other| other.name == metric.name)
    };
    for receiver in RECEIVERS {
        let own = receiver.metrics.iter().filter(|m| !of_signals(m));
        section(
            &mut page,
            receiver.name,
            "About the receiver itself, and what the kernel counts without its help.",
            own,
        );
    }
    page
}

fn section<'a>(
    page: &mut String,
    name: &str,
    about: &str,
    metrics: impl Iterator<Item = &'a Metric>,
) {
    let write = "a String takes everything";
    write!(page, "\n## {name}\n\n{about}\n").expect(write);
    for metric in metrics {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::UpDownCounter => "up-down counter",
            Kind::Gauge => "gauge",
            Kind::ExponentialHistogram => "exponential histogram",
        };
        let Metric { name, unit, description, caveat, .. } = metric;
        write!(
            page,
            "\n### `{name}`\n\n{kind}, unit `{unit}`\n\n{description}\n\n*But:* {caveat}\n"
        )
        .expect(write);
        if !metric.attributes.is_empty() {
            page.push_str("\n| Attribute | Values |\n|---|---|\n");
        }
        for attribute in metric.attributes {
            writeln!(page, "| `{}` | {} |", attribute.name, attribute.description).expect(write);
        }
    }
}
