//! Under which key a model's answers are kept, so that they outlive it where it is unloaded and loaded again.
//!
//! The key follows from the content of the model's file and from all that is said of how it is run. It is used where
//! that is sure to be what was loaded: of one file that was at rest before, and is the same after. Other loads have keys
//! of their own, as if they were other models.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{LoadRequest, Served};
use crate::cache::{Cache, ModelKey};

/// A file that was changed within this time may change again without a trace: file systems keep coarse times.
const REST: Duration = Duration::from_secs(3);
/// What an ONNX file says where its weights are in another file, by any name.
const ELSEWHERE: &[u8] = b"location";

/// A model's file before it is loaded.
pub(super) struct Before {
    path: PathBuf,
    stamp: Stamp,
}

/// Changes whenever a file does.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_at_rest(&self, now: SystemTime) -> bool {
        let rest = |(seconds, _): (i64, i64)| {
            let since = u64::try_from(seconds).ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            since.and_then(|since| now.duration_since(since).ok()).is_some_and(|since| since > REST)
        };
        rest(self.modified) && rest(self.changed)
    }
}

impl Before {
    /// `None` where answers aren't kept, or the file alone doesn't make the model.
    pub fn loading(request: &LoadRequest) -> Option<Before> {
        request.serving.cache.as_ref().filter(|_| request.ensemble.is_none())?;
        let metadata = request.path.metadata().ok().filter(Metadata::is_file)?;
        let stamp = Stamp::of(&metadata);
        stamp.is_at_rest(SystemTime::now()).then(|| Before { path: request.path.clone(), stamp })
    }

    /// The key of what was loaded since; `None` where the file isn't the same any more, or not all of the model.
    pub fn key(&self, cache: &Cache, served: &Served) -> Option<ModelKey> {
        let Served { name, version, engine, serving, request, .. } = served;
        let said =
            format!("{name:?} {version:?} {:?} {engine} {serving:?} {:?}", self.path, request.signature);
        let mut content = Whole { file: File::open(&self.path).ok()?, tail: Vec::new(), refers: false };
        let key = cache.model_key(said.as_bytes(), &mut content).ok()?;
        (!content.refers && self.is_unchanged()).then_some(key)
    }

    fn is_unchanged(&self) -> bool {
        Path::metadata(&self.path).is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }
}

/// A file that is read to its end, and whether it refers to others.
struct Whole {
    file: File,
    /// The end of what was read, which a word may have begun in.
    tail: Vec<u8>,
    refers: bool,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let content = buffer.get(..read).unwrap_or_default();
        let word = ELSEWHERE.len();
        let is_word = |window: &[u8]| window == ELSEWHERE;
        let seam = content.get(..content.len().min(word)).unwrap_or_default();
        self.refers |= [self.tail.as_slice(), seam].concat().windows(word).any(is_word);
        self.refers |= content.windows(word).any(is_word);
        self.tail.extend_from_slice(content.get(content.len().saturating_sub(word)..).unwrap_or_default());
        self.tail.drain(..self.tail.len().saturating_sub(word));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refers(content: &[u8], piece: usize) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        std::fs::write(&path, content).unwrap();
        let mut whole = Whole { file: File::open(&path).unwrap(), tail: Vec::new(), refers: false };
        let mut buffer = vec![0; piece];
        while whole.read(&mut buffer).unwrap() > 0 {}
        whole.refers
    }

    #[test]
    fn a_file_that_refers_to_others_is_known_however_it_is_read() {
        for piece in 1..24 {
            assert!(refers(b"weights: location m.data", piece), "{piece}");
            assert!(refers(b"location", piece), "{piece}");
            assert!(!refers(b"weights: loc ation in here; locatio", piece), "{piece}");
        }
    }

    #[test]
    fn a_file_is_at_rest_once_nothing_touched_it_for_a_while() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = Stamp::of(&file.path().metadata().unwrap());
        assert!(!stamp.is_at_rest(SystemTime::now()));
        assert!(!stamp.is_at_rest(UNIX_EPOCH), "nor where clocks disagree");
        assert!(stamp.is_at_rest(SystemTime::now() + REST * 2));
        std::fs::write(file.path(), "more").unwrap();
        assert!(stamp != Stamp::of(&file.path().metadata().unwrap()));
    }
}
