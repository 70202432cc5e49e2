//! What is pushed, in all the ways there are.

use avocet_registry::{ContentDigest, Limits};
use serde_json::json;
use types::Digest;

use crate::{INDEX, MANIFEST, Server, digest_of, open};

#[tokio::test]
async fn a_blob_is_pushed_by_one_post_or_by_post_and_put() {
    let server = Server::new();
    let digest = Digest::of(b"one");
    let path = format!("/v2/a/b/blobs/uploads/?digest={digest}");
    let done = server.send("POST", &path, &[], "one").await.expect(201);
    assert_eq!(done.header("location"), format!("/v2/a/b/blobs/{digest}"));
    let digest = Digest::of(b"two");
    let at = server.begin("a/b").await;
    let done = server.send("PUT", &format!("{at}?digest={digest}"), &[], "two").await.expect(201);
    let pulled = server.get(done.header("location")).await.expect(200);
    assert_eq!((&*pulled.body, pulled.header("docker-content-digest")), (&b"two"[..], &*digest.to_string()));
    server.get(&at).await.expect(404);
}

#[tokio::test]
async fn chunks_are_taken_in_their_order_only_and_the_way_back_is_told() {
    let server = Server::new();
    let at = server.begin("a").await;
    let range = |range| [("content-range", range)];
    let first = server.send("PATCH", &at, &range("0-3"), "0123").await.expect(202);
    assert_eq!(first.header("range"), "0-3");
    for (wrong, bytes) in [("6-7", "67"), ("0-3", "0123")] {
        let refused = server.send("PATCH", &at, &range(wrong), bytes).await.expect(416);
        assert_eq!((refused.header("range"), &*refused.code()), ("0-3", "BLOB_UPLOAD_INVALID"));
    }
    let end = format!("{at}?digest={}", Digest::of(b"01234567"));
    server.send("PUT", &end, &range("6-7"), "67").await.expect(416);
    let asked = server.get(&at).await.expect(204);
    assert_eq!((asked.header("range"), asked.header("location")), ("0-3", &*at));
    for wrong in ["4-9", "4-4", "nonsense"] {
        let refused = server.send("PATCH", &at, &range(wrong), "45").await.expect(400);
        assert_eq!(refused.code(), "BLOB_UPLOAD_INVALID", "{wrong}");
    }
    server.send("PATCH", &at, &range("4-5"), "45").await.expect(202);
    server.send("PUT", &end, &range("6-7"), "67").await.expect(201);
}

#[tokio::test]
async fn a_body_without_a_range_goes_on_at_the_end() {
    let server = Server::new();
    let at = server.begin("a").await;
    server.send("PATCH", &at, &[], "ab").await.expect(202);
    server.send("PATCH", &at, &[], "cd").await.expect(202);
    let end = format!("{at}?digest={}", Digest::of(b"abcd"));
    server.send("PUT", &end, &[], "").await.expect(201);
}

#[tokio::test]
async fn what_is_not_as_announced_is_refused_and_gone() {
    let server = Server::new();
    let at = server.begin("a").await;
    let refused =
        server.send("PUT", &format!("{at}?digest={}", Digest::of(b"x")), &[], "y").await.expect(400);
    assert_eq!(refused.code(), "DIGEST_INVALID");
    server.get(&at).await.expect(404);
    for digest in ["", "sha256:bad", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let at = server.begin("a").await;
        let refused = server.send("PUT", &format!("{at}?digest={digest}"), &[], "y").await.expect(400);
        assert_eq!(refused.code(), "DIGEST_INVALID", "{digest}");
    }
    server.get(&format!("/v2/a/blobs/{}", Digest::of(b"y"))).await.expect(404);
}

#[tokio::test]
async fn a_cancelled_upload_and_one_of_another_repository_are_unknown() {
    let server = Server::new();
    let at = server.begin("a").await;
    let elsewhere = at.replace("/a/", "/b/");
    assert_eq!(server.send("PATCH", &elsewhere, &[], "x").await.expect(404).code(), "BLOB_UPLOAD_UNKNOWN");
    server.send("DELETE", &at, &[], "").await.expect(204);
    assert_eq!(server.send("PATCH", &at, &[], "x").await.expect(404).code(), "BLOB_UPLOAD_UNKNOWN");
    server.get("/v2/a/blobs/uploads/nonsense").await.expect(404);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let before =
        Server { registry: open(folder.path(), Limits::default()), _folder: tempfile::tempdir().unwrap() };
    let at = before.begin("a").await;
    before.send("PATCH", &at, &[("content-range", "0-2")], "abc").await.expect(202);
    drop(before);
    let after =
        Server { registry: open(folder.path(), Limits::default()), _folder: tempfile::tempdir().unwrap() };
    assert_eq!(after.get(&at).await.expect(204).header("range"), "0-2");
    let end = format!("{at}?digest={}", Digest::of(b"abcdef"));
    after.send("PUT", &end, &[("content-range", "3-5")], "def").await.expect(201);
}

#[tokio::test]
async fn a_blob_is_mounted_from_where_the_caller_may_read_it_and_uploaded_otherwise() {
    let server = Server::new();
    let shown = server.push_blob("from/here", b"shown").await;
    let hidden = server.push_blob("secret/x", b"hidden").await;
    let mount = |digest: &str, from: &str| format!("/v2/to/blobs/uploads/?mount={digest}{from}");
    let (shown, hidden) = (digest_of(&shown), digest_of(&hidden));
    server.send("POST", &mount(shown, "&from=from/here"), &[], "").await.expect(201);
    server.get(&format!("/v2/to/blobs/{shown}")).await.expect(200);
    for refused in ["&from=secret/x", "", "&from=nobody", "&from=NoName"] {
        let answer = server.send("POST", &mount(hidden, refused), &[], "").await.expect(202);
        assert!(answer.header("location").starts_with("/v2/to/blobs/uploads/"), "{refused}");
    }
    server.get(&format!("/v2/to/blobs/{hidden}")).await.expect(404);
    server.send("DELETE", &format!("/v2/to/blobs/{shown}"), &[], "").await.expect(202);
    server.send("POST", &mount(shown, ""), &[], "").await.expect(201);
}

#[tokio::test]
async fn sha512_is_as_good_as_sha256() {
    let server = Server::new();
    let any: ContentDigest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let digest = any.again(b"content");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    server.send("POST", &path, &[], "content").await.expect(201);
    let pulled = server.get(&format!("/v2/a/blobs/{digest}")).await.expect(200);
    assert_eq!(pulled.header("docker-content-digest"), digest.to_string());
    let manifest = json!({
        "schemaVersion": 2, "config": {"mediaType": "a/b", "digest": digest, "size": 7}, "layers": [],
    });
    let own = any.again(manifest.to_string().as_bytes());
    let path = format!("/v2/a/manifests/{own}?tag=x&tag=y");
    let put =
        server.send("PUT", &path, &[("content-type", MANIFEST)], manifest.to_string()).await.expect(201);
    assert_eq!(put.headers.get_all("oci-tag").iter().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(
        server.get("/v2/a/manifests/y").await.expect(200).header("docker-content-digest"),
        own.to_string()
    );
    let path = path.replace('?', "1?");
    assert_eq!(server.send("PUT", &path, &[], "{}").await.expect(400).code(), "DIGEST_INVALID");
    let other = any.again(b"other");
    let path = format!("/v2/a/manifests/{other}");
    assert_eq!(
        server.send("PUT", &path, &[], manifest.to_string()).await.expect(400).code(),
        "DIGEST_INVALID"
    );
}

#[tokio::test]
async fn a_manifest_is_taken_with_its_blobs_only_but_an_index_may_be_sparse() {
    let server = Server::new();
    let nowhere = json!({"mediaType": MANIFEST, "digest": Digest::of(b"nowhere"), "size": 7});
    let manifest = json!({"schemaVersion": 2, "config": nowhere, "layers": []}).to_string();
    let refused = server.send("PUT", "/v2/a/manifests/x", &[("content-type", MANIFEST)], manifest).await;
    assert_eq!(refused.expect(404).code(), "MANIFEST_BLOB_UNKNOWN");
    let index = json!({"schemaVersion": 2, "manifests": [nowhere]});
    server.put("a", "x", INDEX, &index).await;
    for (media_type, bytes) in [(MANIFEST, "no json"), (MANIFEST, "{}"), (INDEX, r#"{"mediaType": "a/b"}"#)] {
        let refused = server.send("PUT", "/v2/a/manifests/x", &[("content-type", media_type)], bytes).await;
        assert_eq!(refused.expect(400).code(), "MANIFEST_INVALID", "{bytes}");
    }
    let odd = server.send("PUT", "/v2/a/manifests/odd", &[("content-type", "text/odd")], "anything").await;
    odd.expect(201);
    let pulled = server.get("/v2/a/manifests/odd").await.expect(200);
    assert_eq!((pulled.header("content-type"), &*pulled.body), ("text/odd", &b"anything"[..]));
}

#[tokio::test]
async fn a_manifest_is_not_taken_when_the_disk_lost_its_blob() {
    let server = Server::new();
    let config = server.push_blob("a", b"config").await;
    server.registry.blobs().remove(&Digest::of(b"config")).unwrap();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": []}).to_string();
    let refused = server.send("PUT", "/v2/a/manifests/x", &[("content-type", MANIFEST)], manifest).await;
    assert_eq!(refused.expect(404).code(), "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn one_user_or_repository_leaves_uploads_for_others() {
    let limits = Limits { uploads: 5, uploads_of_one: 2, ..Limits::default() };
    let server = Server::limited(limits);
    let begin = async |repository: &str, user: &str| {
        let path = format!("/v2/{repository}/blobs/uploads/");
        server.send("POST", &path, &[("user", user)], "").await.status.as_u16()
    };
    for (repository, user, code) in
        [("a", "anna", 202), ("b", "anna", 202), ("c", "anna", 429), ("c", "ben", 202), ("d", "", 202)]
    {
        assert_eq!(begin(repository, user).await, code, "{repository} by {user}");
    }
    assert_eq!(begin("d", "").await, 202);
    assert_eq!(begin("e", "").await, 429, "those of all");
}

#[tokio::test]
async fn limits_hold() {
    let limits = Limits { manifest: 100, blob: 10, uploads: 2, ..Limits::default() };
    let server = Server::limited(limits);
    let long = "x".repeat(101);
    let refused = server.send("PUT", "/v2/a/manifests/x", &[("content-type", "a/b")], long).await.expect(413);
    assert_eq!(refused.code(), "SIZE_INVALID");
    let at = server.begin("a").await;
    server.send("PATCH", &at, &[], "0123456789").await.expect(202);
    server.send("PATCH", &at, &[], "x").await.expect(413);
    assert_eq!(server.get(&at).await.header("range"), "0-9", "nothing is kept of what is too much");
    server.begin("a").await;
    let refused = server.send("POST", "/v2/a/blobs/uploads/", &[], "").await.expect(429);
    assert_eq!(refused.code(), "TOOMANYREQUESTS");
    for path in ["/v2/A/manifests/x", "/v2/a/manifests/-x", &format!("/v2/a/manifests/{}", "x".repeat(129))] {
        server.get(path).await.expect(400);
    }
}

#[tokio::test]
async fn uploads_that_rest_too_long_are_given_up() {
    let swept = async |limits: Limits| {
        let server = Server::limited(limits);
        let (empty, begun) = (server.begin("a").await, server.begin("a").await);
        server.send("PATCH", &begun, &[], "abc").await.expect(202);
        server.registry.sweep_uploads().await.unwrap();
        [server.get(&empty).await.status.as_u16(), server.get(&begun).await.status.as_u16()]
    };
    let zero = std::time::Duration::ZERO;
    assert_eq!(swept(Limits { upload_rest: zero, ..Limits::default() }).await, [204, 404]);
    assert_eq!(swept(Limits { empty_rest: zero, ..Limits::default() }).await, [404, 204]);
    assert_eq!(swept(Limits { upload_age: zero, ..Limits::default() }).await, [404, 404]);
    assert_eq!(swept(Limits::default()).await, [204, 204]);
}
