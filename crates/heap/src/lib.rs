//! The C library's heap, which this program and the engines' libraries share.

/// Gives back to the system whatever whole pages of the heap are free. The C library does so by itself only at the
/// heap's end, so that one small piece that lives on keeps all that was freed before it. Takes some milliseconds a
/// hundred megabytes, during which other threads that allocate may wait. Does nothing where the C library isn't GNU's.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the heap's own locks and touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
}
