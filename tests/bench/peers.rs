//! Other tools at the same work, if they are installed: `bpftrace`, and libbpf-tools' `biolatency` and `syscount`
//! (Debian's packages `bpftrace` and `libbpf-tools`).

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use tests::{cgroup::Cgroup, deadline::wait_for};

use crate::hooks::Hooks;

/// How a tool is told to watch, given its arguments.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    program: &'static str,
    arguments: Vec<String>,
}

fn peer(name: &'static str, program: &'static str, arguments: &[&str]) -> Peer {
    Peer { name, program, arguments: arguments.iter().map(|a| (*a).to_owned()).collect() }
}

/// Who watches `pread64` of the bench alone.
pub(crate) fn calls() -> Vec<Peer> {
    let own = Pid::this();
    let count = format!("tracepoint:syscalls:sys_exit_pread64 /pid == {own}/ {{ @n = count(); }}");
    let durations = format!(
        "tracepoint:syscalls:sys_enter_pread64 /pid == {own}/ {{ @s[tid] = nsecs; }}
         tracepoint:syscalls:sys_exit_pread64 /@s[tid]/ {{ @h = hist(nsecs - @s[tid]); delete(@s[tid]); }}"
    );
    vec![
        peer("bpftrace, count()", "bpftrace", &["-e", &count]),
        peer("bpftrace, hist() of durations", "bpftrace", &["-e", &durations]),
        peer("syscount, all calls of a process", "syscount", &["-p", &own.to_string()]),
        peer("syscount -L, with times", "syscount", &["-L", "-p", &own.to_string()]),
    ]
}

/// Who watches requests to devices.
pub(crate) fn requests(cgroup: &Cgroup) -> Vec<Peer> {
    let durations = "
        tracepoint:block:block_rq_issue { @s[args->dev, args->sector] = nsecs; }
        tracepoint:block:block_rq_complete /@s[args->dev, args->sector]/ {
            @h[args->dev] = hist(nsecs - @s[args->dev, args->sector]);
            delete(@s[args->dev, args->sector]);
        }";
    let below = cgroup.path().to_string_lossy();
    vec![
        peer("bpftrace, hist() of durations by device", "bpftrace", &["-e", durations]),
        peer("biolatency, by device", "biolatency", &["-D", "1000"]),
        peer("biolatency, by device, of a cgroup", "biolatency", &["-D", "-c", &below, "1000"]),
        peer("biolatency -Q, with the time in the queue", "biolatency", &["-D", "-Q", "1000"]),
    ]
}

impl Peer {
    /// What it attaches.
    pub(crate) fn hooks(&self) -> Result<Hooks> {
        /// Nothing more is attached after this long without anything.
        const SETTLED: Duration = Duration::from_secs(2);
        let mut command = Command::new(self.program);
        command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context(self.program)?;
        let pid = Pid::from_raw(child.id().try_into()?);
        let (mut count, mut since) = (0, Instant::now());
        let hooks = wait_for(self.name, || {
            ensure!(child.try_wait()?.is_none(), "{}: it ended", self.name);
            let found = Hooks::of(pid)?;
            if found.0.len() != count {
                (count, since) = (found.0.len(), Instant::now());
            }
            Ok((count > 0 && since.elapsed() > SETTLED).then_some(found))
        });
        child.kill()?;
        child.wait()?;
        // A tracer that is killed takes a moment to go.
        thread::sleep(SETTLED);
        hooks
    }
}
