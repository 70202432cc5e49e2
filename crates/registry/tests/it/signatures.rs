//! What is shown where signatures are demanded.

use artifacts::signature::cosign::{ANNOTATION, PAYLOAD, payload};
use artifacts::signature::{SigningKey, TrustedKeys};
use avocet_registry::Demand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use types::Digest;

use crate::{INDEX, MANIFEST, Server, digest_of};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn key() -> SigningKey {
    SigningKey::from_pem(include_str!("../../../artifacts/tests/data/ecdsa.pem")).unwrap()
}

fn demand() -> Demand {
    let keys = include_str!("../../../artifacts/tests/data/ecdsa.pub.pem");
    Demand::new(TrustedKeys::from_pem(keys).unwrap())
}

fn digest(descriptor: &Value) -> Digest {
    digest_of(descriptor).parse().unwrap()
}

impl Server {
    /// The status of a pull by a client of whom signatures are demanded.
    async fn pull_signed(&self, path: &str) -> u16 {
        self.send_with("GET", path, &[], "", |request| drop(request.extensions_mut().insert(demand())))
            .await
            .status
            .as_u16()
    }

    /// Signs as cosign does up to version 2: under a tag.
    async fn sign(&self, repository: &str, subject: &Value) {
        let subject = digest(subject);
        let payload = payload("registry.example/app", &subject);
        let layer = self.push_blob(repository, payload.as_bytes()).await;
        let config = self.push_blob(repository, b"{}").await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": [{
                "mediaType": PAYLOAD, "digest": layer["digest"], "size": layer["size"],
                "annotations": {ANNOTATION: key().sign_payload(&payload).unwrap()},
            }],
        });
        self.put(repository, &format!("sha256-{}.sig", subject.hex()), MANIFEST, &manifest).await;
    }

    /// Signs as cosign does from version 3 on: by what refers to the manifest.
    async fn sign_by_bundle(&self, repository: &str, subject: &Value, predicate: &str) {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {},
            "subject": [{"digest": {"sha256": digest(subject).hex()}}],
        })
        .to_string();
        let kind = "application/vnd.in-toto+json";
        let signed = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let bundle = json!({"mediaType": BUNDLE, "dsseEnvelope": {
            "payloadType": kind, "payload": STANDARD.encode(&statement),
            "signatures": [{"sig": key().sign_payload(&signed).unwrap()}],
        }})
        .to_string();
        let layer = self.push_blob(repository, bundle.as_bytes()).await;
        let config = self.push_blob(repository, b"{}").await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE, "config": config,
            "layers": [{"mediaType": BUNDLE, "digest": layer["digest"], "size": layer["size"]}],
            "subject": {"mediaType": MANIFEST, "digest": subject["digest"], "size": subject["size"]},
        });
        let holder = Digest::of(manifest.to_string().as_bytes()).to_string();
        self.put(repository, &holder, MANIFEST, &manifest).await;
        let path = format!("/v2/{repository}/manifests/{holder}");
        assert_eq!(self.pull_signed(&path).await, 200, "signatures themselves need none");
    }
}

#[tokio::test]
async fn an_image_is_shown_once_it_is_signed_in_either_form() {
    let server = Server::new();
    let old = server.push("app", "old", b"layer", json!({})).await;
    let new = server.push("app", "new", b"another layer", json!({})).await;
    for tag in ["old", "new"] {
        assert_eq!(server.pull_signed(&format!("/v2/app/manifests/{tag}")).await, 403);
        server.get(&format!("/v2/app/manifests/{tag}")).await.expect(200);
    }
    server.sign("app", &old).await;
    assert_eq!(server.pull_signed("/v2/app/manifests/old").await, 200);
    assert_eq!(server.pull_signed("/v2/app/m%61nifests/new").await, 403);
    server.sign_by_bundle("app", &new, "https://cyclonedx.org/bom").await;
    assert_eq!(server.pull_signed("/v2/app/manifests/new").await, 403, "an attestation is no signature");
    server.sign_by_bundle("app", &new, "https://sigstore.dev/cosign/sign/v1").await;
    assert_eq!(server.pull_signed("/v2/app/manifests/new").await, 200);
    assert_eq!(server.pull_signed(&format!("/v2/app/manifests/{}", digest_of(&new))).await, 200);
}

#[tokio::test]
async fn who_signs_an_index_signs_what_it_names_in_that_repository() {
    let server = Server::new();
    let image = server.push("app", "amd64", b"layer", json!({})).await;
    server.push("other", "amd64", b"layer", json!({})).await;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image]});
    let index = server.put("app", "v1", INDEX, &index).await;
    assert_eq!(server.pull_signed("/v2/app/manifests/amd64").await, 403);
    server.sign("app", &index).await;
    assert_eq!(server.pull_signed("/v2/app/manifests/v1").await, 200);
    assert_eq!(server.pull_signed("/v2/app/manifests/amd64").await, 200);
    assert_eq!(server.pull_signed("/v2/other/manifests/amd64").await, 403);
}
