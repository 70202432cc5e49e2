//! Decisions, as a reviewer reads them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod board;
mod dataflow;
mod offload;
mod placement;
mod rollout;
mod rollout_vectors;
mod terms;
mod vectors;

use serde_json::{Value, json};
use types::Site;

/// A ready site of a tier, with links to others in milliseconds.
fn site(name: &str, tier: &str, links: &[(&str, f64)]) -> Site {
    let links: Vec<Value> =
        links.iter().map(|(site, rtt)| json!({"site": site, "roundTripMilliseconds": rtt})).collect();
    serde_json::from_value(json!({
        "apiVersion": types::API_VERSION, "kind": "Site", "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"tier": tier},
        "status": {"links": links, "conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Heartbeat", "message": ""}]},
    }))
    .unwrap()
}

fn silent(mut site: Site) -> Site {
    site.status.conditions[0].status = types::ConditionStatus::Unknown;
    site.status.conditions[0].message = "no heartbeat for 40 s".into();
    site
}
