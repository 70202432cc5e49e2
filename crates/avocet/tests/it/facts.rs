//! What sites tell of themselves and of the ways to others.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Ran, Tree, wait_until};

use crate::support::{apply, tree};

#[test]
fn a_site_tells_what_it_has_and_how_far_it_is_to_others() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let measure = format!("here={}", hub.url());
    let _edge = tree.site(&hub, "edge", &["--claim", "hall=b", "--claim", "os=ours", "--measure", &measure]);
    let status = wait_until("the edge told of all ways", LIMIT, || {
        let seen = hub.cli(&["get", "site", "edge", "-o", "json"]).json();
        let links = seen["status"]["links"].as_array().cloned().unwrap_or_default();
        let is_there = |field: &str, name: &str| links.iter().any(|link| link[field] == name);
        let is_wide =
            links.iter().any(|link| link["megabitsPerSecond"].as_f64().is_some_and(|wide| wide > 0.0));
        if is_there("site", "cloud") && is_there("location", "here") && is_wide {
            Ok(seen["status"].clone())
        } else {
            Err(seen["status"].to_string())
        }
    });
    let claim = |name: &str| {
        let claims = status["claims"].as_array().unwrap();
        claims.iter().find(|claim| claim["name"] == name).map_or(Value::Null, |claim| claim["value"].clone())
    };
    assert_eq!((claim("hall"), claim("os")), ("b".into(), "ours".into()), "people know better");
    assert!(claim("kernel").as_str().is_some_and(|kernel| !kernel.is_empty()));
    for resource in ["cpu", "memory", "disk"] {
        let amount = status["allocatable"][resource].as_str().unwrap_or_default().parse::<f64>();
        assert!(amount.is_ok_and(|amount| amount > 0.0), "{resource}: {}", status["allocatable"]);
    }
    assert!(status["capacity"]["memoryBytes"].as_u64().unwrap() > 0);
}

/// States at the hub which locations the site `edge` measures.
fn let_measure(tree: &Tree, hub: &Hub, locations: &Value) -> Ran {
    let mut site = hub.cli(&["get", "site", "edge", "-o", "json"]).json();
    site["spec"]["measure"] = locations.clone();
    site["metadata"] = json!({"name": "edge"});
    site.as_object_mut().unwrap().remove("status");
    hub.cli(&["apply", "-f", &tree.write("site.json", site.to_string()).display().to_string()])
}

#[test]
fn a_site_measures_the_locations_that_its_site_at_the_hub_names_and_placements_are_near_them() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let _edge = tree.site(&hub, "edge", &[]);
    let listens = hub.url().split_once("//").unwrap().1.to_owned();
    for (wrong, why) in [
        (json!([{"location": "gateway", "address": "gateway"}]), "spec.measure[0].address"),
        (json!([{"location": "gateway", "address": "gateway:65536"}]), "spec.measure[0].address"),
        (json!([{"location": "gateway", "address": "http://gateway:80"}]), "spec.measure[0].address"),
        (
            json!([{"location": "a", "address": "a:1"}, {"location": "a", "address": "b:1"}]),
            "Duplicate value",
        ),
    ] {
        let refused = let_measure(&tree, &hub, &wrong).refused();
        assert!(refused.contains(why), "{refused}");
    }
    let_measure(&tree, &hub, &json!([{"location": "gateway", "address": listens}])).ok();
    let spec = json!({"near": {"location": "gateway", "maxRoundTripMilliseconds": 10_000}});
    let near = json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Placement", "metadata": {"name": "near"}, "spec": spec});
    apply(&tree, &hub, &[near]);
    wait_until("the placement found the site", LIMIT, || {
        let seen = hub.cli(&["get", "placementdecision", "near-decision-1", "-o", "json"]).stdout;
        let decided: Value = serde_json::from_str(&seen).unwrap_or_default();
        let site = &decided["status"]["decisions"][0]["site"];
        if site == "edge" { Ok(()) } else { Err(seen) }
    });
    let_measure(&tree, &hub, &json!([])).ok();
    wait_until("nothing is told of it any more", LIMIT, || {
        let seen = hub.cli(&["get", "site", "edge", "-o", "json"]).json();
        let links = seen["status"]["links"].as_array().cloned().unwrap_or_default();
        let is_there = links.iter().any(|link| link["location"] == "gateway");
        if is_there { Err(seen["status"]["links"].to_string()) } else { Ok(()) }
    });
}
