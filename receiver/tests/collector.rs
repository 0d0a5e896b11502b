//! Cases in which the Collector's own parts (confmap, otelcol, service, config*) say what a configuration means or
//! what is wrong with it: a line each. `RE` stands for a receiver and an exporter, `PIPE` for a pipeline of them.

use std::{fs, thread, time::Instant};

use fathom::{
    KINDS,
    config::{Style, load, print},
};
use serde_json::json;

const RE: &str = "receivers: {iomonitor: }\nexporters: {debug: }\n";
const PIPE: &str = "service::pipelines::metrics: {receivers: [iomonitor], exporters: [debug]}\n";

/// What is said of `text`; nothing if it is right.
fn said(text: &str) -> String {
    let text = text.replace("RE\n", RE).replace("PIPE\n", PIPE);
    load(&[format!("yaml:{text}")], &[], &KINDS).err().map(|r| r.to_string()).unwrap_or_default()
}

/// What is said of `text` besides a configuration that is right.
fn besides(text: &str) -> String {
    said(&format!("RE\nPIPE\n{text}\n"))
}

fn table(say: impl Fn(&str) -> String, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let report = say(text);
        match expected.is_empty() {
            true => assert_eq!(report, "", "{text}"),
            false => assert!(report.contains(expected), "{text}: no «{expected}» in {report}"),
        }
    }
}

#[test]
fn names_of_levels_are_taken_in_any_case_and_no_others() {
    table(
        besides,
        &[
            ("exporters::debug::verbosity: NORMAL", ""),
            ("exporters::debug::verbosity: dEtailed", ""),
            ("exporters::debug::verbosity: loud", "unknown metrics level \"loud\""),
            ("service::telemetry::metrics::level: Detailed", ""),
            ("service::telemetry::metrics::level: NONE", ""),
            ("service::telemetry::metrics::level: some", "unknown metrics level \"some\""),
            ("service::telemetry::logs::level: WaRn", ""),
            ("service::telemetry::logs::level: warning", ""),
            ("service::telemetry::logs::level: DPANIC", ""),
            ("service::telemetry::logs::level: ''", ""),
            ("service::telemetry::logs::level: loud", "unknown value \"loud\""),
            ("processors::filter: {error_mode: IGNORE}", ""),
            (
                "processors::filter: {log_conditions: [{context: LOG, error_mode: Silent, conditions: ['log.body == \"a\"']}]}",
                "",
            ),
            ("processors::attributes: {actions: [{key: a, action: UPSERT, value: 1}]}", ""),
            ("service::telemetry::logs::encoding: JSON", "unknown value \"JSON\""),
            ("exporters::otlp: {endpoint: 'a:1', compression: GZIP}", "GZIP"),
            ("exporters::otlp_http: {endpoint: 'http://a:1', encoding: JSON}", "JSON"),
            ("exporters::otlp: {endpoint: 'a:1', sending_queue: {sizer: Items}}", "Items"),
        ],
    );
}

#[test]
fn types_are_strict() {
    let string = "expected type 'string', got unconvertible type";
    table(
        besides,
        &[
            ("exporters::otlp_http: {endpoint: 4318}", &format!("'endpoint' {string} 'int'")),
            ("exporters::otlp_http: {endpoint: 1.5}", &format!("'endpoint' {string} 'float64'")),
            ("exporters::otlp_http: {endpoint: true}", "in quotes, it is text"),
            (
                "exporters::otlp_http: {endpoint: [a]}",
                &format!("'endpoint' {string} '[]interface {{}}'"),
            ),
            (
                "exporters::otlp_http: {endpoint: {a: 1}}",
                &format!("'endpoint' {string} 'map[string]interface {{}}'"),
            ),
            (
                "exporters::otlp_http: {endpoint: 'http://a:1', headers: {a: 1}}",
                &format!("{string} 'int'"),
            ),
            // What stands for an expression is also the text that it was.
            (
                "exporters::otlp_http: {endpoint: 'http://a:1', headers: {a: '${yaml:0123}', b: }}",
                "",
            ),
            ("processors::batch::send_batch_size: '5'", "got unconvertible type 'string'"),
            ("processors::batch::send_batch_size: true", "got unconvertible type 'bool'"),
            (
                "processors::batch::send_batch_size: -2",
                "'send_batch_size' cannot parse value as 'uint32': -2 overflows uint",
            ),
            ("processors::batch::send_batch_size: '${yaml:5}'", ""),
            ("exporters::debug::use_internal_logger: 1", "got unconvertible type 'int'"),
            ("exporters::debug::use_internal_logger: yes", "got unconvertible type 'string'"),
            (
                "exporters::otlp_http: {endpoint: 'http://a:1', retry_on_failure: {multiplier: 'x'}}",
                "'retry_on_failure.multiplier' expected type 'float64'",
            ),
            (
                "exporters::otlp_http: {endpoint: 'http://a:1', sending_queue: false}",
                "'sending_queue' expected a map or struct, got \"bool\"",
            ),
            (
                "exporters::otlp_http: {endpoint: 'http://a:1', headers: [1]}",
                "'headers[0]' expected a map or struct, got \"int\"",
            ),
            (
                "exporters::otlp_http: {endpoint: 'http://a:1', headers: [{name: a, value: b, c: d}]}",
                "'headers[0]' has invalid keys: c",
            ),
            (
                "exporters::otlp_http: {endpoint: 'http://a:1', headers: [{name: a, value: b}, {name: a, value: c}]}",
                "duplicate keys in map-style list: [a]",
            ),
            ("processors::batch::Timeout: 1s", "has invalid keys: Timeout"),
            ("processors::batch::timeout: 5", ""),
            ("processors::batch::timeout: ''", "'timeout' time: invalid duration"),
            ("processors::batch::timeout: 1y1", "'timeout' time: "),
            ("processors::batch::timeout: 1x", "'timeout' time: unknown unit"),
            ("processors::batch::timeout: '7'", "'timeout' time: missing unit in duration"),
            ("processors::batch::timeout: -1s", "timeout must be greater or equal to 0"),
            ("processors::batch::timeout: -1", "timeout must be greater or equal to 0"),
        ],
    );
}

#[test]
fn an_attribute_is_no_time() {
    let wrong = "<Invalid value type time.Time>";
    let hint = "in quotes, it is text";
    let action = |value: &str| format!("actions: [{{key: a, action: insert, value: {value}}}]");
    for (value, wrong) in [
        ("2024-01-01", wrong),
        ("2024-01-01", hint),
        ("2024-01-01T10:20:30Z", wrong),
        ("[a, 2024-01-01]", wrong),
        ("{b: 2024-01-01}", wrong),
        ("'${yaml:2024-01-01}'", wrong),
        ("'2024-01-01'", ""),
        ("on 2024-01-01", ""),
        ("'on ${yaml:2024-01-01}'", ""),
        ("2024-13-01", ""),
    ] {
        table(besides, &[(&format!("processors::attributes: {{{}}}", action(value)), wrong)]);
        let resource = action(value).replace("actions", "attributes");
        table(besides, &[(&format!("processors::resource: {{{resource}}}"), wrong)]);
    }
    let default = "processors::attributes: {actions: [{key: a, action: insert, from_attribute: b, default_value: 2024-01-01}]}";
    table(besides, &[(default, wrong)]);
}

#[test]
fn what_is_below_zero_is_refused_in_the_component_s_own_words() {
    table(
        besides,
        &[
            (
                "exporters::file: {path: a, flush_interval: -1s}",
                "flush_interval must be larger than zero",
            ),
            ("exporters::file: {path: a, flush_interval: 0s}", ""),
            (
                "processors::memory_limiter: {limit_mib: 9, check_interval: -1s}",
                "'check_interval' must be greater than zero",
            ),
            (
                "processors::memory_limiter: {limit_mib: -9, check_interval: 1s}",
                "'limit_mib' cannot parse value as 'uint32': -9 overflows uint",
            ),
            (
                "processors::deltatocumulative: {max_stale: -1s}",
                "max_stale must be a positive duration (got -1s)",
            ),
            (
                "processors::deltatocumulative: {max_streams: -1}",
                "max_streams must be a positive number (got -1)",
            ),
            ("processors::deltatocumulative: {max_streams: 0}", ""),
            ("processors::cumulativetodelta: {max_staleness: -1s}", ""),
            ("processors::resourcedetection: {refresh_interval: -1s}", ""),
            ("exporters::otlp: {endpoint: 'a:1', timeout: -1s}", "'timeout' must be non-negative"),
            // No limit, as 0.
            (
                "exporters::otlp_http: {endpoint: 'http://a:1', timeout: -1s, idle_conn_timeout: -1s}",
                "",
            ),
            ("extensions::zpages: {read_timeout: -1s, idle_timeout: -1s}", ""),
        ],
    );
}

/// A plain value is zero then, as in the Collector; everything else is as if the key were not there.
#[test]
fn keys_without_a_value() {
    let printed = |text: &str| {
        let uri = [format!("yaml:{RE}{PIPE}{text}")];
        let style = Style { reveal: true, nanos: false };
        print(&uri, &[], &KINDS, style, false).expect("readable").0
    };
    for nothing in ["", "null", "~", "'${env:FATHOM_NONE}'", "'${env:FATHOM_NONE:-}'", "'${yaml:}'"]
    {
        let otlp = |keys: &str| {
            let keys = keys.replace("NO", nothing);
            printed(&format!("exporters::otlp: {{endpoint: 'a:1', {keys}}}\n"))
        };
        for (keys, at, expected) in [
            ("timeout: NO", "/timeout", json!("0s")),
            ("balancer_name: NO", "/balancer_name", json!("")),
            ("compression: NO", "/compression", json!("none")),
            ("wait_for_ready: NO", "/wait_for_ready", json!(false)),
            ("retry_on_failure: {multiplier: NO}", "/retry_on_failure/multiplier", json!(0.0)),
            (
                "retry_on_failure: {initial_interval: NO}",
                "/retry_on_failure/initial_interval",
                json!("0s"),
            ),
            ("retry_on_failure: NO", "/retry_on_failure/multiplier", json!(1.5)),
            ("sending_queue: NO", "/sending_queue/queue_size", json!(1000)),
            ("sending_queue: {queue_size: NO}", "/sending_queue/queue_size", json!(0)),
            ("sending_queue: {batch: NO}", "/sending_queue/batch/min_size", json!(8192)),
            ("headers: {a: NO}", "/headers", json!({"a": ""})),
        ] {
            let printed = otlp(keys);
            let at = format!("/exporters/otlp{at}");
            assert_eq!(printed.pointer(&at), Some(&expected), "{keys}, {nothing:?}: {printed}");
        }
        let rest = "exporters::debug::verbosity: NO\nexporters::file: {path: a, rotation: NO}\n\
                    processors::resourcedetection: {detectors: NO, override: NO}\n\
                    service::telemetry::metrics::level: NO\n";
        let printed = printed(&rest.replace("NO", nothing));
        for (at, expected) in [
            ("/exporters/debug/verbosity", json!("basic")),
            ("/exporters/file/rotation/max_backups", json!(100)),
            ("/processors/resourcedetection/detectors", json!(["env"])),
            ("/processors/resourcedetection/override", json!(false)),
            ("/service/telemetry/metrics/level", json!("normal")),
        ] {
            assert_eq!(printed.pointer(at), Some(&expected), "{at}, {nothing:?}");
        }
    }
    table(
        besides,
        &[
            // Text is not nothing, however short.
            ("processors::batch::timeout: ''", "'timeout' time: invalid duration"),
            ("processors::batch::send_batch_size: ''", "got unconvertible type 'string'"),
            (
                "exporters::otlp: {endpoint: 'a:1', sending_queue: {queue_size: }}",
                "`queue_size` must be positive",
            ),
            ("exporters::file: {path: a, format: }", "format type is not supported"),
        ],
    );
}

/// Keys that only what is not here would need: whoever has them in a file can start with it.
#[test]
fn keys_that_do_nothing_here() {
    let http = |keys: &str| format!("exporters::otlp_http: {{endpoint: 'http://a:1', {keys}}}");
    table(
        besides,
        &[
            (&http("middlewares: [], cookies: {}, tls: {tpm: {enabled: false}}"), ""),
            (
                &http("middlewares: [{id: a}]"),
                "failed to resolve middleware \"a\": middleware not found",
            ),
            (&http("tls: {tpm: {enabled: true}}"), "give `key_file` or `key_pem`"),
            (
                "processors::resourcedetection: {detectors: [env, ec2, k8snode], ec2: {tags: [a]}, proxy_url: a}",
                "",
            ),
            ("processors::resourcedetection: {detectors: [ec3]}", "invalid detector key: ec3"),
            ("processors::resourcedetection: {ec3: {}}", "has invalid keys: ec3"),
            ("processors::filter: {profile_conditions: ['profile.duration > 1']}", ""),
            ("processors::filter: {profiles: {profile: ['duration_unix_nano > 1']}}", ""),
            (
                "processors::filter: {profile_conditions: ['no quotes here']}",
                "condition has invalid syntax",
            ),
            (
                "processors::filter: {profile_conditions: [{context: span, conditions: ['a == 1']}]}",
                "unknown context span",
            ),
            ("service::telemetry::logs::encoding: ''", ""),
            (
                "service::telemetry::resource: {a: 1}",
                "legacy resource attribute \"a\" must be string or null",
            ),
            ("service::telemetry::resource: {a: , b: c}", ""),
        ],
    );
}

#[test]
fn whole_sections() {
    table(
        said,
        &[
            ("RE\nPIPE\n", ""),
            ("", "empty configuration file"),
            ("RE\nservice: []", "'service' expected a map or struct, got \"slice\""),
            ("RE\nservice: x", "'service' expected a map or struct, got \"string\""),
            (
                "RE\nservice: {pipelines: {metrics: []}}",
                "'service.pipelines[metrics]' expected a map or struct, got \"slice\"",
            ),
            (
                "RE\nservice: {pipelines: {metrics: {no: 1}}}",
                "'service.pipelines[metrics]' has invalid keys: no",
            ),
            (
                "RE\nservice::pipelines::metrics: {receivers: iomonitor, exporters: [debug]}",
                "'service.pipelines[metrics].receivers' source data must be an array or slice, got string",
            ),
            (
                "RE\nPIPE\nservice::extensions: zpages",
                "'service.extensions' source data must be an array or slice, got string",
            ),
            (
                "RE\nservice::pipelines::profiles: {receivers: [iomonitor], exporters: [debug]}",
                "pipeline \"profiles\": profiling signal support is at alpha level, gated under the \"service.profilesSupport\" feature gate",
            ),
            (
                "RE\nservice::pipelines::metrics/a+b: {receivers: [iomonitor], exporters: [debug]}",
                "in \"a+b\" id: invalid character(s) in name \"a+b\"",
            ),
            ("RE\nPIPE\nservice::telemetry::no: 1", "'service.telemetry' has invalid keys: no"),
            (
                "RE\nPIPE\nservice::telemetry::logs::no: 1",
                "'service.telemetry.logs' has invalid keys: no",
            ),
            ("RE\nservice::pipelines: '${env:FATHOM_NOT_SET}'", "must have at least one pipeline"),
        ],
    );
}

/// What `validate` accepts must start: more than the Collector's checks, in the words of its start.
#[test]
fn what_could_not_start_is_refused() {
    const TO: &str = "service::pipelines::metrics: {receivers: [iomonitor], exporters: [otlp]}\n";
    let secured = |text: &str| said(&format!("RE\n{TO}{text}\n"));
    let found = "failed to resolve authenticator \"bearertokenauth\": authenticator not found";
    let bearer = "extensions: {bearertokenauth: {token: a}}";
    let otlp = "exporters::otlp: {endpoint: 'a:1', auth: {authenticator: bearertokenauth}}";
    let plain = "exporters::otlp: {endpoint: 'a:1', tls: {insecure: true}, auth: {authenticator: bearertokenauth}}";
    let basic = "exporters::otlp: {endpoint: 'a:1', auth: {authenticator: basicauth}}\nservice::extensions: [basicauth]\nextensions::basicauth";
    let runs = "service::extensions: [bearertokenauth]";
    table(
        secured,
        &[
            (otlp, found),
            (otlp, "exporters::otlp::auth::authenticator: "),
            (&format!("{otlp}\n{bearer}"), found),
            (&format!("{otlp}\n{bearer}\n{runs}"), ""),
            (&format!("{plain}\n{bearer}\n{runs}"), "auth needs tls"),
            (&format!("{basic}: {{client_auth: {{username: a, password: b}}}}"), ""),
            (
                &format!("{basic}: {{htpasswd: {{inline: 'a:b'}}}}"),
                "is not a gRPC client authenticator",
            ),
            // Nobody starts what no pipeline names.
            (
                "exporters::otlp: {endpoint: 'a:1'}\nexporters::otlp/2: {endpoint: 'a:1', auth: {authenticator: a}}",
                "",
            ),
        ],
    );
    let port = "missing port in address";
    table(
        besides,
        &[
            ("extensions::health_check::endpoint: localhost", port),
            ("extensions::health_check: {use_v2: true, http: {endpoint: localhost}}", port),
            ("extensions::zpages::endpoint: localhost", port),
            ("extensions::zpages::endpoint: '[::1]'", port),
            ("extensions::zpages::endpoint: '[::1]:80'", ""),
            ("extensions::zpages::endpoint: ':80'", ""),
            ("extensions::zpages::endpoint: '::1:80'", "too many colons in address"),
            ("extensions::zpages::endpoint: 'localhost:http2'", "invalid port"),
            ("exporters::prometheus: {endpoint: localhost}", "missing port in address"),
            ("receivers::iomonitor::max_groups: 4294967295", "must be at most 4194304"),
            ("receivers::iomonitor::scope::cgroups: ['']", "scope::cgroups::0: is empty"),
            (
                "receivers::iomonitor::scope::mount_namespaces: ['']",
                "mount_namespaces::0: is empty",
            ),
            ("receivers::iomonitor::scope::pids: [1, 0]", "scope::pids::1: is no process"),
        ],
    );
}

#[test]
fn a_condition_in_place_of_a_list_is_cut_between_conditions_alone() {
    table(
        besides,
        &[
            ("processors::filter::logs::log_record: 'IsMatch(body, \"a, [(]b\")'", ""),
            ("processors::filter::logs::log_record: 'body == \"a\", body == \"b\"'", ""),
            (
                "processors::filter::logs::log_record: 'IsMatch(body, \"a\"), body =='",
                "log_record::1",
            ),
            (
                "processors::filter::metric_conditions: ['name == \"a\"']",
                "possibly valid options are: \"metric.name\", \"scope.name\"",
            ),
            (
                "processors::filter::trace_conditions: ['name == \"a\"']",
                "possibly valid options are: \"span.name\", \"spanevent.name\", \"scope.name\"",
            ),
        ],
    );
}

#[test]
fn variables_that_are_not_set_are_named_wherever_something_else_is_wrong() {
    let report = besides(
        "exporters::otlp_http: {endpoint: '${env:FATHOM_NONE}', timeout: '${FATHOM_TIME}'}",
    );
    let warning = "Warning: Configuration references unset environment variable";
    for line in [
        "exporters::otlp_http::endpoint: at least one endpoint must be specified",
        "    environment variable FATHOM_NONE is not set",
        &format!("{warning} FATHOM_NONE at yaml::"),
        &format!("{warning} FATHOM_TIME at yaml::"),
    ] {
        assert!(report.lines().any(|l| l.starts_with(line)), "no «{line}» in {report}");
    }
    let uri = [format!("yaml:{RE}{PIPE}exporters::debug::verbosity: '${{env:FATHOM_NONE}}'")];
    let style = Style { reveal: false, nanos: false };
    let (printed, warnings) = print(&uri, &[], &KINDS, style, true).expect("valid");
    assert_eq!(printed.pointer("/exporters/debug/verbosity"), Some(&"basic".into()));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn mistakes_in_a_fragment_stand_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("part.yaml");
    let name = file.to_str().expect("text");
    let report = |fragment: &str| {
        fs::write(&file, fragment).expect("written");
        besides(&format!("exporters::debug: '${{file:{name}}}'"))
    };
    for (fragment, message, line) in [
        ("\nverbosity: loud\n", "unknown metrics level \"loud\"", 2),
        ("\n\nverbositi: loud\n", "has invalid keys: verbositi", 3),
        ("\nsampling_initial: ${env:a%b}\n", "environment variable \"a%b\" has invalid name", 2),
        ("sampling_initial: ${yaml:[1]}\n", "expected type 'int'", 1),
    ] {
        let said = report(fragment);
        assert!(said.contains(message), "{fragment}: {said}");
        assert!(said.contains(&format!("at {name}:{line}:")), "{fragment}: {said}");
    }
    let warned = report("verbosity: loud\nsampling_initial: ${env:FATHOM_NONE}\n");
    assert!(warned.contains(&format!("variable FATHOM_NONE at {name}:2:")), "{warned}");
}

/// A pipe that nobody writes into holds nothing up for good; one that somebody writes into is read.
#[test]
fn sources_that_do_not_end_are_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let name = pipe.to_str().expect("text").to_owned();
    make_pipe(&name);
    let begun = Instant::now();
    let report = besides(&format!("exporters::debug: '${{file:{name}}}'"));
    assert!(
        report.contains(&format!("unable to read the file file:{name}: it has not ended")),
        "{report}"
    );
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());

    let pipe = folder.path().join("fed");
    let name = pipe.to_str().expect("text").to_owned();
    make_pipe(&name);
    let writer = thread::spawn(move || fs::write(pipe, format!("{RE}{PIPE}")));
    assert!(load(&[name], &[], &KINDS).is_ok());
    writer.join().expect("no panic").expect("written");
}

fn make_pipe(path: &str) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.expect("coreutils").success());
}
