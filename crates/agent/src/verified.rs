//! The artifacts whose content was found right since the start.

use std::collections::{BTreeMap, HashSet};

use artifacts::{Blobs, Error};
use types::Digest;

/// The artifacts whose content was found right since the start, as long as they are needed and here.
#[derive(Default)]
pub(crate) struct Verified(HashSet<Digest>);

impl Verified {
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }

    pub(crate) fn insert(&mut self, digest: Digest) {
        self.0.insert(digest);
    }

    /// Forgets what is not needed any more, which is garbage from then on however long it was of use, and what is gone.
    ///
    /// # Errors
    /// That of the disk.
    pub(crate) fn keep(&mut self, needed: &BTreeMap<Digest, u64>, blobs: &Blobs) -> Result<(), Error> {
        for digest in self.0.iter().filter(|digest| !needed.contains_key(*digest)) {
            blobs.touch(digest)?;
        }
        self.0.retain(|digest| needed.contains_key(digest) && blobs.has(digest));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    async fn with_an_old_blob(folder: &std::path::Path) -> (Blobs, Digest) {
        let blobs = Blobs::open(folder).unwrap();
        let (digest, _) = blobs.put_reader(&b"model"[..]).await.unwrap();
        let file = std::fs::File::open(blobs.path(&digest)).unwrap();
        file.set_modified(SystemTime::now() - 10 * HOUR).unwrap();
        (blobs, digest)
    }

    #[tokio::test]
    async fn what_was_collected_is_fetched_again_when_it_is_needed_again() {
        let folder = tempfile::tempdir().unwrap();
        let (blobs, digest) = with_an_old_blob(folder.path()).await;
        let (needed, mut verified) = (BTreeMap::from([(digest, 5)]), Verified::default());
        verified.insert(digest);
        verified.keep(&needed, &blobs).unwrap();
        assert!(verified.has(&digest));
        blobs.collect_garbage(&HashSet::new(), HOUR).unwrap();
        verified.keep(&needed, &blobs).unwrap();
        assert!(!verified.has(&digest));
    }

    #[tokio::test]
    async fn what_was_of_use_for_long_is_kept_for_a_while_after_that() {
        let folder = tempfile::tempdir().unwrap();
        let (blobs, digest) = with_an_old_blob(folder.path()).await;
        let mut verified = Verified::default();
        verified.insert(digest);
        verified.keep(&BTreeMap::new(), &blobs).unwrap();
        assert!(!verified.has(&digest), "it may be gone by the time that it is needed again");
        assert_eq!(blobs.collect_garbage(&HashSet::new(), HOUR).unwrap().blobs, 0);
    }
}
