//! What a stranger controls has limits, and errors name the field, the value and the remedy.

use std::collections::BTreeMap;

use avocet_objects::{Error, Limits, Objects, PutOptions};
use bytes::Bytes;
use futures::{StreamExt, stream};
use store::Ledger;

use super::{Site, with_idempotency_key};

#[tokio::test]
async fn what_breaks_a_limit_is_refused_before_anything_is_written() {
    let site = Site::with(Limits { object_size: 10, ..Limits::default() }).await;
    let large = BTreeMap::from([("a".to_owned(), "b".repeat(2048))]);
    let cases = [
        ("", PutOptions::default(), "`key`: is empty"),
        ("nul\0", PutOptions::default(), "`key` = \"nul\\0\": contains U+0000"),
        ("k", PutOptions { metadata: large, ..PutOptions::default() }, "`metadata`: has 2049 bytes"),
        ("k", with_idempotency_key(""), "`idempotency_key`: has 0 bytes; write 1 to 256"),
        ("k", PutOptions { expected_length: Some(11), ..PutOptions::default() }, "at most 10 are allowed"),
        (
            "k",
            PutOptions { content_type: Some("é".into()), ..PutOptions::default() },
            "`content_type` = \"é\"",
        ),
    ];
    for (key, options, expected) in cases {
        let error = site.objects.put_bytes("data", key, "x", options).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let long = "k".repeat(1025);
    let error =
        site.objects.put_bytes("data", &long, "x", PutOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("has 1025 bytes; write at most 1024") && error.len() < 300, "{error}");
    assert_eq!((site.files(), site.objects.latest_sequence()), (0, 0));
}

#[tokio::test]
async fn an_endless_body_is_stopped_at_the_limit() {
    let site = Site::with(Limits { object_size: 3 << 20, ..Limits::default() }).await;
    let endless = stream::repeat(Bytes::from(vec![0; 64 << 10])).map(Ok);
    let put = site.objects.put("data", "k", endless, PutOptions::default()).await;
    assert!(matches!(put, Err(Error::TooLarge { limit: 3_145_728, .. })), "{put:?}");
    site.wait_for_files(0).await;
}

#[tokio::test]
async fn the_oldest_idempotency_keys_are_forgotten() {
    let site = Site::with(Limits { idempotency_keys: 3, ..Limits::default() }).await;
    for number in 0..5 {
        site.objects.put_bytes("data", "k", "x", with_idempotency_key(&format!("e{number}"))).await.unwrap();
    }
    for (event, repeated) in [("e4", true), ("e2", true), ("e1", false)] {
        let before = site.objects.latest_sequence();
        site.objects.put_bytes("data", "k", "x", with_idempotency_key(event)).await.unwrap();
        assert_eq!(site.objects.latest_sequence() == before, repeated, "{event}");
    }
}

#[tokio::test]
async fn uploads_that_are_open_are_limited() {
    let site = Site::with(Limits { uploads: 2, ..Limits::default() }).await;
    let begin = || site.objects.create_upload("data", "k", Default::default());
    let first = begin().await.unwrap();
    begin().await.unwrap();
    assert!(matches!(begin().await, Err(Error::TooManyUploads(2))));
    site.objects.abort_upload(("data", "k", &first)).await.unwrap();
    assert!(begin().await.is_ok());
}

#[tokio::test]
async fn two_processes_never_share_a_folder() {
    let site = Site::new().await;
    let second = Objects::open(site.folder.path(), Ledger::memory().unwrap());
    assert!(matches!(second, Err(Error::InUse(_))));
}

#[tokio::test]
async fn a_disk_that_fails_changes_nothing() {
    let site = Site::new().await;
    site.put("k", "before").await;
    let blobs = site.folder.path().join("blobs");
    let aside = site.folder.path().join("aside");
    std::fs::rename(&blobs, &aside).unwrap();
    let put = site.objects.put_bytes("data", "k", "after", PutOptions::default()).await;
    assert!(matches!(put, Err(Error::Disk { .. })), "{put:?}");
    std::fs::rename(&aside, &blobs).unwrap();
    assert_eq!((site.text("k").await.as_str(), site.objects.latest_sequence()), ("before", 1));
}
