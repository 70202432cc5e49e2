use std::collections::BTreeMap;

use avocet_planner::{Resolver, plan_application};
use serde_json::json;
use types::{Application, Digest, FunctionSpec, ModelSpec, Site};

use super::site;

struct Known(BTreeMap<&'static str, Vec<&'static str>>);

impl Resolver for Known {
    fn sites_of(&self, placement: &str) -> Option<Vec<String>> {
        Some(self.0.get(placement)?.iter().map(|site| (*site).to_owned()).collect())
    }

    fn function(&self, name: &str) -> Option<FunctionSpec> {
        let artifact = json!({"digest": Digest::of(name.as_bytes()), "size": 1});
        let spec = json!({"runtime": "shell", "handler": "run.sh", "artifact": artifact});
        (name != "absent").then(|| serde_json::from_value(spec).unwrap())
    }

    /// `pipe` uses `inner` and `leaf`, `inner` uses `leaf`; `loop` uses itself.
    fn model(&self, name: &str) -> Option<ModelSpec> {
        let steps = |models: &[&str]| {
            let step = |model| json!({"name": model, "model": model, "inputs": {"x": "in"}, "outputs": {"y": model}});
            let steps: Vec<_> = models.iter().map(step).collect();
            json!({"ensemble": {"inputs": ["in"], "steps": steps, "outputs": [models[0]]}})
        };
        let spec = match name {
            "leaf" => {
                json!({"versions": [{"name": "1", "artifact": {"digest": Digest::of(b"leaf"), "size": 1}}]})
            }
            "inner" => steps(&["leaf"]),
            "pipe" => steps(&["inner", "leaf"]),
            "loop" => steps(&["loop"]),
            "lost" => steps(&["absent"]),
            _ => return None,
        };
        Some(serde_json::from_value(spec).unwrap())
    }
}

fn application(first_function: &str) -> Application {
    let component = |name: &str, placement: &str, function: &str, from: &str, to: &str| {
        json!({"name": name, "placement": placement, "function": function,
               "inputs": [{"path": from}], "outputs": [{"path": to}]})
    };
    serde_json::from_value(json!({
        "apiVersion": types::API_VERSION, "kind": "Application",
        "metadata": {"name": "app", "namespace": "default", "uid": "u"},
        "spec": {"components": [
            component("blur", "edges", first_function, "photos/in", "photos/blurred"),
            component("classify", "clouds", "f", "photos/blurred", "photos/result"),
        ]},
    }))
    .unwrap()
}

fn sites() -> Vec<Site> {
    vec![
        site("east", "cloud", &[]),
        site("west", "cloud", &[]),
        site("plant", "edge", &[("west", 5.0), ("east", 50.0)]),
        site("shop", "edge", &[("east", 5.0)]),
    ]
}

#[test]
fn outputs_go_to_the_nearest_reader_and_stay_where_nobody_reads() {
    let known = Known(BTreeMap::from([("edges", vec!["plant", "shop"]), ("clouds", vec!["east", "west"])]));
    let plan = plan_application(&application("f"), &known, &sites());
    let blur = plan[0].assignments.as_ref().unwrap();
    assert_eq!(blur["plant"].outputs[0].sites, ["west"]);
    assert_eq!(blur["shop"].outputs[0].sites, ["east"]);
    let classify = plan[1].assignments.as_ref().unwrap();
    assert_eq!(classify["east"].outputs[0].sites, ["east"]);
}

#[test]
fn promise_1_what_is_missing_blocks_its_component_alone_and_says_what_to_do() {
    let known = Known(BTreeMap::from([("edges", vec!["plant"]), ("clouds", vec!["east"])]));
    let plan = plan_application(&application("absent"), &known, &sites());
    assert_eq!(
        plan[0].assignments.as_ref().unwrap_err(),
        "Function `absent` does not exist in this namespace; apply it"
    );
    assert!(plan[1].assignments.is_ok());
    let nowhere = Known(BTreeMap::from([("edges", vec!["plant"]), ("clouds", vec![])]));
    let plan = plan_application(&application("f"), &nowhere, &sites());
    assert_eq!(
        plan[0].assignments.as_ref().unwrap_err(),
        "its output `photos/blurred` has nowhere to go: Placement `clouds` selects no site; see \
         `avocet explain placement/clouds`"
    );
}

#[test]
fn an_ensemble_is_assigned_behind_the_models_that_it_needs() {
    let known = Known(BTreeMap::from([("edges", vec!["shop"]), ("clouds", vec!["east"])]));
    let plan = |models: &[&str]| {
        let mut application = application("f");
        application.spec.components[0].models = models.iter().map(|model| (*model).to_owned()).collect();
        let assignments = plan_application(&application, &known, &sites()).remove(0).assignments;
        assignments
            .map(|sites| sites["shop"].models.iter().map(|model| model.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(plan(&["pipe", "leaf"]).unwrap(), ["leaf", "inner", "pipe"]);
    assert_eq!(plan(&["loop"]).unwrap_err(), "ensembles can't use each other in a circle: loop → loop");
    let missing = plan(&["lost"]).unwrap_err();
    assert!(
        missing.starts_with("Model `absent`, a step of the ensemble `lost`, does not exist"),
        "{missing}"
    );
}
