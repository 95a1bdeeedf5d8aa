//! How memory is given back to the system.

/// Freed blocks of this size and more are given back at once, in bytes.
#[cfg(target_env = "gnu")]
const GIVEN_BACK: libc::c_int = 1 << 20;

/// Keeps the C library from holding on to what is used for moments only.
///
/// glibc takes a block from its heap once one of that size was freed (up to 32 MiB, `mallopt(3)`), and the
/// heap shrinks at its end only: what a pass over all flows takes, and reading a cluster's objects, would
/// stay resident. musl gives such blocks back anyway.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator's, which locks it.
    let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK) } == 1;
    #[cfg(target_env = "gnu")]
    if !is_set {
        tracing::debug!(
            "the C library does not let its allocator be told when to give memory back"
        );
    }
}
