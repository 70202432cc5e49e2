//! What users of objects rely on, tried from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod changes;
mod clients;
mod durability;
mod limits;
mod storage;
mod uploads;

use std::path::Path;

use avocet_objects::{Info, Limits, Objects, PutOptions};
use store::Ledger;

/// Objects in a folder of their own.
struct Site {
    folder: tempfile::TempDir,
    objects: Objects,
}

impl Site {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    /// One bucket, `data`, is there.
    async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = open(folder.path(), limits);
        objects.ensure_bucket("data").await.unwrap();
        Self { folder, objects }
    }

    /// The same after the process was started anew.
    fn reopened(self) -> Self {
        let Self { folder, objects } = self;
        drop(objects);
        let objects = open(folder.path(), Limits::default());
        Self { folder, objects }
    }

    async fn put(&self, key: &str, bytes: &str) -> Info {
        self.objects.put_bytes("data", key, bytes.to_owned(), PutOptions::default()).await.unwrap()
    }

    async fn text(&self, key: &str) -> String {
        let (_, bytes) = self.objects.read_bytes("data", key, 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("blobs")).unwrap().count()
    }

    /// Files go away soon after, not with, the writes that make them garbage.
    async fn wait_for_files(&self, count: usize) {
        for _ in 0..500 {
            if self.files() == count {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{} files are there instead of {count}", self.files());
    }
}

fn open(folder: &Path, limits: Limits) -> Objects {
    let ledger = Ledger::open(&folder.join("objects.db")).unwrap();
    Objects::open_with(folder, ledger, limits).unwrap()
}

fn with_idempotency_key(key: &str) -> PutOptions {
    PutOptions { idempotency_key: Some(key.to_owned()), ..PutOptions::default() }
}
