//! Slots for results of system calls: 0 for success, the error number, or [`OTHER`].

/// Slots in a table of results.
pub const SLOTS: u32 = 136;
/// Where calls are counted that a signal has interrupted. Programs never see the kernel's codes for
/// that (ERESTARTSYS and its kin, 512 to 516, include/linux/errno.h): the kernel restarts the call,
/// or turns the code into EINTR, but only after the tracepoints.
pub const RESTART: u32 = SLOTS - 2;
/// Where error numbers that have no slot are counted (Linux's end at 133, EHWPOISON, but some
/// drivers return others).
pub const OTHER: u32 = SLOTS - 1;

/// The slot of a system call's return value.
#[inline(always)]
pub const fn slot(ret: i64) -> u32 {
    if ret >= 0 {
        0
    } else if ret > -(RESTART as i64) {
        (-ret) as u32
    } else if ret >= -516 && ret <= -512 {
        RESTART
    } else {
        OTHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_has_its_slot() {
        assert_eq!(slot(0), 0);
        assert_eq!(slot(i64::MAX), 0);
        assert_eq!(slot(-1), 1);
        assert_eq!(slot(-133), 133);
        assert_eq!(slot(-134), OTHER);
        assert_eq!(slot(-512), RESTART);
        assert_eq!(slot(-516), RESTART);
        assert_eq!(slot(-517), OTHER);
        assert_eq!(slot(-4095), OTHER);
        assert_eq!(slot(i64::MIN), OTHER);
    }
}
