//! Manifests, as people write them: what is admitted, and what a mistake is answered with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
use avocet_types::{Application, kind_named};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

fn manifest(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

fn mistakes(kind: &str, spec: Value, expected: &Expect) {
    let answer = kind_named(kind).unwrap().admit(&manifest(kind, spec));
    expected.assert_eq(&answer.expect_err("a mistake").to_string());
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn defaults_are_filled_in() {
    let spec = json!({"runtime": "python", "handler": "a.py", "artifact": {"digest": DIGEST}});
    let function = kind_named("fn").unwrap().admit(&manifest("Function", spec)).unwrap();
    assert_eq!(function["spec"]["timeoutSeconds"], 60);
    assert_eq!(function["spec"]["parallelism"], 1);
    assert_eq!(function["spec"]["memory"], "1024Mi");
}

#[test]
fn promise_6_a_mistake_names_the_field_the_value_and_the_remedy() {
    mistakes(
        "Placement",
        json!({"numberOfSites": -1}),
        &expect!["`spec.numberOfSites` = -1: invalid value: integer `-1`, expected u32"],
    );
    mistakes(
        "Placement",
        json!({"tier": "edge"}),
        &expect![[
            r#"`spec.tier` = "edge": unknown field `tier`, expected one of `siteSelector`, `tiers`, `predicates`, `constraints`, `numberOfSites`, `pinnedSites`, `tolerations`, `near`, `requests`, `prioritizerPolicy`, `metrics`, `spread`, `antiAffinity`, `migration`, `decisionGroups`"#
        ]],
    );
    mistakes(
        "Function",
        json!({"runtime": "python", "handler": "a.py", "artifact": {}, "environment": {"PATH": "/"}}),
        &expect![[
            r#"`spec.environment[PATH]`: can't be set: write a name of A-Z, a-z, 0-9 and '_' that the runtime does not set itself"#
        ]],
    );
    mistakes(
        "Model",
        json!({"versions": [{"name": "1", "artifact": {"digest": "sha256:12"}}]}),
        &expect![[
            r#"`spec.versions[0].artifact.digest` = "sha256:12": `sha256:12` is not a digest; write `sha256:` and 64 lower-case hex digits"#
        ]],
    );
}

#[test]
fn a_data_flow_that_never_ends_is_refused() {
    let component = |name: &str, from: &str, to: &str| json!({"name": name, "placement": "p", "function": "f", "inputs": [{"path": from}], "outputs": [{"path": to}]});
    let looping = json!({"components": [component("a", "data/in", "data/mid"), component("b", "data/mid", "data/in/x")]});
    mistakes(
        "Application",
        looping,
        &expect![[
            r#"`spec.components[0].outputs` = "a": flows back into its own inputs, so it would never end: write to a folder that no earlier component reads"#
        ]],
    );
    let chain = json!({"components": [component("a", "data/in", "data/mid"), component("b", "data/mid", "data/out")]});
    kind_named("app").unwrap().admit(&manifest("Application", chain)).unwrap();
}

#[test]
fn objects_match_the_paths_they_are_in() {
    let spec = json!({"components": [{"name": "a", "placement": "p", "function": "f",
        "inputs": [{"path": "photos/in", "suffixes": [".jpg"]}]}]});
    let application: Application = serde_json::from_value(manifest("Application", spec)).unwrap();
    let path = &application.spec.components[0].inputs[0];
    for (bucket, key, expected) in [
        ("photos", "in/a.jpg", true),
        ("photos", "in/deep/a.jpg", true),
        ("photos", "in/a.png", false),
        ("photos", "inner/a.jpg", false),
        ("photos", "in/", false),
        ("other", "in/a.jpg", false),
    ] {
        assert_eq!(path.matches(bucket, key), expected, "{bucket}/{key}");
    }
}

#[test]
fn every_kind_has_a_schema_with_descriptions() {
    for info in avocet_types::kinds() {
        let schema = (info.schema)().to_value();
        let properties = schema["properties"].as_object().unwrap();
        assert!(properties.len() >= 4, "{}", info.kind);
        for (name, property) in properties {
            assert!(property["description"].is_string(), "{name} of {}", info.kind);
        }
    }
}

/// What a structural schema may hold: one type a value, no choices between schemas.
fn check_structural(schema: &Value, path: &str) {
    match schema {
        Value::Object(fields) => {
            for forbidden in ["oneOf", "anyOf", "allOf", "$ref", "$schema", "title", "definitions"] {
                assert!(
                    !fields.contains_key(forbidden) || path.ends_with("/properties"),
                    "{forbidden} at {path}"
                );
            }
            for (name, child) in fields {
                check_structural(child, &format!("{path}/{name}"));
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| check_structural(entry, path)),
        _ => {}
    }
}

#[test]
fn custom_resource_definitions_have_structural_schemas() {
    for info in avocet_types::kinds().filter(|info| info.is_ours()) {
        let definition = avocet_types::custom_resource_definition(info);
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        check_structural(schema, info.kind);
        assert_eq!(definition["metadata"]["name"], format!("{}.avocet.dev", info.plural));
    }
    let placement = avocet_types::structural_schema(kind_named("placement").unwrap());
    let effect =
        &placement["properties"]["spec"]["properties"]["tolerations"]["items"]["properties"]["effect"];
    assert_eq!(effect["enum"], json!(["NoSelect", "NoSelectIfNew", "PreferNoSelect"]));
    assert_eq!(
        (&effect["type"], effect.get("nullable")),
        (&json!("string"), None),
        "null is as good as nothing"
    );
    let application = avocet_types::structural_schema(kind_named("application").unwrap());
    assert_eq!(
        application["properties"]["spec"]["properties"]["components"]["x-kubernetes-list-map-keys"],
        json!(["name"])
    );
}

/// Whether Kubernetes can tell how often the rules below a schema run at most, and how long a text is that one of
/// them looks at: otherwise it takes both for as large as a request, and refuses the definition as too costly.
fn check_costs(schema: &Value, path: &str, is_bounded: bool) {
    if let Some(rules) = schema.get("x-kubernetes-validations") {
        assert!(is_bounded, "{path}: how often this runs has no bound: {rules}");
        let is_text = schema["type"] == "string";
        assert!(!is_text || schema.get("maxLength").is_some(), "{path}: how long this is has no bound");
        for rule in rules.as_array().unwrap() {
            let text = rule["rule"].as_str().unwrap();
            let walked = text.split("self.").skip(1).filter_map(|rest| {
                [".exists", ".all", ".map", ".filter"].iter().find_map(|call| Some(rest.split_once(call)?.0))
            });
            for list in walked.filter(|field| field.chars().all(char::is_alphanumeric)) {
                let list = &schema["properties"][list];
                assert!(list.get("maxItems").or(list.get("maxProperties")).is_some(), "{path}: {text}");
                let inner = list.get("items").or(list.get("additionalProperties")).unwrap();
                assert!(inner["type"] != "string" || inner.get("maxLength").is_some(), "{path}: {text}");
            }
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check_costs(property, &format!("{path}.{name}"), is_bounded);
    }
    for (inner, bound) in [("items", "maxItems"), ("additionalProperties", "maxProperties")] {
        if let Some(inner) = schema.get(inner) {
            check_costs(inner, &format!("{path}[]"), is_bounded && schema.get(bound).is_some());
        }
    }
}

#[test]
fn rules_cost_no_more_than_kubernetes_can_estimate() {
    for info in avocet_types::kinds().filter(|info| info.is_ours()) {
        check_costs(&avocet_types::structural_schema(info), info.kind, true);
    }
}

/// A real API server refused the definition of Assignments with them: 64 models, each with rules over its lists.
#[test]
fn models_copied_into_assignments_carry_no_rules() {
    let schema = avocet_types::structural_schema(kind_named("assignment").unwrap());
    let copied = &schema["properties"]["spec"]["properties"]["models"]["items"]["properties"]["spec"];
    assert!(copied["properties"]["versions"].is_object());
    assert_eq!(copied.get("x-kubernetes-validations"), None);
}
