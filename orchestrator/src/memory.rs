//! Memory that large requests took goes back to the system as soon as it is free. The only place of this program with unsafe
//! code.

/// Allocations of this size and above have pages of their own (bytes).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES: i32 = 1 << 20;

/// Tells the allocator of the GNU C library to keep large allocations apart from all others, so that freeing one gives its
/// pages back. By itself it learns from the first large request to keep up to 64 MB for each thread. To be called once, at
/// the start; elsewhere this does nothing.
pub fn give_back_large_allocations() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "the standard library has no name for this function")]
        // SAFETY: it takes two numbers and may be called at any time (mallopt(3)).
        let taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES) };
        if taken == 0 {
            tracing::debug!(
                "the allocator does not take M_MMAP_THRESHOLD; it may keep memory of large requests"
            );
        }
    }
}
