//! Writing and reading objects.

use std::collections::BTreeMap;
use std::io;

use avocet_objects::{Condition, Error, PutOptions};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::io::AsyncReadExt;
use types::Digest;

use super::{Site, with_idempotency_key};

#[tokio::test]
async fn an_object_reads_back_with_what_was_said_of_it() {
    let site = Site::new().await;
    let options = PutOptions {
        content_type: Some("text/plain".to_owned()),
        metadata: BTreeMap::from([("origin".to_owned(), "caméra 7".to_owned())]),
        ..PutOptions::default()
    };
    let written = site.objects.put_bytes("data", "a/ü b.txt", "hello", options).await.unwrap();
    assert_eq!(written.etag, "5d41402abc4b2a76b9719d911017c592");
    assert_eq!((written.size, written.digest, written.sequence), (5, Digest::of(b"hello"), 1));
    let site = site.reopened();
    assert_eq!(site.objects.head("data", "a/ü b.txt").await.unwrap(), written);
    assert_eq!(site.text("a/ü b.txt").await, "hello");
}

#[tokio::test]
async fn a_file_is_taken_in_as_it_is_and_one_that_is_not_what_it_should_be_is_gone() {
    let site = Site::new().await;
    let file = site.folder.path().join("arriving");
    let expecting = |content: &[u8], key: &str| PutOptions {
        expected_digest: Some(Digest::of(content)),
        expected_length: Some(content.len() as u64),
        ..with_idempotency_key(key)
    };
    std::fs::write(&file, "damaged").unwrap();
    let refused = site.objects.put_file("data", "a", &file, expecting(b"correct", "one")).await;
    assert!(matches!(refused, Err(Error::Mismatch { .. })), "{refused:?}");
    assert!(!file.exists());
    assert_eq!(site.objects.written_before("one").await.unwrap(), None);
    std::fs::write(&file, "correct").unwrap();
    let written = site.objects.put_file("data", "a", &file, expecting(b"correct", "one")).await.unwrap();
    assert_eq!((written.size, &*written.etag), (7, "e5d7cffe25654f7e3a1e334118c71549"));
    assert_eq!(site.objects.written_before("one").await.unwrap(), Some(written.clone()));
    std::fs::write(&file, "another").unwrap();
    let again = site.objects.put_file("data", "b", &file, expecting(b"another", "one")).await.unwrap();
    assert_eq!(again, written, "it was written before");
    assert!(!file.exists());
    site.wait_for_files(1).await;
    assert_eq!(site.reopened().text("a").await, "correct");
}

#[tokio::test]
async fn a_large_body_in_odd_chunks_is_written_whole() {
    let site = Site::new().await;
    let chunks: Vec<Bytes> =
        (0..700_u32).map(|n| vec![u8::try_from(n % 251).unwrap(); 7919].into()).collect();
    let whole = chunks.concat();
    let body = stream::iter(chunks).map(Ok);
    let info = site.objects.put("data", "large", body, PutOptions::default()).await.unwrap();
    assert_eq!((info.size, info.digest), (whole.len() as u64, Digest::of(&whole)));
    let (_, mut range) = site.objects.get_range("data", "large", 5_000_000, 10).await.unwrap();
    let mut bytes = Vec::new();
    range.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, whole[5_000_000..5_000_010]);
    let beyond = site.objects.get_range("data", "large", info.size, 1).await;
    assert!(matches!(beyond, Err(Error::Range { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_the_old_object_or_the_new_never_half() {
    let site = Site::new().await;
    site.put("hot", "0").await;
    let write = async {
        for number in 1..60_usize {
            site.put("hot", &number.to_string().repeat(number * 500)).await;
        }
    };
    let read = async {
        let mut last = 0;
        loop {
            let (info, mut file) = site.objects.get("data", "hot").await.unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(info.digest, Digest::of(&bytes));
            assert!(info.sequence >= last, "time went backwards");
            last = info.sequence;
            if last == 60 {
                return;
            }
        }
    };
    tokio::join!(write, read);
    site.wait_for_files(1).await;
}

#[tokio::test]
async fn an_open_file_outlives_its_object() {
    let site = Site::new().await;
    site.put("a", "still here").await;
    let (_, mut file) = site.objects.get("data", "a").await.unwrap();
    assert!(site.objects.delete("data", "a").await.unwrap());
    site.wait_for_files(0).await;
    let mut text = String::new();
    file.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still here");
    assert!(matches!(site.objects.get("data", "a").await, Err(Error::NoSuchKey { .. })));
    assert!(!site.objects.delete("data", "a").await.unwrap());
}

#[tokio::test]
async fn a_bucket_is_created_once_and_deleted_only_when_empty() {
    let site = Site::new().await;
    let objects = &site.objects;
    assert!(matches!(objects.create_bucket("data").await, Err(Error::BucketExists(_))));
    assert!(matches!(objects.create_bucket("No").await, Err(Error::BucketName(_))));
    objects.ensure_bucket("data-2").await.unwrap();
    let names: Vec<String> = objects.buckets().await.unwrap().into_iter().map(|bucket| bucket.name).collect();
    assert_eq!(names, ["data", "data-2"]);
    site.put("a", "1").await;
    assert!(matches!(objects.delete_bucket("data").await, Err(Error::BucketNotEmpty(_))));
    objects.delete_bucket("data-2").await.unwrap();
    objects.delete("data", "a").await.unwrap();
    objects.delete_bucket("data").await.unwrap();
    assert!(matches!(objects.delete_bucket("data").await, Err(Error::NoSuchBucket(_))));
    let put = objects.put_bytes("data", "a", "1", PutOptions::default()).await;
    assert!(matches!(put, Err(Error::NoSuchBucket(_))));
    let options = PutOptions { create_bucket: true, ..PutOptions::default() };
    objects.put_bytes("data", "a", "1", options).await.unwrap();
    assert!(objects.bucket("data").await.is_ok());
}

#[tokio::test]
async fn a_write_on_a_condition_happens_only_if_it_holds() {
    let site = Site::new().await;
    let put = |text: &'static str, condition: Condition| {
        let options = PutOptions { condition, ..PutOptions::default() };
        site.objects.put_bytes("data", "a", text, options)
    };
    assert!(matches!(put("0", Condition::Present).await, Err(Error::ConditionFailed { .. })));
    let (one, two) = tokio::join!(put("1", Condition::Absent), put("2", Condition::Absent));
    assert!(one.is_ok() != two.is_ok(), "exactly one is first");
    let first = one.or(two).unwrap();
    let replaced = put("3", Condition::ETag(first.etag.clone())).await.unwrap();
    assert!(matches!(put("4", Condition::ETag(first.etag)).await, Err(Error::ConditionFailed { .. })));
    assert_eq!((site.text("a").await.as_str(), replaced.sequence), ("3", 2));
    site.wait_for_files(1).await;
}

#[tokio::test]
async fn what_was_announced_must_arrive_or_nothing_changes() {
    let site = Site::new().await;
    site.put("a", "before").await;
    let wrong = [
        PutOptions { expected_md5: Some([0; 16]), ..PutOptions::default() },
        PutOptions { expected_digest: Some(Digest::of(b"other")), ..PutOptions::default() },
        PutOptions { expected_length: Some(6), ..PutOptions::default() },
    ];
    for options in wrong {
        let put = site.objects.put_bytes("data", "a", "after", options).await;
        assert!(matches!(put, Err(Error::Mismatch { .. } | Error::Incomplete { .. })), "{put:?}");
    }
    let broken = stream::iter([Ok(Bytes::from("af")), Err(io::Error::other("gone"))]);
    let put = site.objects.put("data", "a", broken, PutOptions::default()).await;
    assert!(matches!(put, Err(Error::Body(_))));
    assert_eq!((site.text("a").await.as_str(), site.objects.latest_sequence()), ("before", 1));
    site.wait_for_files(1).await;
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_nothing() {
    let site = Site::new().await;
    let chunk = Bytes::from(vec![1; 2 << 20]);
    let endless = stream::iter([Ok(chunk)]).chain(stream::pending());
    let put = site.objects.put("data", "a", endless, PutOptions::default());
    let left = tokio::time::timeout(std::time::Duration::from_millis(300), put).await;
    assert!(left.is_err());
    site.wait_for_files(0).await;
    assert_eq!(site.objects.latest_sequence(), 0);
}

#[tokio::test]
async fn a_crash_leaves_only_garbage_and_opening_removes_it() {
    let site = Site::new().await;
    site.put("a", "1").await;
    let upload = site.objects.create_upload("data", "b", Default::default()).await.unwrap();
    let target = ("data", "b", upload.as_str());
    let body = stream::iter([Ok(Bytes::from("part"))]);
    site.objects.upload_part(target, 1, body, PutOptions::default()).await.unwrap();
    let blobs = site.folder.path().join("blobs");
    std::fs::write(blobs.join("0123456789abcdef0123456789abcdef"), "half").unwrap();
    std::fs::write(blobs.join("stray"), "").unwrap();
    let site = site.reopened();
    assert_eq!((site.files(), site.text("a").await.as_str()), (2, "1"));
    let parts = site.objects.parts(("data", "b", &upload), 0, 10).await.unwrap();
    assert_eq!(parts.len(), 1);
}

#[tokio::test]
async fn a_lost_file_is_told_as_such() {
    let site = Site::new().await;
    site.put("a", "1").await;
    for entry in std::fs::read_dir(site.folder.path().join("blobs")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(matches!(site.objects.get("data", "a").await, Err(Error::Lost { .. })));
}

#[tokio::test]
async fn an_idempotency_key_writes_once_even_at_the_same_time_and_after_a_restart() {
    let site = Site::new().await;
    let put =
        |text: &'static str| site.objects.put_bytes("data", "out", text, with_idempotency_key("event-1"));
    let (one, two, three) = tokio::join!(put("1"), put("2"), put("3"));
    let one = one.unwrap();
    assert_eq!((&one, &one), (&two.unwrap(), &three.unwrap()));
    let site = site.reopened();
    site.objects.delete("data", "out").await.unwrap();
    let again = site.objects.put_bytes("data", "out", "4", with_idempotency_key("event-1")).await.unwrap();
    assert_eq!(again, one);
    assert_eq!(site.objects.latest_sequence(), 2, "one put and one delete");
    site.wait_for_files(0).await;
}
