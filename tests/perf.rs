//! Perf: somebody else who follows an event, as `perf stat -a -e` does it, and the events that processes have open.
#![expect(unsafe_code, reason = "perf_event_open(2) and pidfd_getfd(2) have no wrappers")]

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use nix::{libc, unistd::Pid};

use crate::cgroup::hierarchy;

/// `PERF_TYPE_TRACEPOINT` of include/uapi/linux/perf_event.h.
const TRACEPOINT: u64 = 2;

/// Counts a classic tracepoint on every CPU.
#[derive(Debug)]
pub struct Follower(Vec<File>);

impl Follower {
    /// Begins to count `event` (`raw_syscalls/sys_exit`).
    pub fn of(event: &str) -> Result<Self> {
        let id = number(event)?;
        let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
        let mut counters = Vec::new();
        for range in online.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            for cpu in first.parse::<i32>()?..=last.parse()? {
                counters.push(
                    open(TRACEPOINT, id, cpu, 0, 0).with_context(|| format!("follow {event}"))?,
                );
            }
        }
        Ok(Self(counters))
    }

    /// Events so far.
    pub fn count(&self) -> Result<u64> {
        let mut sum = 0;
        for mut counter in &self.0 {
            let mut count = [0; 8];
            counter.read_exact(&mut count)?;
            sum += u64::from_ne_bytes(count);
        }
        Ok(sum)
    }
}

/// Has a program run at a classic tracepoint (`raw_syscalls/sys_exit`), until what is returned is dropped. Nothing is
/// counted beside.
pub fn run(program: BorrowedFd<'_>, event: &str) -> Result<File> {
    /// The flag `disabled`.
    const DISABLED: u64 = 1;
    let file = open(TRACEPOINT, number(event)?, 0, 0, DISABLED)?;
    run_at(&file, program).with_context(|| event.to_owned())?;
    Ok(file)
}

/// Has a program run at a software event of perf, each time that a CPU counts one.
pub fn run_software(program: BorrowedFd<'_>, event: u64, cpu: u32) -> Result<File> {
    /// `PERF_TYPE_SOFTWARE` of include/uapi/linux/perf_event.h.
    const SOFTWARE: u64 = 1;
    let file = open(SOFTWARE, event, i32::try_from(cpu)?, 1, 0)?;
    run_at(&file, program).with_context(|| format!("software event {event}"))?;
    Ok(file)
}

fn run_at(event: &File, program: BorrowedFd<'_>) -> Result<()> {
    /// `PERF_EVENT_IOC_SET_BPF`.
    const SET_BPF: libc::Ioctl = 0x4004_2408;
    // SAFETY: both descriptors are open; the kernel checks of what.
    let set = unsafe { libc::ioctl(event.as_raw_fd(), SET_BPF, program.as_raw_fd()) };
    ensure!(set == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// What each perf event that a process has open has counted.
pub fn counted_by(process: Pid) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for fd in descriptors(process, "[perf_event]")? {
        let mut count = [0; 8];
        File::from(fd).read_exact(&mut count)?;
        counts.push(u64::from_ne_bytes(count));
    }
    Ok(counts)
}

/// Copies of a process's descriptors of a kind: what their links end in.
pub fn descriptors(process: Pid, kind: &str) -> Result<Vec<OwnedFd>> {
    // SAFETY: the call takes numbers alone, and what it returns is a new descriptor, or nothing.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) })?;
    let mut copies = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        // A connection may be gone by now.
        let Ok(behind) = fs::read_link(entry.path()) else { continue };
        if !behind.to_string_lossy().ends_with(kind) {
            continue;
        }
        let number: i32 = entry.file_name().to_string_lossy().parse()?;
        // SAFETY: as above.
        copies.push(owned(unsafe {
            libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0)
        })?);
    }
    Ok(copies)
}

/// A descriptor that the kernel has just handed out, if it has.
pub fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// By what perf knows a classic tracepoint.
fn number(event: &str) -> Result<u64> {
    let root = hierarchy("tracefs", "")?;
    let id = fs::read_to_string(root.join("events").join(event).join("id"))
        .with_context(|| format!("no event {event}"))?;
    Ok(id.trim().parse()?)
}

/// Opens an event on a CPU, of which each `period` is a sample, if there is one.
fn open(kind: u64, event: u64, cpu: i32, period: u64, flags: u64) -> io::Result<File> {
    /// `PERF_ATTR_SIZE_VER0` of include/uapi/linux/perf_event.h.
    const SIZE: u64 = 64;
    /// `PERF_FLAG_FD_CLOEXEC`.
    const CLOSE_ON_EXEC: u64 = 1 << 3;
    // A `perf_event_attr` of that size: the type and the size, the event and the period; the rest but the flags says that
    // it is only counted.
    let attributes: [u64; 8] = [kind | SIZE << 32, event, period, 0, 0, flags, 0, 0];
    let (everyone, no_group) = (-1, -1);
    // SAFETY: the attributes are as long as they say, and live as long as the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            everyone,
            cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    Ok(File::from(owned(fd)?))
}
