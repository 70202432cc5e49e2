//! The heaps of a process: jemalloc's, where this program allocates, and the C library's, where the engines' libraries
//! and SQLite do.

/// What allocates for this program. Requests allocate many small pieces on one thread that another frees, at which the
/// C library's heap is slow.
#[cfg(target_os = "linux")]
pub type Allocator = tikv_jemallocator::Jemalloc;
/// What allocates for this program.
#[cfg(not(target_os = "linux"))]
pub type Allocator = std::alloc::System;

/// The program's allocator, to be its `#[global_allocator]`.
#[cfg(target_os = "linux")]
pub const ALLOCATOR: Allocator = tikv_jemallocator::Jemalloc;
/// The program's allocator, to be its `#[global_allocator]`.
#[cfg(not(target_os = "linux"))]
pub const ALLOCATOR: Allocator = std::alloc::System;

/// What jemalloc reads when it starts. An arena for each core instead of four, and one thread that returns free
/// pages, because small machines have little to give away; a mebibyte less at rest, and no slower.
#[cfg(target_os = "linux")]
// SAFETY: jemalloc asks for a symbol of this name with a text that ends with a zero, and reads it alone.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: &[u8; 41] = b"narenas_ratio:1,max_background_threads:1\0";

/// Gives back to the system whatever whole pages of both heaps are free. The C library does so by itself only at the
/// heap's end, so that one small piece that lives on keeps all that was freed before it; jemalloc does after some
/// seconds. Takes some milliseconds a hundred megabytes, during which other threads that allocate may wait. Does
/// nothing where the C library isn't GNU's.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the heap's own locks and touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
    #[cfg(target_os = "linux")]
    // SAFETY: the name ends with a zero, and the command takes and answers nothing.
    unsafe {
        let nothing = std::ptr::null_mut();
        tikv_jemalloc_sys::mallctl(ALL_ARENAS_PURGE.as_ptr(), nothing, std::ptr::null_mut(), nothing, 0);
    }
}

/// Returns the unused pages of all arenas, whose number is `MALLCTL_ARENAS_ALL`.
#[cfg(target_os = "linux")]
const ALL_ARENAS_PURGE: &std::ffi::CStr = c"arena.4096.purge";

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[global_allocator]
    static HEAP: Allocator = ALLOCATOR;

    fn resident() -> usize {
        let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
        sizes.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn jemalloc_follows_the_settings() {
        let (mut threads, mut size) = (0_usize, size_of::<usize>());
        let name = c"opt.max_background_threads";
        // SAFETY: the answer is a number of this size.
        let failed = unsafe {
            let answer = std::ptr::from_mut(&mut threads).cast();
            tikv_jemalloc_sys::mallctl(name.as_ptr(), answer, &raw mut size, std::ptr::null_mut(), 0)
        };
        assert_eq!((failed, threads), (0, 1));
    }

    #[test]
    fn what_was_freed_between_pieces_that_stay_goes_back() {
        const PIECE: usize = 64 << 10;
        let pieces: Vec<Vec<u8>> = (0..1600).map(|_| vec![1; PIECE]).collect();
        let full = resident();
        let kept: Vec<Vec<u8>> = pieces.into_iter().step_by(100).collect();
        give_back();
        assert!(full - resident() > 80 << 20, "{full} and now {}", resident());
        assert_eq!(kept.len(), 16);
    }
}
