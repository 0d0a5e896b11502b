//! What the registers of a system call are called on each architecture.

use super::btf::Types;

/// Ladders and programs call registers and flags as x86-64 does, where the arguments of a call are in di, si,
/// dx, r10 and r8. Where the kernel's types do not have such a name, what arm64 has instead.
const INSTEAD: [(&str, &str); 8] = [
    ("pt_regs.orig_ax", "pt_regs.syscallno"),
    // The result takes the place of the first argument (arch/arm64/kernel/syscall.c).
    ("pt_regs.di", "pt_regs.orig_x0"),
    ("pt_regs.si", "pt_regs.regs[1]"),
    ("pt_regs.dx", "pt_regs.regs[2]"),
    ("pt_regs.r10", "pt_regs.regs[3]"),
    ("pt_regs.r8", "pt_regs.regs[4]"),
    ("pt_regs.bp", "pt_regs.regs[5]"),
    (STATUS, "task_struct.thread_info.flags"),
];

/// Where x86-64 keeps what kind of call a thread is in.
const STATUS: &str = "task_struct.thread_info.status";
/// Says there that its caller is a 32-bit one (arch/x86/include/asm/thread_info.h).
const TS_COMPAT: u32 = 1 << 1;
/// Says in arm64's flags that the program is a 32-bit one (arch/arm64/include/asm/thread_info.h).
const TIF_32BIT: u32 = 1 << 22;

/// What another architecture has in the place of a field.
pub(super) fn instead(path: &str) -> Option<&'static str> {
    INSTEAD.iter().find(|(name, _)| *name == path).map(|(_, other)| *other)
}

/// The bit that tells a 32-bit caller.
pub(super) fn compat(types: &Types) -> u32 {
    if types.offset(STATUS).is_ok() { TS_COMPAT } else { TIF_32BIT }
}

/// How many bits of an address in a file lie within a page.
pub(super) fn page_shift() -> u32 {
    page_size().trailing_zeros()
}

/// Bytes of a page.
pub fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}
