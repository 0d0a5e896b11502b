//! Starts a machine, shows what it says, and takes it away when its time is over.

use std::{
    fmt,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Kernel, disks::Disks};
use crate::steps::failure;

/// A machine to be.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) disks: Disks,
}

/// What became of it.
pub(super) struct Ended {
    pub(super) lines: Vec<String>,
    /// The exit status of the script, if it got so far.
    pub(super) status: Option<i32>,
    took: Duration,
}

/// How long a machine may take. An emulated one is about ten times slower than this one.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// Lines that may wait to be shown.
const LINES: usize = 1_024;

impl Machine<'_> {
    /// Boots it, and shows line by line what its script prints.
    pub(super) fn run(&self, directory: &Path) -> Result<Ended> {
        let console = directory.join(self.kernel.version).join("console.log");
        let mut qemu = self.qemu(&console);
        let began = Instant::now();
        let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = Killed(child.with_context(|| format!("start {:?}", qemu.get_program()))?);
        let output = BufReader::new(child.0.stdout.take().context("stdout")?);
        let (sender, receiver) = mpsc::sync_channel(LINES);
        thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (mut lines, mut status) = (Vec::new(), None);
        while let Ok(line) = receiver.recv_timeout(LIMIT.saturating_sub(began.elapsed())) {
            match line.strip_prefix("@@@ ended ") {
                Some(number) => status = number.parse().ok(),
                None => {
                    println!("{} | {line}", self.kernel.version);
                    lines.push(line);
                }
            }
        }
        let took = began.elapsed();
        if status.is_none() {
            println!(
                "{}: the machine did not come to the end; its console is in {}",
                self.kernel.version,
                console.display()
            );
        }
        Ok(Ended { lines, status, took })
    }

    fn qemu(&self, console: &Path) -> Command {
        let architecture = self.kernel.architecture;
        let (program, arguments) = architecture.qemu;
        let mut qemu = Command::new(program);
        qemu.args(arguments);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        // On several threads, a CPU can be caught for ever at a branch of the kernel that another one patches, as it does
        // when a tracepoint is turned on (seen with Linux 5.10).
        qemu.args(["-accel", "tcg,thread=single", "-smp", "2", "-m", "1024"]);
        qemu.arg("-kernel").arg(&self.image).arg("-initrd").arg(&self.initramfs);
        let [first, second] = architecture.terminals;
        let arguments = [
            architecture.kernel,
            "panic=-1 quiet",
            &format!("console={first} terminal={second}"),
            &format!("file_system={}", self.disks.file_system.name()),
        ];
        qemu.args(["-append", &arguments.join(" ")]);
        qemu.arg("-serial").arg(format!("file:{}", console.display())).args(architecture.second);
        for disk in [&self.disks.empty, &self.disks.programs] {
            let path = disk.display();
            // Written to in a temporary file: every machine finds it as it was.
            qemu.args(["-drive", &format!("file={path},if=virtio,format=raw,snapshot=on")]);
        }
        qemu
    }
}

impl Ended {
    /// The names of the tests that failed, and the reasons.
    pub(super) fn failures(&self) -> impl Iterator<Item = String> {
        self.lines.iter().filter_map(|line| failure(line))
    }

    pub(super) fn success(&self) -> bool {
        self.status == Some(0)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        match self.status {
            Some(0) => write!(f, "ok in {seconds:.0} s"),
            Some(status) => write!(f, "failed with {status} in {seconds:.0} s"),
            None if self.took >= LIMIT => write!(f, "not within {seconds:.0} s"),
            None => write!(f, "crashed after {seconds:.0} s"),
        }
    }
}

/// A process that does not outlive this one's interest in it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
