//! The rules for Prometheus against workloads as promtool plays them.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    cgroup::Cgroup,
    prometheus::{Prometheus, promtool},
};

use crate::Stage;

/// The rules as they are shipped.
pub fn shipped() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/prometheus/rules.yaml");
    Ok(fs::read_to_string(path)?)
}

/// What happens in each minute.
#[derive(Clone, Copy, Default)]
struct Minute {
    /// Reads below 0.01 ms, and below 10 ms.
    fast: u64,
    slow: u64,
    /// Pages.
    added: u64,
    deleted: u64,
    scanned: u64,
    dontneed: u64,
    /// Milliseconds.
    reclaim: u64,
    /// Requests to the device, and microseconds that each takes.
    requests: u64,
    request: u64,
}

/// A database whose data is in the cache, but for a little.
const USUAL: Minute = Minute {
    fast: 60_000,
    slow: 60,
    added: 60,
    deleted: 0,
    scanned: 0,
    dontneed: 0,
    reclaim: 0,
    requests: 60,
    request: 100,
};

/// Reads that miss.
const COLD: Minute = Minute { fast: 6_000, slow: 6_000, added: 6_000, requests: 6_000, ..USUAL };

/// Workloads, the state that each is in, and whether it is an incident.
const WORKLOADS: [(&str, Minute, Option<&str>, bool); 8] = [
    ("usual", USUAL, None, false),
    ("benign_scan", Minute { added: 60_000, requests: 2_000, ..USUAL }, Some("scan"), false),
    (
        "pressure_without_impact",
        Minute { added: 60_000, deleted: 60_000, scanned: 90_000, reclaim: 2_000, ..USUAL },
        Some("pressure"),
        false,
    ),
    (
        "policy_eviction",
        Minute { dontneed: 60, deleted: 6_000, ..COLD },
        Some("policy_eviction"),
        true,
    ),
    ("cold_data", COLD, Some("cold_data"), true),
    (
        "reclaim_stall",
        Minute { scanned: 90_000, deleted: 6_000, reclaim: 20_000, ..COLD },
        Some("reclaim_stall"),
        true,
    ),
    ("slow_device", Minute { request: 5_000, ..COLD }, Some("device"), true),
    ("contention", Minute { fast: 6_000, slow: 6_000, ..USUAL }, Some("contention"), true),
];

/// Minutes before the workload, and of the workload.
const BEFORE: u64 = 420;
const DURING: u64 = 20;

#[test]
fn promtool_sees_the_state_of_each_workload() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("rules.yaml"), shipped()?)?;
    let (mut series, mut states, mut alerts) = (Vec::new(), Vec::new(), Vec::new());
    // Whether an agent tells a request's times apart or not.
    let agents = [APART, TOGETHER].into_iter();
    let all = agents.flat_map(|requests| WORKLOADS.map(|workload| (requests, workload)));
    for (requests, (name, minute, state, incident)) in all {
        let name = format!("{name} {requests}");
        series.extend(played(&name, minute, requests));
        let found = state.map(|state| {
            json!({
                "labels": format!("fathom:workload_state{{instance={name:?}, job=\"fathom\", state={state:?}}}"),
                "value": 1,
            })
        });
        states.push(json!({
            "expr": format!("fathom:workload_state{{instance={name:?}}}"),
            "eval_time": format!("{}m", BEFORE + DURING),
            "exp_samples": Vec::from_iter(found),
        }));
        if incident {
            alerts.push(name);
        }
    }
    // An incident has one cause, and what is none has no alert.
    states.push(json!({
        "expr": "count(ALERTS{alertname=\"FathomReadsSlow\", alertstate=\"firing\"})",
        "eval_time": format!("{}m", BEFORE + DURING),
        "exp_samples": [{"labels": "{}", "value": alerts.len()}],
    }));
    let file = directory.path().join("test.yaml");
    let test = json!({
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": states}],
    });
    fs::write(&file, test.to_string())?;
    promtool(&[
        "check".as_ref(),
        "rules".as_ref(),
        directory.path().join("rules.yaml").as_os_str(),
    ])?;
    promtool(&["test".as_ref(), "rules".as_ref(), file.as_os_str()])
}

#[test]
fn an_alert_tells_of_probes_that_lose_events() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("rules.yaml"), shipped()?)?;
    // Of the probe that is told of changes in interrupts, too, only another mechanism misses what it counts.
    let probes = [
        ("a", "syscalls/timed", "tp_btf", 1),
        ("b", "syscalls/timed", "tp_btf", 0),
        ("c", "page_states/changes", "tp_btf", 1),
        ("d", "page_states/changes", "fentry", 1),
    ];
    let mut series = Vec::new();
    for (instance, probe, mode, missed) in probes {
        let labels = format!("job=\"fathom\",instance={instance:?},probe={probe:?}");
        let status = format!("ebpf_probe_status{{{labels},mode={mode:?}}}");
        series.push(json!({"series": status, "values": "1x20"}));
        let counter = format!("ebpf_probe_missed_total{{{labels}}}");
        series.push(json!({"series": counter, "values": format!("0+{missed}x20")}));
    }
    let firing = ["a", "d"]
        .map(|instance| json!({"labels": format!("{{instance={instance:?}}}"), "value": 1}));
    let file = directory.path().join("test.yaml");
    let expr =
        "count by (instance) (ALERTS{alertname=\"FathomEventsLost\", alertstate=\"firing\"})";
    let test = json!({
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [{"expr": expr, "eval_time": "15m", "exp_samples": firing}],
        }],
    });
    fs::write(&file, test.to_string())?;
    promtool(&["test".as_ref(), "rules".as_ref(), file.as_os_str()])
}

#[test]
fn a_test_of_rules_can_fail() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("rules.yaml"), shipped()?)?;
    let file = directory.path().join("test.yaml");
    let wrong = json!({"expr": "vector(1)", "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": 2}]});
    let test = json!({
        "rule_files": ["rules.yaml"],
        "tests": [{"interval": "1m", "promql_expr_test": [wrong]}],
    });
    fs::write(&file, test.to_string())?;
    ensure!(promtool(&["test".as_ref(), "rules".as_ref(), file.as_os_str()]).is_err());
    Ok(())
}

/// What a counter counts of a minute.
type Counted = fn(Minute) -> f64;

/// What the durations of requests are called.
const APART: &str = "ebpf_block_device_duration_seconds";
const TOGETHER: &str = "ebpf_block_duration_seconds";

/// The counters of one machine over both times.
fn played(instance: &str, minute: Minute, requests: &str) -> Vec<Value> {
    let [sum, count] = ["sum", "count"].map(|of| format!("{requests}_{of}"));
    let of: [(&str, &str, Counted); 11] = [
        ("ebpf_syscall_duration_seconds_bucket", "syscall=\"pread64\",le=\"1e-05\"", |m| {
            m.fast as f64
        }),
        ("ebpf_syscall_duration_seconds_bucket", "syscall=\"pread64\",le=\"0.01\"", all),
        ("ebpf_syscall_duration_seconds_bucket", "syscall=\"pread64\",le=\"+Inf\"", all),
        ("ebpf_syscall_duration_seconds_sum", "syscall=\"pread64\"", |m| {
            m.fast as f64 * 5e-6 + m.slow as f64 * 5e-3
        }),
        ("ebpf_page_cache_adds_total", "", |m| m.added as f64),
        ("ebpf_page_cache_deletes_total", "", |m| m.deleted as f64),
        ("ebpf_fadvise_advice_total", "advice=\"dontneed\"", |m| m.dontneed as f64),
        ("ebpf_memory_direct_reclaim_duration_seconds_sum", "reclaim_type=\"memcg\"", |m| {
            m.reclaim as f64 * 1e-3
        }),
        ("ebpf_memory_lru_pages_scanned_total", "reclaim_type=\"memcg\"", |m| m.scanned as f64),
        (&sum, DEVICE, |m| m.requests as f64 * m.request as f64 * 1e-6),
        (&count, DEVICE, |m| m.requests as f64),
    ];
    let series = of.iter().map(|(name, labels, per_minute)| {
        let (before, during) = (per_minute(USUAL), per_minute(minute));
        let then = before * (BEFORE as f64) + during;
        let comma = if labels.is_empty() { "" } else { "," };
        json!({
            "series": format!("{name}{{job=\"fathom\",instance={instance:?}{comma}{labels}}}"),
            "values": format!("0+{before}x{BEFORE} {then}+{during}x{}", DURING - 1),
        })
    });
    series.collect()
}

const DEVICE: &str =
    "system_device=\"sda\",disk_io_direction=\"read\",ebpf_block_operation=\"read\"";

fn all(minute: Minute) -> f64 {
    (minute.fast + minute.slow) as f64
}

#[test]
fn every_panel_of_the_dashboard_is_a_query_and_every_metric_has_one() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/grafana/fathom.json");
    let board: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let mut queries = Vec::new();
    collect(&board["panels"], &mut queries);
    let cgroup = Cgroup::new()?;
    let stage = Stage::new(&cgroup, json!({}))?;
    let prometheus = Prometheus::with_rules(stage.metrics, &shipped()?)?;
    prometheus.wait_for("up", 1.0)?;
    for query in &queries {
        let query = query.replace("$__rate_interval", "1s").replace("$job", ".*");
        prometheus.query(&query.replace("$instance", ".*"), None)?;
    }
    for line in stage.text()?.lines() {
        let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next())
        else {
            continue;
        };
        let shown = queries.iter().any(|query| query.contains(name));
        ensure!(shown || !name.starts_with("ebpf_"), "{name} is in no panel");
    }
    Ok(())
}

/// The queries of panels and of those that are folded into them.
fn collect(panels: &Value, queries: &mut Vec<String>) {
    for panel in panels.as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.extend(target["expr"].as_str().map(str::to_owned));
        }
        collect(&panel["panels"], queries);
    }
}
