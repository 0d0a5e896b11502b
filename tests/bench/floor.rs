//! Empty programs at the same hooks: what no body can do without.

use std::{fs::File, os::fd::AsFd as _};

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    Btf, Ebpf,
    programs::{
        Program,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util::online_cpus,
};
use tests::perf;

const OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/prebuilt/empty.o");

/// Attached until it is dropped.
#[expect(dead_code, reason = "held")]
pub(crate) struct Empty(Vec<Ebpf>, Vec<File>);

impl Empty {
    /// At raw tracepoints.
    pub(crate) fn typed(targets: &[&str]) -> Result<Self> {
        const PROGRAMS: [&str; 2] = ["first_btf", "second_btf"];
        let btf = Btf::from_sys_fs()?;
        let mut loaded = Vec::new();
        for targets in targets.chunks(PROGRAMS.len()) {
            let mut ebpf = Ebpf::load(OBJECT)?;
            for (program, target) in PROGRAMS.into_iter().zip(targets) {
                match ebpf.program_mut(program).context(program)? {
                    Program::BtfTracePoint(program) => {
                        program.load(target, &btf)?;
                        program.attach()?;
                    }
                    _ => bail!("{program} is of another type"),
                }
            }
            loaded.push(ebpf);
        }
        Ok(Self(loaded, Vec::new()))
    }

    /// At minor page faults.
    pub(crate) fn faults() -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT)?;
        let Program::PerfEvent(program) = ebpf.program_mut("first_perf").context("first_perf")?
        else {
            bail!("first_perf is of another type")
        };
        program.load()?;
        for cpu in online_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))? {
            let event = PerfEventConfig::Software(SoftwareEvent::PageFaultsMin);
            let scope = PerfEventScope::AllProcessesOneCpu { cpu };
            program.attach(event, scope, SamplePolicy::Period(1), false)?;
        }
        Ok(Self(vec![ebpf], Vec::new()))
    }

    /// At one or two classic tracepoints.
    pub(crate) fn classic(targets: &[&str]) -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT)?;
        let mut events = Vec::new();
        for (program, target) in ["first_tp", "second_tp"].into_iter().zip(targets) {
            match ebpf.program_mut(program).context(program)? {
                Program::TracePoint(program) => {
                    program.load()?;
                    events.push(perf::run(program.fd()?.as_fd(), target)?);
                }
                _ => bail!("{program} is of another type"),
            }
        }
        Ok(Self(vec![ebpf], events))
    }
}
