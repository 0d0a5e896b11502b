//! Cases of the Collector's own tests of configurations, through the real binary: sources, environment and
//! one value of the effective configuration, or what is said.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::agent::binary;

const PIPELINE: &str =
    "service: {pipelines: {metrics: {receivers: [iomonitor], exporters: [debug]}}}\n";
const VALUE: &str = "some expanded value";

/// What `print-config` prints, or says.
fn print(sources: &[&str], environment: &[(&str, &str)]) -> Result<Result<Value, String>> {
    let mut command = Command::new(binary()?);
    command.args(["print-config", "--format=json"]).envs(environment.iter().copied());
    for source in sources {
        command.args(["--config", source]);
    }
    let output = command.output()?;
    Ok(match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout)?),
        false => Err(String::from_utf8(output.stderr)?),
    })
}

/// A field of some type, its path, and a configuration in which `VALUE` stands for its value.
#[derive(Clone, Copy, Debug)]
enum Field {
    Int,
    Text,
    Inline,
    Bool,
    List,
}

impl Field {
    fn pointer(self) -> &'static str {
        match self {
            Self::Int => "/exporters/debug/sampling_initial",
            Self::Text | Self::Inline => "/exporters/prometheus/const_labels/field",
            Self::Bool => "/exporters/debug/use_internal_logger",
            Self::List => "/receivers/iomonitor/scope/cgroups",
        }
    }

    fn config(self, value: &str) -> String {
        let field = match self {
            Self::Int => format!("exporters::debug::sampling_initial: {value}"),
            Self::Text => format!("exporters::prometheus::const_labels::field: {value}"),
            Self::Inline => {
                let text = format!("inline field with {value} expansion");
                format!("exporters::prometheus::const_labels::field: '{text}'")
            }
            Self::Bool => format!("exporters::debug::use_internal_logger: {value}"),
            Self::List => format!("receivers::iomonitor::scope::cgroups: {value}"),
        };
        format!(
            "yaml:receivers: {{iomonitor: }}\nexporters: {{debug: , prometheus: {{endpoint: 'a:1'}}}}\n\
             {PIPELINE}{field}\n"
        )
    }
}

/// confmap's `TestStrictTypeCasting`: the field decides what a variable's text means, also if the variable
/// names another.
#[test]
fn the_field_decides_what_a_variable_means() -> Result<()> {
    use Field::{Bool, Inline, Int, List, Text};
    let inline = |text: &str| Ok(json!(format!("inline field with {text} expansion")));
    let wrong = |expected: &str, got: &str| {
        Err(format!("expected type '{expected}', got unconvertible type '{got}'"))
    };
    let cases: Vec<(&str, Field, Result<Value, String>)> = vec![
        ("123", Int, Ok(json!(123))),
        ("123", Text, Ok(json!("123"))),
        ("123", Inline, inline("123")),
        ("0123", Int, Ok(json!(83))),
        ("0123", Text, Ok(json!("0123"))),
        ("0123", Inline, inline("0123")),
        ("0xdeadbeef", Int, Ok(json!(0xdead_beef_u64))),
        ("0xdeadbeef", Text, Ok(json!("0xdeadbeef"))),
        ("0xdeadbeef", Inline, inline("0xdeadbeef")),
        ("\"0123\"", Text, Ok(json!("\"0123\""))),
        ("\"0123\"", Int, wrong("int", "string")),
        ("\"0123\"", Inline, inline("\"0123\"")),
        ("!!str 0123", Text, Ok(json!("!!str 0123"))),
        ("!!str 0123", Inline, inline("!!str 0123")),
        ("t", Bool, wrong("bool", "string")),
        ("23", Bool, wrong("bool", "int")),
        ("{\"field\": 123}", Inline, inline("{\"field\": 123}")),
        ("1111:1111:1111:1111:1111::", Inline, inline("1111:1111:1111:1111:1111::")),
        ("1111:1111:1111:1111:1111::", Text, Ok(json!("1111:1111:1111:1111:1111::"))),
        ("2006-01-02T15:04:05Z07:00", Text, Ok(json!("2006-01-02T15:04:05Z07:00"))),
        ("2023-03-20T03:17:55.432328Z", Text, Ok(json!("2023-03-20T03:17:55.432328Z"))),
        ("2023-03-20T03:17:55.432328Z", Inline, inline("2023-03-20T03:17:55.432328Z")),
        ("true # comment with a ${env:hello.world} reference", Bool, Ok(json!(true))),
        ("true # comment with a ${env:hello.world} reference", Text, wrong("string", "bool")),
        (
            "true # comment with a ${env:hello.world} reference",
            Inline,
            Err("environment variable \"hello.world\" has invalid name".to_owned()),
        ),
        ("[\"a\",", Text, Ok(json!("[\"a\","))),
        ("[\"a\",", Inline, inline("[\"a\",")),
        (
            "[filelog,windowseventlog/application]",
            List,
            Ok(json!(["filelog", "windowseventlog/application"])),
        ),
        (
            "[filelog,windowseventlog/application]",
            Text,
            Ok(json!("[filelog,windowseventlog/application]")),
        ),
        (
            "[filelog,windowseventlog/application]",
            Inline,
            inline("[filelog,windowseventlog/application]"),
        ),
        ("$$ENV", Text, Ok(json!("$ENV"))),
        ("$$ENV", Inline, inline("$ENV")),
        ("$${ENV}", Text, Ok(json!("${ENV}"))),
        ("$${ENV}", Inline, inline("${ENV}")),
        ("$${env:ENV}", Text, Ok(json!("${env:ENV}"))),
        ("$${env:ENV}", Inline, inline("${env:ENV}")),
        ("[filelog,${env:ENV_VALUE}]", Text, Ok(json!("[filelog,testreceiver]"))),
        ("[filelog,${ENV_VALUE}]", Text, Ok(json!("[filelog,testreceiver]"))),
        (
            "[\"filelog\",\"$${env:ENV_VALUE}\"]",
            Text,
            Ok(json!("[\"filelog\",\"${env:ENV_VALUE}\"]")),
        ),
        ("[\"filelog\",\"$${ENV_VALUE}\"]", Text, Ok(json!("[\"filelog\",\"${ENV_VALUE}\"]"))),
        ("[\"filelog\",\"$$ENV_VALUE\"]", Text, Ok(json!("[\"filelog\",\"$ENV_VALUE\"]"))),
        ("[\"filelog\",\"$ENV_VALUE\"]", Text, Ok(json!("[\"filelog\",\"$ENV_VALUE\"]"))),
    ];
    for (value, field, expected) in cases {
        let config = field.config("${env:ENV}");
        let receiver = ("ENV_VALUE", "testreceiver");
        for environment in
            [&[("ENV", value), receiver][..], &[("ENV", "${env:ENV2}"), ("ENV2", value), receiver]]
        {
            let printed = print(&[&config], environment)?;
            match (&expected, &printed) {
                (Ok(value), Ok(printed)) if printed.pointer(field.pointer()) == Some(value) => {}
                (Err(text), Err(said)) if said.contains(text) => {}
                _ => anyhow::bail!("{environment:?} in {field:?}: {expected:?}, got {printed:?}"),
            }
        }
    }
    Ok(())
}

/// confmap's `Test_EscapedEnvVars_DefaultScheme` and `TestRecursiveInlineString`.
#[test]
fn dollars_and_values_of_values() -> Result<()> {
    let environment = [
        ("ENV_VALUE", VALUE),
        ("ENV_NESTED_DOLLARSIGN", "here is 1 $$"),
        ("ENV_NESTED_DOLLARSIGN_ESCAPED", "here are 2 $$$"),
        ("ENV_EXPAND_NESTED", "${env:ENV_VALUE} came from nested expansion"),
        ("ENV", "The value ${env:ENV2} is wrapped"),
        ("ENV2", "The value ${env:ENV3} is wrapped"),
        ("ENV3", "123"),
        ("HOST", "localhost"),
        ("PORT", "3044"),
        ("OS", "ubuntu"),
        ("EMPTY", ""),
    ];
    for (text, expected) in [
        ("$$ENV_VALUE", "$ENV_VALUE"),
        ("$$$$ENV_VALUE", "$$ENV_VALUE"),
        ("$$${ENV_VALUE}", "$some expanded value"),
        ("some${ENV_VALUE}text", "somesome expanded valuetext"),
        ("some$${ENV_VALUE}text", "some${ENV_VALUE}text"),
        ("$${ONE}$${TWO}", "${ONE}${TWO}"),
        ("text$$", "text$"),
        ("$$", "$"),
        ("$${1}$${env:2}", "${1}${env:2}"),
        ("some$${env:ENV_VALUE}text", "some${env:ENV_VALUE}text"),
        ("$${env:${ENV_VALUE}}", "${env:some expanded value}"),
        ("$${env:$${ENV_VALUE}}", "${env:${ENV_VALUE}}"),
        ("env:MAP_VALUE_2}$${ENV_VALUE}{", "env:MAP_VALUE_2}${ENV_VALUE}{"),
        ("$$${env:ENV_VALUE}", "$some expanded value"),
        ("$ENV_VALUE", "$ENV_VALUE"),
        ("${ENV_NESTED_DOLLARSIGN}", "here is 1 $"),
        ("${ENV_NESTED_DOLLARSIGN_ESCAPED}", "here are 2 $$"),
        ("${ENV_EXPAND_NESTED}", "some expanded value came from nested expansion"),
        ("${env:ENV}", "The value The value 123 is wrapped is wrapped"),
        ("${env:HOST}:3043", "localhost:3043"),
        ("${env:HOST}:${env:PORT}", "localhost:3044"),
        ("https://${env:HOST}:3045", "https://localhost:3045"),
        ("${yaml:localhost:${env:PORT}}?os=${env:OS}", "localhost:3044?os=ubuntu"),
        ("${yaml:1${yaml:2${yaml:3${yaml:4${yaml:5${yaml:6}}}}}}", "123456"),
        ("env:HOST}", "env:HOST}"),
        ("${HOST", "${HOST"),
        ("HO{ST}", "HO{ST}"),
        ("${env:HOST${env:PORT?os=${env:OS", "${env:HOST${env:PORT?os=${env:OS"),
        ("env:HOST}env:PORT}?os=env:OS}", "env:HOST}env:PORT}?os=env:OS}"),
        ("env:HOST}${env:PORT", "env:HOST}${env:PORT"),
        ("env:HOST}${env:PORT}", "env:HOST}3044"),
        ("${env:HOST}env:PORT}", "localhostenv:PORT}"),
        ("${env:HOST${env:PORT}", "${env:HOST3044"),
        ("${env:HOST}${env:PORT", "localhost${env:PORT"),
        ("env:HOST}env:PORT}?os=${env:OS}", "env:HOST}env:PORT}?os=ubuntu"),
        ("${env:HOST${env:PORT?os=${env:OS}", "${env:HOST${env:PORT?os=ubuntu"),
        ("${env:HOST}}}}}}${env:PORT?os=${env:OS}", "localhost}}}}}${env:PORT?os=ubuntu"),
        ("${env:HOST}${${${${${env:PORT}?os=${env:OS}", "localhost${${${${3044?os=ubuntu"),
        ("env:HOST}${env:PORT}?os=env:OS}&pr=${env:OS}", "env:HOST}3044?os=env:OS}&pr=ubuntu"),
        ("${env:MY_VAR:-default % value}", "default % value"),
        ("${env:MY_VAR:-}", ""),
        ("${env:EMPTY:-foo}", ""),
        ("${env:HOST:-}", "localhost"),
        ("${env:MY_VAR:-test:-test}", "test:-test"),
        // Not as the Collector, which leaves what follows an escape as it is.
        ("$${A}${env:HOST}", "${A}localhost"),
        ("${env:HOST}$${env:OS}${env:HOST}", "localhost${env:OS}localhost"),
    ] {
        let config = Field::Text.config(&format!("'{text}'"));
        let printed = print(&[&config], &environment)?.map_err(anyhow::Error::msg).context(text)?;
        let value = printed.pointer(Field::Text.pointer());
        ensure!(value == Some(&json!(expected)), "{text}: {expected}, got {value:?}");
    }
    for (text, error) in [
        ("${env:-MY_VAR}", "has invalid name"),
        (
            "${env:default%config}",
            "environment variable \"default%config\" has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$",
        ),
        ("${g_c_s:VALUE}", "invalid uri: \"g_c_s:VALUE\""),
        ("${yaml:$VALUE}", "the uri \"yaml:$VALUE\" contains unsupported characters ('$')"),
        (
            "${unsupported:VALUE}",
            "scheme \"unsupported\" is not supported for uri \"unsupported:VALUE\"",
        ),
        ("${file:/no/such}", "unable to read the file file:/no/such: open /no/such: no such"),
        ("${env:LOOP}", "too many recursive expansions"),
    ] {
        let config = Field::Text.config(&format!("'{text}'"));
        let said = print(&[&config], &[("LOOP", "${env:LOOP}")])?.err().unwrap_or_default();
        ensure!(said.contains(error) && said.contains("at yaml::"), "{text}: {said}");
    }
    Ok(())
}

/// confmap's tests of values that are maps, of empty ones, and of the yaml provider.
#[test]
fn maps_lists_nothing_and_paths() -> Result<()> {
    let base = format!("yaml:receivers: {{iomonitor: }}\nexporters: {{debug: }}\n{PIPELINE}");
    let debug = |printed: &Value| printed.pointer("/exporters/debug").cloned();
    let defaults = print(&[&base], &[])?.map_err(anyhow::Error::msg)?;
    // A section that is null, or a variable that is empty or not set, has its defaults.
    for section in [
        "exporters::debug: null",
        "exporters::debug: ${env:SET}",
        "exporters::debug: ${env:NOT_SET}",
    ] {
        for value in ["", "null", "{}"] {
            let printed = print(&[&base, &format!("yaml:{section}")], &[("SET", value)])?;
            let printed = printed.map_err(anyhow::Error::msg)?;
            ensure!(debug(&printed) == debug(&defaults), "{section} with {value:?}: {printed}");
        }
    }
    // Recursive maps, with a comment in them.
    let environment = [
        (
            "ENV",
            "# a comment with ${EXPAND_ME}\nverbosity: \"${env:ENV2}\"\nsampling_initial: ${env:ENV3}",
        ),
        ("ENV2", "${env:ENV4}"),
        ("ENV3", "1${env:ENV5}"),
        ("ENV4", "detailed"),
        ("ENV5", "7"),
    ];
    let over = "yaml:exporters::debug: ${env:ENV}";
    let said = print(&[&base, over], &environment)?.err().unwrap_or_default();
    ensure!(said.contains("expected type 'int', got unconvertible type 'string'"), "{said}");
    ensure!(
        said.contains("exporters::debug::sampling_initial") && said.contains("at env:ENV:3:"),
        "{said}"
    );
    // Lists of ids from a variable.
    let lists = "yaml:service::pipelines::metrics: {receivers: '${R}', exporters: '${env:E}'}";
    let printed = print(&[&base, lists], &[("R", "[iomonitor]"), ("E", "[debug]")])?;
    ensure!(printed.is_ok(), "{printed:?}");
    for (source, pointer, value) in [
        ("yaml:processors::batch::timeout: 2s", "/processors/batch/timeout", 2_000_000_000_u64),
        (
            "yaml:processors::batch/foo::timeout: 3s",
            "/processors/batch~1foo/timeout",
            3_000_000_000,
        ),
        (
            "yaml:processors: {batch/foo::timeout: 3s, batch::timeout: 2s}",
            "/processors/batch~1foo/timeout",
            3_000_000_000,
        ),
        (
            "yaml:processors::batch/foo::timeout: 3s\nprocessors::batch::timeout: 2s",
            "/processors/batch/timeout",
            2_000_000_000,
        ),
    ] {
        let printed = print(&[&base, source], &[])?.map_err(anyhow::Error::msg)?;
        ensure!(printed.pointer(pointer) == Some(&json!(value)), "{source}: {printed}");
    }
    for (source, error) in [
        ("yaml:processors.batch.timeout: 4s", "has invalid keys: processors.batch.timeout"),
        ("yaml:[invalid,", "invalid YAML"),
        ("yaml:[a]", "retrieved value (type=[]interface {}) cannot be used as a Conf"),
        ("yaml:text", "retrieved value (type=string) cannot be used as a Conf"),
        (
            "file:nope.yaml",
            "cannot retrieve the configuration: unable to read the file file:nope.yaml: open \
             nope.yaml: no such file or directory",
        ),
    ] {
        let said = print(&[&base, source], &[])?.err().unwrap_or_default();
        ensure!(said.contains(error), "{source}: {said}");
    }
    Ok(())
}

/// otelcol's tests of components' ids, and of the whole configuration.
#[test]
fn whole_configurations() -> Result<()> {
    let parts = [
        ("receivers", "receivers: {iomonitor: }\n"),
        ("processors", "processors: {batch: }\n"),
        ("exporters", "exporters: {debug: }\n"),
        ("service", PIPELINE),
    ];
    let with = |part: &str, text: &str| {
        let parts = parts.iter().map(|(name, own)| if *name == part { text } else { own });
        format!("yaml:{}\n", parts.collect::<Vec<_>>().join("\n"))
    };
    let pipelines = |text: &str| with("service", &format!("service: {{pipelines: {text}}}"));
    ensure!(print(&[&with("", "")], &[])?.is_ok());
    let traces = "failed to create \"iomonitor\" receiver for data type \"traces\": telemetry type is not supported";
    for (config, errors) in [
        (with("exporters", ""), &["no exporter configuration specified in config"][..]),
        (with("receivers", ""), &["no receiver configuration specified in config"]),
        (format!("yaml:{PIPELINE}"), &["empty configuration file"]),
        ("yaml:{}".to_owned(), &["empty configuration file"]),
        (with("service", ""), &["service::pipelines: service must have at least one pipeline"]),
        (pipelines(""), &["service::pipelines: service must have at least one pipeline"]),
        (
            with("", "") + "service::extensions: [nop/2]",
            &["service::extensions: references extension \"nop/2\" which is not configured"],
        ),
        (
            pipelines(
                "{metrics: {receivers: [iomonitor, iomonitor/2], processors: [batch/2], exporters: [debug/2]}}",
            ),
            &[
                "service::pipelines::metrics: references receiver \"iomonitor/2\" which is not configured",
                "service::pipelines::metrics: references processor \"batch/2\" which is not configured",
                "service::pipelines::metrics: references exporter \"debug/2\" which is not configured",
            ],
        ),
        (
            pipelines("{metrics: {receivers: [], exporters: }}"),
            &[
                "service::pipelines::metrics: must have at least one receiver",
                "service::pipelines::metrics: must have at least one exporter",
            ],
        ),
        (
            pipelines(
                "{metrics: {receivers: [iomonitor], processors: [batch, batch], exporters: [debug]}}",
            ),
            &["service::pipelines::metrics: references processor \"batch\" multiple times"],
        ),
        (pipelines("{wrongtype: }"), &["unknown pipeline signal: \"wrongtype\""]),
        (pipelines("{traces: {receivers: [iomonitor], exporters: [debug]}}"), &[traces]),
        (
            with("exporters", "exporters: {debug: , /custom: }"),
            &["the part before / should not be empty"],
        ),
        (
            with("exporters", "exporters: {debug: , debug/: }"),
            &["the part after / should not be empty"],
        ),
        (
            with("exporters", "exporters: {debug: , nosuchexporter: }"),
            &["unknown type: \"nosuchexporter\" for id: \"nosuchexporter\" (valid values: ["],
        ),
        (
            with("exporters", "exporters: {debug: , 'debug /my ': , ' debug/ my': }"),
            &["duplicate name"],
        ),
        (
            with("exporters", "exporters: {debug: {unknown_section: exporter}}"),
            &["error reading configuration for \"debug\"", "has invalid keys: unknown_section"],
        ),
        (
            with("exporters", "exporters: {debug: tests}"),
            &["'[debug]' expected type 'map[string]interface {}', got unconvertible type 'string'"],
        ),
        (
            with("exporters", "exporters: {debug: , logging: }"),
            &["the logging exporter has been deprecated, use the debug exporter instead"],
        ),
        // Reported as itself, without what follows from it.
        (
            with("service", "service: []"),
            &["service: 'service' expected a map or struct, got \"slice\""],
        ),
        (
            with("receivers", "receivers: []"),
            &["receivers: 'receivers' expected a map or struct, got \"slice\""],
        ),
        (
            pipelines("[]"),
            &["service::pipelines: 'service.pipelines' expected a map or struct, got \"slice\""],
        ),
    ] {
        let said = print(&[&config], &[])?.err().unwrap_or_default();
        for error in errors {
            ensure!(said.contains(error), "{config}: no «{error}» in {said}");
        }
        let alone = errors.iter().any(|e| e.contains("expected a map") || e.contains("empty conf"));
        ensure!(!alone || !said.contains("mistakes)"), "{config}: {said}");
    }
    Ok(())
}
