//! Multipart uploads: parts come in any order and any number at a time; completing them makes one object, at once.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use store::ledger::Tables;
use types::Time;

use crate::blobs::{BlobId, Blobs, NewBlob, Writer, blocking, hex};
use crate::info::{check_bucket, check_key, check_metadata, exact, invalid};
use crate::records::{self, Idempotency, Publish, Published};
use crate::{Condition, Error, Info, Objects, PutOptions};

/// Upload → [`UploadRecord`]. An upload's name begins with the time it was begun at.
const UPLOADS: &str = "objects-uploads";
/// `upload/number` → [`PartRecord`].
pub(crate) const PARTS: &str = "objects-parts";

/// The greatest part number, as S3 has it.
const LAST_PART: u32 = 10_000;
/// After how many seconds an upload is given up: 7 days.
const EXPIRY_SECONDS: i64 = 7 * 24 * 3600;
/// How many expired uploads the beginning of a new one removes at most.
const EXPIRED_AT_ONCE: usize = 16;

/// What an object made of parts will have.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// MIME type.
    pub content_type: Option<String>,
    /// As [`PutOptions::metadata`].
    pub metadata: BTreeMap<String, String>,
}

/// A part that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u32,
    /// MD5 of its bytes, as hex.
    pub etag: String,
    /// In bytes.
    pub size: u64,
    /// When it was uploaded.
    pub last_modified: Time,
}

/// A part to complete an upload with.
#[derive(Debug, Clone)]
pub struct CompletedPart {
    /// 1 to 10,000.
    pub number: u32,
    /// The ETag that uploading it answered; `None` for whichever is there.
    pub etag: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct UploadRecord {
    bucket: String,
    key: String,
    content_type: Option<String>,
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct PartRecord {
    blob: BlobId,
    etag: String,
    size: u64,
    #[serde(serialize_with = "exact")]
    time: Time,
}

/// One upload, as its users name it.
#[derive(Clone)]
struct Target {
    bucket: String,
    key: String,
    upload: String,
}

impl Target {
    fn new(bucket: &str, key: &str, upload: &str) -> Self {
        Self { bucket: bucket.to_owned(), key: key.to_owned(), upload: upload.to_owned() }
    }

    fn record(&self, tables: &Tables) -> Result<UploadRecord, Error> {
        let record: Option<UploadRecord> = tables.get(UPLOADS, &self.upload)?;
        record
            .filter(|record| record.bucket == self.bucket && record.key == self.key)
            .ok_or_else(|| Error::NoSuchUpload(self.upload.chars().take(80).collect()))
    }

    /// Under which a completed upload is remembered, so that a completion may be repeated.
    fn idempotency_key(&self) -> String {
        format!("upload/{}/{}", self.upload, records::object_key(&self.bucket, &self.key))
    }
}

impl Objects {
    /// Begins an upload; answers its name. It is given up after 7 days.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Invalid`, `TooManyUploads`.
    pub async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        options: UploadOptions,
    ) -> Result<String, Error> {
        check_bucket(bucket)?;
        check_key(key)?;
        check_metadata(&options.metadata, options.content_type.as_deref())?;
        let now = daemon::now();
        let random = daemon::random_hex(8).map_err(|source| Error::disk("/dev/urandom", source))?;
        let upload = format!("{}{random}", begun_at(now.0.as_second()));
        let expired = begun_at(now.0.as_second() - EXPIRY_SECONDS);
        let record = UploadRecord {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            content_type: options.content_type,
            metadata: options.metadata,
        };
        let (limit, name) = (self.0.limits.uploads, upload.clone());
        self.write_uploads(move |tables| {
            records::bucket(tables, &record.bucket)?;
            let mut unused = Vec::new();
            let oldest: Vec<(String, UploadRecord)> = tables.range(UPLOADS, "", "", EXPIRED_AT_ONCE)?;
            for (old, _) in oldest.iter().filter(|(old, _)| *old < expired) {
                unused.extend(drop_upload(tables, old)?);
            }
            if tables.count(UPLOADS, "")? >= limit {
                return Err(Error::TooManyUploads(limit));
            }
            tables.put(UPLOADS, &name, &record)?;
            Ok(((), unused))
        })
        .await?;
        Ok(upload)
    }

    /// Uploads a part, replacing one of the same number. Of `options` only what was announced of the bytes counts.
    ///
    /// # Errors
    /// `NoSuchUpload`, `Invalid` (number), `TooLarge`, `Mismatch`, `Incomplete`, `Body`, `Full`.
    pub async fn upload_part(
        &self,
        (bucket, key, upload): (&str, &str, &str),
        number: u32,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
        options: PutOptions,
    ) -> Result<Part, Error> {
        if !(1..=LAST_PART).contains(&number) {
            return Err(invalid("part_number", &number.to_string(), "is out of range; write 1 to 10000"));
        }
        let limit = self.0.limits.object_size;
        if let Some(size) = options.expected_length.filter(|size| *size > limit) {
            return Err(Error::TooLarge { size, limit });
        }
        let target = Target::new(bucket, key, upload);
        let looked = target.clone();
        self.read(move |tables| looked.record(tables)).await?;
        let blob = self.0.blobs.receive(body, limit).await?;
        blob.check(&options)?;
        let part = PartRecord { blob: blob.id, etag: hex(&blob.md5), size: blob.size, time: daemon::now() };
        let inner = self.0.clone();
        let answer = part.clone();
        let write = move |tables: &Tables| {
            target.record(tables)?;
            let key = part_key(&target.upload, number);
            let replaced: Option<PartRecord> = tables.get(PARTS, &key)?;
            tables.put(PARTS, &key, &part)?;
            Ok::<_, Error>((replaced, blob))
        };
        let after = move |(replaced, blob): (Option<PartRecord>, NewBlob)| {
            blob.keep();
            replaced.into_iter().for_each(|part| inner.blobs.remove(part.blob));
        };
        self.0.ledger.write_then(write, after).await?;
        Ok(answer.shown(number))
    }

    /// Makes an object of parts, in the order given, which must be that of their numbers. Repeating it with the same
    /// upload answers with the same object.
    ///
    /// # Errors
    /// `NoSuchUpload`, `InvalidPart`, `PartOrder`, `Invalid` (no parts), `TooLarge`, `ConditionFailed`, `Full`; the
    /// upload stays open then.
    pub async fn complete_upload(
        &self,
        (bucket, key, upload): (&str, &str, &str),
        parts: Vec<CompletedPart>,
        condition: Condition,
    ) -> Result<Info, Error> {
        let target = Target::new(bucket, key, upload);
        let looked = target.clone();
        let found = self.read(move |tables| {
            match (looked.record(tables), records::seen(tables, &looked.idempotency_key())?) {
                (Err(Error::NoSuchUpload(_)), Some(info)) => Ok(Err(info)),
                (record, _) => Ok(Ok((record?, chosen(tables, &looked, &parts)?))),
            }
        });
        let (record, chosen) = match found.await? {
            Ok(found) => found,
            Err(completed) => return Ok(completed),
        };
        let (size, limit) = (chosen.iter().map(|(_, part)| part.size).sum(), self.0.limits.object_size);
        if size > limit {
            return Err(Error::TooLarge { size, limit });
        }
        let (blobs, sources, upload) = (self.0.blobs.clone(), chosen.clone(), target.upload.clone());
        let (blob, etag) = blocking(move || join(&blobs, &sources, &upload)).await?;
        let info = Info {
            bucket: target.bucket.clone(),
            key: target.key.clone(),
            size: blob.size,
            etag,
            digest: blob.digest,
            last_modified: daemon::now(),
            content_type: record.content_type,
            metadata: record.metadata,
            sequence: 0,
        };
        let limit = self.0.limits.idempotency_keys;
        let idempotency = Some(Idempotency { key: target.idempotency_key(), limit });
        let how = Publish { condition, create_bucket: false, idempotency };
        self.publish(blob, info, move |tables, record| {
            let published = records::publish(tables, record, &how)?;
            if matches!(published, Published::Before(_)) {
                return Ok((published, Vec::new()));
            }
            target.record(tables)?;
            for (number, joined) in &chosen {
                let now: Option<PartRecord> = tables.get(PARTS, &part_key(&target.upload, *number))?;
                if now.is_none_or(|now| now.blob != joined.blob) {
                    return Err(Error::InvalidPart { upload: target.upload, number: *number });
                }
            }
            Ok((published, drop_upload(tables, &target.upload)?))
        })
        .await
    }

    /// Gives an upload up and frees its parts.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    pub async fn abort_upload(&self, (bucket, key, upload): (&str, &str, &str)) -> Result<(), Error> {
        let target = Target::new(bucket, key, upload);
        self.write_uploads(move |tables| {
            target.record(tables)?;
            Ok(((), drop_upload(tables, &target.upload)?))
        })
        .await
    }

    /// Up to `limit` parts of an upload whose numbers come after `after`, by number.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    pub async fn parts(
        &self,
        (bucket, key, upload): (&str, &str, &str),
        after: u32,
        limit: usize,
    ) -> Result<Vec<Part>, Error> {
        let target = Target::new(bucket, key, upload);
        self.read(move |tables| {
            target.record(tables)?;
            let after = part_key(&target.upload, after);
            let parts: Vec<(String, PartRecord)> =
                tables.range(PARTS, &part_key_prefix(&target.upload), &after, limit)?;
            Ok(parts.into_iter().filter_map(|(key, part)| Some(part.shown(number_of(&key)?))).collect())
        })
        .await
    }

    /// Changes records of uploads, then removes the blobs that `change` says are no longer named.
    async fn write_uploads<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Tables) -> Result<(T, Vec<BlobId>), Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        let after = move |(answer, unused): (T, Vec<BlobId>)| {
            unused.into_iter().for_each(|id| inner.blobs.remove(id));
            answer
        };
        self.0.ledger.write_then(change, after).await
    }
}

impl PartRecord {
    fn shown(self, number: u32) -> Part {
        Part { number, etag: self.etag, size: self.size, last_modified: self.time }
    }
}

fn begun_at(second: i64) -> String {
    format!("{second:016x}")
}

fn part_key_prefix(upload: &str) -> String {
    format!("{upload}/")
}

fn part_key(upload: &str, number: u32) -> String {
    format!("{upload}/{number:05}")
}

fn number_of(part_key: &str) -> Option<u32> {
    part_key.rsplit_once('/')?.1.parse().ok()
}

fn chosen(
    tables: &Tables,
    target: &Target,
    parts: &[CompletedPart],
) -> Result<Vec<(u32, PartRecord)>, Error> {
    if parts.is_empty() {
        return Err(invalid("parts", "", "names no part; name at least one"));
    }
    let mut last = 0;
    let mut chosen = Vec::new();
    for part in parts {
        if part.number <= last {
            return Err(Error::PartOrder(part.number));
        }
        last = part.number;
        let record: Option<PartRecord> = tables.get(PARTS, &part_key(&target.upload, part.number))?;
        let record = record.filter(|record| part.etag.as_ref().is_none_or(|etag| *etag == record.etag));
        let missing = || Error::InvalidPart { upload: target.upload.clone(), number: part.number };
        chosen.push((part.number, record.ok_or_else(missing)?));
    }
    Ok(chosen)
}

/// Writes parts into one file; answers also with the ETag that S3 gives to such an object. Blocks.
fn join(blobs: &Arc<Blobs>, parts: &[(u32, PartRecord)], upload: &str) -> Result<(NewBlob, String), Error> {
    let mut writer = Writer::create(blobs)?;
    let mut buffer = vec![0; 1 << 20];
    let mut md5 = Md5::new();
    for (number, part) in parts {
        match writer.append_file(&blobs.path(part.blob), &mut buffer) {
            Err(Error::Disk { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::InvalidPart { upload: upload.to_owned(), number: *number });
            }
            other => other?,
        }
        let bytes = part.etag.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        for byte in bytes.filter_map(|pair| u8::from_str_radix(pair, 16).ok()) {
            md5.update([byte]);
        }
    }
    Ok((writer.finish()?, format!("{}-{}", hex(&md5.finalize()), parts.len())))
}

/// Removes an upload's records; answers with the blobs of its parts.
fn drop_upload(tables: &Tables, upload: &str) -> Result<Vec<BlobId>, Error> {
    tables.delete(UPLOADS, upload)?;
    let parts: Vec<(String, PartRecord)> = tables.range(PARTS, &part_key_prefix(upload), "", usize::MAX)?;
    for (key, _) in &parts {
        tables.delete(PARTS, key)?;
    }
    Ok(parts.into_iter().map(|(_, part)| part.blob).collect())
}

/// The same for all uploads into a bucket.
pub(crate) fn drop_uploads_of(tables: &Tables, bucket: &str) -> Result<Vec<BlobId>, Error> {
    let uploads: Vec<(String, UploadRecord)> = tables.range(UPLOADS, "", "", usize::MAX)?;
    let mut unused = Vec::new();
    for (upload, _) in uploads.iter().filter(|(_, record)| record.bucket == bucket) {
        unused.extend(drop_upload(tables, upload)?);
    }
    Ok(unused)
}
