//! Memory that was needed for loading only.

/// Has the C library's allocator return to the system what is free. Left alone it keeps what the parsed kernel types took,
/// some 15 MB, for as long as the agent runs.
pub(super) fn give_back() {
    // SAFETY: it takes the allocator's own locks and touches free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
