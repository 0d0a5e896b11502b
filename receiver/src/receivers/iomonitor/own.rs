//! What the receiver says about itself: whether its probes are attached, what they lost, what they cost.

use opentelemetry::{KeyValue, metrics::Counter};

use super::IoMonitor;
use crate::{
    component::{Component as _, Context},
    ebpf::{
        ladder::{Mode, Status},
        load::Loaded,
    },
    metric::{Attribute, Kind, Metric, Points},
    status::Probe,
};

/// Every metric in this file.
pub(super) const METRICS: &[Metric] = &[STATUS, MISSED, DROPPED, RUNS, RUN_TIME, SCOPE, MEMORY];

const PROBE: Attribute =
    Attribute { name: "probe", description: "the signal and its probe, such as `page_cache/adds`" };

pub(super) const STATUS: Metric = Metric {
    name: "ebpf.probe.status",
    // Not "1": the translation to Prometheus would call it a ratio.
    unit: "{probe}",
    kind: Kind::Gauge,
    description: "1 if the probe is attached, 0 if it is not.",
    caveat: "The metrics of a probe that is not attached are absent, not zero.",
    attributes: &[
        PROBE,
        Attribute { name: "mode", description: "how it attached; absent if it did not" },
        Attribute { name: "reason", description: "why better mechanisms, or all, were refused" },
    ],
};

pub(super) const MISSED: Metric = Metric {
    name: "ebpf.probe.missed",
    unit: "{event}",
    kind: Kind::Counter,
    description: "Events for which the kernel did not run a program, because it was running already.",
    caveat: "While it and ebpf.probe.dropped are 0, counts are exact. Kernels before 5.12 do not count it, and those \
             before 6.7 not of classic tracepoints.",
    attributes: &[PROBE],
};

/// What a probe's programs saw but could not keep.
const DROPPED: Metric = Metric {
    name: "ebpf.probe.dropped",
    unit: "{event}",
    kind: Kind::Counter,
    description: "Events that a program saw but found no room for.",
    caveat: "While it and ebpf.probe.missed are 0, counts are exact.",
    attributes: &[PROBE, Attribute { name: "reason", description: "what there was too much of" }],
};

/// Emits what a probe's programs saw but could not keep, by what there was too much of.
pub(super) fn dropped(points: &mut Points<'_>, probe: &str, events: &[(&str, u64)]) {
    for (reason, events) in events {
        points.counter(&DROPPED, &[("probe", probe), ("reason", reason)], *events);
    }
}

const RUNS: Metric = Metric {
    name: "ebpf.probe.runs",
    unit: "{run}",
    kind: Kind::Counter,
    description: "Runs of the probe's programs.",
    caveat: "Emitted while the kernel's statistics are on alone: `run_time`, or kernel.bpf_stats_enabled.",
    attributes: &[PROBE],
};

const RUN_TIME: Metric = Metric {
    name: "ebpf.probe.run_time",
    unit: "ns",
    kind: Kind::Counter,
    description: "Time spent in the probe's programs.",
    caveat: "What it takes to get into a program is not in it, and the kernel's two readings of the clock, some \
             30 ns a run, are. Emitted while the kernel's statistics are on alone.",
    attributes: &[PROBE],
};

const SCOPE: Metric = Metric {
    name: "ebpf.scope.status",
    unit: "{scope}",
    kind: Kind::Gauge,
    description: "1 if all that the scope names exists, 0 if something does not: nothing is counted for it then.",
    caveat: "Looked at again in each collection. What happens before something is found is not counted.",
    attributes: &[Attribute { name: "reason", description: "what does not exist" }],
};

const MEMORY: Metric = Metric {
    name: "ebpf.map.memory_limit",
    unit: "By",
    kind: Kind::Gauge,
    description: "The most memory that the receiver's maps in the kernel can come to take.",
    caveat: "Not what they take now: entries for groups and threads are allocated when they are needed, where \
             the kernel can.",
    attributes: &[],
};

/// What is known of probes before the kernel is asked what they missed.
pub(super) fn probes(statuses: &[Status]) -> Vec<Probe> {
    let probe = |status: &Status| Probe {
        name: status.probe.clone(),
        mode: status.mode.map(Mode::name),
        reason: status.reason(),
        missed: None,
    };
    statuses.iter().map(probe).collect()
}

/// Whether each probe is attached.
pub(super) fn statuses(points: &mut Points<'_>, statuses: &[Status]) {
    for status in statuses {
        let reason = status.reason();
        let mut attributes = vec![(PROBE.name, status.probe.as_str())];
        attributes.extend(status.mode.map(|mode| ("mode", mode.name())));
        if !reason.is_empty() {
            attributes.push(("reason", &reason));
        }
        points.gauge(&STATUS, &attributes, status.mode.is_some().into());
    }
}

/// What the kernel knows of the programs. What they missed is also noted at the `probes`.
pub(super) fn accounts(points: &mut Points<'_>, loaded: &Loaded, probes: &mut [Probe]) {
    for (probe, account) in loaded.accounts() {
        let attributes = [(PROBE.name, probe)];
        if let Some(missed) = account.missed {
            points.counter(&MISSED, &attributes, missed);
        }
        if let Some(noted) = probes.iter_mut().find(|p| p.name == probe) {
            noted.missed = account.missed;
        }
        if account.runs > 0 {
            points.counter(&RUNS, &attributes, account.runs);
            points.counter(&RUN_TIME, &attributes, account.nanos);
        }
    }
}

/// Whether the scope is there, if there is one.
pub(super) fn scope(points: &mut Points<'_>, problems: &[String]) {
    if problems.is_empty() {
        points.gauge(&SCOPE, &[], 1);
    } else {
        points.gauge(&SCOPE, &[("reason", &problems.join("; "))], 0);
    }
}

/// What the maps can come to take.
pub(super) fn memory(points: &mut Points<'_>, bytes: u64) {
    points.gauge(&MEMORY, &[], bytes);
}

/// What the metrics are about. `service.*` become Prometheus' `job` and `instance`; they are the
/// same after a restart, so that its series go on.
pub(super) fn resource() -> Vec<(&'static str, String)> {
    let host = nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    vec![
        ("service.name", env!("CARGO_PKG_NAME").to_owned()),
        ("service.instance.id", host.clone()),
        ("host.name", host),
        ("os.type", "linux".to_owned()),
    ]
}

/// Counts of a scraper, as the Collector names them.
pub(super) struct Scraped {
    pub(super) points: Counter<u64>,
    pub(super) errors: Counter<u64>,
    pub(super) attributes: [KeyValue; 2],
}

impl Scraped {
    pub(super) fn new(cx: &Context) -> Self {
        Self {
            points: cx.meter.u64_counter("otelcol_scraper_scraped_metric_points").build(),
            errors: cx.meter.u64_counter("otelcol_scraper_errored_metric_points").build(),
            attributes: [
                KeyValue::new("receiver", cx.id.to_string()),
                KeyValue::new("scraper", IoMonitor::NAME),
            ],
        }
    }
}
