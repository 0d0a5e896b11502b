//! Somebody else who follows an event: perf, as `perf stat -a -e` does it.
#![expect(unsafe_code, reason = "perf_event_open(2) has no wrapper")]

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::libc;

use crate::cgroup::hierarchy;

/// Counts a classic tracepoint on every CPU.
#[derive(Debug)]
pub struct Follower(Vec<File>);

impl Follower {
    /// Begins to count `event` (`raw_syscalls/sys_exit`).
    pub fn of(event: &str) -> Result<Self> {
        let root = hierarchy("tracefs", "")?;
        let id = fs::read_to_string(root.join("events").join(event).join("id"))
            .with_context(|| format!("no event {event}"))?;
        let id: u64 = id.trim().parse()?;
        let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
        let mut counters = Vec::new();
        for range in online.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            for cpu in first.parse::<i32>()?..=last.parse()? {
                counters.push(open(id, cpu).with_context(|| format!("follow {event}"))?);
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

fn open(id: u64, cpu: i32) -> io::Result<File> {
    /// `PERF_TYPE_TRACEPOINT` and `PERF_ATTR_SIZE_VER0` of include/uapi/linux/perf_event.h.
    const TRACEPOINT: u64 = 2;
    const SIZE: u64 = 64;
    /// `PERF_FLAG_FD_CLOEXEC`.
    const CLOSE_ON_EXEC: u64 = 1 << 3;
    // A `perf_event_attr` of that size: the type and the size, then the event; the rest says that it is only counted.
    let attributes: [u64; 8] = [TRACEPOINT | SIZE << 32, id, 0, 0, 0, 0, 0, 0];
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
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed it out.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}
