//! The storage: buckets, objects, changes.

use std::collections::HashSet;
use std::io::{self, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use store::Ledger;
use store::ledger::Tables;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, Take};
use tokio::sync::watch;
use tracing::info;

use crate::blobs::{BlobId, Blobs, NewBlob, blocking, hex};
use crate::info::{check_bucket, check_idempotency_key, check_key, check_metadata};
use crate::records::{self, BUCKETS, Idempotency, OBJECTS, ObjectRecord, Publish, Published};
use crate::uploads::PARTS;
use crate::{Bucket, Error, Info, Limits, List, Page, PutOptions, listing};

/// Buckets of objects in a folder. Cheap to clone.
///
/// What was acknowledged survives a crash at any instant. Futures may be dropped: a write then either happened or
/// did not, and leaves no rubbish.
#[derive(Clone)]
pub struct Objects(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) ledger: Ledger,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) limits: Limits,
    pub(crate) latest: watch::Sender<u64>,
}

impl Objects {
    /// Opens or creates the objects in a folder with the default limits. Blocks; removes what a crash left.
    ///
    /// # Errors
    /// If another process has them open, or the disk or the ledger fails.
    pub fn open(folder: &Path, ledger: Ledger) -> Result<Self, Error> {
        Self::open_with(folder, ledger, Limits::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// If another process has them open, or the disk or the ledger fails.
    pub fn open_with(folder: &Path, ledger: Ledger, limits: Limits) -> Result<Self, Error> {
        let blobs = Blobs::open(folder.join("blobs"))?;
        let mut kept = HashSet::new();
        for table in [OBJECTS, PARTS] {
            records::each_blob(&ledger, table, |blob| {
                kept.insert(blob);
            })?;
        }
        let removed = blobs.sweep(&kept)?;
        if removed > 0 {
            info!(removed, "removed files that a crash left");
        }
        let latest = watch::Sender::new(ledger.read(records::latest_sequence)?);
        Ok(Self(Arc::new(Inner { ledger, blobs, limits, latest })))
    }

    /// Reads records off the async threads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Tables) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let ledger = self.0.ledger.clone();
        blocking(move || ledger.read(look)).await
    }

    /// Creates a bucket.
    ///
    /// # Errors
    /// `BucketName`, `BucketExists`.
    pub async fn create_bucket(&self, name: &str) -> Result<(), Error> {
        check_bucket(name)?;
        let (name, now) = (name.to_owned(), daemon::now());
        self.0.ledger.write(move |tables| records::create_bucket(tables, &name, now)).await
    }

    /// Creates a bucket unless it is there.
    ///
    /// # Errors
    /// `BucketName`.
    pub async fn ensure_bucket(&self, name: &str) -> Result<(), Error> {
        match self.create_bucket(name).await {
            Err(Error::BucketExists(_)) => Ok(()),
            other => other,
        }
    }

    /// Deletes an empty bucket, and the multipart uploads that were under way in it.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty`.
    pub async fn delete_bucket(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        let inner = self.0.clone();
        let delete = move |tables: &Tables| {
            records::delete_bucket(tables, &name)?;
            crate::uploads::drop_uploads_of(tables, &name)
        };
        let remove = move |blobs: Vec<BlobId>| blobs.into_iter().for_each(|blob| inner.blobs.remove(blob));
        self.0.ledger.write_then(delete, remove).await
    }

    /// All buckets, by name.
    ///
    /// # Errors
    /// If the records can't be read.
    pub async fn buckets(&self) -> Result<Vec<Bucket>, Error> {
        let read = |tables: &Tables| Ok(tables.range::<Bucket>(BUCKETS, "", "", usize::MAX)?);
        Ok(self.read(read).await?.into_iter().map(|(_, bucket)| bucket).collect())
    }

    /// One bucket.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub async fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        let name = name.to_owned();
        self.read(move |tables| records::bucket(tables, &name)).await
    }

    /// Writes an object, replacing one under the same key. Until this answers readers see the old one, from then on
    /// the new one.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Invalid` (key, metadata, ...), `TooLarge`, `Mismatch`, `Incomplete`, `ConditionFailed`,
    /// `Body`, `Full`; nothing is changed then.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
        options: PutOptions,
    ) -> Result<Info, Error> {
        if let Some(info) = self.prepare_put(bucket, key, &options).await? {
            return Ok(info);
        }
        let blob = self.0.blobs.receive(body, self.0.limits.object_size).await?;
        self.publish_put(blob, bucket, key, options).await
    }

    /// The same with the bytes of a file on the file system of the objects, which is taken in: it is gone from where it
    /// was, also if it turns out not to be what `options` expect.
    ///
    /// # Errors
    /// Those of [`Objects::put`].
    pub async fn put_file(
        &self,
        bucket: &str,
        key: &str,
        file: &Path,
        options: PutOptions,
    ) -> Result<Info, Error> {
        if let Some(info) = self.prepare_put(bucket, key, &options).await? {
            std::fs::remove_file(file).map_err(|source| Error::disk(file, source))?;
            return Ok(info);
        }
        let (blobs, file, limit) = (self.0.blobs.clone(), file.to_owned(), self.0.limits.object_size);
        let blob = blocking(move || blobs.adopt(&file)).await?;
        if blob.size > limit {
            return Err(Error::TooLarge { size: blob.size, limit });
        }
        self.publish_put(blob, bucket, key, options).await
    }

    /// Checks what a write names; answers what is there already, if it was written before.
    async fn prepare_put(
        &self,
        bucket: &str,
        key: &str,
        options: &PutOptions,
    ) -> Result<Option<Info>, Error> {
        check_bucket(bucket)?;
        check_key(key)?;
        check_metadata(&options.metadata, options.content_type.as_deref())?;
        if let Some(key) = &options.idempotency_key {
            check_idempotency_key(key)?;
        }
        let limit = self.0.limits.object_size;
        if let Some(size) = options.expected_length.filter(|size| *size > limit) {
            return Err(Error::TooLarge { size, limit });
        }
        let idempotency = options.idempotency_key.as_deref().map(put_key);
        self.look_before_put(bucket, idempotency, options.create_bucket).await
    }

    /// The object that was written with an idempotency key, if one was and that is still remembered.
    ///
    /// # Errors
    /// If the records can't be read.
    pub async fn written_before(&self, idempotency_key: &str) -> Result<Option<Info>, Error> {
        let key = put_key(idempotency_key);
        self.read(move |tables| records::seen(tables, &key)).await
    }

    async fn publish_put(
        &self,
        blob: NewBlob,
        bucket: &str,
        key: &str,
        options: PutOptions,
    ) -> Result<Info, Error> {
        blob.check(&options)?;
        let info = Info {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size: blob.size,
            etag: hex(&blob.md5),
            digest: blob.digest,
            last_modified: daemon::now(),
            content_type: options.content_type,
            metadata: options.metadata,
            sequence: 0,
        };
        let limit = self.0.limits.idempotency_keys;
        let how = Publish {
            condition: options.condition,
            create_bucket: options.create_bucket,
            idempotency: options.idempotency_key.map(|key| Idempotency { key: put_key(&key), limit }),
        };
        self.publish(blob, info, move |tables, record| {
            Ok((records::publish(tables, record, &how)?, Vec::new()))
        })
        .await
    }

    /// Writes an object whose bytes are at hand.
    ///
    /// # Errors
    /// Those of [`Objects::put`].
    pub async fn put_bytes(
        &self,
        bucket: &str,
        key: &str,
        bytes: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<Info, Error> {
        let body = stream::iter([Ok(bytes.into())]);
        self.put(bucket, key, body, options).await
    }

    /// Fails early, or answers early, before any byte is read.
    async fn look_before_put(
        &self,
        bucket: &str,
        idempotency: Option<String>,
        create_bucket: bool,
    ) -> Result<Option<Info>, Error> {
        let bucket = bucket.to_owned();
        self.read(move |tables| {
            if let Some(key) = idempotency
                && let Some(info) = records::seen(tables, &key)?
            {
                return Ok(Some(info));
            }
            if !create_bucket {
                records::bucket(tables, &bucket)?;
            }
            Ok(None)
        })
        .await
    }

    /// Commits the record of a new blob; `change` answers with blobs that nothing names any more.
    pub(crate) async fn publish(
        &self,
        blob: NewBlob,
        info: Info,
        change: impl FnOnce(&Tables, ObjectRecord) -> Result<(Published, Vec<BlobId>), Error> + Send + 'static,
    ) -> Result<Info, Error> {
        let inner = self.0.clone();
        // The blob goes along with the job: whatever becomes of it, and of this future, the file is kept exactly if
        // the record was committed.
        let write = move |tables: &Tables| {
            let record = ObjectRecord { blob: blob.id, info };
            change(tables, record).map(|(published, unused)| (published, unused, blob))
        };
        let after = move |(published, unused, blob): (Published, Vec<BlobId>, NewBlob)| {
            unused.into_iter().for_each(|id| inner.blobs.remove(id));
            match published {
                Published::New(info, replaced) => {
                    blob.keep();
                    replaced.into_iter().for_each(|id| inner.blobs.remove(id));
                    inner.latest.send_replace(info.sequence);
                    info
                }
                Published::Before(info) => info,
            }
        };
        self.0.ledger.write_then(write, after).await
    }

    /// What is known of an object.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<Info, Error> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.read(move |tables| Ok(records::object(tables, &bucket, &key)?.info)).await
    }

    /// An object and its bytes, from the first on. The file stays readable when the object is replaced or deleted.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `Lost`.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<(Info, File), Error> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let inner = self.0.clone();
        let opened = blocking(move || {
            let mut missing = None;
            loop {
                let record = inner.ledger.read(|tables| records::object(tables, &bucket, &key))?;
                let path = inner.blobs.path(record.blob);
                match std::fs::File::open(&path) {
                    Ok(file) => return Ok((record.info, file)),
                    // Replaced since the record was read; the same blob twice is not that.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        if missing.replace(record.blob) == Some(record.blob) {
                            return Err(Error::Lost { bucket, key });
                        }
                    }
                    Err(source) => return Err(Error::disk(path, source)),
                }
            }
        });
        opened.await.map(|(info, file)| (info, File::from_std(file)))
    }

    /// The bytes from `offset` on, `length` of them or as many as there are.
    ///
    /// # Errors
    /// Those of [`Objects::get`], and `Range` if there is no byte at `offset`.
    pub async fn get_range(
        &self,
        bucket: &str,
        key: &str,
        offset: u64,
        length: u64,
    ) -> Result<(Info, Take<File>), Error> {
        let (info, mut file) = self.get(bucket, key).await?;
        if offset >= info.size {
            return Err(Error::Range { offset, size: info.size });
        }
        let sought = file.seek(SeekFrom::Start(offset)).await;
        sought.map_err(|source| Error::disk(bucket, source))?;
        Ok((info, file.take(length)))
    }

    /// A part of a bucket's objects, in the order of keys.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub async fn list(&self, bucket: &str, list: List) -> Result<Page, Error> {
        let bucket = bucket.to_owned();
        self.read(move |tables| listing::list(tables, &bucket, &list)).await
    }

    /// Deletes an object; answers whether it was there. Without it there is no change.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<bool, Error> {
        let deleted = self.delete_all(bucket, vec![key.to_owned()]).await?;
        Ok(deleted == 1)
    }

    /// Deletes objects, all or none; answers how many were there.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub async fn delete_all(&self, bucket: &str, keys: Vec<String>) -> Result<usize, Error> {
        let (bucket, now, inner) = (bucket.to_owned(), daemon::now(), self.0.clone());
        let delete = move |tables: &Tables| {
            records::bucket(tables, &bucket)?;
            let mut deleted = Vec::new();
            for key in &keys {
                deleted.extend(records::delete(tables, &bucket, key, now)?);
            }
            Ok::<_, Error>(deleted)
        };
        let after = move |deleted: Vec<(BlobId, u64)>| {
            for (blob, sequence) in &deleted {
                inner.blobs.remove(*blob);
                inner.latest.send_replace(*sequence);
            }
            deleted.len()
        };
        self.0.ledger.write_then(delete, after).await
    }

    /// All of an object's bytes, if they are no more than `limit`.
    ///
    /// # Errors
    /// Those of [`Objects::get`], and `TooLarge`.
    pub async fn read_bytes(&self, bucket: &str, key: &str, limit: u64) -> Result<(Info, Bytes), Error> {
        let (info, mut file) = self.get(bucket, key).await?;
        if info.size > limit {
            return Err(Error::TooLarge { size: info.size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(info.size).unwrap_or(0));
        let read = file.read_to_end(&mut bytes).await;
        read.map_err(|source| Error::disk(key, source))?;
        Ok((info, bytes.into()))
    }
}

/// Under which an idempotency key of a write is remembered.
fn put_key(idempotency_key: &str) -> String {
    format!("put/{idempotency_key}")
}
