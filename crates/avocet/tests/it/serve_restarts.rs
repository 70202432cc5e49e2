//! What a server learnt about its models is there when it was killed and started again.

use serde_json::json;
use testkit::{LIMIT, Site, wait_until};

use crate::hostile_models::{integers, node, onnx};
use crate::serve::Kept;
use crate::support::{application, apply, http, model, placement, serving, tree, wait_until_model_answers};

struct Asked<'a> {
    server: &'a Kept,
    client: &'a reqwest::Client,
}

impl Asked<'_> {
    async fn infer(&self, value: f32) -> u16 {
        let input =
            json!({"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value, value, value, value]});
        let body = json!({"inputs": [input]}).to_string();
        let request = self.client.post(self.server.url("/v2/models/m/infer")).body(body);
        request.send().await.unwrap().status().as_u16()
    }

    async fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let text = self.client.get(self.server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(labels))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_and_baselines_survive_a_server_that_is_killed() {
    let (tree, client) = (tree(), api::client::http(None).unwrap());
    let affine = include_bytes!("../../../inference/tests/data/affine.onnx");
    tree.write("models/m/1/model.onnx", affine);
    // It is loaded, and fails at each request: there is no row 100.
    let failing = onnx(&[node("Gather", "", &["x", "n"], "y")], &[integers("n", &[100])], &[]);
    tree.write("models/m/2/model.onnx", failing);
    let declared = |weight: u32| {
        format!(
            "defaultVersion: '1'\n\
             traffic:\n  split: [{{version: '1', weight: 50}}, {{version: '2', weight: {weight}}}]\n  \
             rollback: {{maxErrorPercent: 0, minRequests: 3}}\n\
             serving:\n  drift: {{baselineValues: 20, windowValues: 20}}\n"
        )
    };
    tree.write("models/m/avocet.yaml", declared(50));
    let rolled_back = r#"version="2""#;

    let server = Kept::start(&tree, &["models"]);
    let asked = Asked { server: &server, client: &client };
    let mut failures = 0;
    for round in 0..60_u8 {
        failures += usize::from(asked.infer(f32::from(round % 20)).await != 200);
    }
    assert_eq!(failures, 3, "then it lost its share");
    assert_eq!(asked.metric("avocet_model_rolled_back", rolled_back).await, Some(1.0));
    // What was learnt is written behind the answers.
    let records = || {
        let ledger = std::fs::read(tree.folder().join("kept/server.db-wal")).unwrap_or_default();
        let text = String::from_utf8_lossy(&ledger).into_owned();
        text.contains("rolled-back-models") && text.contains("drift-baselines")
    };
    while !records() {
        tokio::task::yield_now().await;
    }
    drop(server);

    let server = Kept::start(&tree, &["models"]);
    let asked = Asked { server: &server, client: &client };
    assert_eq!(asked.metric("avocet_model_rolled_back", rolled_back).await, Some(1.0));
    for _ in 0..20 {
        assert_eq!(asked.infer(1000.0).await, 200, "the failing version is asked no more");
    }
    let drift = asked.metric("avocet_model_drift_ks", r#"version="1""#).await;
    assert!(drift.is_some_and(|ks| ks > 0.8), "it is far from what came before the restart: {drift:?}");
    drop(server);

    tree.write("models/m/avocet.yaml", declared(40));
    let server = Kept::start(&tree, &["models"]);
    let asked = Asked { server: &server, client: &client };
    assert_eq!(
        asked.metric("avocet_model_rolled_back", rolled_back).await,
        Some(0.0),
        "another share is another trial"
    );
}

#[test]
fn a_site_that_is_killed_measures_drift_against_what_it_learnt_before() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    let mut watched = model("affine");
    watched["spec"]["serving"] = json!({"drift": {"baselineValues": 20, "windowValues": 20}});
    apply(
        &tree,
        &hub,
        &[placement("edge"), watched, application("models", &json!([serving("affine", "edge")]))],
    );
    hub.wait_until_ready("models");
    let infer = |edge: &Site, value: f64| {
        let input =
            json!({"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value, value, value, value]});
        let url = format!("{}/v2/models/affine/infer", edge.access("inference"));
        assert_eq!(http("POST", &url, "", &json!({"inputs": [input]})).unwrap().0, 200);
    };
    for round in 0..20_u8 {
        infer(&edge, round.into());
    }
    wait_until("the baseline is written down", LIMIT, || {
        let written = std::fs::read(edge.data().join("site.db-wal")).unwrap_or_default();
        let is_there = String::from_utf8_lossy(&written).contains("drift-baselines");
        if is_there { Ok(()) } else { Err("not yet".into()) }
    });
    edge.kill_9();
    edge.restart();
    wait_until_model_answers(&edge, "affine");
    for _ in 0..20 {
        infer(&edge, 1000.0);
    }
    let metrics = http("GET", &format!("{}/metrics", edge.access("inference")), "", &json!(null)).unwrap().1;
    let line = metrics.lines().find(|line| line.starts_with("avocet_model_drift_ks{"));
    let far = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(far.is_some_and(|ks| ks > 0.8), "{metrics}");
}
