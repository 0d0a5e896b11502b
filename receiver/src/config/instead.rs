//! Components that the Collector has and that are not here, with what does their work.

/// By the kind of the component's section and its type.
const INSTEAD: &[(&str, &str, &str)] = &[
    (
        "receivers",
        "otlp",
        "what other programs send goes to a Collector; here the kernel is observed",
    ),
    (
        "receivers",
        "prometheus",
        "leave it out: the agent's own metrics are service::telemetry::metrics",
    ),
    (
        "receivers",
        "hostmetrics",
        "`iomonitor` observes the host; for the rest run a Collector beside it",
    ),
    (
        "processors",
        "k8sattributes",
        "`enrichment` finds a container's id, pod and class, and `resourcedetection` the node",
    ),
    (
        "processors",
        "transform",
        "`attributes`, `resource` and `metricstransform` change attributes and names, `filter` drops",
    ),
    ("processors", "probabilistic_sampler", "receivers sample: see `sampling` of iomonitor"),
    (
        "processors",
        "groupbyattrs",
        "leave it out: `group_by` of iomonitor decides what a series stands for",
    ),
    (
        "connectors",
        "forward",
        "leave it out: a receiver or an exporter may stand in several pipelines",
    ),
    (
        "exporters",
        "datadog",
        "`otlp_http` speaks to its OTLP intake, or to a Collector that has it",
    ),
    ("exporters", "loki", "`otlp_http` speaks to it"),
    ("exporters", "jaeger", "`otlp_grpc` speaks to it"),
    (
        "extensions",
        "pprof",
        "leave it out: there is no Go runtime to look into; `zpages` shows pipelines and probes",
    ),
    (
        "extensions",
        "file_storage",
        "leave it out: queues are in memory, and `sending_queue::queue_size` bounds them",
    ),
    ("extensions", "memory_ballast", "leave it out: there is no garbage collector"),
    (
        "extensions",
        "oauth2client",
        "`bearertokenauth` reads a token from a file, which another program renews",
    ),
];

/// What to write instead, or to do.
pub fn instead(section: &str, kind: &str) -> Option<&'static str> {
    let found = INSTEAD.iter().find(|(of, name, _)| (*of, *name) == (section, kind));
    found.map(|(_, _, advice)| *advice)
}

/// The same for a key of `service::telemetry`, as older Collectors had it.
pub fn key_instead(path: &str) -> Option<String> {
    let advice =
        "metrics::readers: [{pull: {exporter: {prometheus: {host: localhost, port: 8888}}}}]";
    (path == "metrics::address").then(|| format!("write `{advice}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exporters::EXPORTERS, extensions::EXTENSIONS, processors::PROCESSORS, receivers::RECEIVERS,
    };

    #[test]
    fn what_is_here_needs_no_other() {
        let here = |section, kind: &str| match section {
            "receivers" => RECEIVERS.iter().any(|factory| factory.is(kind)),
            "processors" => PROCESSORS.iter().any(|factory| factory.is(kind)),
            "exporters" => EXPORTERS.iter().any(|factory| factory.is(kind)),
            "connectors" => false,
            _ => EXTENSIONS.iter().any(|factory| factory.is(kind)),
        };
        for (section, kind, _) in INSTEAD {
            assert!(!here(section, kind), "{section}::{kind}");
            assert!(instead(section, kind).is_some());
        }
    }
}
