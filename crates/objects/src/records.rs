//! The records of objects, and the one place where they change: functions on [`Tables`] that run inside a
//! transaction.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use store::Ledger;
use store::ledger::Tables;
use types::Time;

use crate::blobs::BlobId;
use crate::{Bucket, Change, ChangeKind, Condition, Error, Info};

/// `bucket` → [`Bucket`].
pub(crate) const BUCKETS: &str = "objects-buckets";
/// `bucket/key` → [`ObjectRecord`].
pub(crate) const OBJECTS: &str = "objects";
/// Sequence number → [`Change`].
const CHANGES: &str = "objects-changes";
/// `up-to` → the last sequence number that was trimmed.
const TRIMMED: &str = "objects-trimmed";
/// Idempotency key → [`Seen`].
const SEEN: &str = "objects-seen";
/// A dense number, by age → idempotency key.
const SEEN_ORDER: &str = "objects-seen-order";

/// An object and the file with its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    pub(crate) blob: BlobId,
    #[serde(flatten)]
    pub(crate) info: Info,
}

/// What all records that name a blob have in common.
#[derive(Deserialize)]
struct BlobOf {
    blob: BlobId,
}

/// How many records are read at a time when all are.
const PAGE: usize = 1000;

/// Shows the blobs that a table's records name.
pub(crate) fn each_blob(ledger: &Ledger, table: &str, mut show: impl FnMut(BlobId)) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let page: Vec<(String, BlobOf)> = ledger.read(|tables| tables.range(table, "", &after, PAGE))?;
        let ended = page.len() < PAGE;
        for (key, BlobOf { blob }) in page {
            show(blob);
            after = key;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Numbers as keys, in their order.
fn numbered(number: u64) -> String {
    format!("{number:020}")
}

fn last_number(tables: &Tables, table: &str) -> Result<u64, Error> {
    Ok(tables.last_key(table)?.and_then(|key| key.parse().ok()).unwrap_or(0))
}

pub(crate) fn object_key(bucket: &str, key: &str) -> String {
    format!("{bucket}/{key}")
}

pub(crate) fn bucket(tables: &Tables, name: &str) -> Result<Bucket, Error> {
    tables.get(BUCKETS, name)?.ok_or_else(|| Error::NoSuchBucket(name.chars().take(80).collect()))
}

pub(crate) fn object(tables: &Tables, bucket: &str, key: &str) -> Result<ObjectRecord, Error> {
    match tables.get(OBJECTS, &object_key(bucket, key))? {
        Some(record) => Ok(record),
        None => {
            self::bucket(tables, bucket)?;
            Err(Error::no_such_key(bucket, key))
        }
    }
}

pub(crate) fn create_bucket(tables: &Tables, name: &str, now: Time) -> Result<(), Error> {
    if tables.get::<IgnoredAny>(BUCKETS, name)?.is_some() {
        return Err(Error::BucketExists(name.to_owned()));
    }
    tables.put(BUCKETS, name, &Bucket { name: name.to_owned(), created: now })?;
    Ok(())
}

pub(crate) fn delete_bucket(tables: &Tables, name: &str) -> Result<(), Error> {
    bucket(tables, name)?;
    let objects: Vec<(String, IgnoredAny)> = tables.range(OBJECTS, &object_key(name, ""), "", 1)?;
    if !objects.is_empty() {
        return Err(Error::BucketNotEmpty(name.to_owned()));
    }
    tables.delete(BUCKETS, name)?;
    Ok(())
}

/// Under what circumstances an object is published.
pub(crate) struct Publish {
    pub(crate) condition: Condition,
    pub(crate) create_bucket: bool,
    pub(crate) idempotency: Option<Idempotency>,
}

pub(crate) struct Idempotency {
    pub(crate) key: String,
    /// How many keys are remembered.
    pub(crate) limit: u64,
}

pub(crate) enum Published {
    /// The object is there now, in the place of the one with the blob.
    New(Info, Option<BlobId>),
    /// It was written before under the same idempotency key; nothing changed.
    Before(Info),
}

/// Makes `record` the object under its key and writes the change down.
pub(crate) fn publish(tables: &Tables, mut record: ObjectRecord, how: &Publish) -> Result<Published, Error> {
    if let Some(idempotency) = &how.idempotency
        && let Some(info) = seen(tables, &idempotency.key)?
    {
        return Ok(Published::Before(info));
    }
    let info = &record.info;
    match bucket(tables, &info.bucket) {
        Err(Error::NoSuchBucket(_)) if how.create_bucket => {
            create_bucket(tables, &info.bucket, info.last_modified)?;
        }
        other => drop(other?),
    }
    let key = object_key(&info.bucket, &info.key);
    let replaced: Option<ObjectRecord> = tables.get(OBJECTS, &key)?;
    if !how.condition.holds(replaced.as_ref().map(|record| &record.info)) {
        return Err(match (&how.condition, replaced) {
            (Condition::ETag(_), None) => Error::no_such_key(&info.bucket, &info.key),
            _ => Error::ConditionFailed { bucket: info.bucket.clone(), key: info.key.clone() },
        });
    }
    record.info.sequence = append_change(tables, ChangeKind::Put, &record.info, record.info.last_modified)?;
    tables.put(OBJECTS, &key, &record)?;
    if let Some(idempotency) = &how.idempotency {
        remember(tables, idempotency, &record.info)?;
    }
    Ok(Published::New(record.info, replaced.map(|record| record.blob)))
}

/// Deletes an object and writes the change down; answers with its blob and the change's sequence number. An object
/// that is not there needs no change.
pub(crate) fn delete(
    tables: &Tables,
    bucket: &str,
    key: &str,
    now: Time,
) -> Result<Option<(BlobId, u64)>, Error> {
    let object_key = object_key(bucket, key);
    let Some(record) = tables.get::<ObjectRecord>(OBJECTS, &object_key)? else { return Ok(None) };
    tables.delete(OBJECTS, &object_key)?;
    let sequence = append_change(tables, ChangeKind::Delete, &record.info, now)?;
    Ok(Some((record.blob, sequence)))
}

fn append_change(tables: &Tables, kind: ChangeKind, info: &Info, time: Time) -> Result<u64, Error> {
    let sequence = latest_sequence(tables)? + 1;
    let change = Change {
        sequence,
        kind,
        bucket: info.bucket.clone(),
        key: info.key.clone(),
        etag: info.etag.clone(),
        digest: info.digest,
        size: info.size,
        time,
    };
    tables.put(CHANGES, &numbered(sequence), &change)?;
    Ok(sequence)
}

pub(crate) fn latest_sequence(tables: &Tables) -> Result<u64, Error> {
    Ok(last_number(tables, CHANGES)?.max(trimmed(tables)?))
}

pub(crate) fn trimmed(tables: &Tables) -> Result<u64, Error> {
    Ok(tables.get(TRIMMED, "up-to")?.unwrap_or(0))
}

pub(crate) fn changes(tables: &Tables, after: u64, limit: usize) -> Result<Vec<Change>, Error> {
    let trimmed = trimmed(tables)?;
    if after < trimmed {
        return Err(Error::Trimmed { after, trimmed });
    }
    let changes = tables.range(CHANGES, "", &numbered(after), limit)?;
    Ok(changes.into_iter().map(|(_, change)| change).collect())
}

/// How many changes one transaction trims, so that other writers need not wait long.
const TRIM: usize = 1000;

/// Forgets some changes up to a sequence number; answers whether more are left to forget.
pub(crate) fn trim_some(tables: &Tables, up_to: u64) -> Result<bool, Error> {
    let oldest: Vec<(String, IgnoredAny)> = tables.range(CHANGES, "", "", TRIM)?;
    let limit = numbered(up_to);
    let mut last = None;
    let mut deleted = 0;
    for (key, _) in oldest.into_iter().take_while(|(key, _)| *key <= limit) {
        tables.delete(CHANGES, &key)?;
        deleted += 1;
        last = Some(key);
    }
    if let Some(number) = last.and_then(|key| key.parse::<u64>().ok()) {
        tables.put(TRIMMED, "up-to", &number)?;
    }
    Ok(deleted == TRIM)
}

#[derive(Serialize, Deserialize)]
struct Seen {
    info: Info,
}

pub(crate) fn seen(tables: &Tables, idempotency_key: &str) -> Result<Option<Info>, Error> {
    Ok(tables.get::<Seen>(SEEN, idempotency_key)?.map(|seen| seen.info))
}

fn remember(tables: &Tables, idempotency: &Idempotency, info: &Info) -> Result<(), Error> {
    let number = last_number(tables, SEEN_ORDER)? + 1;
    tables.put(SEEN, &idempotency.key, &Seen { info: info.clone() })?;
    tables.put(SEEN_ORDER, &numbered(number), &idempotency.key)?;
    // Two at a time, so that a lowered limit is reached in the end.
    let oldest: Vec<(String, String)> = tables.range(SEEN_ORDER, "", "", 2)?;
    for (age, forgotten) in oldest {
        let first: u64 = age.parse().unwrap_or(0);
        if number.saturating_sub(first) >= idempotency.limit {
            tables.delete(SEEN_ORDER, &age)?;
            tables.delete(SEEN, &forgotten)?;
        }
    }
    Ok(())
}
