//! Tags, repositories and referrers.

use serde_json::{Value, json};
use types::Digest;

use crate::{INDEX, MANIFEST, Server, digest_of};

fn next(link: &str) -> &str {
    link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).expect(link)
}

#[tokio::test]
async fn tags_come_in_order_and_in_pages() {
    let server = Server::new();
    for tag in ["b", "a", "d", "c"] {
        server.push("x/y", tag, b"layer", json!({})).await;
    }
    let all = server.get("/v2/x/y/tags/list").await.expect(200);
    assert_eq!(all.json(), json!({"name": "x/y", "tags": ["a", "b", "c", "d"]}));
    assert_eq!(all.header("link"), "");
    let first = server.get("/v2/x/y/tags/list?n=3").await.expect(200);
    assert_eq!(first.json()["tags"], json!(["a", "b", "c"]));
    let second = server.get(next(first.header("link"))).await.expect(200);
    assert_eq!((second.json()["tags"].clone(), second.header("link")), (json!(["d"]), ""));
    assert_eq!(server.get("/v2/x/y/tags/list?n=0").await.expect(200).json()["tags"], json!([]));
    assert_eq!(server.get("/v2/x/y/tags/list?last=b").await.json()["tags"], json!(["c", "d"]));
    server.get("/v2/x/y/tags/list?n=many").await.expect(400);
    assert_eq!(server.get("/v2/x/tags/list").await.expect(404).code(), "NAME_UNKNOWN");
    assert_eq!(server.get("/v2/_catalog").await.expect(200).json(), json!({"repositories": ["x/y"]}));
}

fn types_of(index: &Value) -> Vec<&str> {
    let mut types: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["artifactType"].as_str().unwrap_or_default())
        .collect();
    types.sort_unstable();
    types
}

#[tokio::test]
async fn who_refers_to_a_manifest_is_told_by_type_too() {
    let server = Server::new();
    let subject = server.push("a", "v1", b"layer", json!({})).await;
    let path = format!("/v2/a/referrers/{}", digest_of(&subject));
    let none = server.get(&path).await.expect(200);
    assert_eq!((none.header("content-type"), none.json()["manifests"].clone()), (INDEX, json!([])));
    let about = |kind: &str| json!({"subject": subject, "artifactType": kind, "annotations": {"k": kind}});
    server.push("a", "", b"1", about("text/a")).await;
    server.push("a", "", b"2", about("text/b")).await;
    let plain = server.push("a", "", b"3", json!({"subject": subject})).await;
    server.push("other", "", b"4", about("text/a")).await;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject});
    server.put("a", "list", INDEX, &index).await;
    let all = server.get(&path).await.expect(200).json();
    assert_eq!(types_of(&all), ["", "application/octet-stream", "text/a", "text/b"]);
    let one =
        all["manifests"].as_array().unwrap().iter().find(|one| one["artifactType"] == "text/a").unwrap();
    assert_eq!((&one["annotations"], &one["mediaType"]), (&json!({"k": "text/a"}), &json!(MANIFEST)));
    let filtered = server.get(&format!("{path}?artifactType=text%2Fb")).await.expect(200);
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(types_of(&filtered.json()), ["text/b"]);
    server.send("DELETE", &format!("/v2/a/manifests/{}", digest_of(&plain)), &[], "").await.expect(202);
    assert_eq!(types_of(&server.get(&path).await.json()), ["", "text/a", "text/b"]);
    server.get("/v2/a/referrers/sha256:bad").await.expect(400);
}

#[tokio::test]
async fn a_subject_may_be_missing_and_is_told_back() {
    let server = Server::new();
    let subject = json!({"mediaType": MANIFEST, "digest": Digest::of(b"gone"), "size": 4});
    let config = server.push_blob("a", b"{}").await;
    let manifest =
        json!({"schemaVersion": 2, "config": config, "layers": [], "subject": subject}).to_string();
    let put =
        server.send("PUT", "/v2/a/manifests/x", &[("content-type", MANIFEST)], manifest).await.expect(201);
    assert_eq!(put.header("oci-subject"), digest_of(&subject));
    let listed = server.get(&format!("/v2/a/referrers/{}", digest_of(&subject))).await.expect(200);
    assert_eq!(listed.json()["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn long_lists_of_referrers_go_on_where_they_ended() {
    let server = Server::new();
    let subject = json!({"mediaType": MANIFEST, "digest": Digest::of(b"gone"), "size": 4});
    for number in 0..3 {
        let note = "x".repeat(1_900_000);
        let further = json!({"subject": subject, "annotations": {"note": note}});
        server.push("a", "", format!("{number}").as_bytes(), further).await;
    }
    let mut path = format!("/v2/a/referrers/{}", digest_of(&subject));
    let mut pages = Vec::new();
    loop {
        let page = server.get(&path).await.expect(200);
        pages.push(page.json()["manifests"].as_array().unwrap().len());
        match page.header("link") {
            "" => break,
            link => path = next(link).to_owned(),
        }
    }
    assert_eq!(pages, [2, 1]);
}
