//! Fathom: an OpenTelemetry-Collector-style agent whose receivers are eBPF programs.

pub mod batch;
pub mod cgroup;
pub mod channel;
pub mod component;
pub mod config;
pub mod descriptors;
pub mod ebpf;
pub mod exporters;
pub mod extensions;
pub mod heritage;
pub mod metric;
mod ottl;
pub mod pipeline;
pub mod privilege;
pub mod processors;
pub mod prometheus_names;
pub mod receivers;
pub mod status;
pub mod telemetry;
mod value;

/// All components that there are: what configurations may name.
pub const KINDS: config::Kinds<'static> = config::Kinds {
    receivers: receivers::RECEIVERS,
    processors: processors::PROCESSORS,
    exporters: exporters::EXPORTERS,
    extensions: extensions::EXTENSIONS,
};
