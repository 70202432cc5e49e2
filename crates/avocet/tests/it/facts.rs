//! What sites tell of themselves and of the ways to others.

use serde_json::Value;
use testkit::{LIMIT, wait_until};

use crate::support::tree;

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
