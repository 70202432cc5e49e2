//! OpenAPI 3 of what is served: for `kubectl explain`, and for clients that check manifests.

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use types::{KindInfo, kinds};

use crate::{ApiError, Hub};

/// `/openapi/v3` and below.
pub fn routes() -> Router<Hub> {
    Router::new().route("/openapi/v3", get(index)).route("/openapi/v3/{*path}", get(group))
}

/// The path of a kind's group and version, below the root.
fn group_path(info: &KindInfo) -> String {
    let root = if info.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", info.api_version())
}

async fn index() -> Json<Value> {
    let paths: Map<String, Value> = kinds()
        .map(|info| {
            let path = group_path(info);
            let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    Json(json!({"paths": paths}))
}

async fn group(Path(path): Path<String>) -> Result<Json<Value>, ApiError> {
    let of_group: Vec<&KindInfo> = kinds().filter(|info| group_path(info) == path).collect();
    if of_group.is_empty() {
        return Err(ApiError::not_found("the server could not find the requested resource"));
    }
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for info in of_group {
        let mut schema = types::structural_schema(info);
        let names = json!({"x-kubernetes-group-version-kind": [group_version_kind(info)]});
        json_patch::merge(&mut schema, &names);
        schemas.insert(schema_name(info), schema);
        let namespace = if info.namespaced { "/namespaces/{namespace}" } else { "" };
        let base = format!("/{path}{namespace}/{}", info.plural);
        paths.insert(base.clone(), json!({"get": operation(info, "list"), "post": operation(info, "post")}));
        paths.insert(
            format!("{base}/{{name}}"),
            json!({
                "get": operation(info, "get"), "put": operation(info, "put"),
                "patch": operation(info, "patch"), "delete": operation(info, "delete"),
            }),
        );
    }
    Ok(Json(json!({
        "openapi": "3.0.0", "info": {"title": "Avocet", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": schemas},
    })))
}

/// The group's name from its end, as Java packages are named.
fn schema_name(info: &KindInfo) -> String {
    let group = if info.group.is_empty() { "core.api.k8s.io" } else { info.group };
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{}.{}", reversed.join("."), info.version, info.kind)
}

fn group_version_kind(info: &KindInfo) -> Value {
    json!({"group": info.group, "version": info.version, "kind": info.kind})
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
