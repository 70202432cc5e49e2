//! What goes, and what never goes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use avocet_registry::{Garbage, Swept};
use proptest::prelude::*;
use serde_json::{Value, json};
use types::Digest;

use crate::{INDEX, Server, digest_of};

fn all() -> Garbage {
    Garbage::default()
}

impl Server {
    /// Collects garbage that nobody but tags needs.
    async fn collect(&self, garbage: Garbage) -> Swept {
        self.registry.collect_garbage(garbage, HashSet::new).await.unwrap()
    }
}

#[tokio::test]
async fn what_no_tag_reaches_goes_and_a_dry_run_only_says_so() {
    let server = Server::new();
    let kept = server.push("a", "v1", b"kept", json!({})).await;
    let about = server.push("a", "", b"signature", json!({"subject": kept})).await;
    let gone = server.push("a", "", b"gone", json!({})).await;
    let dry = server.collect(Garbage { dry_run: true, ..all() }).await;
    assert_eq!((dry.manifests, dry.links, dry.blobs), (1, 1, 2));
    server.get(&format!("/v2/a/manifests/{}", digest_of(&gone))).await.expect(200);
    assert_eq!(server.collect(all()).await, dry);
    server.get(&format!("/v2/a/manifests/{}", digest_of(&gone))).await.expect(404);
    server.get(&format!("/v2/a/blobs/{}", Digest::of(b"gone"))).await.expect(404);
    for digest in [digest_of(&kept), digest_of(&about)] {
        server.get(&format!("/v2/a/manifests/{digest}")).await.expect(200);
    }
    server.get(&format!("/v2/a/blobs/{}", Digest::of(b"signature"))).await.expect(200);
}

#[tokio::test]
async fn what_is_young_or_needed_elsewhere_stays_and_so_do_uploads() {
    let server = Server::new();
    let untagged = server.push("a", "", b"untagged", json!({})).await;
    let alone = server.push_blob("a", b"alone").await;
    let young = Garbage { minimum_age: Duration::from_secs(3600), ..all() };
    assert_eq!(server.collect(young).await.blobs, 0);
    let at = server.begin("a").await;
    server.send("PATCH", &at, &[], "half").await.expect(202);
    let needed = [digest_of(&untagged), digest_of(&alone)].map(|digest| digest.parse().unwrap());
    server.registry.collect_garbage(all(), || needed.into()).await.unwrap();
    server.get(&format!("/v2/a/blobs/{}", Digest::of(b"untagged"))).await.expect(200);
    server.get(&format!("/v2/a/blobs/{}", digest_of(&alone))).await.expect(200);
    assert_eq!(server.get(&at).await.expect(204).header("range"), "0-3");
    server.collect(all()).await;
    server.get(&format!("/v2/a/blobs/{}", digest_of(&alone))).await.expect(404);
}

#[tokio::test]
async fn a_blob_that_a_pusher_found_is_kept_as_if_it_had_just_come() {
    let server = Server::new();
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    let [found, passed_over] = [b"found".as_slice(), b"passed over"].map(Digest::of);
    for content in [b"found".as_slice(), b"passed over"] {
        let (digest, _) = server.registry.blobs().put_reader(content).await.unwrap();
        let file = std::fs::File::open(server.registry.file(&digest)).unwrap();
        file.set_modified(old).unwrap();
    }
    assert!(server.registry.touch(&found).await.unwrap());
    let swept = server.collect(Garbage { minimum_age: Duration::from_secs(3600), ..all() }).await;
    assert_eq!(swept.blobs, 1);
    assert!(server.registry.blobs().has(&found) && !server.registry.blobs().has(&passed_over));
    assert!(!server.registry.touch(&passed_over).await.unwrap());
}

#[derive(Debug, Clone)]
enum Step {
    Push { repository: usize, tag: Option<usize>, layer: u8 },
    Index { repository: usize, tag: usize },
    Refer { repository: usize, layer: u8 },
    Untag { repository: usize, tag: usize },
    Need { layer: u8 },
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    let (repository, tag, layer) = (0..2_usize, 0..3_usize, 0..4_u8);
    prop_oneof![
        3 => (repository.clone(), proptest::option::of(tag.clone()), layer.clone())
            .prop_map(|(repository, tag, layer)| Step::Push { repository, tag, layer }),
        1 => (repository.clone(), tag.clone()).prop_map(|(repository, tag)| Step::Index { repository, tag }),
        1 => (repository.clone(), layer.clone()).prop_map(|(repository, layer)| Step::Refer { repository, layer }),
        2 => (repository, tag).prop_map(|(repository, tag)| Step::Untag { repository, tag }),
        1 => layer.prop_map(|layer| Step::Need { layer }),
        2 => Just(Step::Collect),
    ]
}

/// Pulls all that a manifest names.
async fn pull(server: &Server, repository: &str, reference: &str) {
    let manifest = server.get(&format!("/v2/{repository}/manifests/{reference}")).await.expect(200).json();
    let list = |field: &str| manifest[field].as_array().cloned().unwrap_or_default();
    let blobs: Vec<Value> = manifest.get("config").cloned().into_iter().chain(list("layers")).collect();
    for blob in blobs {
        let pulled = server.get(&format!("/v2/{repository}/blobs/{}", digest_of(&blob))).await.expect(200);
        assert_eq!(Digest::of(&pulled.body).to_string(), digest_of(&blob));
    }
    for child in list("manifests") {
        Box::pin(pull(server, repository, digest_of(&child))).await;
    }
}

async fn run(steps: Vec<Step>) {
    let server = Server::new();
    let repositories = ["one", "two/deep"];
    let mut tags: BTreeMap<(usize, usize), Value> = BTreeMap::new();
    let mut needed: HashSet<Digest> = HashSet::new();
    for step in steps {
        match step {
            Step::Push { repository, tag, layer } => {
                let reference = tag.map_or(String::new(), |tag| format!("t{tag}"));
                let pushed = server.push(repositories[repository], &reference, &[layer], json!({})).await;
                if let Some(tag) = tag {
                    tags.insert((repository, tag), pushed);
                }
            }
            Step::Index { repository, tag } => {
                let own = tags.iter().filter(|((at, _), _)| *at == repository);
                let manifests: Vec<&Value> = own.map(|(_, descriptor)| descriptor).collect();
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
                let pushed = server.put(repositories[repository], &format!("t{tag}"), INDEX, &index).await;
                tags.insert((repository, tag), pushed);
            }
            Step::Refer { repository, layer } => {
                let subject = tags.iter().find(|((at, _), _)| *at == repository);
                let further = subject.map_or(json!({}), |(_, subject)| json!({"subject": subject}));
                server.push(repositories[repository], "", &[layer, 1], further).await;
            }
            Step::Untag { repository, tag } => {
                let path = format!("/v2/{}/manifests/t{tag}", repositories[repository]);
                let deleted = server.send("DELETE", &path, &[], "").await.status.as_u16();
                assert_eq!(deleted == 202, tags.remove(&(repository, tag)).is_some());
            }
            Step::Need { layer } => {
                server.push_blob("needed", &[layer]).await;
                needed.insert(Digest::of(&[layer]));
            }
            Step::Collect => {
                let collect = || server.registry.collect_garbage(all(), || needed.clone());
                collect().await.unwrap();
                let again = collect().await.unwrap();
                assert_eq!(
                    (again.blobs, again.manifests, again.links),
                    (0, 0, 0),
                    "nothing is left to collect"
                );
            }
        }
        for ((repository, tag), descriptor) in &tags {
            pull(&server, repositories[*repository], &format!("t{tag}")).await;
            pull(&server, repositories[*repository], digest_of(descriptor)).await;
        }
        for digest in &needed {
            assert!(server.registry.file(digest).is_file());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_what_is_tagged_or_needed_can_be_pulled(steps in proptest::collection::vec(step(), 1..16)) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(steps));
    }
}
