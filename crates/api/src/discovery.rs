//! What is served here, as Kubernetes clients ask for it.

use axum::Json;
use serde_json::{Map, Value, json};
use types::{API_VERSION, GROUP, KindInfo, VERSION, kinds};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

pub async fn version() -> Json<Value> {
    // Clients read the Kubernetes version whose API conventions are followed; ours is in gitVersion.
    Json(json!({
        "major": "1", "minor": "32", "gitVersion": concat!("v1.32.0+avocet-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}

/// No core kinds are served yet: naming `v1` without any makes clients complain.
pub async fn core_versions() -> Json<Value> {
    Json(json!({"kind": "APIVersions", "versions": [], "serverAddressByClientCIDRs": []}))
}

fn group() -> Value {
    let version = json!({"groupVersion": API_VERSION, "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

pub async fn groups() -> Json<Value> {
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}))
}

pub async fn our_group() -> Json<Value> {
    let mut group = group();
    json_patch::merge(&mut group, &json!({"kind": "APIGroup", "apiVersion": "v1"}));
    Json(group)
}

pub async fn our_resources() -> Json<Value> {
    let resources: Vec<Value> = kinds()
        .iter()
        .flat_map(|info| {
            let main = json!({
                "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced,
                "kind": info.kind, "verbs": VERBS, "shortNames": info.short_names, "categories": ["avocet"],
            });
            let status = json!({
                "name": format!("{}/status", info.plural), "singularName": "", "namespaced": info.namespaced,
                "kind": info.kind, "verbs": ["get", "patch", "update"],
            });
            [main, status]
        })
        .collect();
    Json(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": resources}),
    )
}

pub async fn openapi_index() -> Json<Value> {
    let path = format!("apis/{API_VERSION}");
    let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
    Json(json!({"paths": {path: {"serverRelativeURL": url}}}))
}

/// OpenAPI 3 of our group, enough for `kubectl explain` and for clients that check manifests.
pub async fn openapi_group() -> Json<Value> {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for info in kinds() {
        let mut schema = types::structural_schema(info);
        json_patch::merge(
            &mut schema,
            &json!({"x-kubernetes-group-version-kind": [group_version_kind(info)]}),
        );
        schemas.insert(schema_name(info), schema);
        let base = if info.namespaced {
            format!("/apis/{API_VERSION}/namespaces/{{namespace}}/{}", info.plural)
        } else {
            format!("/apis/{API_VERSION}/{}", info.plural)
        };
        paths.insert(base.clone(), json!({"get": operation(info, "list"), "post": operation(info, "post")}));
        paths.insert(
            format!("{base}/{{name}}"),
            json!({
                "get": operation(info, "get"), "put": operation(info, "put"),
                "patch": operation(info, "patch"), "delete": operation(info, "delete"),
            }),
        );
    }
    Json(json!({
        "openapi": "3.0.0", "info": {"title": "Avocet", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": schemas},
    }))
}

fn schema_name(info: &KindInfo) -> String {
    format!("dev.avocet.{VERSION}.{}", info.kind)
}

fn group_version_kind(info: &KindInfo) -> Value {
    json!({"group": GROUP, "version": VERSION, "kind": info.kind})
}

fn operation(info: &KindInfo, action: &str) -> Value {
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let reference = json!({"$ref": format!("#/components/schemas/{}", schema_name(info))});
    let content = json!({"application/json": {"schema": reference}});
    let mut operation = json!({
        "operationId": format!("{action}{}", info.kind),
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": group_version_kind(info),
        "responses": {"200": {"description": "OK", "content": content}},
    });
    if matches!(action, "post" | "put" | "patch") {
        let parameters = ["dryRun", "fieldManager", "fieldValidation"].map(parameter);
        json_patch::merge(&mut operation, &json!({"parameters": parameters}));
    }
    operation
}
