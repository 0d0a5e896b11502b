//! The events, as fast as one CPU makes them.
#![expect(
    unsafe_code,
    reason = "a ring is handed what must live until it answers, and pages are touched"
)]

use std::{
    cell::RefCell,
    ffi::c_void,
    fs::File,
    num::NonZeroUsize,
    os::{fd::AsRawFd, unix::fs::FileExt},
    ptr::NonNull,
    time::Instant,
};

use anyhow::{Context as _, Result};
use io_uring::{IoUring, opcode};
use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous},
    unistd::getppid,
};
use tests::{device::Device, file, random};

/// Short enough that many end undisturbed.
const BATCHES: usize = 200;

/// A way to raise events.
pub(crate) struct Work {
    /// Events, or what counts as one, in a call of `run`.
    events: usize,
    run: Box<dyn Fn()>,
}

impl Work {
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
        Ok(Self { events: 1_000, run: Box::new(run) })
    }

    /// A system call that nobody watches.
    pub(crate) fn unwatched() -> Self {
        let run = || {
            for _ in 0..2_000 {
                let _ = std::hint::black_box(getppid());
            }
        };
        Self { events: 2_000, run: Box::new(run) }
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
        Ok(Self { events: 256, run: Box::new(run) })
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
        Ok(Self { events: 4_096, run: Box::new(run) })
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
        Ok(Self { events: 2_000, run: Box::new(run) })
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
        Ok(Self { events: 256, run: Box::new(run) })
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
        Ok(Self { events: 1_000, run: Box::new(run) })
    }

    /// Requests to a device, one at a time.
    pub(crate) fn requests() -> Result<Self> {
        let directory = file::directory()?;
        let device = Device::new(directory.path(), 1 << 20)?;
        let direct = device.direct()?;
        let run = move || {
            let _ = (&directory, &device);
            for i in 0..100 {
                assert!(direct.read(i * 4_096, 4_096).is_ok(), "the device is long enough");
            }
        };
        Ok(Self { events: 100, run: Box::new(run) })
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
        Ok(Self { events: PAGES, run: Box::new(run) })
    }

    /// Advice about memory that changes nothing.
    pub(crate) fn memory_advice() -> Result<Self> {
        let memory = Memory::new(1)?;
        let run = move || (0..1_000).for_each(|_| memory.advise(MmapAdvise::MADV_NORMAL));
        Ok(Self { events: 1_000, run: Box::new(run) })
    }

    /// Descriptors that are opened and closed.
    pub(crate) fn descriptors() -> Result<Self> {
        let run = || {
            for _ in 0..1_000 {
                assert!(File::open("/dev/null").is_ok(), "it is there everywhere");
            }
        };
        Ok(Self { events: 1_000, run: Box::new(run) })
    }

    /// ns per event: the tenth percentile of many batches.
    pub(crate) fn nanos(&self) -> f64 {
        let mut batches: Vec<f64> = (0..BATCHES)
            .map(|_| {
                let began = Instant::now();
                (self.run)();
                began.elapsed().as_nanos() as f64 / self.events as f64
            })
            .collect();
        batches.sort_by(f64::total_cmp);
        batches[BATCHES / 10]
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

fn file(size: u64) -> Result<(tempfile::TempDir, File)> {
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut random::rng(), size)?;
    Ok((directory, File::open(path)?))
}
