//! Programs and where they run, to be attached and detached often: a process's, which stay after its end, or others.
#![expect(unsafe_code, reason = "what bpf(2) is asked for here has no wrapper")]

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Result, anyhow, bail};
use aya::util::online_cpus;
use nix::{libc, unistd::Pid};
use tests::{cgroup::hierarchy, perf};

/// A program and where it runs.
pub(crate) enum Hook {
    /// At the raw tracepoint that it was loaded for.
    Typed(OwnedFd),
    /// At a classic tracepoint.
    Classic(OwnedFd, String),
    /// At a software event of perf, on every CPU.
    Software(OwnedFd, u64),
}

/// What a variant attaches.
pub(crate) struct Hooks(pub(crate) Vec<Hook>);

impl Hooks {
    /// What a process has attached.
    pub(crate) fn of(process: Pid) -> Result<Self> {
        // What runs on each CPU has as many links, and what runs at a classic tracepoint may have a link and an event.
        let mut found = Vec::new();
        for link in perf::descriptors(process, "bpf_link")? {
            let one = behind(link.as_fd())?;
            if !found.contains(&one) {
                found.push(one);
            }
        }
        for event in perf::descriptors(process, "[perf_event]")? {
            if let Some(one) = tracepoint(event.as_fd())?
                && !found.contains(&one)
            {
                found.push(one);
            }
        }
        let hooks = found.into_iter().map(|one| {
            Ok(match one {
                Found::Typed(program) => Hook::Typed(by_id(program)?),
                Found::Classic(program, event) => Hook::Classic(by_id(program)?, event),
                Found::Software(program, event) => Hook::Software(by_id(program)?, event),
            })
        });
        Ok(Self(hooks.collect::<Result<_>>()?))
    }

    /// Has the programs run until what is returned is dropped.
    pub(crate) fn attach(&self) -> Result<Vec<OwnedFd>> {
        let mut attached = Vec::new();
        for hook in &self.0 {
            match hook {
                Hook::Typed(program) => attached.push(typed(program.as_fd())?),
                Hook::Classic(program, event) => {
                    attached.push(perf::run(program.as_fd(), event)?.into());
                }
                Hook::Software(program, event) => {
                    for cpu in online_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))? {
                        attached.push(perf::run_software(program.as_fd(), *event, cpu)?.into());
                    }
                }
            }
        }
        Ok(attached)
    }
}

/// The number of a program, and where it runs.
#[derive(PartialEq)]
enum Found {
    Typed(u32),
    Classic(u32, String),
    Software(u32, u64),
}

/// What runs behind a link.
fn behind(link: BorrowedFd<'_>) -> Result<Found> {
    /// `BPF_LINK_TYPE_RAW_TRACEPOINT` and `BPF_LINK_TYPE_PERF_EVENT`, and of the latter's kinds
    /// `BPF_PERF_EVENT_TRACEPOINT` and `BPF_PERF_EVENT_EVENT` (include/uapi/linux/bpf.h).
    const RAW_TRACEPOINT: (u32, u32) = (1, 0);
    const TRACEPOINT: (u32, u32) = (7, 5);
    const EVENT: (u32, u32) = (7, 6);
    // Its kind and number, and the program's; of perf's, which of them, and then the event, or where its name goes to and
    // how long it may be.
    let mut info = [0_u64; 8];
    about(link, &mut info)?;
    let program = info[1] as u32;
    match (info[0] as u32, info[2] as u32) {
        (kind, _) if kind == RAW_TRACEPOINT.0 => Ok(Found::Typed(program)),
        EVENT => Ok(Found::Software(program, info[3])),
        TRACEPOINT => {
            let mut name = Name::default();
            let mut info = [0, 0, 0, name.0.as_mut_ptr() as u64, name.0.len() as u64, 0, 0, 0];
            about(link, &mut info)?;
            Ok(Found::Classic(program, name.path()?))
        }
        (kind, of) => bail!("a link of type {kind}, {of}"),
    }
}

/// What the kernel says about a link.
fn about(link: BorrowedFd<'_>, info: &mut [u64; 8]) -> io::Result<()> {
    const OBJ_GET_INFO_BY_FD: u32 = 15;
    let length = size_of_val(info) as u64;
    let mut asked = [link.as_raw_fd() as u64 | length << 32, info.as_mut_ptr() as u64];
    bpf(OBJ_GET_INFO_BY_FD, &mut asked).map(drop)
}

/// Has a program run at the raw tracepoint that it was loaded for.
fn typed(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    const RAW_TRACEPOINT_OPEN: u32 = 17;
    // The name, which the program knows, and the program.
    Ok(perf::owned(bpf(RAW_TRACEPOINT_OPEN, &mut [0, program.as_raw_fd() as u64])?)?)
}

/// The program of a number.
fn by_id(id: u32) -> Result<OwnedFd> {
    const PROG_GET_FD_BY_ID: u32 = 13;
    Ok(perf::owned(bpf(PROG_GET_FD_BY_ID, &mut [u64::from(id)])?)?)
}

/// What runs at the classic tracepoint behind a descriptor; `None` if nothing does.
fn tracepoint(event: BorrowedFd<'_>) -> Result<Option<Found>> {
    const TASK_FD_QUERY: u32 = 20;
    let mut name = Name::default();
    // Whose descriptor, and which; flags, and the length of the name; the name; then the program's number.
    let mut asked = [
        u64::from(Pid::this().as_raw() as u32) | (event.as_raw_fd() as u64) << 32,
        (name.0.len() as u64) << 32,
        name.0.as_mut_ptr() as u64,
        0,
        0,
        0,
    ];
    match bpf(TASK_FD_QUERY, &mut asked) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        done => {
            done?;
            Ok(Some(Found::Classic(asked[3] as u32, name.path()?)))
        }
    }
}

/// The name of a classic tracepoint, as the kernel writes it.
struct Name([u8; 128]);

impl Default for Name {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl Name {
    /// Where it is among all.
    fn path(&self) -> Result<String> {
        let name = CStr::from_bytes_until_nul(&self.0)?.to_str()?;
        for system in fs::read_dir(hierarchy("tracefs", "")?.join("events"))? {
            let system = system?;
            if system.path().join(name).is_dir() {
                return Ok(format!("{}/{name}", system.file_name().display()));
            }
        }
        bail!("no event {name}")
    }
}

fn bpf(command: u32, attributes: &mut [u64]) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are as long as is said; what they point to lives as long as the call.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes))
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
