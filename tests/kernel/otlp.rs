//! What the OTLP exporter sends against what the Prometheus endpoint shows of the same collection.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest, metrics::v1::Metric,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    otlp::{OtlpServer, Point, Reading, points},
    plan::{Call, Open, Plan, Step},
    random,
    scrape::{Sample, Scrape},
};
use tonic::transport::{Identity, ServerTlsConfig};

use crate::{in_each_mode, work};

in_each_mode!(["syscalls/timed"] every_point_equals_the_scrape);

/// A series: its Prometheus name and its attributes as labels.
type Series = (String, BTreeMap<String, String>);

/// A mixture of what iomonitor counts.
fn mixture(rng: &mut fastrand::Rng, directory: &tempfile::TempDir) -> Result<Plan> {
    let path = file::cold(directory, rng, 1 << 20)?;
    let steps = vec![
        Step::new(Call::Pread64, 0, rng.usize(1..5_000)).times(rng.u64(1..3_000)),
        Step::new(Call::Read, 0, rng.usize(1..5_000)).times(rng.u64(1..30)),
        Step::new(Call::Pwrite64, 1, rng.usize(1..5_000)).times(rng.u64(1..300)),
        Step::new(Call::Fsync, 1, 0).times(rng.u64(1..5)),
        Step::new(Call::Write, 2, 1).times(rng.u64(1..300)),
        Step::advise(0, 1).times(rng.u64(1..30)),
        Step::advise(2, 4).times(rng.u64(1..30)),
    ];
    let files = vec![Open::Read(path.clone()), Open::Write(path), Open::Never];
    Ok(Plan { threads: 1, files, phases: vec![steps] })
}

fn every_point_equals_the_scrape(mode: Mode) -> Result<()> {
    let began = nanos()?;
    let mut rng = random::rng();
    let directory = file::directory()?;
    let server = OtlpServer::start()?;
    let cgroup = Cgroup::new()?;
    // With one consumer, what is sent first arrives first.
    let otlp = json!({
        "endpoint": server.address(),
        "tls": {"insecure": true},
        "sending_queue": {"num_consumers": 1},
    });
    let agent = Agent::start(&Setup::only("syscalls", mode, &cgroup).export(otlp))?;
    let attached = nanos()?;
    for _ in 0..3 {
        work(&mixture(&mut rng, &directory)?, &cgroup)?;
        let scrape = agent.settled()?;
        let time = scrape.time().context("no timestamps")?;
        let sent = wait_for("the same collection over OTLP", || {
            let received = server.received();
            let of = |request: &ExportMetricsServiceRequest| {
                let mut points = all(request).ok()?;
                points.retain(|_, point| point.time / 1_000_000 == time as u64);
                (!points.is_empty()).then_some(points)
            };
            Ok(received.iter().find_map(|received| of(&received.request)))
        })?;
        same(&sent, &scrape, time)?;
    }

    // Every series has one start, when its counter was zero, and time moves on.
    let mut last = BTreeMap::<Series, Point>::new();
    for received in server.received() {
        for (series, point) in all(&received.request)? {
            match point.value {
                Reading::Gauge(_) | Reading::Ratio(_) => {
                    ensure!(point.start == 0, "{series:?}: {point:?}")
                }
                _ => {
                    let known = began <= point.start && point.start <= attached;
                    ensure!(known, "{series:?} starts at {}", point.start);
                    ensure!(point.start <= point.time, "{series:?}: {point:?}");
                }
            }
            if let Some(before) = last.insert(series.clone(), point.clone()) {
                ensure!(before.start == point.start, "{series:?}: {before:?}, then {point:?}");
                ensure!(before.time < point.time, "{series:?}: {before:?}, then {point:?}");
            }
        }
    }
    Ok(())
}

fn nanos() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// The points of a request, under the names that the standard translation gives them.
fn all(request: &ExportMetricsServiceRequest) -> Result<BTreeMap<Series, Point>> {
    let metrics = request
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics);
    let mut all = BTreeMap::new();
    for metric in metrics {
        for point in points(metric.data.as_ref().context("a metric without data")?)? {
            let label = |(key, value): (&String, &String)| (key.replace('.', "_"), value.clone());
            let series = (name(metric, &point), point.attributes.iter().map(label).collect());
            ensure!(!all.contains_key(&series), "{series:?} twice");
            all.insert(series, point);
        }
    }
    Ok(all)
}

fn name(metric: &Metric, point: &Point) -> String {
    let unit = match metric.unit.as_str() {
        "By" => "_bytes",
        "s" => "_seconds",
        "%" => "_percent",
        "1" if !metric.name.ends_with("_ratio") => "_ratio",
        _ => "",
    };
    let total =
        if matches!(point.value, Reading::Counter(_) | Reading::Sum(_)) { "_total" } else { "" };
    format!("{}{unit}{total}", metric.name.replace('.', "_"))
}

/// Asserts that both show the same series with the same values.
fn same(sent: &BTreeMap<Series, Point>, scrape: &Scrape, time: i64) -> Result<()> {
    let mut shown = BTreeMap::<Series, f64>::new();
    for sample in scrape.samples().iter().filter(|sample| sample.name.starts_with("ebpf_")) {
        ensure!(sample.time == Some(time), "{sample:?} is not of the collection at {time}");
        shown.insert(series(sample), sample.value);
    }
    let mut take = |(name, labels): &Series, suffix: &str| {
        let series = (format!("{name}{suffix}"), labels.clone());
        shown.remove(&series).with_context(|| format!("{series:?} is sent but not shown"))
    };
    for (series, point) in sent {
        match &point.value {
            Reading::Sum(value) | Reading::Ratio(value) => {
                let shown = take(series, "")?;
                ensure!(shown == *value, "{series:?}: {shown} shown, {value} sent");
            }
            Reading::Counter(value) | Reading::Level(value) | Reading::Gauge(value) => {
                let shown = take(series, "")?;
                ensure!(shown == *value as f64, "{series:?}: {shown} shown, {value} sent");
            }
            Reading::Exponential(data) => {
                let (count, sum) = (take(series, "_count")?, take(series, "_sum")?);
                ensure!(count == data.count as f64, "{series:?}: {count} shown, {data:?} sent");
                ensure!(Some(sum) == data.sum, "{series:?}: {sum} shown, {data:?} sent");
                let buckets = data.positive.iter().flat_map(|buckets| &buckets.bucket_counts);
                let total = data.zero_count + buckets.sum::<u64>();
                ensure!(total == data.count, "{series:?}: {total} in buckets, {data:?}");
            }
        }
    }
    shown.retain(|(name, _), _| !name.ends_with("_bucket"));
    ensure!(shown.is_empty(), "shown but not sent: {shown:?}");
    Ok(())
}

/// The series of a sample, without what the translation adds to every one.
fn series(sample: &Sample) -> Series {
    let mut labels = sample.labels.clone();
    labels.retain(|key, _| !(key.starts_with("otel_scope_") || key == "job" || key == "instance"));
    (sample.name.clone(), labels)
}

#[test]
fn a_server_that_is_not_ready_loses_nothing() -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let refusals = rng.u32(1..5);
    let server = OtlpServer::start_refusing(refusals)?;
    let cgroup = Cgroup::new()?;
    // One collection at the start and one at the end: each has to arrive.
    let setup = Setup::only("syscalls", Mode::Auto, &cgroup)
        .with("collection_interval", json!("1h"))
        .export(json!({
            "endpoint": server.address(),
            "tls": {"insecure": true},
            "headers": {"x-scope-orgid": "fathom"},
            "retry_on_failure": {"initial_interval": "10ms", "max_interval": "20ms"},
        }));
    let agent = Agent::start(&setup)?;
    wait_for("the first collection", || Ok((!server.received().is_empty()).then_some(())))?;
    let report = work(&mixture(&mut rng, &directory)?, &cgroup)?;
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    let received = server.received();
    ensure!(received.len() == 2, "{} requests instead of two", received.len());
    let points = all(&received[1].request)?;
    let made = report.of(Call::Pread64).calls;
    let is_pread = |(name, labels): &Series| {
        name == "ebpf_syscall_calls_total" && labels["syscall"] == "pread64"
    };
    let sent = points.iter().find(|(series, _)| is_pread(series)).map(|(_, point)| &point.value);
    ensure!(matches!(sent, Some(Reading::Counter(sent)) if *sent == made), "{sent:?}, not {made}");
    let header = &received[0].header;
    ensure!(header.get("x-scope-orgid").is_some_and(|value| value == "fathom"), "{header:?}");
    ensure!(header.get("grpc-encoding").is_some_and(|value| value == "gzip"), "{header:?}");
    Ok(())
}

#[test]
fn tls_is_on_by_default_and_checks_the_server() -> Result<()> {
    let mut authority = CertificateParams::new([])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &authority)?;
    let identity = Identity::from_pem(certificate.pem(), key.serialize_pem());
    let server = OtlpServer::start_tls(ServerTlsConfig::new().identity(identity))?;
    let endpoint = format!("localhost:{}", server.address().port());
    let cgroup = Cgroup::new()?;

    // Nobody has vouched for that authority …
    let setup = Setup::only("syscalls", Mode::Auto, &cgroup).export(json!({"endpoint": endpoint}));
    let agent = Agent::start(&setup)?;
    agent.settled()?;
    ensure!(server.received().is_empty(), "sent to a server that nobody vouched for");
    drop(agent);

    // … until the configuration does.
    let directory = file::directory()?;
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem())?;
    let tls = json!({"endpoint": endpoint, "tls": {"ca_file": ca_file}});
    let _agent = Agent::start(&Setup::only("syscalls", Mode::Auto, &cgroup).export(tls))?;
    let point = server.wait_for("ebpf.probe.status", |_| true)?;
    let Reading::Gauge(_) = point.value else { bail!("{point:?}") };
    Ok(())
}
