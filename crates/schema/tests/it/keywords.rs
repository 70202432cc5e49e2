//! Each keyword, and the words for what is against it.

use serde_json::{Value, json};

use crate::{of_spec, said};

const UNCHECKED: &str = "<nil>: Invalid value: \"null\": some validation rules were not checked because the object was \
                         invalid; correct the existing errors to complete validation";

/// Checks a value of `spec.a` under a schema, against what Kubernetes says.
fn check(schema: Value, value: Value, expected: &[&str]) {
    let compiled = of_spec(json!({"a": schema}));
    let said = said(&compiled, json!({"a": value}));
    let said: Vec<&str> = said.iter().map(String::as_str).filter(|text| *text != UNCHECKED).collect();
    assert_eq!(said, expected, "{value} under {schema}");
}

#[test]
fn values_of_another_type_are_told_by_both_types() {
    let wrong = |wanted: &str, found: &str| {
        format!("spec.a: Invalid value: \"{found}\": spec.a in body must be of type {wanted}: \"{found}\"")
    };
    for (schema, value, wanted, found) in [
        (json!({"type": "integer"}), json!("1"), "integer", "string"),
        (json!({"type": "integer"}), json!(1.5), "integer", "number"),
        (json!({"type": "string"}), json!(1), "string", "integer"),
        (json!({"type": "string"}), json!({}), "string", "object"),
        (json!({"type": "boolean"}), json!([]), "boolean", "array"),
        (json!({"type": "object"}), json!(true), "object", "boolean"),
        (json!({"type": "array", "items": {"type": "string"}}), json!("x"), "array", "string"),
        (json!({"type": "string"}), json!(null), "string", "null"),
        (json!({"x-kubernetes-int-or-string": true}), json!(true), "integer,string", "boolean"),
        (json!({"type": "string", "format": "date"}), json!(1), "date", "int64"),
    ] {
        check(schema, value, &[&wrong(wanted, found)]);
    }
    check(json!({"type": "integer"}), json!(2.0), &[]);
    check(json!({"type": "number"}), json!(2), &[]);
    check(json!({"type": "string", "nullable": true}), json!(null), &[]);
    check(json!({"x-kubernetes-int-or-string": true}), json!("50%"), &[]);
}

#[test]
fn numbers_have_limits() {
    let schema = json!({"type": "integer", "minimum": 0, "maximum": 10});
    check(schema.clone(), json!(0), &[]);
    let below = "spec.a: Invalid value: -1: spec.a in body should be greater than or equal to 0";
    check(schema.clone(), json!(-1), &[below]);
    check(
        schema,
        json!(11),
        &["spec.a: Invalid value: 11: spec.a in body should be less than or equal to 10"],
    );
    let open = json!({"type": "number", "minimum": 0, "exclusiveMinimum": true, "maximum": 1.5, "exclusiveMaximum": true});
    check(open.clone(), json!(0), &["spec.a: Invalid value: 0: spec.a in body should be greater than 0"]);
    check(open.clone(), json!(1.5), &["spec.a: Invalid value: 1.5: spec.a in body should be less than 1.5"]);
    check(open, json!(1.25), &[]);
    let steps = json!({"type": "integer", "multipleOf": 5});
    check(steps.clone(), json!(7), &["spec.a: Invalid value: 7: spec.a in body should be a multiple of 5"]);
    check(steps, json!(10), &[]);
    check(json!({"type": "integer", "maximum": 9007199254740993i64}), json!(9007199254740992i64), &[]);
}

#[test]
fn texts_have_lengths_patterns_and_formats() {
    let schema = json!({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[a-zé]+$"});
    check(schema.clone(), json!("éé"), &[]);
    check(schema.clone(), json!("ééé"), &[]);
    check(schema.clone(), json!("abcd"), &["spec.a: Too long: may not be more than 3 bytes"]);
    check(
        schema.clone(),
        json!("a"),
        &["spec.a: Invalid value: \"a\": spec.a in body should be at least 2 chars long"],
    );
    check(
        schema,
        json!("A\n"),
        &["spec.a: Invalid value: \"A\\n\": spec.a in body should match '^[a-zé]+$'"],
    );
    let time = json!({"type": "string", "format": "date-time"});
    check(time.clone(), json!("2024-01-01T00:00:00Z"), &[]);
    let wrong = "spec.a: Invalid value: \"soon\": spec.a in body must be of type date-time: \"soon\"";
    check(time, json!("soon"), &[wrong]);
    check(json!({"type": "string", "format": "no-such-format"}), json!("x"), &[]);
}

#[test]
fn choices_are_listed() {
    let tier = json!({"type": "string", "enum": ["cloud", "edge"]});
    check(tier.clone(), json!("edge"), &[]);
    check(
        tier.clone(),
        json!("x"),
        &["spec.a: Unsupported value: \"x\": supported values: \"cloud\", \"edge\""],
    );
    check(
        tier,
        json!(5),
        &[
            "spec.a: Invalid value: \"integer\": spec.a in body must be of type string: \"integer\"",
            "spec.a: Unsupported value: 5: supported values: \"cloud\", \"edge\"",
        ],
    );
    check(
        json!({"type": "integer", "enum": [1, 2]}),
        json!(3),
        &["spec.a: Unsupported value: 3: supported values: \"1\", \"2\""],
    );
}

#[test]
fn lists_have_sizes_and_unique_entries() {
    let schema = json!({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}});
    check(
        schema.clone(),
        json!([]),
        &["spec.a: Invalid value: 0: spec.a in body should have at least 1 items"],
    );
    check(schema.clone(), json!(["a", "b", "c"]), &["spec.a: Too many: 3: must have at most 2 items"]);
    check(
        schema,
        json!(["a", 1]),
        &["spec.a[1]: Invalid value: \"integer\": spec.a[1] in body must be of type string: \"integer\""],
    );
    let unique = json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}});
    check(
        unique,
        json!(["a", "b", "a"]),
        &["spec.a: Invalid value: \"\": spec.a in body shouldn't contain duplicates"],
    );
    let set = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"});
    check(set, json!(["a", "a", "a", "b"]), &["spec.a[1]: Duplicate value: \"a\""]);
    let map = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}}},
    });
    check(map, json!([{"name": "a"}, {"name": "a"}, {}]), &["spec.a[1]: Duplicate value: {\"name\":\"a\"}"]);
}

#[test]
fn objects_have_required_fields_and_sizes() {
    let object = json!({"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}}});
    check(object.clone(), json!({}), &["spec.a.b: Required value"]);
    check(object, json!({"b": "x"}), &[]);
    let map = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "integer"},
    });
    check(
        map.clone(),
        json!({}),
        &["spec.a: Invalid value: 0: spec.a in body should have at least 1 properties"],
    );
    check(map.clone(), json!({"x": 1, "y": 2}), &["spec.a: Too many: 2: must have at most 1 items"]);
    check(
        map,
        json!({"x": "1"}),
        &["spec.a.x: Invalid value: \"string\": spec.a.x in body must be of type integer: \"string\""],
    );
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    for (spec, expected) in [
        (json!({"type": "thing"}), "openAPIV3Schema.properties[spec].type: Unsupported value: \"thing\""),
        (json!({}), "openAPIV3Schema.properties[spec].type: must not be empty for specified object fields"),
        (json!({"type": "string", "oneOf": []}), "openAPIV3Schema.properties[spec].oneOf: is not supported"),
        (
            json!({"type": "object", "additionalProperties": false}),
            "openAPIV3Schema.properties[spec].additionalProperties: Forbidden: must not be false",
        ),
        (
            json!({"type": "integer", "minimum": 1, "default": 0}),
            "openAPIV3Schema.properties[spec].default: <nil>: Invalid value: 0:  in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}}),
            "openAPIV3Schema.properties[spec].default: must not have unknown fields: b",
        ),
    ] {
        let error = avocet_schema::Schema::compile(&json!({"type": "object", "properties": {"spec": spec}}))
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let rule = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self ="}]});
    let error = avocet_schema::Schema::compile(&rule).unwrap_err();
    assert!(error.path.ends_with("x-kubernetes-validations[0].rule"), "{error}");
}
