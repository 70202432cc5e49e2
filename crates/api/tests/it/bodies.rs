//! Forms of bodies that clients of Kubernetes send.

use serde_json::json;

use crate::support::{ADMIN, TestHub, manifest, resource};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CONFIG_MAPS: &str = "/api/v1/namespaces/plant/configmaps";

/// A ConfigMap without a name, as protobuf: the envelope with `v1` and `ConfigMap`, then `metadata.generateName` and
/// one entry of `data`.
const CONFIG_MAP: &[u8] =
    b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x12\x0a\x06\x12\x04told\x12\x08\x0a\x01k\x12\x03yes";

#[tokio::test]
async fn kinds_of_kubernetes_come_as_protobuf() {
    let hub = TestHub::start().await;
    let created = hub.ask("POST", CONFIG_MAPS, ADMIN, PROTOBUF, CONFIG_MAP.to_vec()).await.expect(201);
    assert_eq!(created["data"], json!({"k": "yes"}));
    assert!(created["metadata"]["name"].as_str().unwrap().starts_with("told"), "{created}");
}

#[tokio::test]
async fn what_is_no_protobuf_or_not_read_as_such_is_refused() {
    let hub = TestHub::start().await;
    let broken = CONFIG_MAP[..CONFIG_MAP.len() - 1].to_vec();
    let refused = hub.ask("POST", CONFIG_MAPS, ADMIN, PROTOBUF, broken).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("unexpected EOF"), "{refused}");
    let unknown = b"k8s\0\x0a\x20\x0a\x13avocet.dev/v1alpha1\x12\x09Placement".to_vec();
    let path = resource("namespaces/plant/placements");
    let refused = hub.ask("POST", &path, ADMIN, PROTOBUF, unknown).await.expect(415);
    assert!(
        refused["message"].as_str().unwrap().contains("accepted media types include: application/json"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_path_says_the_kind_of_what_is_kubernetes_own() {
    let hub = TestHub::start().await;
    let body = json!({"metadata": {"name": "a"}});
    let created = hub.ask_json("POST", CONFIG_MAPS, ADMIN, &body).await.expect(201);
    assert_eq!((&created["apiVersion"], &created["kind"]), (&json!("v1"), &json!("ConfigMap")));
    let other = json!({"kind": "Secret", "metadata": {"name": "b"}});
    hub.ask_json("POST", CONFIG_MAPS, ADMIN, &other).await.expect(400);
    let mut ours = manifest("Placement", "a", json!({}));
    ours.as_object_mut().unwrap().remove("kind");
    hub.ask_json("POST", &resource("namespaces/plant/placements"), ADMIN, &ours).await.expect(400);
}
