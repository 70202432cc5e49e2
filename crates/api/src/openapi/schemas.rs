//! The schemas of kinds, as both versions of OpenAPI have them.

use serde_json::{Map, Value, json};
use types::KindInfo;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const VERSION_HELP: &str = "APIVersion defines the group and version of this representation of an object.";
const KIND_HELP: &str = "Kind is the name of what this object represents.";

/// Lists that strategic merge patches merge: kind, place of the list, its key (empty for plain values).
const MERGED: [(&str, &str, &str); 1] = [("ServiceAccount", "/properties/secrets", "name")];

/// The group's name from its end, as Java packages are named; groups of Kubernetes by their first word.
pub fn name(info: &KindInfo) -> String {
    let package = match info.group.strip_suffix(".k8s.io") {
        Some(group) => format!("io.k8s.api.{}", group.split('.').next().unwrap_or_default()),
        None if info.group.is_empty() => "io.k8s.api.core".to_owned(),
        None => info.group.split('.').rev().collect::<Vec<&str>>().join("."),
    };
    format!("{package}.{}.{}", info.version, info.kind)
}

/// Group, version and kind.
pub fn group_version_kind(info: &KindInfo) -> Value {
    json!({"group": info.group, "version": info.version, "kind": info.kind})
}

/// The schemas of kinds, of lists of them and of their metadata, by name. `root` is where references find them.
pub fn schemas<'a>(of: impl Iterator<Item = &'a KindInfo>, root: &str) -> Map<String, Value> {
    let reference = |name: &str| json!({"$ref": format!("{root}{name}")});
    let (object_meta, list_meta) = (format!("{META}.ObjectMeta"), format!("{META}.ListMeta"));
    let mut schemas = Map::new();
    for info in of {
        let mut schema = types::structural_schema(info);
        let known = json!({
            "x-kubernetes-group-version-kind": [group_version_kind(info)],
            "properties": {
                "apiVersion": {"description": VERSION_HELP}, "kind": {"description": KIND_HELP},
                "metadata": {"description": "Standard object metadata.", "allOf": [reference(&object_meta)], "type": null},
            },
        });
        json_patch::merge(&mut schema, &known);
        mark_merged(info, &mut schema);
        schemas.insert(name(info), schema);
        let mut list = group_version_kind(info);
        json_patch::merge(&mut list, &json!({"kind": format!("{}List", info.kind)}));
        let list = json!({
            "description": format!("A list of {}.", info.plural), "type": "object", "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": VERSION_HELP},
                "kind": {"type": "string", "description": KIND_HELP},
                "metadata": {"description": "Standard list metadata.", "allOf": [reference(&list_meta)]},
                "items": {"type": "array", "description": "What was found.", "items": reference(&name(info))},
            },
            "x-kubernetes-group-version-kind": [list],
        });
        schemas.insert(format!("{}List", name(info)), list);
    }
    schemas.insert(object_meta, object_metadata());
    schemas.insert(list_meta, list_metadata());
    schemas
}

fn mark_merged(info: &KindInfo, schema: &mut Value) {
    for (_, place, key) in MERGED.iter().filter(|(kind, _, _)| *kind == info.kind) {
        if let Some(list) = schema.pointer_mut(place) {
            let marks = json!({"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": key});
            json_patch::merge(list, &marks);
        }
    }
}

fn object_metadata() -> Value {
    let mut schema = types::metadata_schema();
    let marks = json!({
        "properties": {
            "finalizers": {"x-kubernetes-patch-strategy": "merge"},
            "ownerReferences": {"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "uid"},
        },
    });
    json_patch::merge(&mut schema, &marks);
    schema
}

fn list_metadata() -> Value {
    json!({
        "description": "What lists tell beside their items.", "type": "object",
        "properties": {
            "resourceVersion": {"type": "string", "description": "The version of the list: watch from here on."},
            "continue": {"type": "string", "description": "Where the next page begins, if there is one."},
            "remainingItemCount": {
                "type": "integer", "format": "int64", "description": "How many items come after this page.",
            },
        },
    })
}
