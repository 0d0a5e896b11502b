//! Maps read whole: in batches, which takes one system call for thousands of entries, with the copies
//! of all CPUs summed up.

use std::{
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use abi::{
    Plain,
    group::{Group, Key},
};
use anyhow::{Context as _, Result};
use aya::{Pod, maps::MapData, util::nr_cpus};
use nix::libc;

/// Commands of `bpf(2)` (include/uapi/linux/bpf.h).
const LOOKUP_ELEM: libc::c_long = 1;
const UPDATE_ELEM: libc::c_long = 2;
const DELETE_ELEM: libc::c_long = 3;
const LOOKUP_BATCH: libc::c_long = 24;
/// Bytes of values per system call, of all CPUs. More are not read faster.
const BATCH: usize = 32 << 10;
/// Entries per system call, at least: fewer are read more slowly, and a bucket of a hash has to find room.
const ENTRIES: usize = 64;
/// `ENOTSUPP` of the kernel, which has no name outside: kernels before 5.13 have no batches for per-CPU
/// arrays.
const NOT_SUPPORTED: i32 = 524;

/// The memory of a large table that is gone, for the next one. To have the kernel find pages for thousands of groups, and
/// fill them with zeros, would take a fifth as long again as reading them.
static SPARE: Mutex<Spare> = Mutex::new(Spare { keys: Vec::new(), sums: Vec::new(), idle: 0 });

#[derive(Default)]
struct Spare {
    keys: Vec<Key>,
    sums: Vec<u64>,
    /// How many in a row needed little of it.
    idle: u32,
}

/// The cells of a map: per-CPU values that consist of `u64`s, summed.
#[derive(Debug, Default, PartialEq)]
pub struct Table {
    /// Whose, one for each row.
    pub keys: Vec<Key>,
    /// `u64`s in a value.
    pub columns: usize,
    /// The values, row after row.
    pub sums: Vec<u64>,
}

impl Table {
    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = (&Key, &[u64])> {
        self.keys.iter().zip(self.sums.chunks_exact(self.columns.max(1)))
    }

    /// A row; empty if there is none.
    pub fn row(&self, row: usize) -> &[u64] {
        self.sums.get(row * self.columns..(row + 1) * self.columns).unwrap_or_default()
    }

    /// Takes the first rows. The others are numbered anew.
    pub(super) fn split_front(&mut self, rows: usize) -> Self {
        let rest = Self {
            keys: self.keys[..self.keys.len().saturating_sub(rows)].to_vec(),
            columns: self.columns,
            sums: self.sums.split_off(rows * self.columns),
        };
        mem::replace(self, rest)
    }

    /// Reads the cells of a per-CPU hash: every entry that there is.
    pub fn of_hash(map: &MapData) -> Result<Self> {
        Source::of(map)?.hash()
    }

    /// An empty one in the spare memory.
    fn spare(columns: usize) -> Self {
        let mut spare = spare();
        Self { keys: mem::take(&mut spare.keys), columns, sums: mem::take(&mut spare.sums) }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        /// Less is found quickly.
        const LARGE: usize = 4_096;
        /// Longer than it takes to read the maps of all signals, not all of which have large tables.
        const IDLE: u32 = 100;
        let (mut keys, mut sums) = (mem::take(&mut self.keys), mem::take(&mut self.sums));
        let mut spare = spare();
        if sums.capacity() < LARGE || sums.capacity() <= spare.sums.capacity() {
            return;
        }
        spare.idle = if sums.len() < sums.capacity() / 4 { spare.idle + 1 } else { 0 };
        keys.clear();
        sums.clear();
        if spare.idle < IDLE {
            (spare.keys, spare.sums) = (keys, sums);
        }
    }
}

fn spare() -> MutexGuard<'static, Spare> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A map to read: its descriptor and the sizes that decide the layout.
pub(super) struct Source<'a> {
    fd: BorrowedFd<'a>,
    value_size: usize,
    entries: u32,
}

impl<'a> Source<'a> {
    /// A map that has been made.
    pub(super) fn of(map: &'a MapData) -> Result<Self> {
        let info = map.info()?;
        Ok(Self {
            fd: map.fd().as_fd(),
            value_size: info.value_size() as usize,
            entries: info.max_entries(),
        })
    }

    /// Reads a per-CPU array: every entry.
    pub(super) fn array(&self) -> Result<Table> {
        let mut table = Table::default();
        table.columns = self.columns();
        let mut read = |index: u32, values: &[u8]| {
            table.keys.push(Key { group: Group::HOST, entry: index, pad: 0 });
            sum(values, table.columns, &mut table.sums);
        };
        let each = self.each::<u32>(&mut read);
        if let Err(error) = each {
            if error.raw_os_error() != Some(NOT_SUPPORTED) {
                return Err(error).context("cannot read a map");
            }
            let mut values = vec![0; self.stride()?];
            for index in 0..self.entries {
                self.lookup(&index, &mut values).context("cannot read a map's entry")?;
                read(index, &values);
            }
        }
        Ok(table)
    }

    /// See [`Table::of_hash`].
    pub(super) fn hash(&self) -> Result<Table> {
        let mut table = Table::spare(self.columns());
        self.each::<Key>(&mut |key, values| {
            table.keys.push(key);
            sum(values, table.columns, &mut table.sums);
        })
        .context("cannot read a map")?;
        Ok(table)
    }

    /// `u64`s in a value.
    fn columns(&self) -> usize {
        self.value_size / mem::size_of::<u64>()
    }

    /// Bytes of the values of an entry, of all CPUs.
    fn stride(&self) -> Result<usize> {
        let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
        Ok(self.value_size.next_multiple_of(8) * cpus)
    }

    #[expect(unsafe_code, reason = "keys come as bytes")]
    fn each<K: Pod>(&self, read: &mut impl FnMut(K, &[u8])) -> io::Result<()> {
        let stride = self.stride().map_err(io::Error::other)?;
        let mut room = (BATCH / stride.max(1)).max(ENTRIES).min(self.entries.max(1) as usize);
        // The kernel's place in the map between two calls: a bucket's number, or an array's key.
        let (mut place, mut next) = (0_u64, 0_u64);
        let mut first = true;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        loop {
            keys.resize(room * mem::size_of::<K>(), 0_u8);
            values.resize(room * stride, 0_u8);
            let mut attributes = Batch {
                in_batch: if first { 0 } else { &raw const place as u64 },
                out_batch: &raw mut next as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: room as u32,
                map_fd: self.fd.as_raw_fd() as u32,
                elem_flags: 0,
                flags: 0,
            };
            let result = bpf(LOOKUP_BATCH, &mut attributes);
            let end = match result {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // A bucket with more entries than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    room *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let entries = keys.chunks_exact(mem::size_of::<K>()).zip(values.chunks_exact(stride));
            for (key, values) in entries.take(attributes.count as usize) {
                // SAFETY: `K` is plain bytes, and there are as many as it has.
                read(unsafe { key.as_ptr().cast::<K>().read_unaligned() }, values);
            }
            if end || attributes.count == 0 {
                return Ok(());
            }
            (place, first) = (next, false);
        }
    }

    /// Removes an entry of a hash, if it is there.
    pub(super) fn remove(&self, key: &Key) -> io::Result<()> {
        match bpf(DELETE_ELEM, &mut self.element(key, 0)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Sets an entry of an array.
    pub(super) fn set<V: Pod>(&self, key: u32, value: &V) -> io::Result<()> {
        assert!(mem::size_of::<V>() == self.value_size, "a value of another size");
        bpf(UPDATE_ELEM, &mut self.element(&key, &raw const *value as u64))
    }

    /// Sets an entry of a per-CPU array to zeros.
    pub(super) fn clear(&self, key: u32) -> Result<()> {
        let zeros = vec![0_u8; self.stride()?];
        Ok(bpf(UPDATE_ELEM, &mut self.element(&key, zeros.as_ptr() as u64))?)
    }

    fn lookup(&self, key: &u32, values: &mut [u8]) -> io::Result<()> {
        bpf(LOOKUP_ELEM, &mut self.element(key, values.as_mut_ptr() as u64))
    }

    fn element<K>(&self, key: &K, value: u64) -> Element {
        let key = &raw const *key as u64;
        Element { map_fd: self.fd.as_raw_fd() as u32, pad: 0, key, value, flags: 0 }
    }
}

/// A plain value from the start of bytes, of which there are enough.
#[expect(unsafe_code, reason = "events come as bytes")]
pub(super) fn read_plain<T: Plain>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= mem::size_of::<T>(), "too few bytes");
    // SAFETY: any bytes are a value of a plain type, and there are as many as it has.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// The part of `bpf_attr` for batches.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part of `bpf_attr` for single entries.
#[repr(C)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[expect(unsafe_code, reason = "a system call that no library has")]
fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<()> {
    // SAFETY: the kernel reads and writes the attributes within their size, and the memory that they
    // point to, which the callers keep and have made as large as the map's entries ask for.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, mem::size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Appends the sums over the CPUs of each column.
fn sum(values: &[u8], columns: usize, sums: &mut Vec<u64>) {
    let row = sums.len();
    let mut cpus = values.chunks_exact(columns * 8).map(|cpu| cpu.as_chunks::<8>().0);
    sums.extend(cpus.next().into_iter().flatten().map(|word| u64::from_ne_bytes(*word)));
    for cpu in cpus {
        for (sum, word) in sums[row..].iter_mut().zip(cpu) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_summed_by_column() {
        let words = [1_u64, 2, 10, 20, 100, 200];
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut sums = vec![7];
        sum(&bytes, 2, &mut sums);
        assert_eq!(sums, [7, 111, 222]);
    }

    #[test]
    fn the_memory_of_a_large_table_is_used_again_until_it_is_too_much() {
        let kept = || spare().sums.capacity();
        let mut large = Table::spare(1);
        large.sums.resize(100_000, 7);
        let small = {
            let mut small = Table::default();
            small.sums.resize(5_000, 1);
            small
        };
        drop(large);
        drop(small);
        assert!(kept() >= 100_000);
        let again = Table::spare(1);
        assert!(again.sums.is_empty() && again.sums.capacity() >= 100_000 && kept() == 0);
        drop(again);
        // Of the next hundred, one needs it.
        for number in 0..150 {
            let mut table = Table::spare(1);
            table.sums.resize(if number == 75 { 50_000 } else { 100 }, 7);
        }
        assert!(kept() >= 100_000);
        (0..100).for_each(|_| drop(Table::spare(1)));
        assert!(kept() < 100_000);
    }
}
