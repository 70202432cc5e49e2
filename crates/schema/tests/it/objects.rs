//! Whole objects: pruning, defaults, keys that are there twice.

use avocet_schema::{Schema, duplicate_fields};
use serde_json::json;

fn schema() -> Schema {
    Schema::compile(&json!({"type": "object", "properties": {
        "metadata": {"type": "object"},
        "spec": {"type": "object", "properties": {
            "tier": {"type": "string", "default": "edge"},
            "note": {"type": "string"},
            "maybe": {"type": "string", "nullable": true, "default": "x"},
            "components": {"type": "array", "items": {"type": "object", "properties": {
                "name": {"type": "string"}, "count": {"type": "integer", "default": 1},
            }}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "known": {"type": "object", "properties": {"a": {"type": "string"}}},
            }},
            "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "integer", "default": 7}}},
        }},
    }}))
    .unwrap()
}

#[test]
fn unknown_fields_are_removed_and_named() {
    let mut object = json!({
        "apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "anything": 1}, "extra": {},
        "spec": {
            "foo": 1, "labels": {"any": "thing"}, "components": [{"name": "a", "bar": 1}],
            "free": {"unknown": {"stays": 1}, "known": {"a": "b", "goes": 1}},
        },
    });
    let removed = schema().prune(&mut object);
    assert_eq!(removed, ["extra", "spec.components[0].bar", "spec.foo", "spec.free.known.goes"]);
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "anything": 1},
            "spec": {
                "labels": {"any": "thing"}, "components": [{"name": "a"}],
                "free": {"unknown": {"stays": 1}, "known": {"a": "b"}},
            },
        })
    );
}

#[test]
fn defaults_fill_in_what_is_missing_or_null() {
    let mut object =
        json!({"spec": {"tier": null, "note": null, "maybe": null, "components": [{"name": "a"}, null]}});
    schema().apply_defaults(&mut object);
    assert_eq!(
        object,
        json!({"spec": {
            "tier": "edge", "maybe": null, "components": [{"name": "a", "count": 1}, null], "nested": {"deep": 7},
        }})
    );
}

#[test]
fn keys_that_are_there_twice_are_found_with_their_paths() {
    let json = br#"{"spec": {"a": 1, "b": {"x": 1, "x": 2, "x": 3}, "a": [{"c": 1, "c": 1}]}, "kind": "A", "kind": "B"}"#;
    assert_eq!(duplicate_fields(json).unwrap(), ["spec.b.x", "spec.a", "spec.a[0].c", "kind"]);
    assert!(duplicate_fields(br#"{"a": {"b": 1}, "c": {"b": 1}}"#).unwrap().is_empty());
    assert!(duplicate_fields(b"{\"a\"").is_err());
    assert!(duplicate_fields("[".repeat(10_000).as_bytes()).is_err());
}
