//! Our own kinds.

use avocet_schema::{Reason, Schema};
use serde_json::{Value, json};

use types::kind_named;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn schema_of(kind: &str) -> Schema {
    Schema::compile(&types::structural_schema(kind_named(kind).unwrap())).unwrap()
}

fn manifest(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

/// What is said of a spec, after defaults.
fn said(kind: &str, spec: Value) -> Vec<String> {
    let schema = schema_of(kind);
    let mut object = manifest(kind, spec);
    schema.apply_defaults(&mut object);
    let violations = schema.validate(&object, None);
    violations.iter().filter(|violation| violation.field != "<nil>").map(ToString::to_string).collect()
}

#[test]
fn every_kind_compiles_with_defaults_that_are_valid() {
    for info in types::kinds() {
        let schema = types::structural_schema(info);
        Schema::compile(&schema).unwrap_or_else(|error| panic!("{}: {error}", info.kind));
    }
}

#[test]
fn every_example_passes_once_its_artifacts_are_uploaded() {
    let text = include_str!("../../../../examples/mask-detection/application.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    assert!(documents.len() > 5);
    for mut document in documents {
        let kind = document["kind"].as_str().unwrap().to_owned();
        let digest = json!({"digest": DIGEST, "size": 1});
        for pointer in ["/spec/artifact", "/spec/versions/0/artifact"] {
            if let Some(artifact) = document.pointer_mut(pointer) {
                *artifact = digest.clone();
            }
        }
        let schema = schema_of(&kind);
        assert_eq!(schema.prune(&mut document), Vec::<String>::new(), "{kind}");
        schema.apply_defaults(&mut document);
        assert_eq!(schema.validate(&document, None), [], "{kind}");
        kind_named(&kind).unwrap().admit(&document).unwrap();
    }
}

#[test]
fn what_is_admitted_passes_the_schema_again() {
    for (kind, spec) in [
        ("Site", json!({"tier": "edge", "taints": [{"key": "a.b/c", "effect": "NoSelect"}]})),
        (
            "Placement",
            json!({"near": {"site": "a", "maxRoundTripMilliseconds": 0.5}, "tolerations": [{"key": "x"}]}),
        ),
        ("PlacementDecision", json!({"placement": "p"})),
        ("Function", json!({"runtime": "shell", "handler": "..a/.b/c", "artifact": {"digest": DIGEST}})),
        (
            "Model",
            json!({"versions": [{"name": "1", "artifact": {"digest": DIGEST}}], "defaultVersion": "1"}),
        ),
        ("Application", json!({"components": [{"name": "a", "placement": "p", "models": ["m"]}]})),
    ] {
        let admitted = kind_named(kind).unwrap().admit(&manifest(kind, spec)).unwrap();
        let schema = schema_of(kind);
        assert_eq!(schema.validate(&admitted, None), [], "{kind}");
        assert_eq!(schema.prune(&mut admitted.clone()), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn nulls_of_optional_fields_go_away() {
    let schema = schema_of("placement");
    let mut object = manifest(
        "Placement",
        json!({"numberOfSites": null, "near": null, "tolerations": [{"effect": null}]}),
    );
    schema.apply_defaults(&mut object);
    assert_eq!(schema.validate(&object, None), []);
    assert!(object["spec"].get("numberOfSites").is_none());
    assert!(object["spec"]["tolerations"][0].get("effect").is_none());
}

#[test]
fn mistakes_are_told_as_kubernetes_tells_them() {
    let component = |fields: Value| {
        let mut component = json!({"name": "a", "placement": "p", "function": "f"});
        component.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"components": [component]})
    };
    for (kind, spec, expected) in [
        ("Site", json!({}), "spec.tier: Required value"),
        (
            "Site",
            json!({"tier": "a b"}),
            "spec.tier: Invalid value: \"a b\": spec.tier in body should match '^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$'",
        ),
        (
            "Placement",
            json!({"numberOfSites": 0}),
            "spec.numberOfSites: Invalid value: 0: spec.numberOfSites in body should be greater than or equal to 1",
        ),
        (
            "Placement",
            json!({"near": {"site": "a", "maxRoundTripMilliseconds": 0}}),
            "spec.near.maxRoundTripMilliseconds: Invalid value: 0: spec.near.maxRoundTripMilliseconds in body should be greater than 0",
        ),
        (
            "Placement",
            json!({"siteSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            "spec.siteSelector.matchExpressions[0].values: Required value: is needed: In and NotIn need at least one value",
        ),
        (
            "Placement",
            json!({"siteSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}}),
            "spec.siteSelector.matchExpressions[0].values: Forbidden: has no meaning for Exists and DoesNotExist: leave it out",
        ),
        (
            "Model",
            json!({"versions": [{"name": "1", "artifact": {"digest": DIGEST}}], "serving": {"preprocessing": {}}}),
            "spec.serving.preprocessing: Invalid value: \"object\": says what content the model takes: give one of image and csv",
        ),
        (
            "Model",
            json!({"versions": [{"name": "1", "artifact": {"digest": DIGEST}}],
                "serving": {"preprocessing": {"image": {"std": [0.5, 0]}}}}),
            "spec.serving.preprocessing.image.std[1]: Invalid value: 0: spec.serving.preprocessing.image.std[1] in body should be greater than 0",
        ),
        (
            "Model",
            json!({"versions": [{"name": "1", "artifact": {"digest": DIGEST}}],
                "serving": {"postprocessing": {"boxes": {"decoder": "yolov8"}, "classes": {}}}}),
            "spec.serving.postprocessing: Invalid value: \"object\": says what the model finds: give one of classes and boxes",
        ),
        (
            "Application",
            json!({"components": []}),
            "spec.components: Invalid value: 0: spec.components in body should have at least 1 items",
        ),
        (
            "Application",
            json!({"components": [{"name": "a", "placement": "p"}]}),
            "spec.components[0]: Invalid value: \"object\": has nothing to run: name a function, models, or both",
        ),
        (
            "Application",
            json!({"components": [{"name": "a", "placement": "p", "models": ["m"], "inputs": [{"path": "abc"}]}]}),
            "spec.components[0].function: Required value: inputs and outputs need a function that reads and writes them",
        ),
        (
            "Application",
            json!({"components": [{"name": "a", "placement": "p", "models": ["m"]}, {"name": "a", "placement": "p", "models": ["m"]}]}),
            "spec.components[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (
            "Application",
            component(json!({"inputs": [{"path": "ab/x"}]})),
            "spec.components[0].inputs[0].path: Invalid value: \"string\": is not `bucket/folder`: a bucket has 3 to 63 of a-z, 0-9, '-' and '.'",
        ),
        (
            "Model",
            json!({"versions": [{"name": "1", "artifact": {"digest": DIGEST}}], "defaultVersion": "2"}),
            "spec.defaultVersion: Invalid value: \"object\": is none of spec.versions: name one of them",
        ),
        (
            "Model",
            json!({"engine": "auto"}),
            "spec.versions: Required value: name at least one version, or an ensemble",
        ),
        (
            "Model",
            json!({"versions": [{"name": "1", "artifact": {"digest": DIGEST}}], "ensemble": {
                "inputs": ["x"], "outputs": ["y"],
                "steps": [{"name": "s", "model": "m", "inputs": {"a": "x"}, "outputs": {"b": "y"}}]}}),
            "spec.versions: Forbidden: an ensemble has no versions: its steps name those of other models",
        ),
        (
            "Model",
            json!({"ensemble": {"inputs": ["x"], "outputs": ["y"], "steps": []}}),
            "spec.ensemble.steps: Invalid value: 0: spec.ensemble.steps in body should have at least 1 items",
        ),
        (
            "Model",
            json!({"versions": [{"name": "1", "artifact": {}}]}),
            "spec.versions[0].artifact.digest: Required value: run `avocet push FILE` and write the digest that it prints",
        ),
        (
            "Function",
            json!({"runtime": "perl", "handler": "a", "artifact": {"digest": DIGEST}}),
            "spec.runtime: Unsupported value: \"perl\": supported values: \"python\", \"shell\", \"binary\"",
        ),
        (
            "Function",
            json!({"runtime": "shell", "handler": "a", "artifact": {"digest": DIGEST}, "memory": "1Mi"}),
            "spec.memory: Invalid value: \"string\": is too little for a process to start: write at least 16Mi",
        ),
        (
            "Function",
            json!({"runtime": "shell", "handler": "a", "artifact": {"digest": DIGEST}, "parallelism": 2000}),
            "spec.parallelism: Invalid value: 2000: spec.parallelism in body should be less than or equal to 1024",
        ),
    ] {
        assert_eq!(said(kind, spec.clone()), [expected], "{kind} {spec}");
    }
}

#[test]
fn paths_stay_inside_their_folder() {
    for (path, is_good) in [
        ("photos", true),
        ("photos/in", true),
        ("photos/.hidden/..a/a..b", true),
        ("photos/", false),
        ("photos/../x", false),
        ("photos/./x", false),
        ("photos//x", false),
        ("Photos/x", false),
        ("a.b/x", true),
        ("a..b/x", false),
        ("ab", false),
    ] {
        let spec = json!({"components": [{"name": "a", "placement": "p", "function": "f", "inputs": [{"path": path}]}]});
        assert_eq!(said("Application", spec).is_empty(), is_good, "{path}");
    }
    for (handler, is_good) in [
        ("a.py", true),
        ("a/b.py", true),
        ("", false),
        ("/a", false),
        ("../a", false),
        ("a/..", false),
        ("./a", false),
    ] {
        let spec = json!({"runtime": "shell", "handler": handler, "artifact": {"digest": DIGEST}});
        assert_eq!(said("Function", spec).is_empty(), is_good, "{handler}");
    }
}

#[test]
fn a_decision_answers_one_placement_for_good() {
    let schema = schema_of("placementdecision");
    let of = |placement: &str| manifest("PlacementDecision", json!({"placement": placement}));
    let violations = schema.validate(&of("b"), Some(&of("a")));
    assert_eq!(violations.len(), 1);
    assert_eq!((violations[0].reason, violations[0].field.as_str()), (Reason::Invalid, "spec.placement"));
    assert_eq!(violations[0].message, "Invalid value: \"string\": Value is immutable");
    assert_eq!(schema.validate(&of("a"), Some(&of("a"))), []);
}
