//! What sites tell of themselves and of the ways to others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

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
    for metric in ["memory", "disk"] {
        let share = status["usage"][metric].as_f64();
        assert!(share.is_some_and(|share| (0.0..=1.0).contains(&share)), "{metric}: {}", status["usage"]);
    }
    assert!(status["usage"]["cpu"].as_f64().is_some_and(|load| load >= 0.0), "{}", status["usage"]);
    assert_eq!(status["usage"]["invocations"], 0.0);
    // Placements look at it: who has more than all of its disk in use is none.
    for (name, most, selected) in [("some", 1.0, true), ("none", 0.000_001, false)] {
        let metric = json!({"name": "disk", "min": 0, "max": most, "provider": {"site": {"metric": "disk"}}});
        let spec = json!({"tiers": ["edge"], "metrics": [metric]});
        apply(
            &tree,
            &hub,
            &[json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Placement",
            "metadata": {"name": name}, "spec": spec})],
        );
        wait_until("the placement is decided", LIMIT, || {
            let seen = hub.cli(&["get", "placement", name, "-o", "json"]).json();
            let conditions = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.iter().find(|one| one["type"] == "Satisfied");
            let wanted = if selected { "True" } else { "False" };
            let is_so = found.is_some_and(|found| found["status"] == wanted);
            if is_so { Ok(()) } else { Err(seen["status"].to_string()) }
        });
    }
}

/// A server of one document at a location, for whoever asks.
fn document(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Who only opens a connection asks nothing.
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![7; bytes]));
            }
        }
    });
    address
}

#[test]
fn a_placement_asks_for_bandwidth_to_a_location_where_a_document_there_tells_it() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let _edge = tree.site(&hub, "edge", &[]);
    let address = document(1 << 20);
    let wrong = json!([{"location": "line-7", "address": address.to_string(), "probe": "ftp://a/b"}]);
    let refused = let_measure(&tree, &hub, &wrong).refused();
    assert!(refused.contains("spec.measure[0].probe"), "{refused}");
    let_measure(&tree, &hub, &json!([{"location": "line-7", "address": address.to_string()}])).ok();
    let near =
        json!({"location": "line-7", "maxRoundTripMilliseconds": 10_000, "minMegabitsPerSecond": 0.01});
    let placement = json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Placement", "metadata": {"name": "near"},
        "spec": {"near": near}});
    apply(&tree, &hub, &[placement]);
    wait_until("it is said why nobody is near", LIMIT, || {
        let why = hub.cli(&["explain", "placement/near"]).ok();
        if why.contains("as `probe` beside the location in spec.measure") { Ok(()) } else { Err(why) }
    });
    let probe = format!("http://{address}/");
    let_measure(
        &tree,
        &hub,
        &json!([{"location": "line-7", "address": address.to_string(), "probe": probe}]),
    )
    .ok();
    wait_until("the placement found the site", LIMIT, || {
        let seen = hub.cli(&["get", "placementdecision", "near-decision-1", "-o", "json"]).stdout;
        let decided: Value = serde_json::from_str(&seen).unwrap_or_default();
        let site = &decided["status"]["decisions"][0]["site"];
        if site == "edge" { Ok(()) } else { Err(seen) }
    });
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
