//! Rules for Prometheus that answer why reads are slow.
//!
//! Whether anything is wrong is decided by the duration of reads alone, against what it usually is; all else
//! only explains. So a scan, or a full memory, that slows nobody down is a state and no alert.

use std::fmt::Write as _;

use super::series;

/// A panel of the dashboard's first row.
pub struct Panel {
    pub title: &'static str,
    pub description: &'static str,
    pub unit: &'static str,
    pub expr: &'static str,
    pub legend: &'static str,
}

const OF: &str = "{job=~\"$job\", instance=~\"$instance\"}";

macro_rules! recorded {
    ($record:literal) => {
        concat!($record, "{job=~\"$job\", instance=~\"$instance\"}")
    };
}

/// What the first row shows, all of it recorded by the rules.
pub const PANELS: &[Panel] = &[
    Panel {
        title: "State of the workload",
        description: "What the rules make of it; slow reads have a cause, and the rest are no incident.",
        unit: "short",
        expr: recorded!("fathom:workload_state"),
        legend: "{{instance}} {{state}}",
    },
    Panel {
        title: "Duration of reads, 95th percentile",
        description: "Slow is what takes four times as long as usual, and 0.1 ms at least.",
        unit: "s",
        expr: recorded!("fathom:read_seconds:p95"),
        legend: "{{instance}}",
    },
    Panel {
        title: "Pages advised away, as a share of those that came in",
        description: "Near 1: what reads bring in, advice (POSIX_FADV_DONTNEED) throws out.",
        unit: "percentunit",
        expr: recorded!("fathom:advised_away:share"),
        legend: "{{instance}}",
    },
    Panel {
        title: "Time in direct reclaim, as a share of the time in reads",
        description: "Tasks that look for memory themselves, which they wait for.",
        unit: "percentunit",
        expr: recorded!("fathom:direct_reclaim:share"),
        legend: "{{instance}}",
    },
    Panel {
        title: "Pages that came into the page cache",
        description: "By reads, by readahead and by writes.",
        unit: "cps",
        expr: recorded!("fathom:cache_fills:rate"),
        legend: "{{instance}}",
    },
    Panel {
        title: "What a read takes in the device",
        description: "The mean time from the driver to the device's answer, beside what it usually is.",
        unit: "s",
        expr: recorded!("fathom:device_read_seconds:mean"),
        legend: "{{instance}}",
    },
];

struct Rule {
    name: String,
    why: &'static str,
    expr: String,
    state: Option<&'static str>,
}

struct Alert {
    name: &'static str,
    expr: String,
    wait: &'static str,
    severity: &'static str,
    summary: &'static str,
    description: String,
}

/// States that are incidents, with what to do.
const CAUSES: &[(&str, &str)] = &[
    (
        "policy_eviction",
        "Advice (POSIX_FADV_DONTNEED) throws out pages that are read again. Look who gives it: \
         ebpf_fadvise_advice_total, grouped by process.",
    ),
    (
        "reclaim_stall",
        "Tasks look for memory themselves before they can go on. Raise the limit, or find who fills the memory: \
         ebpf_memory_direct_reclaim_duration_seconds by reclaim_type, ebpf_pressure_stall_time_seconds_total.",
    ),
    (
        "device",
        "The device takes much longer for a read than it usually does. Look at \
         ebpf_block_device_duration_seconds and ebpf_block_in_flight by device; where signals::block::split is false, \
         at ebpf_block_duration_seconds: it may be the queue before the device.",
    ),
    (
        "cold_data",
        "Reads ask for what is not in the page cache, and nothing throws it out: the working set is larger than \
         the memory, or new. ebpf_memory_refaults_total says whether more memory would help.",
    ),
    (
        "contention",
        "Reads are slow though next to nothing is read in: they wait for the CPU, for locks, or for other \
         ends of pipes and sockets that are among the calls watched. Look at ebpf_pressure_stall_time_seconds_total.",
    ),
];

/// Calls that read, as a label matches them.
const READS: &str = "syscall=~\"read|pread64|readv|preadv|preadv2\"";

fn recordings() -> Vec<Rule> {
    let named = |name: &str| series::name(series::metric(name));
    let duration = named("ebpf.syscall.duration");
    let (advised, adds) = (named("ebpf.fadvise.advice"), named("ebpf.page_cache.adds"));
    let deletes = named("ebpf.page_cache.deletes");
    let reclaim = named("ebpf.memory.direct_reclaim_duration");
    let scanned = named("ebpf.memory.lru_pages_scanned");
    let mean = |name: &str| {
        let (of, name) = ("system_device, disk_io_direction, ebpf_block_operation", named(name));
        format!(
            "sum without ({of}) (rate({name}_sum{{disk_io_direction=\"read\"}}[5m])) \
             / (sum without ({of}) (rate({name}_count{{disk_io_direction=\"read\"}}[5m])) > 0)"
        )
    };
    let record =
        |name: &str, why, expr: String| Rule { name: name.to_owned(), why, expr, state: None };
    let state = |state, why, expr: String| Rule {
        name: "fathom:workload_state".to_owned(),
        why,
        expr: format!("({expr}) * 0 + 1"),
        state: Some(state),
    };
    // What a state of more weight has explained is not explained again.
    let unless = |states: &str| {
        format!("unless ignoring (state) fathom:workload_state{{state=~\"{states}\"}}")
    };
    vec![
        record(
            "fathom:read_seconds:p95",
            "Without reads there is no number, which no comparison would hold for.",
            format!(
                "histogram_quantile(0.95, sum without (syscall) (rate({duration}_bucket{{{READS}}}[5m]))) >= 0"
            ),
        ),
        record(
            "fathom:read_seconds:usual",
            "What is usual does not know of the last minutes.",
            "quantile_over_time(0.5, fathom:read_seconds:p95[6h] offset 15m)".to_owned(),
        ),
        record(
            "fathom:reads_slow",
            "The one condition of every incident.",
            "(fathom:read_seconds:p95 > 4 * fathom:read_seconds:usual) > 0.0001".to_owned(),
        ),
        record("fathom:cache_fills:rate", "", format!("rate({adds}[5m])")),
        record(
            "fathom:advised_away:share",
            "Pages are thrown out by others, too: only while there is advice are they advice's.",
            format!(
                "(rate({deletes}[5m]) and sum without (advice) (rate({advised}{{advice=\"dontneed\"}}[5m])) > 0) \
                 / (fathom:cache_fills:rate > 0)"
            ),
        ),
        record(
            "fathom:direct_reclaim:share",
            "",
            format!(
                "sum without (reclaim_type) (rate({reclaim}_sum{{reclaim_type=~\"global|memcg\"}}[5m])) \
                 / (sum without (syscall) (rate({duration}_sum{{{READS}}}[5m])) > 0)"
            ),
        ),
        record("fathom:device_read_seconds:mean", "", mean("ebpf.block.device.duration")),
        record(
            "fathom:device_read_seconds:usual",
            "",
            "quantile_over_time(0.5, fathom:device_read_seconds:mean[6h] offset 15m)".to_owned(),
        ),
        record(
            "fathom:request_read_seconds:mean",
            "With `split: false`; the time in the queue is in it.",
            mean("ebpf.block.duration"),
        ),
        record(
            "fathom:request_read_seconds:usual",
            "",
            "quantile_over_time(0.5, fathom:request_read_seconds:mean[6h] offset 15m)".to_owned(),
        ),
        state(
            "policy_eviction",
            "Half of what comes in is thrown out, while advice to do so is given.",
            "fathom:reads_slow and fathom:advised_away:share > 0.5".to_owned(),
        ),
        state(
            "reclaim_stall",
            "A tenth of the time in reads, or more, goes into looking for memory.",
            format!(
                "(fathom:reads_slow and fathom:direct_reclaim:share > 0.1) {}",
                unless("policy_eviction")
            ),
        ),
        state(
            "device",
            "",
            format!(
                "(fathom:reads_slow and (fathom:device_read_seconds:mean > 4 * \
                 fathom:device_read_seconds:usual or fathom:request_read_seconds:mean > 4 * \
                 fathom:request_read_seconds:usual)) {}",
                unless("policy_eviction|reclaim_stall")
            ),
        ),
        state(
            "cold_data",
            "A page a second would explain nothing.",
            format!(
                "(fathom:reads_slow and fathom:cache_fills:rate > 10) {}",
                unless("policy_eviction|reclaim_stall|device")
            ),
        ),
        state(
            "contention",
            "",
            format!(
                "fathom:reads_slow {}",
                unless("policy_eviction|reclaim_stall|device|cold_data")
            ),
        ),
        state(
            "pressure",
            "Memory is being looked for, and no read suffers.",
            format!(
                "(fathom:read_seconds:p95 and sum without (reclaim_type) (rate({scanned}[5m])) > 0) \
                 unless fathom:reads_slow"
            ),
        ),
        state(
            "scan",
            "Much is read in, and no read suffers.",
            format!(
                "(fathom:read_seconds:p95 and fathom:cache_fills:rate > 10 unless fathom:reads_slow) {}",
                unless("pressure")
            ),
        ),
    ]
}

fn alerts() -> Vec<Alert> {
    let named = |name: &str| series::name(series::metric(name));
    let (status, scope) = (named("ebpf.probe.status"), named("ebpf.scope.status"));
    let (missed, dropped) = (named("ebpf.probe.missed"), named("ebpf.probe.dropped"));
    // At its tracepoint this probe misses events of interrupts alone, in which writing back ends; it counts the begin.
    let harmless = format!("{status}{{probe=\"page_states/changes\",mode!=\"fentry\"}}");
    let causes = CAUSES.iter().map(|(state, _)| *state).collect::<Vec<_>>().join("|");
    let what = CAUSES.iter().map(|(state, what)| {
        format!("{{{{ if eq $labels.state \"{state}\" }}}}{what}{{{{ end }}}}")
    });
    let mut alerts = vec![Alert {
        name: "FathomReadsSlow",
        expr: format!("fathom:workload_state{{state=~\"{causes}\"}} == 1"),
        wait: "5m",
        severity: "warning",
        summary: "Reads on {{ $labels.instance }} take four times as long as usual: {{ $labels.state }}.",
        description: what.collect(),
    }];
    alerts.push(Alert {
        name: "FathomProbeNotAttached",
        expr: format!("{status} == 0"),
        wait: "5m",
        severity: "info",
        summary: "{{ $labels.probe }} is not attached on {{ $labels.instance }}.",
        description: "Its metrics are absent. {{ $labels.reason }}".to_owned(),
    });
    alerts.push(Alert {
        name: "FathomEventsLost",
        expr: format!(
            "rate({missed}[5m]) > 0 unless on (instance, job, probe) {harmless} or rate({dropped}[5m]) > 0"
        ),
        wait: "1m",
        severity: "warning",
        summary: "Counts of {{ $labels.probe }} on {{ $labels.instance }} are too low.",
        description: "{{ $value }} events a second are not counted. {{ $labels.reason }}"
            .to_owned(),
    });
    alerts.push(Alert {
        name: "FathomScopeDegraded",
        expr: format!("{scope} == 0"),
        wait: "5m",
        severity: "warning",
        summary: "{{ $labels.instance }} does not find what it is to watch.",
        description: "{{ $labels.reason }}".to_owned(),
    });
    alerts
}

/// The file of rules.
pub fn rules() -> String {
    let mut text = "# Generated by `cargo xtask generate`. Classic histograms, as Prometheus scrapes them by default.\n\
                    groups:\n  - name: fathom_reads\n    rules:\n"
        .to_owned();
    let write = "a String takes everything";
    for rule in recordings() {
        if !rule.why.is_empty() {
            writeln!(text, "      # {}", rule.why).expect(write);
        }
        let Rule { name, expr, .. } = rule;
        writeln!(text, "      - record: {name}\n        expr: {}", quoted(&expr)).expect(write);
        if let Some(state) = rule.state {
            writeln!(text, "        labels: {{state: {state}}}").expect(write);
        }
    }
    text.push_str("  - name: fathom_alerts\n    rules:\n");
    for alert in alerts() {
        let Alert { name, expr, wait, severity, summary, description } = alert;
        writeln!(
            text,
            "      - alert: {name}\n        expr: {}\n        for: {wait}\n        labels: {{severity: {severity}}}\n        \
             annotations:\n          summary: {}\n          description: {}",
            quoted(&expr),
            quoted(summary),
            quoted(&description),
        )
        .expect(write);
    }
    text
}

/// As YAML has it in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What the first row asks for is recorded.
pub fn panels_are_recorded() -> bool {
    let rules = recordings();
    PANELS.iter().all(|panel| {
        let name = panel.expr.strip_suffix(OF);
        rules.iter().any(|rule| Some(rule.name.as_str()) == name)
    })
}
