//! What a workload waits for.
#![expect(unsafe_code, reason = "each call is made exactly as the plan says, right or wrong")]

use std::{
    os::fd::{FromRawFd as _, OwnedFd},
    ptr,
    time::Duration,
};

use anyhow::Result;
use nix::{errno::Errno, libc};
use tests::plan::{Call, Step};

/// Events that there is room for.
const EVENTS: usize = 8;

/// A new `epoll` on which `ready` descriptors are ready for ever.
pub(crate) fn epoll(ready: usize) -> Result<OwnedFd> {
    // SAFETY: the event lives, no other argument is a pointer, and nobody else knows the descriptor.
    unsafe {
        let epoll = Errno::result(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
        for _ in 0..ready {
            // Not closed while the process lives: it would not be ready any more.
            let counter = Errno::result(libc::eventfd(1, libc::EFD_CLOEXEC))?;
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            Errno::result(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, counter, &raw mut event))?;
        }
        Ok(OwnedFd::from_raw_fd(epoll))
    }
}

/// Waits for events of an `epoll`.
pub(crate) fn events(fd: i32, step: &Step) -> Result<u64, Errno> {
    let none = libc::epoll_event { events: 0, u64: 0 };
    let mut events = [none; EVENTS];
    let most = step.size.min(EVENTS) as i32;
    let (events, mask, timeout) = (events.as_mut_ptr(), ptr::null::<u8>(), time(step.offset));
    let millis = Duration::from_nanos(step.offset).as_millis() as i32;
    // SAFETY: the kernel writes as many events as there is room for, and reads the timeout.
    let ret = unsafe {
        match step.call {
            #[cfg(target_arch = "x86_64")]
            Call::EpollWait => libc::syscall(libc::SYS_epoll_wait, fd, events, most, millis),
            Call::EpollPwait => {
                libc::syscall(libc::SYS_epoll_pwait, fd, events, most, millis, mask, 8)
            }
            _ => {
                let timeout = &raw const timeout;
                libc::syscall(libc::SYS_epoll_pwait2, fd, events, most, timeout, mask, 8)
            }
        }
    };
    Errno::result(ret).map(|_| 0)
}

/// Waits at a word, or wakes who waits there.
pub(crate) fn futex(step: &Step) -> Result<u64, Errno> {
    let word = 0_u32;
    let (expected, timeout) = (step.size as u32, time(step.offset));
    // SAFETY: the kernel reads the word and the timeout, which live.
    let ret = unsafe {
        let (word, timeout) = (&raw const word, &raw const timeout);
        libc::syscall(libc::SYS_futex, word, step.advice, expected, timeout, word, 0)
    };
    Errno::result(ret).map(|_| 0)
}

fn time(nanos: u64) -> libc::timespec {
    let time = Duration::from_nanos(nanos);
    libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}
