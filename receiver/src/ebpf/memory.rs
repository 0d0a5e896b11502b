//! The allocator, kept small: memory that was needed once is not kept for ever.

use std::{fs, ops::Range};

/// Keeps what the process takes to what it uses, before there are threads.
pub fn keep_small() {
    // Of two megabytes of the heap in which a page is in use, the kernel would make a huge one, in time, where a machine
    // has it do so everywhere (`always`). It is a matter of size alone: if it cannot be had, nothing is wrong.
    let _ = nix::sys::prctl::set_thp_disable(true);
    one_heap();
}

/// Lets all threads allocate from one heap. Each would have one of its own, and what is free in one is of no use to the
/// others; there are not enough allocations for them to wait for each other.
fn one_heap() {
    #[cfg(target_env = "gnu")]
    {
        #![expect(unsafe_code, reason = "the allocator has no other interface")]
        // SAFETY: the function has no preconditions.
        unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    }
}

/// Hands memory back that was needed for a moment, to start or for a large collection: what the allocator holds free
/// (reading the kernel's types takes tens of megabytes, which it would keep for as long as the process lives), and the
/// pages of the program itself, most of which the kernel mapped only because they lie around those that ran. Those that
/// run again come back from the page cache.
pub fn release() {
    trim();
    // It is a matter of size alone: if it cannot be had, nothing is wrong.
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    unchanged(&maps).into_iter().for_each(let_go);
}

/// Hands back what the allocator holds free, wherever it lies between what is in use: of itself, it does so at the end of
/// its heap alone.
fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #![expect(unsafe_code, reason = "the allocator has no other interface")]
        // SAFETY: the function has no preconditions.
        unsafe { nix::libc::malloc_trim(0) };
    }
}

#[expect(unsafe_code, reason = "a system call on the process's own memory")]
fn let_go(range: Range<usize>) {
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: nobody can write to the pages and nobody has, so the file has the same to be read again.
    unsafe { nix::libc::madvise(start, range.len(), nix::libc::MADV_DONTNEED) };
}

/// The mappings of files, of those in the text of `/proc/self/smaps`, that may not be written to and of which no
/// page differs from the file. (The loader writes to some before it takes the right away.)
fn unchanged(maps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            // The last of the sizes that matter.
            (Some("Swap:"), Some("0")) => found.extend(candidate.take()),
            (Some("Anonymous:" | "Swap:"), Some(size)) if size != "0" => candidate = None,
            (Some(range), Some(rights)) if !range.ends_with(':') => {
                let inode = words.nth(2);
                let read_only =
                    matches!(rights, "r--p" | "r-xp") && inode.is_some_and(|i| i != "0");
                candidate = range.split_once('-').filter(|_| read_only).and_then(|(start, end)| {
                    let number = |text| usize::from_str_radix(text, 16).ok();
                    Some(number(start)?..number(end)?)
                });
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_let_go() {
        let map = |start: usize, rights: &str, inode: u32, anonymous: u32, swap: u32| {
            format!(
                "{start:x}-{:x} {rights} 00001000 fe:00 {inode}      /bin/x\nRss:  4 kB\nAnonymous:  {anonymous} kB\n\
                 Swap:   {swap} kB\nSwapPss:   0 kB\nVmFlags: rd ex mr mw me\n",
                start + 0x1000
            )
        };
        let maps = [
            map(0x1000, "r--p", 7, 0, 0),
            map(0x2000, "r-xp", 7, 0, 0),
            map(0x3000, "r--p", 7, 4, 0),
            map(0x4000, "r--p", 7, 0, 4),
            map(0x5000, "rw-p", 7, 0, 0),
            map(0x6000, "r--s", 7, 0, 0),
            map(0x7000, "r-xp", 0, 0, 0),
        ];
        assert_eq!(unchanged(&maps.concat()), [0x1000..0x2000, 0x2000..0x3000]);
    }

    #[test]
    fn the_program_goes_on() {
        let own = || {
            let maps = fs::read_to_string("/proc/self/smaps").expect("a process has maps");
            unchanged(&maps)
                .into_iter()
                .any(|range| range.contains(&(release as *const () as usize)))
        };
        assert!(own(), "its own code is in a file");
        release();
        assert!(own());
    }
}
