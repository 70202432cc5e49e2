//! Signatures in cosign's form, made and checked by us and by skopeo, which knows them, too.

use std::process::Command;

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Ran, Tree, wait_until};
use types::Digest;

use crate::registry::{image, is_there, model_file};
use crate::support::{application, apply, model, ours, placement, registry, serving, token, tree};

fn key(name: &str) -> String {
    ours(&format!("../artifacts/tests/data/{name}")).display().to_string()
}

fn skopeo(tree: &Tree, arguments: &[&str]) -> Ran {
    // Where signatures lie, as its users set it.
    let settings = tree.write("registries.d/all.yaml", "default-docker: {use-sigstore-attachments: true}\n");
    let folder = settings.parent().unwrap().display().to_string();
    Ran::of(Command::new("skopeo").args(["--registries.d", &folder]).args(arguments))
}

/// Pushes an image with further arguments of skopeo.
fn push(tree: &Tree, hub: &Hub, name: &str, further: &[&str]) -> Ran {
    let (folder, _) = image(tree);
    let creds = format!("me:{}", token(hub));
    let (from, to) = (format!("dir:{}", folder.display()), format!("docker://{}/{name}", registry(hub)));
    let copy = ["--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds", &creds];
    skopeo(tree, &[&copy[..], further, &[&from, &to]].concat())
}

/// Pulls an image by a policy that demands signatures by a key.
fn pull_signed(tree: &Tree, hub: &Hub, name: &str, public: &str) -> Ran {
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {"": [{
            "type": "sigstoreSigned", "keyPath": public, "signedIdentity": {"type": "matchRepository"},
        }]}},
    });
    let policy = tree.write("policy.json", policy.to_string()).display().to_string();
    let creds = format!("me:{}", token(hub));
    let from = format!("docker://{}/{name}", registry(hub));
    let to = format!("dir:{}", tree.folder().join("pulled").display());
    let copy = ["--policy", &policy, "copy", "--remove-signatures", "--src-tls-verify=false"];
    skopeo(tree, &[&copy[..], &["--src-creds", &creds, &from, &to]].concat())
}

#[test]
fn what_skopeo_signs_we_verify_and_what_we_sign_skopeo_verifies() {
    if !is_there("skopeo") {
        return;
    }
    let tree = tree();
    let hub = tree.hub("cloud");
    let passphrase = tree.write("passphrase", "cosign").display().to_string();
    let signed =
        ["--sign-by-sigstore-private-key", &key("cosign.key"), "--sign-passphrase-file", &passphrase];
    let pushed = push(&tree, &hub, "team/theirs:v1", &signed);
    if pushed.stderr.contains("sigstore disabled") {
        println!("skipped: Debian's skopeo neither makes nor reads these signatures");
        return;
    }
    pushed.ok();
    let verify = |public: &str, place: &str| {
        hub.cli(&["artifact", "verify", "--key", &key(public), &format!("oci://{place}")])
    };
    assert!(verify("ecdsa.pub.pem", "team/theirs:v1").ok().contains("team/theirs@sha256:"));
    let refused = verify("other.pub.pem", "team/theirs:v1").refused();
    assert!(refused.contains("no valid signature by a trusted key (1 signatures)"), "{refused}");

    push(&tree, &hub, "team/ours:v1", &[]).ok();
    assert!(!pull_signed(&tree, &hub, "team/ours:v1", &key("ecdsa.pub.pem")).success, "nobody signed it");
    verify("ecdsa.pub.pem", "team/ours:v1").refused();
    let sign = |private: &str| {
        hub.cli(&["artifact", "sign", "--key", &key(private), "oci://team/ours:v1"]).ok();
    };
    sign("ecdsa.pem");
    pull_signed(&tree, &hub, "team/ours:v1", &key("ecdsa.pub.pem")).ok();
    verify("ecdsa.pub.pem", "team/ours:v1").ok();
    // A further signature leaves the first.
    verify("signer.pub.pem", "team/ours:v1").refused();
    sign("signer.pem");
    verify("signer.pub.pem", "team/ours:v1").ok();
    verify("ecdsa.pub.pem", "team/ours:v1").ok();
    pull_signed(&tree, &hub, "team/ours:v1", &key("ecdsa.pub.pem")).ok();
    let nothing = verify("ecdsa.pub.pem", "team/none:v1").refused();
    assert!(nothing.contains("there is no team/none:v1; push it first"), "{nothing}");
}

#[test]
fn a_signature_lies_where_cosign_looks_for_it_and_openssl_finds_it_valid() {
    let tree = tree();
    let hub = tree.hub("cloud");
    hub.cli(&["model", "push", &model_file(), "models/affine:v1"]).ok();
    let signed = hub.cli(&["artifact", "sign", "--key", &key("ecdsa.pem"), "oci://models/affine:v1"]).ok();
    let digest = signed.trim().strip_prefix("models/affine@").unwrap().to_owned();
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:{}/v2/models/affine/{path}", hub.port());
        let (code, body) = crate::support::http("GET", &url, &token(&hub), &Value::Null).unwrap();
        assert_eq!(code, 200, "{path}: {body}");
        body
    };
    let holder = get(&format!("manifests/{}.sig", digest.replace(':', "-")));
    let holder: Value = serde_json::from_str(&holder).unwrap();
    let layer = &holder["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let payload = get(&format!("blobs/{}", layer["digest"].as_str().unwrap()));
    let said: Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(said["critical"]["image"]["docker-manifest-digest"], *digest);
    assert_eq!(
        said["critical"]["identity"]["docker-reference"],
        format!("127.0.0.1:{}/models/affine", hub.port())
    );
    let referrers: Value = serde_json::from_str(&get(&format!("referrers/{digest}"))).unwrap();
    let kind = &referrers["manifests"][0]["artifactType"];
    assert_eq!(kind, "application/vnd.dev.cosign.artifact.sig.v1+json");

    if !is_there("openssl") {
        return;
    }
    let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let signature = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature).unwrap();
    let (payload, signature) = (tree.write("payload", payload), tree.write("signature", signature));
    let verify = |public: &str| {
        Ran::of(
            Command::new("openssl")
                .args(["dgst", "-sha256", "-verify", &key(public), "-signature"])
                .arg(&signature)
                .arg(&payload),
        )
    };
    assert!(verify("ecdsa.pub.pem").ok().contains("Verified OK"));
    assert!(!verify("other.pub.pem").success);
}

#[test]
fn a_site_that_demands_signed_images_hands_out_no_other() {
    if !is_there("skopeo") {
        return;
    }
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let site = tree.site(&hub, "strict", &["--require-image-signatures", &key("ecdsa.pub.pem")]);
    push(&tree, &hub, "team/app:v1", &[]).ok();
    let pull = || {
        let creds = format!("me:{}", site.access("token"));
        let from = format!("docker://{}/team/app:v1", site.access("registry"));
        let to = format!("dir:{}", tree.folder().join("pulled").display());
        let copy = ["--insecure-policy", "copy", "--remove-signatures", "--src-tls-verify=false"];
        skopeo(&tree, &[&copy[..], &["--src-creds", &creds, &from, &to]].concat())
    };
    let sign = |private: &str| {
        hub.cli(&["artifact", "sign", "--key", &key(private), "oci://team/app:v1"]).ok();
    };
    assert!(pull().refused().contains("denied"));
    sign("signer.pem");
    assert!(pull().refused().contains("denied"), "the key is not trusted here");
    sign("ecdsa.pem");
    pull().ok();
    // Whoever asks in another spelling gets no more.
    let url = format!("http://{}/v2/team/other/m%61nifests/v1", site.access("registry"));
    push(&tree, &hub, "team/other:v1", &[]).ok();
    let (code, body) = crate::support::http("GET", &url, &site.access("token"), &Value::Null).unwrap();
    assert!(code == 403 && body.contains("DENIED"), "{code} {body}");
    hub.kill_9();
    pull().ok();
}

#[test]
fn a_model_from_a_registry_starts_where_cosigns_signatures_are_demanded() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let site = tree.site(&hub, "strict", &["--require-signatures", &key("ecdsa.pub.pem")]);
    hub.cli(&["model", "push", &model_file(), "models/affine:v1"]).ok();
    let mut model = model("affine");
    model["spec"]["versions"] = json!([{"name": "1", "artifact": {"path": "oci://models/affine:v1"}}]);
    let manifests = [placement("edge"), model, application("app", &json!([serving("affine", "edge")]))];
    apply(&tree, &hub, &manifests);
    let is_refused = |what: &str| {
        wait_until(what, LIMIT, || {
            let shown = hub.cli(&["-n", "strict", "get", "assignments", "-o", "json"]).json().to_string();
            if shown.contains("ArtifactUnsigned") { Ok(()) } else { Err(shown) }
        });
    };
    is_refused("the site refuses the model");
    let sign = |private: &str| {
        hub.cli(&["artifact", "sign", "--key", &key(private), "oci://models/affine:v1"]).ok();
    };
    let signatures = || {
        let stored = hub.cli(&["get", "model", "affine", "-o", "json"]).json();
        stored["spec"]["versions"][0]["artifact"]["signatures"].as_array().cloned().unwrap_or_default()
    };
    sign("signer.pem");
    apply(&tree, &hub, &manifests);
    assert_eq!(signatures().len(), 1);
    is_refused("the site refuses a signature of a stranger");
    sign("ecdsa.pem");
    apply(&tree, &hub, &manifests);
    assert_eq!(signatures().len(), 2);
    hub.wait_until_ready("app");

    // What proves it is kept as long as the model, at the hub and at the site.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    hub.cli(&["artifact", "gc", "--minimum-age", "1s"]).ok();
    for signature in signatures() {
        let digest =
            signature.as_str().unwrap().rsplitn(2, ':').last().unwrap().trim_start_matches("cosign:");
        let digest: Digest = digest.parse().unwrap();
        assert!(site.data().join("artifacts/blobs").join(digest.hex()).is_file());
        let file = hub.process.data().join("hub/artifacts/blobs").join(digest.hex());
        assert!(file.is_file(), "{}", file.display());
    }
}
