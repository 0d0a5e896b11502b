//! What a real Collector has received, by its own file exporter, against what Fathom says that it has
//! sent, by its own: every point, once, by every way there is.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    agent::{Agent, free_address},
    certificates::{Authority, Identity},
    collector::{Collector, items},
    deadline::wait_for,
    file,
};

/// How telemetry goes from one to the other.
struct Way {
    name: &'static str,
    /// Fathom's exporter, without its endpoint and TLS.
    exporter: &'static str,
    keys: Value,
    security: Security,
}

#[derive(Clone, Copy, PartialEq)]
enum Security {
    None,
    Server,
    Both,
}

fn ways() -> Vec<Way> {
    use Security::{Both, None, Server};
    let way = |name, exporter, security, keys| Way { name, exporter, security, keys };
    vec![
        way("grpc_gzip", "otlp_grpc", None, json!({})),
        way("grpc_zstd_tls", "otlp_grpc", Server, json!({"compression": "zstd"})),
        way("grpc_none_mtls", "otlp_grpc", Both, json!({"compression": "none"})),
        way("http_proto_gzip", "otlp_http", None, json!({})),
        way("http_proto_zstd_tls", "otlp_http", Server, json!({"compression": "zstd"})),
        way("http_proto_none_mtls", "otlp_http", Both, json!({"compression": "none"})),
        way("http_json_gzip", "otlp_http", None, json!({"encoding": "json"})),
        way(
            "http_json_zstd_mtls",
            "otlp_http",
            Both,
            json!({"encoding": "json", "compression": "zstd"}),
        ),
        way(
            "http_json_deflate_tls",
            "otlp_http",
            Server,
            json!({"encoding": "json", "compression": "deflate", "force_attempt_http2": false}),
        ),
    ]
}

/// Both sides of a test, and the directory with their files.
struct Stage {
    directory: tempfile::TempDir,
    collector: Value,
    agent: Value,
    metrics: SocketAddr,
    ways: Vec<Way>,
}

impl Stage {
    fn new(interval: &str) -> Result<Self> {
        let directory = file::directory()?;
        let ways = ways();
        let authority = Authority::new(directory.path())?;
        let ca = authority.file()?;
        let Identity { cert, key } = authority.identity("server")?;
        let client = authority.identity("client")?;
        let (mut receivers, mut files, mut pipelines) = (json!({}), json!({}), json!({}));
        let metrics = free_address()?;
        let sent = directory.path().join("sent.json");
        let mut exporters = json!({
            "file": {"path": sent},
            "prometheus": {"endpoint": metrics},
        });
        for way in &ways {
            let address = free_address()?;
            let (protocol, id) = match way.exporter {
                "otlp_grpc" => ("grpc", format!("otlp_grpc/{}", way.name)),
                _ => ("http", format!("otlp_http/{}", way.name)),
            };
            let mut receiver = json!({"endpoint": address});
            let mut exporter = way.keys.clone();
            exporter["retry_on_failure"] =
                json!({"initial_interval": "20ms", "max_interval": "50ms"});
            let host = format!("localhost:{}", address.port());
            exporter["endpoint"] = match (protocol, way.security) {
                ("grpc", _) => host.into(),
                (_, Security::None) => format!("http://{host}").into(),
                _ => format!("https://{host}").into(),
            };
            match way.security {
                Security::None => exporter["tls"] = json!({"insecure": true}),
                Security::Server => {
                    receiver["tls"] = json!({"cert_file": cert, "key_file": key});
                    exporter["tls"] = json!({"ca_file": ca});
                }
                Security::Both => {
                    receiver["tls"] =
                        json!({"cert_file": cert, "key_file": key, "client_ca_file": ca});
                    exporter["tls"] = json!({
                        "ca_file": ca, "cert_file": client.cert, "key_file": client.key,
                    });
                }
            }
            exporters[&id] = exporter;
            let receiver_id = format!("otlp/{}", way.name);
            receivers[&receiver_id] = json!({"protocols": {protocol: receiver}});
            let file_id = format!("file/{}", way.name);
            // It is started again on what it wrote before.
            let path = directory.path().join(format!("{}.json", way.name));
            files[&file_id] = json!({"path": path, "append": true, "flush_interval": "100ms"});
            pipelines[format!("metrics/{}", way.name)] =
                json!({"receivers": [receiver_id], "exporters": [file_id]});
        }
        let collector = json!({
            "receivers": receivers,
            "exporters": files,
            "service": {"telemetry": {"metrics": {"level": "none"}}, "pipelines": pipelines},
        });
        let used: Vec<_> = exporters.as_object().into_iter().flat_map(|map| map.keys()).collect();
        let agent = json!({
            "receivers": {"iomonitor": {"collection_interval": interval, "initial_delay": "0s"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"metrics": {"receivers": ["iomonitor"], "exporters": used}},
            },
            "exporters": exporters,
        });
        Ok(Self { directory, collector, agent, metrics, ways })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn collector(&self) -> Result<Collector> {
        Collector::start(&self.collector, self.directory.path())
    }

    fn agent(&self) -> Result<Agent> {
        let config = self.path("fathom.yaml");
        fs::write(&config, self.agent.to_string())?;
        let mut agent = Agent::run(self.metrics, &[OsStr::new("--config"), config.as_os_str()])?;
        agent.ready()?;
        Ok(agent)
    }

    /// Lets both finish, and compares.
    fn compare(&self, agent: Agent, collector: Collector) -> Result<()> {
        let ended = agent.stop(Signal::SIGTERM)?;
        ensure!(ended.status.success(), "{ended:?}");
        for loss in ["Dropping data", "Rejecting data"] {
            ensure!(!ended.log.contains(loss), "{}", ended.log);
        }
        collector.stop()?;
        let sent = items(&self.path("sent.json"))?;
        ensure!(sent.len() > 100, "only {} points were sent", sent.len());
        for way in &self.ways {
            let received = items(&self.path(&format!("{}.json", way.name)))?;
            same(&sent, &received).context(way.name)?;
        }
        println!("{} points, by {} ways", sent.len(), self.ways.len());
        Ok(())
    }
}

/// Asserts that all that was sent was received, once, and nothing else.
fn same(sent: &BTreeMap<String, usize>, received: &BTreeMap<String, usize>) -> Result<()> {
    for (point, times) in sent {
        ensure!(*times == 1, "written {times} times: {point}");
        let times = received.get(point).copied().unwrap_or_default();
        ensure!(times == 1, "received {times} times: {point}");
    }
    let stranger = received.keys().find(|point| !sent.contains_key(*point));
    ensure!(stranger.is_none(), "never sent: {stranger:?}");
    Ok(())
}

/// Work for the programs to count, until that time.
fn read_until(end: Instant) -> Result<()> {
    let mut bytes = [0; 4096];
    while Instant::now() < end {
        for _ in 0..100 {
            fs::File::open("/proc/self/exe")?.read_exact(&mut bytes)?;
        }
    }
    Ok(())
}

/// Bytes that a way's file holds, which grow only while data comes through.
fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn every_way_delivers_every_point_once() -> Result<()> {
    let stage = Stage::new("50ms")?;
    let collector = stage.collector()?;
    let agent = stage.agent()?;
    read_until(Instant::now() + Duration::from_secs(2))?;
    stage.compare(agent, collector)
}

#[test]
fn a_collector_that_stops_and_starts_under_load_misses_nothing() -> Result<()> {
    let stage = Stage::new("20ms")?;
    let mut collector = stage.collector()?;
    let agent = stage.agent()?;
    for _ in 0..3 {
        read_until(Instant::now() + Duration::from_millis(500))?;
        collector.stop()?;
        // It is away while data is made.
        read_until(Instant::now() + Duration::from_millis(500))?;
        let before: Vec<_> = stage.sizes();
        collector = stage.collector()?;
        wait_for("every way to be used again", || {
            let grown = stage.sizes().iter().zip(&before).all(|(now, before)| now > before);
            Ok(grown.then_some(()))
        })?;
    }
    stage.compare(agent, collector)
}

impl Stage {
    fn sizes(&self) -> Vec<u64> {
        self.ways.iter().map(|way| size(&self.path(&format!("{}.json", way.name)))).collect()
    }
}
