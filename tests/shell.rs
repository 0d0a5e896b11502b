//! A process of a shell: for work that takes no more than a line.

use std::process::{Child, Command, ExitStatus};

use anyhow::{Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::deadline::wait_for;

/// The process, which has stopped before its work.
#[derive(Debug)]
pub struct Shell(Child);

impl Shell {
    /// Starts one that will do `script`.
    pub fn new(script: &str) -> Result<Self> {
        let mut command = Command::new("sh");
        let shell = Self(command.arg("-c").arg(format!("kill -STOP $$; {script}")).spawn()?);
        let flags = WaitPidFlag::WUNTRACED | WaitPidFlag::WNOHANG;
        wait_for("a stopped shell", || match waitpid(shell.pid(), Some(flags))? {
            WaitStatus::StillAlive => Ok(None),
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(Some(())),
            other => bail!("the shell did not stop: {other:?}"),
        })?;
        Ok(shell)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    /// Lets it go on.
    pub fn go(&self) -> Result<()> {
        Ok(kill(self.pid(), Signal::SIGCONT)?)
    }

    /// Waits until it has ended.
    pub fn ended(mut self) -> Result<ExitStatus> {
        wait_for("the shell's end", || Ok(self.0.try_wait()?))
    }

    /// Lets it go on, and waits until it has ended.
    pub fn finish(self) -> Result<ExitStatus> {
        self.go()?;
        self.ended()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
