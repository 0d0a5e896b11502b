//! Empty programs at the same hooks: what no body can do without.

use std::{fs::File, os::fd::AsFd as _};

use anyhow::{Context, Result, bail};
use aya::{Btf, Ebpf, programs::Program};
use tests::perf;

const OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/prebuilt/empty.o");

/// Attached until it is dropped.
#[expect(dead_code, reason = "held")]
pub(crate) struct Empty(Ebpf, Vec<File>);

impl Empty {
    /// At one or two raw tracepoints.
    pub(crate) fn typed(targets: &[&str]) -> Result<Self> {
        let btf = Btf::from_sys_fs()?;
        let mut ebpf = Ebpf::load(OBJECT)?;
        for (program, target) in ["first_btf", "second_btf"].into_iter().zip(targets) {
            match ebpf.program_mut(program).context(program)? {
                Program::BtfTracePoint(program) => {
                    program.load(target, &btf)?;
                    program.attach()?;
                }
                _ => bail!("{program} is of another type"),
            }
        }
        Ok(Self(ebpf, Vec::new()))
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
        Ok(Self(ebpf, events))
    }
}
