//! The audit log's files: one that is written, and a few older ones.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daemon::Shutdown;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::Receiver;
use tracing::{error, warn};

use super::Options;

/// How many lines are written at once.
const BATCH: usize = 256;
/// How long requests that are under way at the end get to tell how they ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The file that is written.
pub struct AuditFile {
    options: Options,
    file: File,
    size: u64,
}

impl AuditFile {
    /// Opens it; what it holds stays.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(options: Options) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&options.file)?;
        let size = file.metadata()?.len();
        Ok(Self { options, file: File::from_std(file), size })
    }

    async fn write(&mut self, lines: &str) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.options.largest {
            self.rotate()?;
        }
        self.file.write_all(lines.as_bytes()).await?;
        self.file.flush().await?;
        self.size += lines.len() as u64;
        Ok(())
    }

    /// `log` becomes `log.1`, that `log.2`, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let last = self.options.files.saturating_sub(1);
        for number in (0..last).rev() {
            match std::fs::rename(self.path(number), self.path(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if last == 0 {
            std::fs::remove_file(&self.options.file)?;
        }
        *self = Self::open(self.options.clone())?;
        Ok(())
    }

    fn path(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.options.file.clone();
        }
        let mut name = OsString::from(&self.options.file);
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Writes events until the shutdown, and those of requests that were under way then.
pub async fn write_all(
    mut file: AuditFile,
    mut events: Receiver<String>,
    dropped: Arc<AtomicU64>,
    shutdown: Shutdown,
) {
    let mut lines = Vec::new();
    loop {
        let received = tokio::select! {
            received = events.recv_many(&mut lines, BATCH) => received,
            () = shutdown.wait() => {
                let late = tokio::time::timeout(LAST_WORDS, events.recv_many(&mut lines, BATCH)).await;
                late.unwrap_or(0)
            }
        };
        if received == 0 {
            return;
        }
        if let Err(problem) = file.write(&lines.concat()).await {
            error!(%problem, lost = lines.len(), "the audit log can't be written; free space or turn it off");
        }
        lines.clear();
        let missed = dropped.swap(0, Ordering::Relaxed);
        if missed > 0 {
            warn!(missed, "requests that changed nothing came faster than the audit log could be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_rotated_by_size_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let options = Options { largest: 8, ..Options::to(path.clone()) };
        let mut file = AuditFile::open(options.clone()).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
            file.write(line).await.unwrap();
        }
        // What is there after a restart goes on.
        drop(file);
        AuditFile::open(options).unwrap().write("6\n").await.unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("audit.log"), "five\n6\n");
        assert_eq!((read("audit.log.1"), read("audit.log.2")), ("four\n".to_owned(), "three\n".to_owned()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
