//! Processes as procfs shows them.

use std::{collections::BTreeSet, fs};

/// Every process's id; those of the pid namespace that procfs was mounted in.
pub fn all() -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A process's name.
pub fn name(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned())
}

/// When a process started, in ticks since boot.
pub fn start_ticks(pid: u32) -> Option<u64> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The 22nd field (proc_pid_stat(5)); the second, the name in brackets, may contain anything.
fn parse(stat: &[u8]) -> Option<u64> {
    let end = stat.windows(2).rposition(|bytes| bytes == b") ")?;
    let fields = std::str::from_utf8(&stat[end + 2..]).ok()?;
    fields.split(' ').nth(19)?.parse().ok()
}

/// Whether this process shows the ids of the initial pid namespace, which are those that the kernel's
/// programs see (`PROC_PID_INIT_INO` of include/linux/proc_ns.h).
pub fn ids_are_the_kernels() -> bool {
    const INITIAL: &str = "pid:[4026531836]";
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_and_spaces_do_not_shift_fields() {
        let fields = (3..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse(format!("7 (a) b) {fields}").as_bytes()), Some(22));
    }

    #[test]
    fn this_process_is_among_all() {
        let pid = std::process::id();
        assert!(all().contains(&pid));
        assert!(start_ticks(pid).is_some_and(|ticks| ticks > 0));
    }
}
