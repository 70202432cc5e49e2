//! What is pulled and deleted.

use serde_json::json;

use crate::{MANIFEST, Server, digest_of};

#[tokio::test]
async fn the_front_says_that_it_is_a_registry() {
    let server = Server::new();
    let answer = server.get("/v2/").await.expect(200);
    assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    server.send("POST", "/v2/", &[], "").await.expect(405);
    assert_eq!(server.get("/v2/what/is/this").await.expect(404).code(), "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_blob_is_pulled_in_whole_or_in_part() {
    let server = Server::new();
    let blob = server.push_blob("a", b"0123456789").await;
    let path = format!("/v2/a/blobs/{}", digest_of(&blob));
    let head = server.send("HEAD", &path, &[], "").await.expect(200);
    assert_eq!(
        (head.header("content-length"), head.header("accept-ranges"), &*head.body),
        ("10", "bytes", &b""[..])
    );
    for (range, part, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
    ] {
        let partial = server.send("GET", &path, &[("range", range)], "").await.expect(206);
        assert_eq!((&*partial.body, partial.header("content-range")), (part.as_bytes(), content_range));
    }
    let beyond = server.send("GET", &path, &[("range", "bytes=10-")], "").await.expect(416);
    assert_eq!(beyond.header("content-range"), "bytes */10");
    server.send("GET", &path, &[("if-none-match", head.header("etag"))], "").await.expect(304);
}

#[tokio::test]
async fn a_manifest_is_pulled_by_tag_and_digest_whatever_the_client_accepts() {
    let server = Server::new();
    let pushed = server.push("a", "v1", b"layer", json!({})).await;
    for reference in ["v1", digest_of(&pushed)] {
        let accepts =
            [("accept", "application/vnd.docker.distribution.manifest.v2+json"), ("accept", MANIFEST)];
        let pulled =
            server.send("GET", &format!("/v2/a/manifests/{reference}"), &accepts, "").await.expect(200);
        assert_eq!(pulled.header("content-type"), MANIFEST);
        assert_eq!(pulled.header("docker-content-digest"), digest_of(&pushed));
        let head = server.send("HEAD", &format!("/v2/a/manifests/{reference}"), &[], "").await.expect(200);
        assert_eq!(head.header("content-length"), pulled.body.len().to_string());
    }
    assert_eq!(server.get("/v2/a/manifests/v2").await.expect(404).code(), "MANIFEST_UNKNOWN");
    assert_eq!(server.get("/v2/b/manifests/v1").await.expect(404).code(), "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_tag_goes_alone_and_a_manifest_with_its_tags() {
    let server = Server::new();
    let first = server.push("a", "v1", b"layer", json!({})).await;
    let path = format!("/v2/a/manifests/{}", digest_of(&first));
    server.send("DELETE", "/v2/a/manifests/v1", &[], "").await.expect(202);
    server.get("/v2/a/manifests/v1").await.expect(404);
    server.get(&path).await.expect(200);
    server.push("a", "v2", b"layer", json!({})).await;
    server.send("DELETE", &path, &[], "").await.expect(202);
    server.get("/v2/a/manifests/v2").await.expect(404);
    server.send("DELETE", &path, &[], "").await.expect(404);
    assert_eq!(server.get("/v2/a/tags/list").await.expect(200).json()["tags"], json!([]));
}

#[tokio::test]
async fn a_deleted_blob_is_gone_from_its_repository_alone() {
    let server = Server::new();
    let blob = server.push_blob("a", b"x").await;
    server.push_blob("b", b"x").await;
    let digest = digest_of(&blob);
    server.send("DELETE", &format!("/v2/a/blobs/{digest}"), &[], "").await.expect(202);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).await.expect(404).code(), "BLOB_UNKNOWN");
    server.get(&format!("/v2/b/blobs/{digest}")).await.expect(200);
}
