//! Bounds on what jobs take of the disk.

use std::path::PathBuf;

use super::Jobs;

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub jobs: usize,
    pub bytes: u64,
}

/// Room for a request or a response, and the file that is to fill it. Both are given back when nobody wants it any
/// more, at whatever moment that is, unless a record keeps the file.
pub(super) struct Room {
    jobs: Jobs,
    more: (usize, u64),
    file: PathBuf,
    kept: bool,
}

impl Jobs {
    /// Room for one more job whose request has that many bytes.
    pub(super) fn room_for_request(&self, id: &str, bytes: u64) -> Result<Room, Full> {
        self.claim((1, bytes), 0, self.file(id, "request"))
    }

    /// Room for a response, which takes its request's place.
    pub(super) fn room_for_response(&self, id: &str, bytes: u64, request: u64) -> Result<Room, Full> {
        self.claim((0, bytes), request, self.file(id, "response"))
    }

    /// Room for a text that says why there is no response; there is always that much.
    pub(super) fn room_for_error(&self, id: &str, bytes: u64) -> Room {
        self.table().reserved.1 += bytes;
        Room { jobs: self.clone(), more: (0, bytes), file: self.file(id, "response"), kept: false }
    }

    fn claim(&self, more: (usize, u64), freed: u64, file: PathBuf) -> Result<Room, Full> {
        let (mut table, options) = (self.table(), &self.inner.options);
        let jobs = table.jobs.len() + table.reserved.0;
        let bytes = table.bytes() + table.reserved.1;
        let too_many = more.0 > 0 && jobs >= options.jobs;
        if too_many || bytes.saturating_add(more.1).saturating_sub(freed) > options.bytes {
            return Err(Full { jobs, bytes });
        }
        table.reserved.0 += more.0;
        table.reserved.1 += more.1;
        drop(table);
        Ok(Room { jobs: self.clone(), more, file, kept: false })
    }
}

impl Room {
    /// Writes the file. Blocks.
    pub fn fill(self, content: &[u8]) -> std::io::Result<Room> {
        daemon::write_private(&self.file, content)?;
        Ok(self)
    }

    /// A record counts it from now on.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.kept {
            // There may be none yet; of half a one the next start clears up.
            let _ = std::fs::remove_file(&self.file);
        }
        let mut table = self.jobs.table();
        table.reserved.0 = table.reserved.0.saturating_sub(self.more.0);
        table.reserved.1 = table.reserved.1.saturating_sub(self.more.1);
    }
}
