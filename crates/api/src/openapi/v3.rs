//! OpenAPI 3: one document a group and version.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use types::kinds;

use super::operations::{Address, Operation, addresses, group_path};
use super::schemas::{group_version_kind, name, schemas};

const SCHEMAS: &str = "#/components/schemas/";

/// The documents by the path of their group and version.
pub fn documents() -> BTreeMap<String, Value> {
    let groups: BTreeMap<String, ()> = kinds().map(|info| (group_path(info), ())).collect();
    groups.into_keys().map(|path| (path.clone(), document(&path))).collect()
}

fn document(group: &str) -> Value {
    let schemas = schemas(kinds().filter(|info| group_path(info) == group), SCHEMAS);
    let paths: Map<String, Value> = addresses()
        .filter(|address| group_path(address.info) == group)
        .map(|address| (address.path.clone(), path_item(&address)))
        .collect();
    json!({
        "openapi": "3.0.0", "info": {"title": "Avocet", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn path_item(address: &Address) -> Value {
    let operations = address.operations.iter();
    let mut item: Map<String, Value> =
        operations.map(|operation| (operation.method.to_owned(), describe(address, operation))).collect();
    let parameter = |name: &str| {
        json!({
            "name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true},
        })
    };
    let variables: Vec<Value> = address.variables().map(parameter).collect();
    item.insert("parameters".into(), json!(variables));
    Value::Object(item)
}

fn describe(address: &Address, operation: &Operation) -> Value {
    let info = address.info;
    let is_list = operation.action == "list";
    let reference = json!({"$ref": format!("{SCHEMAS}{}{}", name(info), if is_list { "List" } else { "" })});
    let content = json!({"application/json": {"schema": reference}});
    let parameters = operation.parameters().iter();
    let parameters: Vec<Value> = parameters
        .map(|(name, kind)| json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}))
        .collect();
    let mut described = json!({
        "operationId": operation.id(address), "parameters": parameters,
        "x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": group_version_kind(info),
        "responses": {"200": {"description": "OK", "content": content}},
    });
    if matches!(operation.method, "post" | "put") {
        json_patch::merge(&mut described, &json!({"requestBody": {"required": true, "content": content}}));
    }
    described
}
