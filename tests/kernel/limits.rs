//! The agent where others hinder it: signals at the wrong time, peers that are silent, an environment that is meant for
//! someone else, hardly any file descriptors.

use std::{
    fs, io,
    net::TcpListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        stat::Mode as Permissions,
    },
    unistd::mkfifo,
};
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Mode, Setup, free_address},
    cgroup::Cgroup,
    deadline::{on_this_machine, wait_for},
    file,
    modes::{attaches, hole},
    otlp::OtlpServer,
    random,
};

/// Metrics, logs and spans of its own, sent to a place.
fn own(otlp: &Value) -> Value {
    let batch = json!([{"batch": {"exporter": {"otlp": otlp}}}]);
    let periodic = json!({"interval": 100, "exporter": {"otlp": otlp}});
    json!({
        "metrics": {"readers": [{"periodic": periodic}]},
        "logs": {"processors": batch},
        "traces": {"processors": batch},
    })
}

#[test]
fn who_does_not_take_its_own_telemetry_hardly_delays_its_end() -> Result<()> {
    let cgroup = Cgroup::new()?;
    // It is connected to, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    for address in [silent.local_addr()?, free_address()?] {
        for protocol in ["grpc", "http/protobuf"] {
            let otlp = json!({"protocol": protocol, "endpoint": format!("http://{address}")});
            let agent = Agent::start(&Setup::new(Mode::Auto, &cgroup).telemetry(own(&otlp)))?;
            let asked = Instant::now();
            let ended = agent.stop(Signal::SIGTERM)?;
            let took = asked.elapsed();
            ensure!(ended.status.success(), "{protocol} {address}: {ended:?}");
            ensure!(took < on_this_machine(Duration::from_millis(4500)), "{protocol}: {took:?}");
        }
    }
    Ok(())
}

#[test]
fn the_environment_has_no_say_in_its_own_telemetry() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let server = OtlpServer::start()?;
    let otlp = json!({"endpoint": format!("http://{}", server.address())});
    let metrics = own(&otlp)["metrics"].clone();
    let mut setup = Setup::new(Mode::Auto, &cgroup).telemetry(json!({"metrics": metrics}));
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-of=environment"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-of=environment"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "nothing that is known"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
        ("OTEL_RESOURCE_ATTRIBUTES", "of=environment"),
        ("OTEL_SERVICE_NAME", "environment"),
    ] {
        setup = setup.environment(name, value);
    }
    let agent = Agent::start(&setup)?;
    wait_for("some of them", || Ok((server.received().len() > 2).then_some(())))?;
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    for received in server.received() {
        let text = format!("{received:?}");
        ensure!(!text.contains("environment"), "{text}");
        ensure!(received.header.get("grpc-encoding").is_none(), "{:?}", received.header);
        ensure!(!text.contains("aggregation_temporality: 1"), "{text}");
    }
    Ok(())
}

/// A configuration that comes slowly, as from a pipe or a network.
#[test]
fn a_hangup_while_the_configuration_is_read_ends_nothing() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let directory = file::directory()?;
    let pipe = directory.path().join("pipe.yaml");
    mkfifo(&pipe, Permissions::S_IRWXU)?;
    let metrics = free_address()?;
    let mut agent = Agent::run(metrics, &[PathBuf::from("--config"), pipe.clone()])?;
    // It blocks signals before it reads, and its reader shows that it does.
    let status = format!("/proc/{}/status", agent.pid());
    wait_for("it to read", || {
        let threads = fs::read_to_string(&status)?;
        Ok(threads.contains("Threads:\t2").then_some(()))
    })?;
    kill(agent.pid(), Signal::SIGHUP)?;
    fs::write(&pipe, Setup::new(Mode::Auto, &cgroup).yaml(metrics)?)?;
    agent.ready()?;
    wait_for("the answer", || {
        Ok(agent.log().contains("Received SIGHUP, reading the configuration again").then_some(()))
    })?;
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    Ok(())
}

/// It takes a million instructions of a program, counted anew on each way through it, and a scope and groups make more
/// ways. Verifiers differ in which ways they hold for equal: what is near the limit on one kernel is beyond it on another.
#[test]
fn no_program_is_near_what_the_verifier_takes() -> Result<()> {
    const MOST: u64 = 200_000;
    let too_many = io::Error::from(Errno::E2BIG).to_string();
    let cgroup = Cgroup::new()?;
    for mode in Mode::EACH {
        if !attaches(mode)? {
            continue;
        }
        let scope = json!({
            "cgroups": [cgroup.path()],
            "mount_namespaces": ["/proc/self/ns/mnt"],
            "comm": {"prefix": ["x"]},
        });
        let off = ["descriptors", "faults", "madvise", "page_states"];
        let setup =
            Setup::new(mode, &cgroup).with("group_by", json!("process")).with("scope", scope);
        let setup =
            off.iter().fold(setup, |setup, name| setup.signal(name, json!({"enabled": true})));
        let agent = Agent::start(&setup)?;
        let verified = agent.verified()?;
        println!("{}: {verified:?}", mode.name());
        // Before Linux 5.16 the kernel says of none.
        let known: Vec<_> = verified.iter().flatten().collect();
        ensure!(!verified.is_empty() && (known.is_empty() || known.len() == verified.len()));
        ensure!(known.iter().all(|count| **count < MOST), "{}: {verified:?}", mode.name());
        // One that is over the limit is not among them.
        for probe in agent.settled()?.all("ebpf_probe_status", &[]) {
            let reason = probe.labels.get("reason").map_or("", String::as_str);
            ensure!(!reason.contains(&too_many), "{probe:?}");
        }
    }
    Ok(())
}

/// A limit that root may not exceed either; it leaves signals out rather than being deaf.
#[test]
fn with_few_file_descriptors_what_is_attached_is_served() -> Result<()> {
    // The limit may be met between two signals, or in the middle of one.
    let mut rng = random::rng();
    for _ in 0..5 {
        with_descriptors(rng.u32(80..120))?;
    }
    Ok(())
}

fn with_descriptors(most: u32) -> Result<()> {
    let cgroup = Cgroup::new()?;
    let agent = Agent::start(&Setup::new(Mode::Auto, &cgroup).descriptors(most))?;
    let scrape = agent.settled()?;
    let attached = |on: bool| {
        let probes = scrape.all("ebpf_probe_status", &[]);
        probes.filter(|probe| (probe.value == 1.0) == on).cloned().collect::<Vec<_>>()
    };
    ensure!(!attached(true).is_empty(), "{}", agent.log());
    for probe in attached(false) {
        let reason = &probe.labels["reason"];
        ensure!(
            reason.contains("file descriptors")
                || reason.contains("Too many open")
                || hole(&probe.labels["probe"], Mode::Auto)?.is_some(),
            "{probe:?}"
        );
    }
    ensure!(!attached(false).is_empty(), "{}", agent.log());
    let open = fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count();
    ensure!(open + 20 < most as usize, "{open} open of {most}");
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    Ok(())
}
