//! What runs the programs of a classic tracepoint: a perf event that is never enabled.
//!
//! Opening one has the tracepoint call perf, and perf runs a tracepoint's programs before it asks who has an event
//! enabled on this CPU (`perf_trace_run_bpf_submit` and `perf_syscall_enter` in kernel/). One that is enabled, as a
//! library would leave it, has perf count every event of its CPU once more, for nobody.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow};
use aya::util::online_cpus;
use nix::libc;

use super::tracefs;

/// Runs a program at `target` (`category/name`) until what is returned is dropped.
pub(super) fn attach(program: BorrowedFd<'_>, target: &str) -> Result<OwnedFd> {
    let path = tracefs::event(target)?.join("id");
    let id = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .trim()
        .parse()?;
    let cpus = online_cpus().map_err(|(path, error)| anyhow!("cannot read {path}: {error}"))?;
    let cpu = *cpus.first().context("no CPU is online")?;
    let event = open(id, cpu).context("perf_event_open")?;
    run(&event, program).context("PERF_EVENT_IOC_SET_BPF")?;
    Ok(event)
}

/// The part of `perf_event_attr` that the first kernels had (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    event: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    unused: [u64; 2],
}

#[expect(unsafe_code, reason = "a system call that no library has")]
fn open(event: u64, cpu: u32) -> io::Result<OwnedFd> {
    /// `PERF_TYPE_TRACEPOINT`, the flag `disabled`, and `PERF_FLAG_FD_CLOEXEC` of include/uapi/linux/perf_event.h.
    const TRACEPOINT: u32 = 2;
    const DISABLED: u64 = 1;
    const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
    const EVERY_PROCESS: libc::pid_t = -1;
    const NO_GROUP: libc::c_int = -1;
    let attributes = Attributes {
        kind: TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        event,
        flags: DISABLED,
        ..Attributes::default()
    };
    // SAFETY: the attributes are as long as they say, and live as long as the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            EVERY_PROCESS,
            cpu as libc::c_int,
            NO_GROUP,
            CLOSE_ON_EXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed it out.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[expect(unsafe_code, reason = "a system call that no library has")]
fn run(event: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    /// `PERF_EVENT_IOC_SET_BPF`.
    const SET_BPF: libc::Ioctl = 0x4004_2408;
    // SAFETY: both descriptors are open; the kernel checks of what.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), SET_BPF, program.as_raw_fd()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
