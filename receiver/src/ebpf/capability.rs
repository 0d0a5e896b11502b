//! Whether this process may load programs, asked before it tries: the kernel's own answer is a bare
//! "operation not permitted".

use std::fs;

use anyhow::{Context as _, Result, bail};

/// Names and bits of include/uapi/linux/capability.h.
const NEEDED: [(&str, u32); 2] = [("CAP_BPF", 39), ("CAP_PERFMON", 38)];
/// Stands for both, as before Linux 5.8.
const SYS_ADMIN: u32 = 21;

/// Fails with the missing capabilities and the command that grants them.
pub fn check() -> Result<()> {
    const FILE: &str = "/proc/thread-self/status";
    let status = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let missing = missing(effective(&status).with_context(|| format!("{FILE} has no CapEff"))?);
    if missing.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe()
        .map_or_else(|_| "fathom".to_owned(), |path| path.display().to_string());
    bail!(
        "loading programs into the kernel needs {}, which this process does not have: run it as \
         root, or grant what it needs with `sudo setcap cap_bpf,cap_perfmon+ep {program}`",
        missing.join(" and "),
    )
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    NEEDED
        .into_iter()
        .filter(|(_, bit)| !has(*bit) && !has(SYS_ADMIN))
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(missing(0), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing(1 << 39), ["CAP_PERFMON"]);
        assert_eq!(missing(1 << 39 | 1 << 38), [""; 0]);
        assert_eq!(missing(1 << SYS_ADMIN), [""; 0]);
    }

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("CapPrm:\t0\nCapEff:\t000000c000000000\n"), Some(0xc0_0000_0000));
        assert_eq!(effective("CapPrm:\t0\n"), None);
    }
}
