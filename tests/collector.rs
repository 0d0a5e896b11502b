//! A real OpenTelemetry Collector, and what its file exporter or Fathom's has written.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Map, Value};

use crate::{agent, deadline::wait_for};

/// A running Collector; it is killed with the value, if it still runs.
pub struct Collector {
    child: Child,
    log: PathBuf,
}

impl Collector {
    /// Starts it with this configuration and waits until it takes data. Its files are in `directory`.
    pub fn start(config: &Value, directory: &Path) -> Result<Self> {
        let file = directory.join("collector.yaml");
        // Every JSON document is a YAML document.
        fs::write(&file, config.to_string())?;
        let log = directory.join("collector.log");
        let binary = binary()?;
        let child = Command::new(&binary)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let mut collector = Self { child, log };
        wait_for("the Collector", || {
            let log = collector.log()?;
            let ended = collector.child.try_wait()?;
            ensure!(ended.is_none(), "the Collector ended: {ended:?}\n{log}");
            Ok(log.contains("Everything is ready").then_some(()))
        })?;
        Ok(collector)
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Lets it finish what it holds, and waits until it has ended.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        let status = wait_for("the Collector's end", || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "the Collector: {status}\n{}", self.log()?);
        Ok(())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Collector that `cargo xtask test` has built, or the one that `OTELCOL` names.
fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("OTELCOL") {
        return Ok(path.into());
    }
    let fathom = agent::binary()?;
    let target = fathom.ancestors().nth(2).context("the agent lies in no directory")?;
    let binary = target.join("tools/otelcol/otelcol");
    ensure!(binary.is_file(), "no {}: use `cargo xtask test`", binary.display());
    Ok(binary)
}

/// How often a file of OTLP lines holds each point, log record or span, by everything that is known of
/// it: its resource, its scope, its metric, its attributes, times and values.
pub fn items(path: &Path) -> Result<BTreeMap<String, usize>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    items_of(&text).with_context(|| path.display().to_string())
}

/// What `items` says, of a file that is being written: its last line may not have ended.
pub fn items_so_far(path: &Path) -> Result<BTreeMap<String, usize>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let ended = text.rfind('\n').map_or("", |end| &text[..=end]);
    items_of(ended).with_context(|| path.display().to_string())
}

fn items_of(text: &str) -> Result<BTreeMap<String, usize>> {
    let mut items = BTreeMap::new();
    for line in text.lines() {
        let block: Value = serde_json::from_str(line)
            .with_context(|| format!("a line that is no JSON: {line}"))?;
        flatten(&canonical(block), &mut Vec::new(), &mut items);
    }
    Ok(items)
}

/// Follows lists down to the items; `about` is what stands beside the lists on the way.
fn flatten(value: &Value, about: &mut Vec<String>, items: &mut BTreeMap<String, usize>) {
    const LISTS: [&str; 12] = [
        "resourceMetrics",
        "scopeMetrics",
        "metrics",
        "dataPoints",
        "resourceLogs",
        "scopeLogs",
        "logRecords",
        "resourceSpans",
        "scopeSpans",
        "spans",
        // No lists themselves, but what holds the points.
        "gauge",
        "sum",
    ];
    const MORE: [&str; 3] = ["histogram", "exponentialHistogram", "summary"];
    let Value::Object(fields) = value else { return };
    let leads_on = |name: &str, field: &Value| {
        // A point of a histogram has a `sum`, too, which is a number.
        (LISTS.contains(&name) || MORE.contains(&name)) && (field.is_array() || field.is_object())
    };
    let beside: Map<_, _> = fields
        .iter()
        .filter(|(name, field)| !leads_on(name, field))
        .map(|(name, field)| (name.clone(), field.clone()))
        .collect();
    about.push(Value::Object(beside).to_string());
    let mut leaf = true;
    for (name, field) in fields.iter().filter(|(name, field)| leads_on(name, field)) {
        leaf = false;
        about.push(name.clone());
        match field {
            Value::Array(list) => list.iter().for_each(|item| flatten(item, about, items)),
            field => flatten(field, about, items),
        }
        about.pop();
    }
    // An item is where a list of items has led.
    let item = about.len() > 1
        && matches!(about[about.len() - 2].as_str(), "dataPoints" | "logRecords" | "spans");
    if leaf && item {
        *items.entry(about.join(" ")).or_default() += 1;
    }
    about.pop();
}

/// Without what is written or left out at will: fields at their defaults, and how a number looks.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, field)| (name, canonical(field)));
            Value::Object(fields.filter(|(name, field)| !is_default(name, field)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(canonical).collect()),
        Value::Number(number) => number.as_f64().into(),
        other => other,
    }
}

fn is_default(name: &str, field: &Value) -> bool {
    // One of several possible values: which of them is there says something.
    if name.ends_with("Value") || name.starts_with("as") || name == "value" {
        return false;
    }
    match field {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn count(text: &str) -> Result<Vec<usize>> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        Ok(items(file.path())?.into_values().collect())
    }

    #[test]
    fn points_are_told_apart_by_everything_but_how_they_are_written() -> Result<()> {
        let point = |resource: &str, metric: &str, point: &str| {
            format!(
                r#"{{"resourceMetrics":[{{"resource":{resource},"scopeMetrics":[{{"metrics":[{{"name":"{metric}","sum":{{"dataPoints":[{point}]}}}}]}}]}}]}}"#
            )
        };
        let one = point("{}", "m", r#"{"timeUnixNano":"1","asDouble":2.0}"#);
        let same = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":[{"asDouble":2,"timeUnixNano":"1","attributes":[]}]},"name":"m"}]}]}]}"#;
        assert_eq!(count(&format!("{one}\n{same}\n"))?, [2]);
        let others = [
            point("{}", "m", r#"{"timeUnixNano":"1","asDouble":3}"#),
            point("{}", "m", r#"{"timeUnixNano":"1","asInt":"2"}"#),
            point("{}", "m", r#"{"timeUnixNano":"2","asDouble":2}"#),
            point("{}", "n", r#"{"timeUnixNano":"1","asDouble":2}"#),
            point(r#"{"attributes":[{"key":"k"}]}"#, "m", r#"{"timeUnixNano":"1","asDouble":2}"#),
        ];
        assert_eq!(count(&format!("{one}\n{}\n", others.join("\n")))?, [1; 6]);
        let two = point("{}", "m", r#"{"timeUnixNano":"1","asInt":"0"},{"timeUnixNano":"1"}"#);
        assert_eq!(count(&two)?, [1; 2]);
        Ok(())
    }
}
