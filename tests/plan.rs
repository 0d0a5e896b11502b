//! What a workload does and what it reports: the language between a test and the `workload` binary.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Everything that one workload process does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Threads, each of which opens the files for itself and takes every step. One alone is the process's own, and
    /// makes no call that no step asks for.
    pub threads: usize,
    /// What is opened before the work starts.
    pub files: Vec<Open>,
    /// The work. Between two phases the process stops and the test looks at it.
    pub phases: Vec<Vec<Step>>,
}

/// A descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Open {
    /// Opened for reading.
    Read(PathBuf),
    /// Opened for writing.
    Write(PathBuf),
    /// Opened for both, past the page cache. The buffer is aligned as that wants it.
    Direct(PathBuf),
    /// A number that is no open descriptor.
    Never,
    /// An `epoll` on which so many descriptors are always ready.
    Epoll(usize),
}

/// The system calls that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Call {
    /// `read(2)`
    Read,
    /// `pread64(2)`
    Pread64,
    /// `write(2)`
    Write,
    /// `pwrite64(2)`
    Pwrite64,
    /// `fsync(2)`
    Fsync,
    /// `fdatasync(2)`
    Fdatasync,
    /// `fadvise64(2)`
    Fadvise64,
    /// `fadvise64(2)` through the 32-bit entry of the kernel.
    Fadvise64Compat,
    /// Every page of a new mapping is read: of the file, or of nothing if it is [`Open::Never`].
    Touch,
    /// `madvise(2)` about memory of its own.
    Madvise,
    /// `process_madvise(2)` about memory of its own.
    ProcessMadvise,
    /// `readahead(2)`
    Readahead,
    /// Opens and closes [`DESCRIPTORS`], tries to open a file that there is not, to duplicate a descriptor that
    /// there is not, and to close it.
    Descriptors,
    /// `readv(2)` with a vector of [`VECTORS`].
    Readv,
    /// `preadv(2)`
    Preadv,
    /// `preadv2(2)` with the flags [`Step::advice`]
    Preadv2,
    /// `writev(2)`
    Writev,
    /// `pwritev(2)`
    Pwritev,
    /// `pwritev2(2)` with the flags [`Step::advice`]
    Pwritev2,
    /// `sync_file_range(2)` with the flags [`Step::advice`]
    SyncFileRange,
    /// `msync(2)` of memory of its own, with the flags [`Step::advice`]
    Msync,
    /// `mmap(2)`, of nothing if the file is [`Open::Never`] and the offset 0; the mapping goes again.
    Mmap,
    /// `futex(2)` with the operation [`Step::advice`] on a word that is 0; it waits if that is [`Step::size`], for
    /// [`Step::offset`] ns.
    Futex,
    /// `epoll_wait(2)` for [`Step::size`] events, for [`Step::offset`] ns.
    EpollWait,
    /// `epoll_pwait(2)`
    EpollPwait,
    /// `epoll_pwait2(2)`
    EpollPwait2,
    /// `io_uring_enter(2)`, with nothing to submit.
    IoUringEnter,
    /// A request through a ring of its own, of the operation [`Step::advice`], perhaps with one of [`ring`]'s marks. A
    /// timeout is one of [`Step::offset`] ns.
    Ring,
}

/// What else [`Step::advice`] says of [`Call::Ring`].
pub mod ring {
    /// Done by a worker of the kernel.
    pub const ELSEWHERE: i32 = 1 << 8;
    /// No completion, if it succeeds.
    pub const SILENT: i32 = 1 << 9;
    /// With a flag that makes no sense.
    pub const WRONG: i32 = 1 << 10;
}

/// Parts of a vector.
pub const VECTORS: usize = 3;

/// What [`Call::Descriptors`] opens and closes each time, by kind.
pub const DESCRIPTORS: [(&str, u64); 6] =
    [("file", 3), ("socket", 3), ("pipe", 2), ("event", 2), ("duplicate", 3), ("other", 1)];

impl Call {
    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pread64 => "pread64",
            Self::Write => "write",
            Self::Pwrite64 => "pwrite64",
            Self::Fsync => "fsync",
            Self::Fdatasync => "fdatasync",
            Self::Fadvise64 | Self::Fadvise64Compat => "fadvise64",
            Self::Touch => "mmap",
            Self::Madvise => "madvise",
            Self::ProcessMadvise => "process_madvise",
            Self::Readahead => "readahead",
            Self::Descriptors => "close",
            Self::Readv => "readv",
            Self::Preadv => "preadv",
            Self::Preadv2 => "preadv2",
            Self::Writev => "writev",
            Self::Pwritev => "pwritev",
            Self::Pwritev2 => "pwritev2",
            Self::SyncFileRange => "sync_file_range",
            Self::Msync => "msync",
            Self::Mmap => "mmap",
            Self::Futex => "futex",
            Self::EpollWait => "epoll_wait",
            Self::EpollPwait => "epoll_pwait",
            Self::EpollPwait2 => "epoll_pwait2",
            Self::IoUringEnter | Self::Ring => "io_uring_enter",
        }
    }
}

impl Call {
    /// Whether what it returns is a number of bytes.
    pub fn moves_bytes(self) -> bool {
        use Call::{
            Pread64, Preadv, Preadv2, Pwrite64, Pwritev, Pwritev2, Read, Readv, Write, Writev,
        };
        let vectored = matches!(self, Readv | Preadv | Preadv2 | Writev | Pwritev | Pwritev2);
        vectored || matches!(self, Read | Pread64 | Write | Pwrite64)
    }
}

/// `count` equal calls.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub call: Call,
    /// Index into [`Plan::files`].
    pub file: usize,
    /// Bytes asked for.
    pub size: usize,
    /// Where, for calls that say where. 0 and `size` 0 advise about the whole file.
    pub offset: u64,
    /// The advice, for `fadvise64`.
    pub advice: i32,
    /// How often.
    pub count: u64,
    /// Whether each is made by a process of its own, which ends after it.
    #[serde(default)]
    pub forked: bool,
}

impl Step {
    /// One call of `size` bytes at the beginning of `file`.
    pub fn new(call: Call, file: usize, size: usize) -> Self {
        Self { call, file, size, offset: 0, advice: 0, count: 1, forked: false }
    }

    /// At `offset`.
    pub fn at(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// `count` times.
    pub fn times(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// Each by a process of its own.
    pub fn forked(self) -> Self {
        Self { forked: true, ..self }
    }

    /// Advice about the whole of `file`.
    pub fn advise(file: usize, advice: i32) -> Self {
        Self { advice, ..Self::new(Call::Fadvise64, file, 0) }
    }
}

/// What the kernel told the workload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// By call.
    pub tallies: BTreeMap<Call, Tally>,
}

/// What the kernel told the callers of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Calls that returned.
    pub calls: u64,
    /// Bytes that they returned.
    pub bytes: u64,
    /// Failures, by error number.
    pub errors: BTreeMap<i32, u64>,
    /// How long each took for the caller, in ns: a little longer than in the kernel.
    pub nanos: Vec<u64>,
}

impl Tally {
    /// Takes in what another thread saw.
    pub fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.bytes += other.bytes;
        for (errno, count) in other.errors {
            *self.errors.entry(errno).or_default() += count;
        }
        self.nanos.extend(other.nanos);
    }
}

impl Report {
    /// What was told about `call`; nothing if it was not made.
    pub fn of(&self, call: Call) -> Tally {
        self.tallies.get(&call).cloned().unwrap_or_default()
    }
}
