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
                counters.push(open(id, cpu, 0).with_context(|| format!("follow {event}"))?);
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

/// Has a program run at a classic tracepoint, until what is returned is dropped. Nothing is counted beside.
pub fn run(program: BorrowedFd<'_>, event: &str) -> Result<File> {
    /// The flag `disabled`, and `PERF_EVENT_IOC_SET_BPF`.
    const DISABLED: u64 = 1;
    const SET_BPF: libc::Ioctl = 0x4004_2408;
    let file = open(number(event)?, 0, DISABLED)?;
    // SAFETY: both descriptors are open; the kernel checks of what.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), SET_BPF, program.as_raw_fd()) };
    ensure!(set == 0, "{event}: {}", io::Error::last_os_error());
    Ok(file)
}

/// What each perf event that a process has open has counted.
pub fn counted_by(process: Pid) -> Result<Vec<u64>> {
    // SAFETY: the call takes numbers alone, and what it returns is a new descriptor, or nothing.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) })?;
    let mut counts = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        // A connection may be gone by now.
        let Ok(behind) = fs::read_link(entry.path()) else { continue };
        if !behind.to_string_lossy().ends_with("[perf_event]") {
            continue;
        }
        let number: i32 = entry.file_name().to_string_lossy().parse()?;
        // SAFETY: as above.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
        let mut count = [0; 8];
        File::from(owned(fd)?).read_exact(&mut count)?;
        counts.push(u64::from_ne_bytes(count));
    }
    Ok(counts)
}

/// A descriptor that the kernel has just handed out, if it has.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
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

fn open(id: u64, cpu: i32, flags: u64) -> io::Result<File> {
    /// `PERF_TYPE_TRACEPOINT` and `PERF_ATTR_SIZE_VER0` of include/uapi/linux/perf_event.h.
    const TRACEPOINT: u64 = 2;
    const SIZE: u64 = 64;
    /// `PERF_FLAG_FD_CLOEXEC`.
    const CLOSE_ON_EXEC: u64 = 1 << 3;
    // A `perf_event_attr` of that size: the type and the size, then the event; the rest but the flags says that it is only counted.
    let attributes: [u64; 8] = [TRACEPOINT | SIZE << 32, id, 0, 0, 0, flags, 0, 0];
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
