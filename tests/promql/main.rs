//! What PromQL says of a workload of known size that a real Prometheus has seen by each format of the
//! exposition, and what promtool says of the exposition.

mod rules;
mod workloads;

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    thread,
    time::{Duration, Instant},
};

use abi::exponential;
use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use serde_json::{Value, json};
use tests::{
    agent::{Agent, free_address},
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    plan::{Call, Open, Plan, Step},
    prometheus::{Prometheus, check_metrics},
    random, scrape,
    worker::Worker,
};

/// Reads of a cached file: microseconds.
const FAST: u64 = 30;
/// Reads of a pipe that wait for this long, in the middle of a bucket of the text formats.
const SLOW: u64 = 10;
const WAIT: Duration = Duration::from_millis(80);
const BUCKET: (f64, f64) = (0.0625, 0.125);
/// Times that the workload is tried until the scheduler keeps all reads in their buckets.
const ATTEMPTS: u32 = 5;

/// How Prometheus is told.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Text,
    OpenMetrics,
    Protobuf,
}

#[test]
fn by_text() -> Result<()> {
    tried(Format::Text)
}

#[test]
fn by_openmetrics() -> Result<()> {
    tried(Format::OpenMetrics)
}

#[test]
fn by_protobuf_with_native_histograms() -> Result<()> {
    tried(Format::Protobuf)
}

#[test]
fn promtool_accepts_every_exposition() -> Result<()> {
    for keys in [
        json!({}),
        json!({"namespace": "test-space", "const_labels": {"some where": "\"\\\n"}, "send_timestamps": true}),
        json!({"resource_to_telemetry_conversion": {"enabled": true}, "without_scope_info": true}),
        json!({"translation_strategy": "NoUTF8EscapingWithSuffixes"}),
    ] {
        let cgroup = Cgroup::new()?;
        let stage = Stage::new(&cgroup, keys.clone())?;
        check_metrics(&stage.text()?).with_context(|| keys.to_string())?;
    }
    Ok(())
}

/// A running agent, and its configuration.
struct Stage {
    agent: Agent,
    metrics: std::net::SocketAddr,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn new(cgroup: &Cgroup, keys: Value) -> Result<Self> {
        let metrics = free_address()?;
        let mut exporter = keys;
        exporter["endpoint"] = json!(metrics);
        let config = json!({
            "receivers": {"iomonitor": {
                "collection_interval": "100ms",
                "initial_delay": "0s",
                "scope": {"cgroups": [cgroup.path()]},
            }},
            "exporters": {"prometheus": exporter},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"metrics": {"receivers": ["iomonitor"], "exporters": ["prometheus"]}},
            },
        });
        let directory = file::directory()?;
        let path = directory.path().join("fathom.yaml");
        fs::write(&path, config.to_string())?;
        let agent = Agent::run(metrics, &[OsStr::new("--config"), path.as_os_str()])?;
        // Whatever its names begin or end with.
        wait_for("first collection", || {
            let text = scrape::get(metrics, "/metrics").unwrap_or_default();
            Ok(text.contains("probe_status").then_some(()))
        })?;
        Ok(Self { agent, metrics, _directory: directory })
    }

    fn text(&self) -> Result<String> {
        scrape::get(self.metrics, "/metrics")
    }
}

fn tried(format: Format) -> Result<()> {
    for attempt in 1..=ATTEMPTS {
        if answered(format)? {
            return Ok(());
        }
        println!("attempt {attempt}: a read took longer than it should");
    }
    bail!("the reads of {ATTEMPTS} workloads were not as long as they should be")
}

/// Whether all reads were as long as they should be; then all answers were right.
fn answered(format: Format) -> Result<bool> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let cached = file::cold(&directory, &mut rng, 1 << 16)?;
    let (pipe, mut ends) = file::pipe(&directory)?;
    let cgroup = Cgroup::new()?;
    let stage = Stage::new(&cgroup, json!({"enable_open_metrics": format == Format::OpenMetrics}))?;
    let prometheus = Prometheus::start(stage.metrics, format == Format::Protobuf)?;

    let mut phases = vec![vec![Step::new(Call::Read, 0, 1).times(FAST)]];
    phases.extend((0..SLOW).map(|_| vec![Step::new(Call::Read, 1, 1)]));
    let plan = Plan { threads: 1, files: vec![Open::Read(cached), Open::Read(pipe)], phases };
    let mut worker = Worker::start("workload", &plan)?;
    worker.join(&cgroup)?;
    worker.phase()?;
    let calls = r#"ebpf_syscall_calls_total{syscall="read"}"#;
    let before = prometheus.wait_for(calls, FAST as f64)?;
    let mut least = Duration::MAX;
    for _ in 0..SLOW {
        worker.begin()?;
        worker.inside(libc::SYS_read, 1)?;
        // From here to the write the kernel is inside the read; the caller's own time is longer.
        let inside = Instant::now();
        thread::sleep(WAIT);
        least = least.min(inside.elapsed());
        ends.write_all(b"x")?;
        worker.stopped()?;
    }
    let after = prometheus.wait_for(calls, (FAST + SLOW) as f64)?;
    let nanos = worker.finish()?.of(Call::Read).nanos;
    let (fast, slow) = nanos.split_at(usize::try_from(FAST)?);
    let longest = |nanos: &[u64]| Duration::from_nanos(nanos.iter().max().copied().unwrap_or(0));
    let most = longest(slow);
    if longest(fast).as_secs_f64() > BUCKET.0 || most.as_secs_f64() > BUCKET.1 {
        return Ok(false);
    }

    let is = |query: &str, expected: f64| {
        let value = prometheus.one(query, Some(after))?;
        // A range begins a millisecond before its first sample, which rates make up for.
        ensure!((value - expected).abs() <= expected * 0.005, "{query}: {value}, not {expected}");
        anyhow::Ok(())
    };
    // From sample to sample, so that nothing has to be guessed at the ends.
    let seconds = after - before + 0.001;
    let range = format!("{}ms", (seconds * 1000.0).round());
    is("up", 1.0)?;
    is(calls, (FAST + SLOW) as f64)?;
    is(&format!("increase({calls}[{range}])"), SLOW as f64)?;
    is(&format!("rate({calls}[{range}])"), SLOW as f64 / seconds)?;
    is(&format!("resets({calls}[{range}])"), 0.0)?;

    let name = "ebpf_syscall_duration_seconds";
    let read = r#"{syscall="read"}"#;
    let within = |query: &str, low: f64, high: f64| {
        let value = prometheus.one(query, Some(after))?;
        ensure!(low <= value && value <= high, "{query}: {value}, not in {low} to {high}");
        anyhow::Ok(())
    };
    let mean = (least.as_secs_f64(), most.as_secs_f64());
    if format == Format::Protobuf {
        let recent = format!("increase({name}{read}[{range}])");
        is(&format!("histogram_count({name}{read})"), (FAST + SLOW) as f64)?;
        is(&format!("histogram_count({recent})"), SLOW as f64)?;
        let mean_of = format!("histogram_sum({recent}) / histogram_count({recent})");
        within(&mean_of, mean.0, mean.1)?;
        // Buckets that are a twelfth wide.
        let slow = (lower(index(least)?), lower(index(most)? + 1));
        within(&format!("histogram_quantile(0.5, {recent})"), slow.0, slow.1)?;
        within(&format!("histogram_quantile(0.95, {name}{read})"), slow.0, slow.1)?;
        let fast = lower(index(longest(fast))? + 1);
        within(&format!("histogram_quantile(0.5, {name}{read})"), 0.0, fast)?;
        within(&format!("histogram_fraction(0, {}, {name}{read})", BUCKET.0), 0.75, 0.75)?;
        ensure!(prometheus.query(&format!("{name}_bucket"), None)?.is_empty(), "classic buckets");
    } else {
        let recent = |end: &str| format!("increase({name}_{end}{read}[{range}])");
        is(&format!("{name}_count{read}"), (FAST + SLOW) as f64)?;
        is(&recent("count"), SLOW as f64)?;
        within(&format!("{} / {}", recent("sum"), recent("count")), mean.0, mean.1)?;
        // Where one looks within a bucket is laid down: as far as its share of the bucket.
        let share = |part: f64| BUCKET.0 + (BUCKET.1 - BUCKET.0) * part;
        let buckets = format!("sum by (le) (rate({name}_bucket{read}[{range}]))");
        is(&format!("histogram_quantile(0.5, {buckets})"), share(0.5))?;
        let rank = 0.95 * (FAST + SLOW) as f64 - FAST as f64;
        let part = share(rank / SLOW as f64);
        is(&format!("histogram_quantile(0.95, {name}_bucket{read})"), part)?;
        let fast = longest(fast).as_secs_f64().log2().ceil().exp2();
        within(&format!("histogram_quantile(0.5, {name}_bucket{read})"), 0.0, fast)?;
    }
    let created = prometheus.query("ebpf_syscall_calls_created", None)?;
    ensure!(created.is_empty() == (format != Format::OpenMetrics), "{created:?}");
    check_metrics(&stage.text()?)?;
    ensure!(!stage.agent.log().contains("ERROR"), "{}", stage.agent.log());
    Ok(true)
}

/// The OTLP index of the bucket of a duration.
fn index(duration: Duration) -> Result<i32> {
    let nanos = u64::try_from(duration.as_nanos())?;
    let bucket = exponential::bucket(nanos).context("no time at all")?;
    Ok(i32::try_from(bucket)? + exponential::OFFSET)
}

/// The lower bound of a bucket, in seconds.
fn lower(index: i32) -> f64 {
    (f64::from(index) / f64::from(1 << exponential::SCALE)).exp2()
}
