//! The log's files: one that is written, and a few older ones.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// How large a file may become, in bytes, until another is begun.
const LARGEST: u64 = 16 << 20;
/// How many files there are at most, the present one among them.
const FILES: u32 = 4;

pub(super) struct LogFile {
    path: PathBuf,
    largest: u64,
    /// The open file and its size.
    open: Option<(File, u64)>,
}

impl LogFile {
    /// Touches nothing before the first line.
    pub fn new(path: PathBuf) -> LogFile {
        LogFile { path, largest: LARGEST, open: None }
    }

    /// Appends a line. After a failure the next line opens the file anew.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&mut self, line: &str) -> io::Result<()> {
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        if size > 0 && size.saturating_add(line.len() as u64) > self.largest {
            self.rotate()?;
            (file, size) = self.open()?;
        }
        file.write_all(line.as_bytes())?;
        self.open = Some((file, size.saturating_add(line.len() as u64)));
        Ok(())
    }

    /// Only its owner may read it: it holds what people sent.
    fn open(&self) -> io::Result<(File, u64)> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (0..FILES - 1).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_rotated_by_size_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("payloads/log");
        let open = || LogFile { largest: 8, ..LogFile::new(path.clone()) };
        let mut file = open();
        assert!(!path.exists(), "nothing is made before there is something to write");
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "sixth\n"] {
            file.write(line).unwrap();
        }
        open().write("7\n").unwrap();
        let read = |number: u32| fs::read_to_string(open().numbered(number)).unwrap();
        assert_eq!([0, 1, 2, 3].map(read), ["sixth\n7\n", "five\n", "four\n", "three\n"]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 4);
    }
}
