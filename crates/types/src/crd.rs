//! The kinds as CustomResourceDefinitions, for a real Kubernetes API server.

use serde_json::{Map, Value, json};

use crate::{Cell, GROUP, KEYED_LISTS, KindInfo, VERSION};

/// The CustomResourceDefinition of a kind.
pub fn custom_resource_definition(info: &KindInfo) -> Value {
    let columns: Vec<Value> = info
        .columns
        .iter()
        .filter_map(|column| {
            let path = match column.cell {
                Cell::Path(".metadata.name") | Cell::Computed(_) => return None,
                Cell::Path(path) => path,
                Cell::Age(paths) => paths.first()?,
            };
            Some(json!({
                "name": column.name, "type": column.format, "jsonPath": path,
                "priority": column.priority, "description": column.description,
            }))
        })
        .collect();
    let mut subresources = json!({"status": {}});
    if let (Some(scale), Some(subresources)) = (info.scale, subresources.as_object_mut()) {
        let paths =
            json!({"specReplicasPath": scale.spec_replicas, "statusReplicasPath": scale.status_replicas});
        subresources.insert("scale".to_owned(), paths);
    }
    let selectable: Vec<Value> =
        info.selectable.iter().map(|field| json!({"jsonPath": format!(".{field}")})).collect();
    let version = json!({
        "name": VERSION, "served": true, "storage": true, "subresources": subresources,
        "additionalPrinterColumns": columns, "selectableFields": selectable,
        "schema": {"openAPIV3Schema": structural_schema(info)},
    });
    let names = json!({
        "kind": info.kind, "listKind": format!("{}List", info.kind), "plural": info.plural,
        "singular": info.singular, "shortNames": info.short_names, "categories": info.categories,
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{GROUP}", info.plural)},
        "spec": {
            "group": GROUP, "scope": if info.namespaced { "Namespaced" } else { "Cluster" },
            "names": names, "versions": [version],
        },
    })
}

/// The schema as the Kubernetes API wants it: metadata is the server's, lists with keys say so, nothing that a
/// structural schema forbids.
pub fn structural_schema(info: &KindInfo) -> Value {
    let mut schema = (info.schema)().to_value();
    clean(&mut schema);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        info.rename_fields(properties);
        properties.insert("metadata".into(), json!({"type": "object"}));
        properties.insert("apiVersion".into(), json!({"type": "string"}));
        properties.insert("kind".into(), json!({"type": "string"}));
    }
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("required");
        if info.is_ours() {
            fields.insert("required".into(), json!(["spec"]));
        }
    }
    for (path, key) in KEYED_LISTS {
        let pointer: String = path.split('.').map(|name| format!("/properties/{name}")).collect();
        if let Some(list) = schema.pointer_mut(&pointer).and_then(Value::as_object_mut) {
            list.insert("x-kubernetes-list-type".into(), json!("map"));
            list.insert("x-kubernetes-list-map-keys".into(), json!([key]));
        }
    }
    schema
}

/// The schema of the metadata that all resources have.
pub fn metadata_schema() -> Value {
    let mut schema = crate::registry::schema_of::<crate::ObjectMeta>().to_value();
    clean(&mut schema);
    schema
}

/// Formats that Kubernetes knows, and those of numbers.
const FORMATS: [&str; 13] = [
    "int32",
    "int64",
    "double",
    "float",
    "date-time",
    "date",
    "duration",
    "uri",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "byte",
];

fn clean(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| match name.as_str() {
                "$schema" | "title" => false,
                // A null says the same as nothing, and goes away before anything is checked.
                "nullable" => false,
                "default" => !value.is_null(),
                "additionalProperties" => !value.is_boolean(),
                "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
                _ => true,
            });
            for (name, value) in fields.iter_mut() {
                match (name.as_str(), value) {
                    ("default" | "enum" | "x-kubernetes-validations", _) => {}
                    ("properties", Value::Object(properties)) => properties.values_mut().for_each(clean),
                    (_, value) => clean(value),
                }
            }
            join_variants(fields);
        }
        Value::Array(entries) => entries.iter_mut().for_each(clean),
        _ => {}
    }
}

/// A structural schema has one type a value: words to choose from become one list of them, and something or null
/// becomes that something.
fn join_variants(fields: &mut Map<String, Value>) {
    for union in ["oneOf", "anyOf"] {
        let Some(Value::Array(variants)) = fields.remove(union) else { continue };
        let mut words = Vec::new();
        for variant in variants {
            let Value::Object(variant) = variant else { continue };
            match variant.get("enum").and_then(Value::as_array) {
                Some(choices) => words.extend(choices.iter().filter(|choice| !choice.is_null()).cloned()),
                // Its own description is of the type; the field's is better known here.
                None => fields.extend(variant.into_iter().filter(|(name, _)| name != "description")),
            }
        }
        if !words.is_empty() {
            fields.insert("type".into(), json!("string"));
            fields.insert("enum".into(), json!(words));
        }
    }
}
