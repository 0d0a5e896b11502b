//! Shared by the end-to-end tests: the real agent, real workloads, and what tells the truth about them.

pub mod agent;
pub mod certificates;
pub mod cgroup;
pub mod collector;
pub mod deadline;
pub mod device;
pub mod file;
pub mod memory;
pub mod modes;
pub mod mounted;
pub mod otlp;
pub mod perf;
pub mod plan;
pub mod prometheus;
pub mod random;
pub mod scrape;
pub mod setup;
pub mod shell;
pub mod tracefs;
pub mod unseen;
pub mod worker;
