//! The heaps of a process: jemalloc's, where this program allocates, and the C library's, where the engines' libraries
//! and SQLite do; and the pages of the program's own files.

#[cfg(target_os = "linux")]
use std::collections::HashSet;

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

/// Unmaps what is read of the program's and its libraries' files but was not changed, which is most of what a process
/// at rest seems to hold: a start runs through much code once. What is needed again comes back from the system's cache of
/// files, a few at a time, for a microsecond; the rest is the system's to forget. Does nothing where the system isn't Linux.
///
/// # Errors
/// If the system doesn't tell what is mapped.
pub fn let_go_of_code() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    for (start, length) in unchanged_code(&std::fs::read_to_string("/proc/self/smaps")?) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: pages of a private mapping that nobody can write and nobody has written are read from the file again,
        // with the same content, when they are touched.
        unsafe {
            libc::madvise(start, length, libc::MADV_DONTNEED);
        }
    }
    Ok(())
}

/// Where a file is mapped.
#[cfg(target_os = "linux")]
struct Mapping<'a> {
    span: (usize, usize),
    file: &'a str,
    access: &'a str,
    /// What of it differs from the file, in memory and swapped out; `None` where the system doesn't say.
    changed: [Option<&'a str>; 2],
}

/// Where private mappings of code's files are, and how long, that can't be written and have no pages that differ from
/// their files.
#[cfg(target_os = "linux")]
fn unchanged_code(smaps: &str) -> Vec<(usize, usize)> {
    let mut all: Vec<Mapping<'_>> = Vec::new();
    let mut is_file = false;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(span) = span(first) {
            let access = words.next().unwrap_or_default();
            let file = line.find('/').and_then(|path| line.get(path..)).unwrap_or_default();
            is_file = !file.is_empty();
            if is_file {
                all.push(Mapping { span, file, access, changed: [None; 2] });
            }
        } else if let Some(mapping) = all.last_mut().filter(|_| is_file) {
            match first {
                "Anonymous:" => mapping.changed[0] = words.next(),
                "Swap:" => mapping.changed[1] = words.next(),
                _ => {}
            }
        }
    }
    let code: HashSet<&str> =
        all.iter().filter(|mapping| mapping.access == "r-xp").map(|mapping| mapping.file).collect();
    let is_unchanged = |mapping: &&Mapping<'_>| {
        let is_read_only = matches!(mapping.access, "r--p" | "r-xp");
        is_read_only && mapping.changed == [Some("0"); 2] && code.contains(mapping.file)
    };
    all.iter().filter(is_unchanged).map(|mapping| mapping.span).collect()
}

/// `FROM-TO`, in hexadecimal digits, as where it begins and how long it is.
#[cfg(target_os = "linux")]
fn span(range: &str) -> Option<(usize, usize)> {
    let (from, to) = range.split_once('-')?;
    let from = usize::from_str_radix(from, 16).ok()?;
    Some((from, usize::from_str_radix(to, 16).ok()?.checked_sub(from)?))
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
        let_go_of_code().unwrap();
        assert!(of_files() < before, "{before} kB and now {}", of_files());
        assert_eq!(std::fs::read("/proc/self/exe").unwrap(), all, "and all goes on");
    }

    #[test]
    fn what_was_changed_or_can_be_is_kept() {
        let mapping = |range: &str, access: &str, file: &str, changed: &str, swapped: &str| {
            format!(
                "{range} {access} 00001000 08:01 {file}\nRss: 8 kB\nAnonymous: {changed} kB\nSwap: {swapped} kB\n"
            )
        };
        let smaps = [
            mapping("1000-3000", "r--p", "7 /usr/bin/avocet", "0", "0"),
            mapping("3000-4000", "r-xp", "7 /usr/bin/avocet", "0", "0"),
            mapping("4000-5000", "r--p", "7 /usr/bin/avocet", "4", "0"),
            mapping("5000-6000", "r--p", "7 /usr/bin/avocet", "0", "4"),
            mapping("6000-7000", "rw-p", "7 /usr/bin/avocet", "0", "0"),
            mapping("7000-8000", "r-xs", "7 /usr/bin/avocet", "0", "0"),
            mapping("8000-9000", "r--p", "9 /models/a model.onnx", "0", "0"),
            mapping("9000-a000", "r-xp", "0 [vdso]", "0", "0"),
            mapping("a000-b000", "r--p", "0", "0", "0"),
            mapping("b000-c000", "r-xp", "8 /usr/lib/a library.so", "0", "0"),
        ];
        let code = [(0x1000, 0x2000), (0x3000, 0x1000), (0xb000, 0x1000)];
        assert_eq!(unchanged_code(&smaps.concat()), code);
        assert_eq!(
            unchanged_code("d000-e000 r-xp 0 0 7 /a\nAnonymous: 0 kB\n"),
            [],
            "nothing is said of swap"
        );
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
