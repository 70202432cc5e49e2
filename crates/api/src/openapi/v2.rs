//! OpenAPI 2: all groups in one document.

use serde_json::{Map, Value, json};
use types::kinds;

use super::operations::{Address, Operation, addresses};
use super::schemas::{group_version_kind, name, schemas};

const DEFINITIONS: &str = "#/definitions/";
/// What schemas say in version 3 only.
const NEWER: [&str; 5] = ["nullable", "oneOf", "anyOf", "not", "x-kubernetes-validations"];
const FORMS: [&str; 2] = ["application/json", "application/yaml"];

/// The document.
pub fn document() -> Value {
    let mut definitions = Value::Object(schemas(kinds(), DEFINITIONS));
    simplify(&mut definitions);
    let paths: Map<String, Value> =
        addresses().map(|address| (address.path.clone(), path_item(&address))).collect();
    json!({
        "swagger": "2.0", "info": {"title": "Avocet", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "definitions": definitions,
    })
}

/// Makes schemas of version 3 ones of version 2. A schema that is another one with a description says so directly.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, _| !NEWER.contains(&name.as_str()));
            if let Some(Value::Array(all)) = fields.remove("allOf") {
                for one in all {
                    fields.extend(one.as_object().cloned().unwrap_or_default());
                }
            }
            fields.values_mut().for_each(simplify);
        }
        Value::Array(entries) => entries.iter_mut().for_each(simplify),
        _ => {}
    }
}

fn path_item(address: &Address) -> Value {
    let operations = address.operations.iter();
    let mut item: Map<String, Value> =
        operations.map(|operation| (operation.method.to_owned(), describe(address, operation))).collect();
    let parameter = |name| parameter(name, "path", "string", true);
    let variables: Vec<Value> = address.variables().map(parameter).collect();
    item.insert("parameters".into(), json!(variables));
    Value::Object(item)
}

fn parameter(name: &str, place: &str, kind: &str, is_required: bool) -> Value {
    let mut parameter = json!({"name": name, "in": place, "type": kind, "uniqueItems": true});
    if is_required {
        json_patch::merge(&mut parameter, &json!({"required": true}));
    }
    parameter
}

fn describe(address: &Address, operation: &Operation) -> Value {
    let info = address.info;
    let is_list = operation.action == "list";
    let schema = json!({"$ref": format!("{DEFINITIONS}{}{}", name(info), if is_list { "List" } else { "" })});
    let parameters = operation.parameters().iter();
    let mut parameters: Vec<Value> =
        parameters.map(|(name, kind)| parameter(name, "query", kind, false)).collect();
    match operation.method {
        "post" | "put" => {
            parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
        }
        "patch" => {
            let patch = json!({"type": "object"});
            parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": patch}));
        }
        _ => {}
    }
    json!({
        "operationId": operation.id(address), "consumes": FORMS, "produces": FORMS, "parameters": parameters,
        "x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": group_version_kind(info),
        "responses": {"200": {"description": "OK", "schema": schema}},
    })
}
