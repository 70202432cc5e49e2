//! A registry that asks another one for what it lacks.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use avocet_registry::{ContentDigest, Found, Garbage, Origin, Reference, Registry, Repository};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use types::Digest;

use crate::{Server, digest_of};

struct Above {
    registry: Registry,
    away: AtomicBool,
    blobs_sent: AtomicUsize,
}

impl Above {
    fn answers(&self) -> io::Result<()> {
        if self.away.load(Ordering::SeqCst) { Err(io::ErrorKind::HostUnreachable.into()) } else { Ok(()) }
    }
}

impl Origin for Above {
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        reference: &'a Reference,
    ) -> BoxFuture<'a, io::Result<Option<Found>>> {
        Box::pin(async move {
            self.answers()?;
            let Ok(manifest) = self.registry.manifest(repository, reference).await else { return Ok(None) };
            let bytes = self.registry.manifest_bytes(&manifest).await.map_err(io::Error::other)?;
            Ok(Some(Found { media_type: manifest.media_type, bytes }))
        })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a ContentDigest,
        offset: u64,
    ) -> BoxFuture<'a, io::Result<Option<avocet_registry::Incoming>>> {
        Box::pin(async move {
            self.answers()?;
            let Ok(blob) = self.registry.blob(repository, digest).await else { return Ok(None) };
            self.blobs_sent.fetch_add(1, Ordering::SeqCst);
            let mut file = tokio::fs::File::open(self.registry.file(&blob.stored)).await?;
            file.seek(io::SeekFrom::Start(offset)).await?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).await?;
            Ok(Some((blob.size, stream::iter([Ok(Bytes::from(bytes))]).boxed())))
        })
    }
}

fn below() -> (Server, Server, Arc<Above>) {
    let above = Server::new();
    let origin = Arc::new(Above {
        registry: above.registry.clone(),
        away: AtomicBool::new(false),
        blobs_sent: AtomicUsize::new(0),
    });
    let mut below = Server::new();
    below.registry = below.registry.clone().with_origin(origin.clone());
    (above, below, origin)
}

#[tokio::test]
async fn what_was_pulled_once_is_there_when_the_registry_above_is_away() {
    let (above, below, origin) = below();
    above.push("a", "v1", b"layer", json!({})).await;
    let layer = format!("/v2/a/blobs/{}", Digest::of(b"layer"));
    let pulled = below.get("/v2/a/manifests/v1").await.expect(200);
    assert_eq!(&*below.get(&layer).await.expect(200).body, b"layer");
    origin.away.store(true, Ordering::SeqCst);
    assert_eq!(below.get("/v2/a/manifests/v1").await.expect(200).body, pulled.body);
    below.get(&layer).await.expect(200);
    below.get("/v2/a/manifests/v2").await.expect(503);
    below.get(&format!("/v2/a/blobs/{}", Digest::of(b"{}"))).await.expect(503);
}

#[tokio::test]
async fn copies_go_that_nobody_pulled_for_long_and_come_again_when_they_are_asked_for() {
    let (above, below, origin) = below();
    above.push("a", "v1", b"layer", json!({})).await;
    let layer = format!("/v2/a/blobs/{}", Digest::of(b"layer"));
    let collect = async |rest: Option<Duration>| {
        let garbage = Garbage { copies_rest: rest, ..Garbage::default() };
        below.registry.collect_garbage(garbage, HashSet::new).await.unwrap()
    };
    below.push("own", "v1", b"own", json!({})).await;
    below.get("/v2/a/manifests/v1").await.expect(200);
    below.get(&layer).await.expect(200);
    for kept in [None, Some(Duration::from_secs(3600))] {
        assert_eq!(collect(kept).await.manifests, 0);
    }
    let swept = collect(Some(Duration::ZERO)).await;
    assert_eq!((swept.manifests, swept.links), (1, 1));
    origin.away.store(true, Ordering::SeqCst);
    below.get("/v2/a/manifests/v1").await.expect(503);
    below.get("/v2/own/manifests/v1").await.expect(200);
    origin.away.store(false, Ordering::SeqCst);
    below.get("/v2/a/manifests/v1").await.expect(200);
    below.get(&layer).await.expect(200);
}

#[tokio::test]
async fn a_tag_that_moves_above_moves_below_but_one_that_was_pushed_below_stays() {
    let (above, below, _) = below();
    above.push("a", "v1", b"old", json!({})).await;
    below.get("/v2/a/manifests/v1").await.expect(200);
    let new = above.push("a", "v1", b"new", json!({})).await;
    let pulled = below.get("/v2/a/manifests/v1").await.expect(200);
    assert_eq!(pulled.header("docker-content-digest"), digest_of(&new));
    let own = below.push("a", "own", b"mine", json!({})).await;
    above.push("a", "own", b"theirs", json!({})).await;
    let pulled = below.get("/v2/a/manifests/own").await.expect(200);
    assert_eq!(pulled.header("docker-content-digest"), digest_of(&own));
}

#[tokio::test]
async fn who_pushes_while_the_registry_above_is_away_is_told_to_send_everything() {
    let (_above, below, origin) = below();
    origin.away.store(true, Ordering::SeqCst);
    let layer = format!("/v2/a/blobs/{}", Digest::of(b"layer"));
    below.send("HEAD", &layer, &[], "").await.expect(404);
    below.get(&layer).await.expect(503);
    below.push("a", "v1", b"layer", json!({})).await;
    assert_eq!(&*below.get(&layer).await.expect(200).body, b"layer");
}

#[tokio::test]
async fn many_who_want_one_blob_fetch_it_once() {
    let (above, below, origin) = below();
    let blob = above.push_blob("a", &vec![7; 1 << 20]).await;
    let path = format!("/v2/a/blobs/{}", digest_of(&blob));
    let pulls = (0..8).map(|_| below.get(&path));
    for pulled in futures::future::join_all(pulls).await {
        assert_eq!(pulled.expect(200).body.len(), 1 << 20);
    }
    assert_eq!(origin.blobs_sent.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn blobs_by_sha512_come_from_above_too() {
    let (above, below, _) = below();
    let any: ContentDigest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let digest = any.again(b"content");
    above.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], "content").await.expect(201);
    let pulled = below.get(&format!("/v2/a/blobs/{digest}")).await.expect(200);
    assert_eq!(&*pulled.body, b"content");
}
