//! The allocator, kept small: memory that was needed once is not kept for ever.

/// Lets all threads allocate from one heap, before there are any. Each would have one of its own, and what is free
/// in one is of no use to the others; there are not enough allocations for them to wait for each other.
pub fn share() {
    #[cfg(target_env = "gnu")]
    {
        #![expect(unsafe_code, reason = "the allocator has no other interface")]
        // SAFETY: the function has no preconditions.
        unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    }
}

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
