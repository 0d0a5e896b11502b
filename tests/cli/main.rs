//! The commands that load nothing into the kernel. They need no root.

mod collector;
mod source;

use std::{
    io::Read as _,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use tests::{agent::binary, deadline::wait_for};

fn fathom(arguments: &[&str]) -> Result<(Output, String)> {
    let output = Command::new(binary()?).args(arguments).output()?;
    let text = [&*output.stdout, &*output.stderr].concat();
    Ok((output, String::from_utf8(text)?))
}

/// Writes `yaml` to a file and validates it; the file's name stands before what was said.
fn validate(yaml: &str) -> Result<(Option<i32>, String, String)> {
    let file = tempfile::Builder::new().prefix("fathom-test-").suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), yaml)?;
    let name = file.path().to_str().context("a path that is no text")?.to_owned();
    let (output, said) = fathom(&["validate", "--config", &name])?;
    Ok((output.status.code(), name, said))
}

#[test]
fn a_valid_configuration_is_silent() -> Result<()> {
    let (code, _, said) = validate(
        r#"
receivers:
  iomonitor:
    collection_interval: 5s
    signals:
      syscalls: {calls: [read, pread64]}
processors:
  attributes/site:
    actions:
      - {key: deployment.environment.name, value: prod, action: upsert}
  deltatocumulative: {}
exporters:
  otlp_grpc: {endpoint: "collector:4317", tls: {insecure: true}}
  prometheus: {endpoint: "localhost:9464"}
service:
  pipelines:
    metrics:
      receivers: [iomonitor]
      processors: [attributes/site, deltatocumulative]
      exporters: [otlp_grpc, prometheus]
"#,
    )?;
    ensure!(code == Some(0) && said.is_empty(), "{code:?}: {said}");
    Ok(())
}

#[test]
fn every_mistake_is_reported_with_its_place() -> Result<()> {
    let (code, file, said) = validate(
        r#"receivers:
  iomonitor:
    colection_interval: 5s
    initial_delay: soon
exporters:
  prometheus:
    endpoint: "localhost:9464"
    enpoint: "localhost:9465"
  promtheus/two: {}
service:
  pipelines:
    metrics:
      receivers: [iomonitor, iomonitr]
      exporters: [prometheus]
"#,
    )?;
    ensure!(code == Some(1), "{code:?}: {said}");
    let mistakes = [
        ("3:5", "colection_interval", "collection_interval"),
        ("4:20", "initial_delay", "soon"),
        ("8:5", "enpoint", "endpoint"),
        ("9:3", "promtheus", "prometheus"),
        ("13:30", "iomonitr", "iomonitor"),
    ];
    for (place, key, more) in mistakes {
        let place = format!("{file}:{place}");
        ensure!(said.contains(&place), "no {place} in {said}");
        let key = said.contains(key) && said.contains(more);
        ensure!(key, "neither {key} nor {more} in {said}");
    }
    Ok(())
}

#[test]
fn what_is_not_there_is_named() -> Result<()> {
    let (output, said) = fathom(&["validate", "--config", "/no/such/file.yaml"])?;
    ensure!(output.status.code() == Some(1) && said.contains("/no/such/file.yaml"), "{said}");
    let (output, said) = fathom(&["validate"])?;
    ensure!(output.status.code() == Some(1), "{said}");
    let (output, said) = fathom(&["--no-such-flag"])?;
    ensure!(output.status.code() == Some(2) && said.contains("--no-such-flag"), "{said}");
    Ok(())
}

#[test]
fn a_configuration_whose_probes_are_asked_for_must_be_right() -> Result<()> {
    let probes = |more: &[&str]| fathom(&[&["probes"], more].concat());
    let (output, said) = probes(&["--config", "yaml:{receivers: {iomonitor: {mod: raw_tp}}}"])?;
    ensure!(output.status.code() == Some(1) && said.contains("did you mean `mode`?"), "{said}");
    let (output, said) = probes(&["--config", "yaml:{}", "--mode", "raw_tp"])?;
    ensure!(output.status.code() == Some(1) && said.contains("receivers.iomonitor.mode"), "{said}");
    let (output, said) = probes(&["--set", "receivers.iomonitor.mode=raw_tp"])?;
    ensure!(output.status.code() == Some(1) && said.contains("--config"), "{said}");
    Ok(())
}

#[test]
fn the_effective_configuration_is_printed() -> Result<()> {
    let yaml = "yaml:{receivers: {iomonitor: }, exporters: {otlp: {endpoint: 'a:1', timeout: 90s, headers: \
                {k: hidden}}}, service: {pipelines: {metrics: {receivers: [iomonitor], exporters: [otlp]}}}}";
    let print = |more: &[&str]| fathom(&[&["print-config", "--config", yaml], more].concat());
    let (output, said) = print(&[])?;
    ensure!(output.status.success(), "{said}");
    ensure!(said.contains("timeout: 1m30s") && said.contains("k: '[REDACTED]'"), "{said}");
    ensure!(said.contains("queue_size: 1000") && !said.contains("hidden"), "{said}");
    let (_, said) = print(&["--mode=unredacted"])?;
    ensure!(said.contains("k: hidden"), "{said}");
    // As the Collector's: nanoseconds for programs.
    let (_, said) = print(&["--format", "json"])?;
    ensure!(said.contains("\"timeout\": 90000000000") && !said.contains("hidden"), "{said}");
    for (arguments, error) in [
        (["--mode", "x"], "Error: invalid mode \"x\": modes are: redacted, unredacted"),
        (["--format", "x"], "Error: unrecognized print format: x"),
        (
            ["--set", "exporters.otlp.compression=x"],
            "exporters::otlp::compression: unsupported compression type \"x\"",
        ),
    ] {
        let (output, said) = print(&arguments)?;
        ensure!(output.status.code() == Some(1) && said.contains(error), "{said}");
    }
    let (output, said) = print(&["--set", "exporters.otlp.endpoint=", "--validate=false"])?;
    ensure!(output.status.success() && said.contains("endpoint: ''"), "{said}");
    Ok(())
}

/// It reads its configuration from a pipe into which nobody writes yet.
#[test]
fn an_agent_that_is_starting_lets_a_hangup_wait() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pipe = folder.path().join("config");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    let mut agent = Command::new(binary()?)
        .arg("--config")
        .arg(&pipe)
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let pid = nix::unistd::Pid::from_raw(agent.id().cast_signed());
    let holds = || -> Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let blocked = u64::from_str_radix(blocked.context("no signals")?.trim(), 16)?;
        Ok(blocked & 1 == 1)
    };
    wait_for("the agent holds SIGHUP back", || holds().map(|held| held.then_some(())))?;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP)?;
    std::fs::write(&pipe, "receivers: {nothing: }")?;
    let mut said = String::new();
    agent.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
    let code = agent.wait()?.code();
    ensure!(code == Some(1) && said.contains("unknown type: \"nothing\""), "{code:?}: {said}");
    Ok(())
}

#[test]
fn no_feature_gate_exists() -> Result<()> {
    let (output, said) = fathom(&["featuregate"])?;
    ensure!(output.status.success() && said == "ID  Enabled  Stage  Description\n", "{said}");
    for (arguments, error) in [
        (["featuregate", "a.b"], "feature \"a.b\" not found"),
        (["--feature-gates=-a.b,+c", "components"], "no such feature gate \"a.b\""),
    ] {
        let (output, said) = fathom(&arguments)?;
        ensure!(output.status.code() == Some(1) && said.contains(error), "{said}");
    }
    let (output, said) = fathom(&["components", "--feature-gates", ""])?;
    ensure!(output.status.success(), "{said}");
    Ok(())
}

#[test]
fn components_are_listed() -> Result<()> {
    let (output, said) = fathom(&["components"])?;
    ensure!(output.status.success(), "{said}");
    let all = [
        "iomonitor",
        "attributes",
        "resource",
        "deltatocumulative",
        "batch",
        "prometheus",
        "otlp_grpc",
        "debug",
    ];
    for name in all {
        ensure!(
            said.lines().any(|line| line.trim() == format!("- name: {name}")),
            "{name}: {said}"
        );
    }
    Ok(())
}

#[test]
fn the_version_is_shown() -> Result<()> {
    let (output, said) = fathom(&["--version"])?;
    ensure!(
        output.status.success() && said.trim() == concat!("fathom ", env!("CARGO_PKG_VERSION")),
        "{said}"
    );
    Ok(())
}
