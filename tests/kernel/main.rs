//! The agent against the truth, on the live kernel: a workload of known size runs in a cgroup of
//! its own, and what the agent shows must equal what was done, not merely be greater than zero.

mod block;
mod cache;
mod calls;
mod cgroups;
mod compaction;
mod declared;
mod defects;
mod descriptors;
mod dirty;
mod fadvise;
mod faults;
mod file;
mod file_systems;
mod groups;
mod io_stat;
mod io_uring;
mod kills;
mod latency;
mod lifecycle;
mod limits;
mod madvise;
mod missing;
mod otlp;
mod page_cache;
mod page_states;
mod pressure;
mod reclaim;
mod reload;
mod sampling;
mod scope;
mod seats;
mod sidecar;
mod swap;
mod syscalls;
mod tiers;
mod tracers;
mod volume;

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

/// A test of each case in each mode that a user can force: of what attaches by it on this kernel. The probes
/// are those whose numbers the case compares.
macro_rules! in_each_mode {
    ($probes:tt $($case:ident),* $(,)?) => {$(
        mod $case {
            $crate::in_each_mode!(@ $probes $case tp_btf TpBtf);
            $crate::in_each_mode!(@ $probes $case raw_tp RawTp);
            $crate::in_each_mode!(@ $probes $case tracepoint Tracepoint);
            $crate::in_each_mode!(@ $probes $case syscall_tracepoint SyscallTracepoint);
            $crate::in_each_mode!(@ $probes $case fentry Fentry);
            $crate::in_each_mode!(@ $probes $case kprobe Kprobe);
            $crate::in_each_mode!(@ $probes $case perf_event PerfEvent);
        }
    )*};
    (@ $probes:tt $case:ident $name:ident $mode:ident) => {
        #[test]
        fn $name() -> anyhow::Result<()> {
            for probe in $probes {
                if let Some(why) = tests::modes::hole(probe, tests::agent::Mode::$mode)? {
                    println!("not run here: {probe}: {why}");
                    return Ok(());
                }
            }
            tests::unseen::run(&$probes, tests::agent::Mode::$mode, super::$case)
        }
    };
}
use in_each_mode;
