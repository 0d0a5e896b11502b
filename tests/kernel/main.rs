//! The agent against the truth, on the live kernel: a workload of known size runs in a cgroup of
//! its own, and what the agent shows must equal what was done, not merely be greater than zero.

mod cgroups;
mod fadvise;
mod file;
mod latency;
mod lifecycle;
mod otlp;
mod page_cache;
mod reclaim;
mod scope;
mod syscalls;

use anyhow::Result;
use tests::{
    cgroup::Cgroup,
    plan::{Plan, Report},
    worker::Worker,
};

/// The workload program, which lies where the agent does.
const WORKLOAD: &str = "workload";

/// Runs all of `plan` in `cgroup`.
fn work(plan: &Plan, cgroup: &Cgroup) -> Result<Report> {
    let mut worker = Worker::start(WORKLOAD, plan)?;
    worker.join(cgroup)?;
    for _ in &plan.phases {
        worker.phase()?;
    }
    worker.finish()
}

/// A test of each case in each mode that a user can force.
macro_rules! in_each_mode {
    ($($case:ident),* $(,)?) => {$(
        mod $case {
            #[test]
            fn tp_btf() -> anyhow::Result<()> {
                super::$case(tests::agent::Mode::TpBtf)
            }
            #[test]
            fn tracepoint() -> anyhow::Result<()> {
                super::$case(tests::agent::Mode::Tracepoint)
            }
        }
    )*};
}
use in_each_mode;
