//! A log that never grows past its bound and never makes the function wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The beginning that is kept.
const HEAD_BYTES: u64 = 16 << 20;
/// The end that is kept when there was more: errors come last.
const TAIL_BYTES: usize = 64 << 10;

/// Keeps the beginning and the end of what it is given.
pub struct Log {
    file: Option<File>,
    written: u64,
    left_out: u64,
    tail: Vec<u8>,
}

impl Log {
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        Ok(Self { file: Some(options.open(path)?), written: 0, left_out: 0, tail: Vec::new() })
    }

    pub fn write(&mut self, bytes: &[u8]) {
        let room = usize::try_from(HEAD_BYTES - self.written).unwrap_or(usize::MAX).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.written += head.len() as u64;
        self.put(head);
        self.tail.extend_from_slice(rest);
        if self.tail.len() > 4 * TAIL_BYTES {
            self.shorten();
        }
    }

    /// Adds the end and what is missing before it; answers how many bytes there were in all.
    pub fn finish(&mut self) -> u64 {
        let total = self.written + self.left_out + self.tail.len() as u64;
        if total > self.written {
            self.shorten();
            let note = format!("\n[{} bytes left out]\n", self.left_out);
            let tail = std::mem::take(&mut self.tail);
            self.put(note.as_bytes());
            self.put(&tail);
        }
        total
    }

    fn shorten(&mut self) {
        let excess = self.tail.len().saturating_sub(TAIL_BYTES);
        self.left_out += excess as u64;
        self.tail.drain(..excess);
    }

    /// A full disk costs the log, not the run.
    fn put(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_err()
        {
            self.file = None;
        }
    }
}
