//! Returning free heap memory to the system.

/// Returns free memory of the C library's allocator to the system. Without this the allocator keeps the memory of the parsed
/// BTF, about 15 MB, and of views that slow readers had, for as long as the agent runs.
pub fn trim_heap() {
    // SAFETY: it takes the allocator's own locks and touches free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
