use std::io::Write;

use serde_json::json;

use avocet_serving::{ServerState, router};
use inference::LoadRequest;

use crate::support::{app, model, post, repository, send, x};

const INFER: &str = "/v2/models/affine/infer";

#[tokio::test]
async fn a_json_request_gets_a_json_answer() {
    let reply = post(&app(), INFER, x("[1,4]", "[1,0,0,0]")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("inference-header-content-length"), None);
    assert_eq!(
        reply.json(),
        json!({
            "model_name": "affine",
            "model_version": "2",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.1, 3.2]}],
        })
    );
}

#[tokio::test]
async fn id_version_and_requested_outputs_are_respected() {
    let app = app();
    let body = r#"{"id":"42","parameters":{"sequence_id":3,"priority":1},
        "inputs":[{"name":"b","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]},
                  {"name":"a","shape":[1,4],"datatype":"FP32","data":[[5,6,7,8]]}],
        "outputs":[{"name":"difference"}]}"#;
    let json = post(&app, "/v2/models/add_sub/versions/1/infer", body).await.json();
    assert_eq!((&json["id"], &json["model_version"]), (&json!("42"), &json!("1")));
    assert_eq!(json["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(json["outputs"][0]["data"], json!([4.0, 4.0, 4.0, 4.0]));
    let json = post(&app, "/v2/models/affine/versions/1/infer", x("[1,4]", "[[0,0,0,0]]")).await.json();
    assert_eq!(json["model_version"], "1");
}

fn binary(json: &str, floats: &[f32]) -> (String, Vec<u8>) {
    let mut body = json.as_bytes().to_vec();
    body.extend(floats.iter().flat_map(|float| float.to_le_bytes()));
    (json.len().to_string(), body)
}

const BINARY_IN: &str =
    r#""inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]"#;

#[tokio::test]
async fn binary_tensors_go_both_ways() {
    let json = format!("{{{BINARY_IN},\"parameters\":{{\"binary_data_output\":true}}}}");
    let (length, body) = binary(&json, &[0.0, 1.0, 0.0, 0.0]);
    let headers = [("inference-header-content-length", length.as_str())];
    let reply = send(&app(), "POST", INFER, &headers, body).await;
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&reply.body[..length]).unwrap();
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 12);
    assert!(json["outputs"][0].get("data").is_none());
    let floats: Vec<f32> = reply.body[length..]
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    assert_eq!(floats, [1.3, 2.4, 3.5]);
}

#[tokio::test]
async fn an_outputs_own_wish_goes_before_the_requests() {
    let json = format!(
        r#"{{{BINARY_IN},"parameters":{{"binary_data_output":true}},"outputs":[{{"name":"y","parameters":{{"binary_data":false}}}}]}}"#
    );
    let (length, body) = binary(&json, &[0.0; 4]);
    let headers = [("inference-header-content-length", length.as_str())];
    let reply = send(&app(), "POST", INFER, &headers, body).await;
    assert_eq!(reply.json()["outputs"][0]["data"], json!([1.0, 2.0, 3.0]));
}

#[tokio::test]
async fn a_raw_body_is_the_only_input_and_is_answered_in_binary() {
    let body: Vec<u8> = [0_f32; 8].iter().flat_map(|float| float.to_le_bytes()).collect();
    let reply = send(&app(), "POST", INFER, &[("inference-header-content-length", "0")], body).await;
    let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&reply.body[..length]).unwrap();
    assert_eq!(json["outputs"][0]["shape"], json!([2, 3]));
    assert_eq!(reply.body.len(), length + 24);
}

#[tokio::test]
async fn every_datatype_that_the_engine_has_passes_as_json() {
    let body = r#"{"inputs":[
        {"name":"flag","shape":[2],"datatype":"BOOL","data":[true,0]},
        {"name":"byte","shape":[2],"datatype":"UINT8","data":[0,255]},
        {"name":"half","shape":[2],"datatype":"FP16","data":[0.5,-2]},
        {"name":"double","shape":[2],"datatype":"FP64","data":[0.25,-8e0]}]}"#;
    let json = post(&app(), "/v2/models/small_types/infer", body).await.json();
    let data: Vec<_> = json["outputs"].as_array().unwrap().iter().map(|output| &output["data"]).collect();
    let expected = [json!([false, true]), json!([0, 255]), json!([-0.5, 2.0]), json!([-0.25, 8.0])];
    assert_eq!(data, expected.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn numbers_that_json_lacks_are_null_in_json_and_exact_in_binary() {
    let app = app();
    let body = x("[3]", "[1,0,-1]");
    let json = post(&app, "/v2/models/log/infer", body.clone()).await.json();
    assert_eq!(json["outputs"][0]["data"], json!([0.0, null, null]));
    let body = body.replacen('{', r#"{"parameters":{"binary_data_output":true},"#, 1);
    let reply = post(&app, "/v2/models/log/infer", body).await;
    assert_eq!(reply.body[reply.body.len() - 8..reply.body.len() - 4], f32::NEG_INFINITY.to_le_bytes());
    let json = post(&app, "/v2/models/log/infer", x("[1]", "[null]")).await.json();
    assert_eq!(json["outputs"][0]["data"], json!([null]));
}

#[tokio::test]
async fn large_requests_are_answered_like_small_ones_and_compressed_on_request() {
    let rows = 40_000;
    let data = vec!["[0,0,0,0.5]"; rows].join(",");
    let body = x(&format!("[{rows},4]"), &format!("[{data}]"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(body.as_bytes()).unwrap();
    let headers = [("content-encoding", "gzip"), ("accept-encoding", "deflate")];
    let reply = send(&app(), "POST", INFER, &headers, packed.finish().unwrap()).await;
    assert_eq!(reply.header("content-encoding"), Some("deflate"));
    let json: serde_json::Value =
        serde_json::from_reader(flate2::read::ZlibDecoder::new(reply.body.as_ref())).unwrap();
    assert_eq!(json["outputs"][0]["shape"], json!([rows, 3]));
    assert_eq!(json["outputs"][0]["data"].as_array().unwrap().len(), rows * 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_each_get_their_own_answer() {
    let app = app();
    let requests = (0..200).map(|index| {
        let app = app.clone();
        async move {
            let id = format!(r#"{{"id":"{index}","#);
            let body = x("[1,4]", &format!("[{index},0,0,0]")).replacen('{', &id, 1);
            let json = post(&app, INFER, body).await.json();
            assert_eq!(json["id"], index.to_string());
            let given = json["outputs"][0]["data"][1].as_f64().unwrap();
            assert!((given - (2.0 + 0.1 * f64::from(index))).abs() < 1e-3);
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for request in requests {
        tasks.spawn(request);
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn an_equal_request_is_answered_from_the_cache_before_it_is_read() {
    let repository = repository();
    let serving =
        types::Serving { cache: Some(types::PredictionCache::default()), ..types::Serving::default() };
    let request = LoadRequest { serving, ..LoadRequest::new("kept", "1", model("affine")) };
    repository.load(request).unwrap();
    let app = router(ServerState::new(repository.clone()));
    let ask = async |body: String| {
        let reply = post(&app, "/v2/models/kept/infer", body).await;
        (reply.header("cache-status").unwrap().to_owned(), reply.json())
    };
    let (status, first) = ask(x("[1,4]", "[1,0,0,0]")).await;
    assert_eq!(status, "avocet; fwd=miss; stored");
    assert_eq!(ask(x("[1,4]", "[1,0,0,0]")).await, ("avocet; hit".to_owned(), first.clone()));
    assert_eq!(
        ask(x("[1,4]", "[1.0, 0, 0, 0]")).await,
        ("avocet; hit".to_owned(), first),
        "other text, same tensor"
    );
    assert_eq!(ask(x("[1,4]", "[2,0,0,0]")).await.0, "avocet; fwd=miss; stored");
    let stats = repository.get("kept", None).unwrap().stats();
    assert_eq!((stats.cache_hit.count, stats.cache_miss.count, stats.execution_count), (2, 2, 2));
}
