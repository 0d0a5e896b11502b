//! The test's end of a workload: starts it, moves it, lets it work phase by phase.

use std::{
    fs,
    io::{BufWriter, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    agent,
    cgroup::{self, Cgroup},
    deadline::wait_for,
    plan::{Plan, Report},
};

/// A workload process, stopped except while it works.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    phases: usize,
}

impl Worker {
    /// Starts `program`, the `workload` binary, which opens what it needs and stops.
    pub fn start(program: &str, plan: &Plan) -> Result<Self> {
        let child = Command::new(agent::built(program)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let mut worker = Self { child, phases: plan.phases.len() };
        // Dropped, and so closed, once the plan is in it.
        let stdin = worker.child.stdin.take().context("stdin")?;
        serde_json::to_writer(BufWriter::new(stdin), plan)?;
        worker.stopped()?;
        Ok(worker)
    }

    /// Starts it so that its threads have the ids of `threads`, which have ended.
    pub fn start_as(program: &str, plan: &Plan, threads: &[i32]) -> Result<Self> {
        let before = threads.first().context("no threads")? - 1;
        // Another process may be started just then and take one of the ids.
        wait_for("ids free again", || {
            fs::write("/proc/sys/kernel/ns_last_pid", before.to_string())?;
            let worker = Self::start(program, plan)?;
            Ok((worker.threads()? == threads).then_some(worker))
        })
    }

    /// The ids of its threads.
    pub fn threads(&self) -> Result<Vec<i32>> {
        let mut threads = Vec::new();
        for task in self.tasks().read_dir()? {
            threads.push(task?.file_name().to_string_lossy().parse()?);
        }
        threads.sort_unstable();
        Ok(threads)
    }

    fn tasks(&self) -> PathBuf {
        Path::new("/proc").join(self.pid().to_string()).join("task")
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Moves it into `cgroup`, and stops here until the kernel has done so.
    pub fn join(&self, cgroup: &Cgroup) -> Result<()> {
        cgroup.add(self.pid())
    }

    /// Moves it to the top of the v2 hierarchy, where nothing is scoped.
    pub fn leave(&self) -> Result<()> {
        cgroup::move_to(&cgroup::hierarchy("cgroup2", "")?, self.pid())
    }

    /// Lets it begin the next phase.
    pub fn begin(&mut self) -> Result<()> {
        self.phases = self.phases.checked_sub(1).context("the plan has no further phase")?;
        Ok(kill(self.pid(), Signal::SIGCONT)?)
    }

    /// Lets it work through the next phase.
    pub fn phase(&mut self) -> Result<()> {
        self.begin()?;
        self.stopped()
    }

    /// Waits until it stops at the end of a phase.
    pub fn stopped(&self) -> Result<()> {
        let flags = WaitPidFlag::WUNTRACED | WaitPidFlag::WNOHANG;
        wait_for("workload stopped", || match waitpid(self.pid(), Some(flags))? {
            WaitStatus::StillAlive => Ok(None),
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(Some(())),
            other => bail!("the workload did not finish its phase: {other:?}"),
        })
    }

    /// Waits until `threads` of its threads are inside the system call `number`.
    pub fn inside(&self, number: i64, threads: usize) -> Result<()> {
        wait_for("workload inside its call", || {
            let mut found = 0;
            for task in self.tasks().read_dir()? {
                let call = fs::read_to_string(task?.path().join("syscall"))?;
                // "running", or the number and the arguments of the call that the thread sleeps in.
                found += usize::from(call.starts_with(&format!("{number} ")));
            }
            Ok((found == threads).then_some(()))
        })
    }

    /// Waits until it has ended, by itself or by someone else.
    pub fn died(mut self) -> Result<ExitStatus> {
        wait_for("the workload's end", || Ok(self.child.try_wait()?))
    }

    /// Kills it where it stands.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Moves it out and asks what the kernel told it.
    pub fn finish(mut self) -> Result<Report> {
        if self.phases > 0 {
            bail!("{} phases have not begun", self.phases);
        }
        self.leave()?;
        kill(self.pid(), Signal::SIGCONT)?;
        let mut report = String::new();
        self.child.stdout.take().context("stdout")?.read_to_string(&mut report)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the workload failed: {status}");
        }
        serde_json::from_str(&report).with_context(|| format!("report {report:?}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
