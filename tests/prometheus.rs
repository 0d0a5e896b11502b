//! A real Prometheus that scrapes the agent, and its promtool.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{agent::free_address, deadline::wait_for, scrape};

/// A running Prometheus; it is killed with the value.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

/// What a query has found for one series.
#[derive(Clone, Debug)]
pub struct Found {
    /// The series' labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Prometheus {
    /// Starts one that scrapes `target`, with or without native histograms.
    pub fn start(target: SocketAddr, native: bool) -> Result<Self> {
        Self::of(target, native, None)
    }

    /// Starts one that scrapes `target` and evaluates `rules`, a file's text.
    pub fn with_rules(target: SocketAddr, rules: &str) -> Result<Self> {
        Self::of(target, false, Some(rules))
    }

    fn of(target: SocketAddr, native: bool, rules: Option<&str>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut config = json!({
            "global": {
                "scrape_interval": "250ms",
                "scrape_timeout": "250ms",
                "evaluation_interval": "250ms",
            },
            "scrape_configs": [{"job_name": "fathom", "static_configs": [{"targets": [target]}]}],
        });
        if let Some(rules) = rules {
            fs::write(directory.path().join("rules.yaml"), rules)?;
            config["rule_files"] = json!(["rules.yaml"]);
        }
        let file = directory.path().join("prometheus.yaml");
        // Every JSON document is a YAML document.
        fs::write(&file, config.to_string())?;
        let address = free_address()?;
        let binary = binary("PROMETHEUS", "prometheus");
        let mut command = Command::new(&binary);
        if native {
            command.arg("--enable-feature=native-histograms");
        }
        let child = command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("log"))?)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let mut prometheus = Self { child, address, directory };
        wait_for("Prometheus", || {
            let ended = prometheus.child.try_wait()?;
            ensure!(ended.is_none(), "Prometheus ended: {ended:?}\n{}", prometheus.log());
            // It does not listen from the first moment on.
            Ok(scrape::get(address, "/-/ready").ok())
        })?;
        Ok(prometheus)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What `query` finds, at that time in seconds since the epoch or else now.
    pub fn query(&self, query: &str, time: Option<f64>) -> Result<Vec<Found>> {
        let mut path = format!("/api/v1/query?query={}", escaped(query));
        if let Some(time) = time {
            path.push_str(&format!("&time={time:.3}"));
        }
        let answer: Value = serde_json::from_str(&scrape::get(self.address, &path)?)?;
        let found = answer["data"]["result"].as_array().context("no result")?;
        let one = |found: &Value| {
            let labels = serde_json::from_value(found["metric"].clone())?;
            // A native histogram as such has no value.
            let value = found["value"][1].as_str().context("no number")?.parse()?;
            Ok(Found { labels, value })
        };
        found.iter().map(one).collect::<Result<_>>().with_context(|| format!("{query}: {answer}"))
    }

    /// The only value that `query` finds.
    pub fn one(&self, query: &str, time: Option<f64>) -> Result<f64> {
        let found = self.query(query, time)?;
        ensure!(found.len() == 1, "{query}: {found:?}\n{}", self.log());
        Ok(found[0].value)
    }

    /// Waits until the series `query` has that value, and says when the sample was taken.
    pub fn wait_for(&self, query: &str, value: f64) -> Result<f64> {
        let equal = format!("timestamp({query}) and {query} == {value}");
        wait_for(&equal, || Ok(self.query(&equal, None)?.first().map(|found| found.value)))
            .with_context(|| format!("{:?}\n{}", self.query(query, None), self.log()))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asserts that `promtool check metrics` has nothing to say against an exposition.
pub fn check_metrics(exposition: &str) -> Result<()> {
    let binary = binary("PROMTOOL", "promtool");
    let mut child = Command::new(&binary)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| binary.display().to_string())?;
    // Dropped, and so closed, once all is in it.
    child.stdin.take().context("stdin")?.write_all(exposition.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "promtool: {said}\n{exposition}");
    Ok(())
}

/// Runs promtool, which must have nothing to say against what it is given.
pub fn promtool(arguments: &[&OsStr]) -> Result<()> {
    let output = Command::new(binary("PROMTOOL", "promtool")).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&said));
    Ok(())
}

/// The one in `PATH`, or the one that the variable names.
fn binary(variable: &str, name: &str) -> PathBuf {
    env::var_os(variable).unwrap_or_else(|| name.into()).into()
}

/// As a part of a URL.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
