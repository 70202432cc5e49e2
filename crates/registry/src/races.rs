//! What may happen at the same time, in the order in which it would do harm.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artifacts::Blobs;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use store::Ledger;
use types::{Digest, Time};

use crate::records::{self, LINKS, LinkRecord, MANIFESTS, ManifestRecord};
use crate::uploads::Chunk;
use crate::{
    ContentDigest, Error, Found, Garbage, Incoming, Limits, Origin, Reference, Registry, Repository,
};

fn open(folder: &Path) -> Registry {
    let blobs = Blobs::open(folder.join("artifacts")).unwrap();
    Registry::open(&folder.join("uploads"), blobs, Ledger::memory().unwrap(), Limits::default()).unwrap()
}

fn repository() -> Repository {
    "a".parse().unwrap()
}

fn body(content: &'static [u8]) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    stream::iter([Ok(Bytes::from_static(content))])
}

/// Removes blobs again and again, as a collection does that has looked before they came.
async fn collect(registry: &Registry) {
    for _ in 0..40 {
        registry.blobs().collect_garbage(&HashSet::new(), Duration::ZERO).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_upload_that_ends_while_garbage_is_collected_is_there_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let registry = open(folder.path());
    let id = registry.start_upload(&repository(), None).await.unwrap().id;
    registry.append(&repository(), id, Chunk::default(), body(b"content")).await.unwrap();
    let (repository, digest) = (repository(), Digest::of(b"content").into());
    let closed = registry.gate.write().await;
    let collection = async {
        collect(&registry).await;
        drop(closed);
    };
    let (blob, ()) = tokio::join!(registry.finish_upload(&repository, id, &digest), collection);
    assert!(registry.blobs().has(&blob.unwrap().stored));
}

struct Above;

impl Origin for Above {
    fn manifest<'a>(
        &'a self,
        _: &'a Repository,
        _: &'a Reference,
    ) -> BoxFuture<'a, io::Result<Option<Found>>> {
        Box::pin(async { Ok(None) })
    }

    fn blob<'a>(
        &'a self,
        _: &'a Repository,
        _: &'a ContentDigest,
        offset: u64,
    ) -> BoxFuture<'a, io::Result<Option<Incoming>>> {
        Box::pin(async move {
            assert_eq!(offset, 0);
            Ok(Some((7, body(b"content").boxed())))
        })
    }
}

#[tokio::test]
async fn a_blob_that_comes_from_above_while_garbage_is_collected_is_there_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let registry = open(folder.path()).with_origin(Arc::new(Above));
    let (repository, digest) = (repository(), Digest::of(b"content"));
    let closed = registry.gate.write().await;
    let collection = async {
        while !registry.blobs().has(&digest) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        collect(&registry).await;
        drop(closed);
    };
    let wanted = digest.into();
    let (blob, ()) = tokio::join!(registry.blob(&repository, &wanted), collection);
    assert!(registry.blobs().has(&blob.unwrap().stored));
}

#[tokio::test]
async fn what_became_a_blob_between_opening_and_locking_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let registry = open(folder.path());
    let id = registry.start_upload(&repository(), None).await.unwrap().id;
    registry.append(&repository(), id, Chunk::default(), body(b"content")).await.unwrap();
    let path = folder.path().join("uploads").join(id.to_string());
    let opened = crate::uploads::open(&path).unwrap();
    let digest = Digest::of(b"content").into();
    let busy = registry.finish_upload(&repository(), id, &digest).await;
    assert!(matches!(busy, Err(Error::UploadBusy)), "who writes it holds it");
    // As it is for who opened the file before it was renamed.
    std::fs::rename(&path, folder.path().join("a blob")).unwrap();
    std::fs::write(&path, "another").unwrap();
    let late = crate::uploads::lock(opened.0, &path);
    assert!(matches!(late, Err(Error::UploadBusy)));
}

#[tokio::test]
async fn who_looks_at_a_blob_before_a_push_finds_it_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let registry = open(folder.path());
    let (blob, _) = registry.blobs().put_reader(&b"layer"[..]).await.unwrap();
    let key = records::link_key(&repository(), &blob.into());
    let linked: Time = serde_json::from_str("\"1970-01-01T00:00:00Z\"").unwrap();
    let link = LinkRecord { blob, size: 5, linked };
    registry.ledger.write(move |tables| tables.put(LINKS, &key, &link)).await.unwrap();
    registry.renew(&repository(), &blob.into()).await.unwrap().unwrap();
    let garbage = Garbage { minimum_age: Duration::from_secs(3600), ..Garbage::default() };
    let swept = registry.collect_garbage(garbage, HashSet::new).await.unwrap();
    assert_eq!((swept.links, swept.blobs), (0, 0));
}

#[tokio::test]
async fn a_copy_that_is_pulled_while_nobody_above_can_be_asked_stays() {
    let folder = tempfile::tempdir().unwrap();
    let registry = open(folder.path());
    let (tag, media_type) =
        (Reference::Tag("v1".parse().unwrap()), "application/vnd.oci.image.index.v1+json");
    let manifest = Bytes::from_static(br#"{"schemaVersion": 2, "manifests": []}"#);
    registry.keep_manifest(&repository(), &tag, media_type, manifest, vec![], true).await.unwrap();
    let long_ago: Time = serde_json::from_str("\"1970-01-01T00:00:00Z\"").unwrap();
    let age = move |tables: &store::ledger::Tables| {
        let kept: Vec<(String, ManifestRecord)> = tables.range(MANIFESTS, "", "", 1)?;
        let (key, record) = &kept[0];
        tables.put(MANIFESTS, key, &ManifestRecord { pushed: long_ago, ..record.clone() })
    };
    let rest = Some(Duration::from_secs(3600));
    let garbage = Garbage { copies_rest: rest, minimum_age: Duration::from_secs(3600), dry_run: false };
    registry.ledger.write(age).await.unwrap();
    let pulling = registry.clone().with_origin(Arc::new(Away));
    pulling.manifest(&repository(), &tag).await.unwrap();
    assert_eq!(registry.collect_garbage(garbage, HashSet::new).await.unwrap().manifests, 0);
    registry.ledger.write(age).await.unwrap();
    assert_eq!(registry.collect_garbage(garbage, HashSet::new).await.unwrap().manifests, 1);
}

struct Away;

impl Origin for Away {
    fn manifest<'a>(
        &'a self,
        _: &'a Repository,
        _: &'a Reference,
    ) -> BoxFuture<'a, io::Result<Option<Found>>> {
        Box::pin(async { Err(io::ErrorKind::HostUnreachable.into()) })
    }

    fn blob<'a>(
        &'a self,
        _: &'a Repository,
        _: &'a ContentDigest,
        _: u64,
    ) -> BoxFuture<'a, io::Result<Option<Incoming>>> {
        Box::pin(async { Err(io::ErrorKind::HostUnreachable.into()) })
    }
}
