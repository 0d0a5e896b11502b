//! Empty programs at the same hooks: what no body can do without.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramFd},
};

use crate::hooks::{Hook, Hooks};

const OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/prebuilt/empty.o");

/// At raw tracepoints.
pub(crate) fn typed(targets: &[&str]) -> Result<Hooks> {
    const PROGRAMS: [&str; 2] = ["first_btf", "second_btf"];
    let btf = Btf::from_sys_fs()?;
    let mut hooks = Vec::new();
    for targets in targets.chunks(PROGRAMS.len()) {
        let mut ebpf = Ebpf::load(OBJECT)?;
        for (program, target) in PROGRAMS.into_iter().zip(targets) {
            match ebpf.program_mut(program).context(program)? {
                Program::BtfTracePoint(program) => {
                    program.load(target, &btf)?;
                    hooks.push(Hook::Typed(descriptor(program.fd()?)?));
                }
                _ => bail!("{program} is of another type"),
            }
        }
    }
    Ok(Hooks(hooks))
}

/// At one or two classic tracepoints.
pub(crate) fn classic(targets: &[&str]) -> Result<Hooks> {
    let mut ebpf = Ebpf::load(OBJECT)?;
    let mut hooks = Vec::new();
    for (program, target) in ["first_tp", "second_tp"].into_iter().zip(targets) {
        match ebpf.program_mut(program).context(program)? {
            Program::TracePoint(program) => {
                program.load()?;
                hooks.push(Hook::Classic(descriptor(program.fd()?)?, (*target).to_owned()));
            }
            _ => bail!("{program} is of another type"),
        }
    }
    Ok(Hooks(hooks))
}

/// At minor page faults.
pub(crate) fn faults() -> Result<Hooks> {
    /// `PERF_COUNT_SW_PAGE_FAULTS_MIN` of include/uapi/linux/perf_event.h.
    const MINOR: u64 = 5;
    let mut ebpf = Ebpf::load(OBJECT)?;
    match ebpf.program_mut("first_perf").context("first_perf")? {
        Program::PerfEvent(program) => {
            program.load()?;
            Ok(Hooks(vec![Hook::Software(descriptor(program.fd()?)?, MINOR)]))
        }
        _ => bail!("first_perf is of another type"),
    }
}

fn descriptor(program: &ProgramFd) -> Result<OwnedFd> {
    Ok(program.as_fd().try_clone_to_owned()?)
}
