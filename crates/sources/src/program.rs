//! Programs that read what strangers made: they may hold so much memory and no more.

use std::process::{Command, ExitStatus};

use crate::Error;

/// Sets the limit and becomes the program. Nothing runs before that is set, and all that it starts inherits it. A
/// limit that is lower already stays.
const LIMITED: &str = r#"ulimit -d "$0" 2>/dev/null; exec "$@""#;
/// What a shell ends with that can't find a program.
const NOT_FOUND: i32 = 127;
/// What git, Go and Python say before they end for want of memory.
const WORDS: [&str; 4] = ["out of memory", "cannot allocate memory", "memoryerror", "mmap failed"];

/// A program that may hold so many bytes of data, and so may each that it starts; files that it maps don't count.
pub fn limited(program: &str, memory_bytes: u64) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", LIMITED, &(memory_bytes >> 10).to_string(), program]);
    command
}

/// Whether what was started by [`limited`] is not there.
pub fn is_missing(status: ExitStatus) -> bool {
    status.code() == Some(NOT_FOUND)
}

/// What a program that failed with this complaint wanted too much memory for, if it did.
pub fn check_memory(program: &str, action: &str, complaint: &str, memory_bytes: u64) -> Result<(), Error> {
    let said = complaint.to_lowercase();
    if !WORDS.iter().any(|words| said.contains(words)) {
        return Ok(());
    }
    let mib = memory_bytes >> 20;
    Err(Error::TooLarge(format!(
        "can't {action}: {program} needs more than the {mib} MiB of memory that it may have; keep manifests without large \
         files in a repository of their own"
    )))
}
