//! Objects uploaded in parts.

use avocet_objects::{CompletedPart, Condition, Error, Part, PutOptions, UploadOptions};
use bytes::Bytes;
use futures::stream;
use types::Digest;

use super::Site;

impl Site {
    async fn begin(&self, key: &str) -> String {
        let options =
            UploadOptions { content_type: Some("text/plain".to_owned()), ..UploadOptions::default() };
        self.objects.create_upload("data", key, options).await.unwrap()
    }

    async fn part(&self, upload: &str, number: u32, text: &str) -> Part {
        let body = stream::iter([Ok(Bytes::from(text.to_owned()))]);
        let target = ("data", "whole", upload);
        self.objects.upload_part(target, number, body, PutOptions::default()).await.unwrap()
    }
}

fn named(parts: &[Part]) -> Vec<CompletedPart> {
    parts.iter().map(|part| CompletedPart { number: part.number, etag: Some(part.etag.clone()) }).collect()
}

#[tokio::test]
async fn parts_become_one_object_at_once_and_only_once() {
    let site = Site::new().await;
    let upload = site.begin("whole").await;
    let target = ("data", "whole", upload.as_str());
    site.part(&upload, 2, "wrong").await;
    let parts = [site.part(&upload, 1, "hello ").await, site.part(&upload, 2, "world").await];
    site.part(&upload, 9, "not named below").await;
    assert!(matches!(site.objects.head("data", "whole").await, Err(Error::NoSuchKey { .. })));
    let complete = || site.objects.complete_upload(target, named(&parts), Condition::Always);
    let (one, two) = tokio::join!(complete(), complete());
    let info = one.unwrap();
    assert_eq!(two.unwrap(), info);
    assert_eq!(complete().await.unwrap(), info, "the acknowledgement was lost");
    assert_eq!((info.size, info.digest), (11, Digest::of(b"hello world")));
    // md5(md5("hello ") + md5("world")), counted outside.
    assert_eq!(info.etag, "e09e4fd6265b36115fe3db32df945d84-2");
    assert_eq!((info.content_type.as_deref(), site.objects.latest_sequence()), (Some("text/plain"), 1));
    assert_eq!(site.text("whole").await, "hello world");
    site.wait_for_files(1).await;
    assert!(matches!(site.objects.parts(target, 0, 10).await, Err(Error::NoSuchUpload(_))));
}

#[tokio::test]
async fn parts_survive_a_restart() {
    let site = Site::new().await;
    let upload = site.begin("whole").await;
    let parts = [site.part(&upload, 1, "a").await];
    let site = site.reopened();
    let target = ("data", "whole", upload.as_str());
    site.objects.complete_upload(target, named(&parts), Condition::Always).await.unwrap();
    assert_eq!(site.text("whole").await, "a");
}

#[tokio::test]
async fn a_completion_that_fails_leaves_the_upload_open() {
    let site = Site::new().await;
    let upload = site.begin("whole").await;
    let target = ("data", "whole", upload.as_str());
    let parts = [site.part(&upload, 1, "a").await, site.part(&upload, 2, "b").await];
    let complete =
        |parts: Vec<CompletedPart>, condition| site.objects.complete_upload(target, parts, condition);
    let reversed: Vec<_> = named(&parts).into_iter().rev().collect();
    let other = vec![CompletedPart { number: 1, etag: Some("0".repeat(32)) }];
    let missing = vec![CompletedPart { number: 3, etag: None }];
    assert!(matches!(complete(vec![], Condition::Always).await, Err(Error::Invalid(_))));
    assert!(matches!(complete(reversed, Condition::Always).await, Err(Error::PartOrder(1))));
    assert!(matches!(complete(other, Condition::Always).await, Err(Error::InvalidPart { number: 1, .. })));
    assert!(matches!(complete(missing, Condition::Always).await, Err(Error::InvalidPart { number: 3, .. })));
    let present = complete(named(&parts), Condition::Present).await;
    assert!(matches!(present, Err(Error::ConditionFailed { .. })));
    assert_eq!(
        (site.objects.latest_sequence(), site.objects.parts(target, 1, 9).await.unwrap().len()),
        (0, 1)
    );
    complete(named(&parts), Condition::Absent).await.unwrap();
    site.wait_for_files(1).await;
}

#[tokio::test]
async fn an_upload_belongs_to_its_object_and_ends_with_its_bucket() {
    let site = Site::new().await;
    let upload = site.begin("whole").await;
    site.part(&upload, 1, "a").await;
    let other = site.objects.abort_upload(("data", "other", &upload)).await;
    assert!(matches!(other, Err(Error::NoSuchUpload(_))));
    for number in [0, 10_001] {
        let body = stream::iter([Ok(Bytes::new())]);
        let target = ("data", "whole", upload.as_str());
        let part = site.objects.upload_part(target, number, body, PutOptions::default()).await;
        assert!(matches!(part, Err(Error::Invalid(_))));
    }
    site.objects.delete_bucket("data").await.unwrap();
    site.wait_for_files(0).await;
}
