//! What a test has the agent do: its configuration, and what it runs in.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{agent::binary, cgroup::Cgroup, modes::Mode};

/// What a test configures: iomonitor -> Prometheus, and more if it asks for it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The section of the receiver.
    pub iomonitor: Value,
    /// The processors, by their ids.
    pub processors: Vec<(&'static str, Value)>,
    /// The exporters beside Prometheus, by their ids.
    pub exporters: Vec<(&'static str, Value)>,
    /// `service::telemetry`.
    pub telemetry: Value,
    /// Signals that it does not name are off.
    alone: bool,
    pub(crate) container: Option<PathBuf>,
    /// Directories that it sees empty.
    pub(crate) hidden: Vec<PathBuf>,
    /// Where events are written, if they are.
    logs: Option<PathBuf>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// File descriptors that it may have.
    pub(crate) descriptors: Option<u32>,
}

impl Setup {
    /// Watches `cgroup`, with everything else as it is by default but the interval.
    pub fn new(mode: Mode, cgroup: &Cgroup) -> Self {
        let iomonitor = json!({
            "collection_interval": "100ms",
            "initial_delay": "0s",
            "mode": mode.name(),
            "scope": {"cgroups": [cgroup.path()]},
        });
        // Port 8888 is not for several agents at once.
        let telemetry = json!({"metrics": {"level": "none"}});
        let (processors, exporters) = (Vec::new(), Vec::new());
        Self {
            iomonitor,
            processors,
            exporters,
            telemetry,
            alone: false,
            container: None,
            hidden: Vec::new(),
            logs: None,
            environment: Vec::new(),
            descriptors: None,
        }
    }

    /// The same with one signal alone. The verifier takes emulated machines seconds for what the others load.
    pub fn only(signal: &str, mode: Mode, cgroup: &Cgroup) -> Self {
        let setup = Self::new(mode, cgroup).signal(signal, json!({"enabled": true}));
        Self { alone: true, ..setup }
    }

    /// With a variable in its environment.
    pub fn environment(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// With so many file descriptors at most.
    pub fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// With a key of the receiver changed.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.iomonitor[key] = value;
        self
    }

    /// With this section for a signal.
    pub fn signal(mut self, name: &str, section: Value) -> Self {
        self.iomonitor["signals"][name] = section;
        self
    }

    /// In a container, as far as cgroups are concerned: inside `cgroup`, which it takes for the root of them all.
    pub fn contained(mut self, cgroup: &Cgroup) -> Self {
        self.container = Some(cgroup.path().to_owned());
        self
    }

    /// As on a kernel that was built without BTF.
    pub fn without_types(mut self) -> Self {
        self.hidden.push("/sys/kernel/btf".into());
        self
    }

    /// As on a kernel that does not have a tracepoint, as far as its files say.
    pub fn without_tracepoint(mut self, event: &str) -> Self {
        self.hidden.push(Path::new("/sys/kernel/tracing/events").join(event));
        self
    }

    /// With an OTLP exporter that sends to `address` without TLS.
    pub fn export_to(self, address: SocketAddr) -> Self {
        self.export(json!({"endpoint": address, "tls": {"insecure": true}}))
    }

    /// With an OTLP exporter.
    pub fn export(self, otlp: Value) -> Self {
        self.and("otlp_grpc", otlp)
    }

    /// With one more exporter.
    pub fn and(mut self, id: &'static str, section: Value) -> Self {
        self.exporters.push((id, section));
        self
    }

    /// With one more processor.
    pub fn process(mut self, id: &'static str, section: Value) -> Self {
        self.processors.push((id, section));
        self
    }

    /// With another `service::telemetry`.
    pub fn telemetry(mut self, telemetry: Value) -> Self {
        self.telemetry = telemetry;
        self
    }

    /// With a pipeline of logs to a file.
    pub fn logs_to(mut self, path: PathBuf) -> Self {
        self.logs = Some(path);
        self
    }

    pub(crate) fn file(&self, metrics: SocketAddr) -> Result<NamedTempFile> {
        let file = tempfile::Builder::new().prefix("fathom-test-").suffix(".yaml").tempfile()?;
        fs::write(file.path(), self.yaml(metrics)?)?;
        Ok(file)
    }

    /// The configuration. Every JSON document is a YAML document.
    pub fn yaml(&self, metrics: SocketAddr) -> Result<String> {
        // The timestamps say which collection a scrape shows.
        let prometheus = json!({"endpoint": metrics, "send_timestamps": true});
        let mut exporters = json!({ "prometheus": prometheus });
        let mut used = vec!["prometheus"];
        let mut iomonitor = self.iomonitor.clone();
        if self.alone {
            for name in
                signals()?.iter().filter(|name| self.iomonitor["signals"][name.as_str()].is_null())
            {
                iomonitor["signals"][name] = json!({"enabled": false});
            }
        }
        for (id, section) in &self.exporters {
            exporters[*id] = section.clone();
            used.push(*id);
        }
        let mut processors = json!({});
        for (id, section) in &self.processors {
            processors[*id] = section.clone();
        }
        let steps: Vec<_> = self.processors.iter().map(|(id, _)| id).collect();
        let pipeline = json!({"receivers": ["iomonitor"], "processors": steps, "exporters": used});
        let mut pipelines = json!({"metrics": pipeline});
        if let Some(path) = &self.logs {
            exporters["file/logs"] = json!({"path": path});
            pipelines["logs"] = json!({"receivers": ["iomonitor"], "exporters": ["file/logs"]});
        }
        Ok(serde_json::to_string_pretty(&json!({
            "receivers": {"iomonitor": iomonitor},
            "processors": processors,
            "exporters": exporters,
            "service": {"telemetry": self.telemetry, "pipelines": pipelines},
        }))?)
    }
}

/// The signals that there are.
fn signals() -> Result<&'static [String]> {
    static SIGNALS: OnceLock<Result<Vec<String>, String>> = OnceLock::new();
    let signals = SIGNALS.get_or_init(|| all_signals().map_err(|error| format!("{error:#}")));
    signals.as_deref().map_err(|error| anyhow!("{error}"))
}

fn all_signals() -> Result<Vec<String>> {
    let config = json!({
        "receivers": {"iomonitor": {}},
        "exporters": {"debug": {}},
        "service": {"pipelines": {"metrics": {"receivers": ["iomonitor"], "exporters": ["debug"]}}},
    });
    let source = format!("yaml:{config}");
    let output = Command::new(binary()?)
        .args(["print-config", "--format", "json", "--config", &source])
        .output()?;
    let printed: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let signals = printed["receivers"]["iomonitor"]["signals"].as_object();
    Ok(signals.context("no signals are printed")?.keys().cloned().collect())
}
