//! The events, as fast as one CPU makes them.
#![expect(
    unsafe_code,
    reason = "a ring is handed what must live until it answers, pages are touched, and processes made"
)]

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    fs::{self, File},
    num::NonZeroUsize,
    os::{fd::AsRawFd, unix::fs::FileExt},
    ptr::{self, NonNull},
    time::Instant,
};

use anyhow::{Context as _, Result};
use io_uring::{IoUring, opcode};
use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    libc,
    sys::{
        mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous},
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, getppid, pause},
};
use tests::{device::Device, file, memory::Limited, random};

use crate::priority;

/// Short enough that many end undisturbed.
const BATCHES: usize = 20;

const ROUNDS: usize = 101;

/// The bytes that [`Work::reclaim`] is limited to.
pub(crate) const LIMIT: u64 = 16 << 20;

/// A way to raise events.
pub(crate) struct Work {
    /// Events, or what counts as one, in a call of `run`.
    events: usize,
    batches: usize,
    /// How often that is measured.
    pub(crate) rounds: usize,
    run: Box<dyn Fn()>,
    /// Where it is done, if that matters.
    within: Option<Limited>,
}

impl Work {
    fn new(events: usize, run: impl Fn() + 'static) -> Self {
        Self { events, batches: BATCHES, rounds: ROUNDS, run: Box::new(run), within: None }
    }

    /// `pread64` of a page that is cached.
    pub(crate) fn cached_read() -> Result<Self> {
        let (directory, file) = file(1 << 16)?;
        let run = move || {
            let _ = &directory;
            let mut buffer = [0; 4_096];
            for i in 0..1_000 {
                let read = file.read_at(&mut buffer, i % 16 * 4_096);
                assert_eq!(read.ok(), Some(4_096), "the file is long enough");
            }
        };
        run();
        Ok(Self::new(1_000, run))
    }

    /// A system call that nobody watches.
    pub(crate) fn unwatched() -> Self {
        let run = || {
            for _ in 0..2_000 {
                let _ = std::hint::black_box(getppid());
            }
        };
        Self::new(2_000, run)
    }

    /// Pages that enter the page cache one by one, from a hole in a file, and leave it again.
    pub(crate) fn pages() -> Result<Self> {
        let directory = file::directory()?;
        let path = directory.path().join("sparse");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(1 << 20)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
        let run = move || {
            let _ = &directory;
            let mut buffer = [0; 4_096];
            for i in 0..256 {
                let read = file.read_at(&mut buffer, i * 4_096);
                assert_eq!(read.ok(), Some(4_096), "the file is long enough");
            }
            let dropped = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            assert!(dropped.is_ok(), "a file takes advice");
        };
        Ok(Self::new(256, run))
    }

    /// Pages of a file that is read from the device from its beginning to its end, with what the kernel reads ahead.
    pub(crate) fn stream() -> Result<Self> {
        const SIZE: u64 = 16 << 20;
        let (directory, file) = file(SIZE)?;
        let run = move || {
            let _ = &directory;
            let dropped = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            assert!(dropped.is_ok(), "a file takes advice");
            let mut buffer = vec![0; 128 << 10];
            for at in (0..SIZE).step_by(buffer.len()) {
                let read = file.read_at(&mut buffer, at);
                assert_eq!(read.ok(), Some(buffer.len()), "the file is long enough");
            }
        };
        // A run takes milliseconds.
        Ok(Self { rounds: 41, ..Self::new(4_096, run) })
    }

    /// Advice that changes nothing.
    pub(crate) fn advice() -> Result<Self> {
        let (directory, file) = file(1 << 16)?;
        let run = move || {
            let _ = (&directory, file.as_raw_fd());
            for _ in 0..2_000 {
                let taken = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_NORMAL);
                assert!(taken.is_ok(), "a file takes advice");
            }
        };
        Ok(Self::new(2_000, run))
    }

    /// Pages that are written to, one by one, and thrown away.
    pub(crate) fn writes() -> Result<Self> {
        let directory = file::directory()?;
        let path = directory.path().join("written");
        let file = File::options().write(true).create(true).truncate(true).open(path)?;
        let run = move || {
            let _ = &directory;
            for i in 0..256 {
                assert_eq!(
                    file.write_at(&[1; 4_096], i * 4_096).ok(),
                    Some(4_096),
                    "there is room"
                );
            }
            assert!(file.set_len(0).is_ok(), "a file can be made shorter");
        };
        Ok(Self::new(256, run))
    }

    /// Requests through a ring that do nothing: what each takes, one at a time.
    pub(crate) fn ring() -> Result<Self> {
        let ring = RefCell::new(IoUring::new(2)?);
        let run = move || {
            let mut ring = ring.borrow_mut();
            for _ in 0..1_000 {
                // SAFETY: the request refers to nothing.
                let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
                assert!(pushed.is_ok() && ring.submit_and_wait(1).is_ok(), "the ring is free");
                assert!(ring.completion().next().is_some(), "it was waited for");
            }
        };
        Ok(Self::new(1_000, run))
    }

    /// Requests to a device, one at a time.
    pub(crate) fn requests() -> Result<Self> {
        let directory = file::directory()?;
        let device = Device::new(directory.path(), 1 << 20)?;
        let direct = device.direct()?;
        let one_cpu = priority::OneCpu::new()?;
        let run = move || {
            let _ = (&directory, &device, &one_cpu);
            for i in 0..100 {
                assert!(direct.read(i * 4_096, 4_096).is_ok(), "the device is long enough");
            }
        };
        // Each takes thousands of ns.
        Ok(Self { rounds: 401, ..Self::new(100, run) })
    }

    /// Pages of memory that are touched for the first time, and given back.
    pub(crate) fn faults() -> Result<Self> {
        const PAGES: usize = 256;
        let memory = Memory::new(PAGES)?;
        let run = move || {
            for page in 0..PAGES {
                memory.touch(page);
            }
            memory.advise(MmapAdvise::MADV_DONTNEED);
        };
        Ok(Self::new(PAGES, run))
    }

    /// Advice about memory that changes nothing.
    pub(crate) fn memory_advice() -> Result<Self> {
        let memory = Memory::new(1)?;
        let run = move || (0..1_000).for_each(|_| memory.advise(MmapAdvise::MADV_NORMAL));
        Ok(Self::new(1_000, run))
    }

    /// Descriptors that are opened and closed.
    pub(crate) fn descriptors() -> Result<Self> {
        let run = || {
            for _ in 0..1_000 {
                assert!(File::open("/dev/null").is_ok(), "it is there everywhere");
            }
        };
        Ok(Self::new(1_000, run))
    }

    /// Pages of a file larger than the memory that they may take, so that others have to go for each: as in
    /// [`Self::pages`], but that the kernel finds those.
    pub(crate) fn reclaim(limited: Limited) -> Result<Self> {
        const PAGES: usize = 256;
        const SIZE: u64 = 4 * LIMIT;
        let directory = file::directory()?;
        let path = directory.path().join("sparse");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(SIZE)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
        let next = Cell::new(0);
        let run = move || {
            let _ = &directory;
            let mut buffer = [0; 4_096];
            for _ in 0..PAGES {
                let read = file.read_at(&mut buffer, next.get());
                assert_eq!(read.ok(), Some(4_096), "the file is long enough");
                next.set((next.get() + 4_096) % SIZE);
            }
        };
        let work = Self { within: Some(limited), ..Self::new(PAGES, run) };
        // The first pages find room.
        work.nanos()?;
        Ok(work)
    }

    /// Compaction of all memory, zone by zone.
    pub(crate) fn compaction() -> Self {
        let run = || {
            let asked = fs::write("/proc/sys/vm/compact_memory", "1");
            assert!(asked.is_ok(), "who loads programs can ask for it");
        };
        // A run takes milliseconds.
        let work = Self { batches: 5, rounds: 21, ..Self::new(1, run) };
        // There is less to move once it has been done.
        (work.run)();
        work
    }

    /// Processes that are killed before they have done anything. They share this one's memory: what a fork takes
    /// depends on how much of it there is to copy.
    pub(crate) fn kills() -> Self {
        // Fewer in all rounds than there is room for in the buffer, which nobody reads any more: once it is full, events
        // are dropped, which takes less.
        const PROCESSES: usize = 10;
        let stack = RefCell::new(vec![0_u128; 4_096]);
        let run = move || {
            for _ in 0..PROCESSES {
                let mut stack = stack.borrow_mut();
                // SAFETY: the child only waits for its end, on a stack that it has alone until then, from its top.
                let child = unsafe {
                    let top = stack.as_mut_ptr_range().end.cast();
                    libc::clone(waiting, top, libc::CLONE_VM | libc::SIGCHLD, ptr::null_mut())
                };
                assert!(child > 0, "there is room for a process");
                let child = Pid::from_raw(child);
                priority::share(child);
                assert!(kill(child, Signal::SIGKILL).is_ok(), "it waits for its end");
                let ended = waitpid(child, None);
                assert_eq!(ended, Ok(WaitStatus::Signaled(child, Signal::SIGKILL, false)));
            }
        };
        Self { batches: 4, rounds: 41, ..Self::new(PROCESSES, run) }
    }

    /// Does it for as long as busy programs do between two looks of an agent.
    pub(crate) fn warm(&self) -> Result<()> {
        (0..10).try_for_each(|_| self.nanos().map(drop))
    }

    /// ns per event: the least of some batches, after one that finds nothing in the caches.
    pub(crate) fn nanos(&self) -> Result<f64> {
        let own = Pid::this();
        // Not for longer: what else is started would be limited, too.
        if let Some(limited) = &self.within {
            limited.add(own)?;
        }
        let batches = (0..=self.batches).map(|_| {
            let began = Instant::now();
            (self.run)();
            began.elapsed().as_nanos() as f64 / self.events as f64
        });
        let least = batches.skip(1).fold(f64::INFINITY, f64::min);
        if let Some(limited) = &self.within {
            limited.leave(own)?;
        }
        Ok(least)
    }
}

/// Memory of small pages.
struct Memory(NonNull<c_void>, usize);

impl Memory {
    fn new(pages: usize) -> Result<Self> {
        let length = NonZeroUsize::new(pages * 4_096).context("no pages")?;
        let (protection, flags) =
            (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: it is new memory, which nothing else refers to.
        let memory =
            Self(unsafe { mmap_anonymous(None, length, protection, flags) }?, length.get());
        memory.advise(MmapAdvise::MADV_NOHUGEPAGE);
        Ok(memory)
    }

    fn touch(&self, page: usize) {
        // SAFETY: the page is in it.
        unsafe { self.0.byte_add(page * 4_096).cast::<u8>().write_volatile(1) };
    }

    fn advise(&self, advice: MmapAdvise) {
        // SAFETY: nobody relies on what is in it.
        let taken = unsafe { madvise(self.0, self.1, advice) };
        assert!(taken.is_ok(), "memory takes advice");
    }
}

/// Does nothing.
extern "C" fn waiting(_: *mut c_void) -> i32 {
    loop {
        pause();
    }
}

fn file(size: u64) -> Result<(tempfile::TempDir, File)> {
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut random::rng(), size)?;
    Ok((directory, File::open(path)?))
}
