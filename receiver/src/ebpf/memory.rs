//! Memory that loading programs needed and nothing else will.

/// Hands free memory back to the kernel. Reading the kernel's types takes tens of megabytes for a
/// moment; the allocator would keep them for as long as the process lives.
pub fn release() {
    #[cfg(target_env = "gnu")]
    {
        #![expect(unsafe_code, reason = "the allocator has no other interface")]
        // SAFETY: the function has no preconditions.
        unsafe { nix::libc::malloc_trim(0) };
    }
}
