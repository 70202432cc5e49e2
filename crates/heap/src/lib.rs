//! The heaps of a process: jemalloc's, where this program allocates, and the C library's, where the engines' libraries
//! and SQLite do; and the pages of the program's own files.

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

/// Unmaps the pages of the program's file, which are most of what a process at rest seems to hold: a start runs through
/// much code once. What is needed again comes back from the system's cache of files, a few pages at a time, for a
/// microsecond; the rest is the system's to forget. Does nothing where the system isn't Linux.
pub fn let_go_of_code() {
    #[cfg(target_os = "linux")]
    // SAFETY: the function that is called fits, and takes nothing but what it is given.
    unsafe {
        libc::dl_iterate_phdr(Some(let_go_of), std::ptr::null_mut());
    }
}

/// Unmaps what can't be written of the first object that the loader lists, which is the program.
///
/// # Safety
/// For the loader to call.
#[cfg(target_os = "linux")]
unsafe extern "C" fn let_go_of(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _nothing: *mut libc::c_void,
) -> libc::c_int {
    /// Do not go on with the next object.
    const ENOUGH: libc::c_int = 1;
    // SAFETY: the loader describes an object that stays.
    let (base, segments) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    // SAFETY: it asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page) = u64::try_from(page) else { return ENOUGH };
    for segment in segments {
        if segment.p_type != libc::PT_LOAD || segment.p_flags & libc::PF_W != 0 {
            continue;
        }
        // Whole pages: what shares one with another segment stays.
        let from = (base + segment.p_vaddr).next_multiple_of(page);
        let to = (base + segment.p_vaddr + segment.p_memsz) / page * page;
        let (Ok(from), Ok(length)) = (usize::try_from(from), usize::try_from(to.saturating_sub(from))) else {
            continue;
        };
        // SAFETY: nothing writes there, not even the loader, which relocates what can be written alone. Such pages are read
        // from the file again, with the same content, when they are touched.
        unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(from), length, libc::MADV_DONTNEED);
        }
    }
    ENOUGH
}

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
    fn code_that_is_not_needed_goes_and_comes_back() {
        let of_files = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        let all = std::fs::read("/proc/self/exe").unwrap();
        let before = of_files();
        let_go_of_code();
        assert!(of_files() < before, "{before} kB and now {}", of_files());
        assert_eq!(std::fs::read("/proc/self/exe").unwrap(), all, "and all goes on");
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
