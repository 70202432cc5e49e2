//! Models and requests that a site was given directly, over crashes.

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use testkit::{Hub, LIMIT};
use tokio::task::JoinSet;

use crate::support::{apply, model, ours, placement, serving, tree};

/// y = x * w + b of four numbers; with its last number 1 it gives 1.9 first.
fn affine() -> Vec<u8> {
    std::fs::read(ours("../inference/tests/data/affine.onnx")).unwrap()
}

fn url(hub: &Hub, path: &str) -> String {
    format!("{}{path}", hub.access("inference"))
}

fn upload(client: &Client, hub: &Hub, tag: &str, library: &str) -> RequestBuilder {
    upload_with(&hub.access("token"), client, hub, tag, library)
}

/// An upload as MLBuffet's clients send it.
fn upload_with(token: &str, client: &Client, hub: &Hub, tag: &str, library: &str) -> RequestBuilder {
    let head = "--XX\r\nContent-Disposition: form-data; name=";
    let mut body = format!("{head}\"library_version\"\r\n\r\n{library}\r\n").into_bytes();
    body.extend(format!("{head}\"path\"; filename=\"m.onnx\"\r\n\r\n").as_bytes());
    body.extend(affine());
    body.extend(b"\r\n--XX--\r\n");
    let request = client.post(url(hub, &format!("/api/v1/models/{tag}"))).bearer_auth(token);
    request.header("content-type", "multipart/form-data; boundary=XX").body(body)
}

async fn get(client: &Client, hub: &Hub, path: &str) -> Value {
    let response = client.get(url(hub, path)).send().await.unwrap();
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn infer(client: &Client, hub: &Hub, model: &str, last: usize) -> RequestBuilder {
    let input = json!({"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, last]});
    client.post(url(hub, &format!("/v2/models/{model}/infer"))).body(json!({"inputs": [input]}).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_upload_survives_a_kill_and_a_cut_off_one_leaves_nothing() {
    let (tree, client) = (tree(), api::client::http(None).unwrap());
    let mut hub = tree.hub("cloud");
    let mut acknowledged = 0;
    for round in 0..3_usize {
        let mut uploads = JoinSet::new();
        for number in 0..6 {
            uploads.spawn(upload(&client, &hub, "t", &format!("{round}.{number}")).send());
        }
        // Killed when some are acknowledged and others on their way.
        for _ in 0..2 + round {
            let answer = uploads.join_next().await.unwrap().unwrap();
            assert_eq!(answer.unwrap().status(), StatusCode::CREATED);
            acknowledged += 1;
        }
        hub.kill_9();
        while let Some(answer) = uploads.join_next().await {
            let answer = answer.unwrap();
            acknowledged += usize::from(answer.is_ok_and(|answer| answer.status() == StatusCode::CREATED));
        }
        hub.restart();
        let information = get(&client, &hub, "/api/v1/models/t/information").await;
        let versions = information["tag_list_versions"].as_object().unwrap();
        // What was durable but not told yet is there, too.
        assert!(versions.len() >= acknowledged && versions.len() <= (round + 1) * 6, "{information}");
        acknowledged = versions.len();
        for version in versions.keys() {
            let path = format!("/api/v1/models/t:{version}");
            let file = client.get(url(&hub, &path)).bearer_auth(hub.access("token")).send().await.unwrap();
            assert_eq!(file.bytes().await.unwrap(), affine());
        }
        let answer = infer(&client, &hub, "t", 1).send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["outputs"][0]["data"], json!([1.9, 3.0, 4.1]), "{answer}");
    }
    let blobs = std::fs::read_dir(hub.data().join("models/blobs")).unwrap().count();
    let temporary = std::fs::read_dir(hub.data().join("models/temporary")).unwrap().count();
    assert_eq!((blobs, temporary), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_jobs_survive_a_kill_with_models_of_the_hubs_and_uploaded_ones() {
    let (tree, client) = (tree(), api::client::http(None).unwrap());
    let mut hub = tree.hub("cloud");
    let application = crate::support::application("serve", &json!([serving("assigned", "cloud")]));
    apply(&tree, &hub, &[placement("cloud"), model("assigned"), application]);
    hub.wait_until_ready("serve");
    assert_eq!(upload(&client, &hub, "uploaded", "x").send().await.unwrap().status(), StatusCode::CREATED);
    let clash = upload(&client, &hub, "assigned", "x").send().await.unwrap();
    assert_eq!(clash.status(), StatusCode::CONFLICT);
    let stranger = upload_with("wrong", &client, &hub, "uploaded", "x").send().await.unwrap();
    assert!(stranger.status().is_client_error(), "{stranger:?}");

    let mut jobs = Vec::new();
    for number in 0..20_usize {
        let name = if number % 2 == 0 { "assigned" } else { "uploaded" };
        let accepted =
            infer(&client, &hub, name, number).header("prefer", "respond-async").send().await.unwrap();
        assert_eq!(accepted.status(), StatusCode::ACCEPTED);
        jobs.push(accepted.headers()["location"].to_str().unwrap().to_owned());
    }
    hub.kill_9();
    hub.restart();
    let begun = std::time::Instant::now();
    for (number, location) in jobs.iter().enumerate() {
        let job = loop {
            let job = get(&client, &hub, location).await;
            if job["status"] == "succeeded" || job["status"] == "failed" {
                break job;
            }
            assert!(begun.elapsed() < LIMIT, "{job}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        let third = 3.0_f32 + 1.1 * number as f32;
        let given = job["response"]["outputs"][0]["data"][2].as_f64().unwrap_or(f64::NAN);
        assert!((given - f64::from(third)).abs() < 1e-4, "{job}");
    }
}
