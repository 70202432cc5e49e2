//! A hub that takes connections and says nothing, or nothing more, holds nobody up.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use api::{Client, Upstream};
use artifacts::Blobs;
use futures::StreamExt;
use registry::Origin;
use types::{Digest, SiteSpec, SiteStatus};

use crate::Membership;
use crate::identity::{Identity, pending_key};
use crate::links::{Links, look_at_width};

const PATIENCE: Duration = Duration::from_millis(50);
/// The beginning of an answer that never ends.
const BEGINNING: &str = "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: 10\r\n\r\nabc";

/// Says the same to whoever asks, and then nothing; answers its address.
fn hub_that_says(words: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            if !words.is_empty() {
                let _ = stream.read(&mut [0; 8192]);
            }
            // Who gave up already hears nothing.
            let _ = stream.write_all(words.as_bytes());
            open.push(stream);
        }
    });
    format!("http://{address}")
}

fn client_of_hub_that_says(words: &'static str) -> Client {
    Client::new(&hub_that_says(words), "", None).unwrap().with_patience(PATIENCE)
}

#[tokio::test]
async fn an_image_that_does_not_come_is_given_up() {
    let (repository, digest) = ("a".parse().unwrap(), Digest::of(b"").into());
    let hub = Upstream::to(client_of_hub_that_says(""));
    assert!(hub.manifest(&repository, &registry::Reference::Digest(digest)).await.is_err());
    assert!(hub.blob(&repository, &digest, 0).await.is_err());
    let hub = Upstream::to(client_of_hub_that_says(BEGINNING));
    assert!(hub.manifest(&repository, &registry::Reference::Digest(digest)).await.is_err());
    let (size, mut content) = hub.blob(&repository, &digest, 0).await.unwrap().unwrap();
    assert_eq!((size, &*content.next().await.unwrap().unwrap()), (10, &b"abc"[..]));
    let silent = content.next().await.unwrap().unwrap_err();
    assert!(silent.to_string().contains("said nothing"), "{silent}");
}

#[tokio::test]
async fn an_artifact_that_stops_coming_is_given_up_and_its_beginning_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (blobs, digest) = (Blobs::open(folder.path()).unwrap(), Digest::of(b"abcdefghij"));
    for (words, there) in [("", 0), (BEGINNING, 3)] {
        let client = client_of_hub_that_says(words);
        let given_up = artifacts::fetch(&blobs, &digest, 10, &Upstream::to(client.clone())).await;
        assert!(matches!(given_up, Err(artifacts::Error::Source { .. })));
        assert_eq!(blobs.partial_len(&digest), there);
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_come_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let authority = daemon::tls::Authority::open(&folder.path().join("authority")).unwrap();
    let membership = Membership {
        site: "plant".to_owned(),
        url: hub_that_says(""),
        authority: authority.certificate().to_owned(),
        secret: "s".repeat(40),
        hub: "hub-1".to_owned(),
        parent: "cloud".to_owned(),
        joined_with: String::new(),
    };
    pending_key(folder.path()).unwrap();
    let identity = Identity::open(folder.path(), &membership).unwrap().with_patience(PATIENCE);
    assert!(identity.upgrade().await.is_err());
    assert!(identity.renew().await.is_err());
}

#[tokio::test]
async fn lists_watches_and_reports_that_are_not_answered_are_given_up() {
    for words in ["", BEGINNING] {
        let client = client_of_hub_that_says(words);
        assert!(client.list::<SiteSpec>("").await.is_err());
        if words.is_empty() {
            assert!(client.watch("sites", "", "1", PATIENCE).await.is_err());
            assert!(client.patch_status::<SiteSpec>("", "plant", &SiteStatus::default()).await.is_err());
        }
    }
}

#[tokio::test]
async fn the_width_of_a_way_that_carries_nothing_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let links =
        Links::open(folder.path().join("links.json"), "cloud".to_owned(), crate::links::Named::default());
    for words in ["", BEGINNING] {
        look_at_width(&links, &client_of_hub_that_says(words), "plant").await;
    }
    assert_eq!(links.told(), []);
}
