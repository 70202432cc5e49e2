use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use futures::future::BoxFuture;
use inference::LoadRequest;
use serde_json::json;
use types::{ClassesOutput, Postprocessing, Serving};

use crate::replay::picture;
use crate::support::{Kept, Reply, Setup, form, get, model, own_model, post, repository, send, upload};
use avocet_serving::Guard;

fn told(reply: &Reply) -> (u16, String) {
    let body = reply.json();
    assert_eq!(body["http_status"]["code"], reply.status.as_u16(), "{body}");
    (reply.status.as_u16(), body["http_status"]["description"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_name_versions_and_take_samples_and_batches() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let affine = std::fs::read(model("affine")).unwrap();
    assert_eq!(upload(&server.app, "mine", "label.onnx", &own_model("label")).await.status, 201);
    assert_eq!(upload(&server.app, "mine", "affine.onnx", &affine).await.status, 201);
    for (tag, values, expected) in [
        ("mine", json!([0, 0, 0, 1]), json!([1.9, 3.0, 4.1])),
        ("mine", json!([[0, 0, 0, 1]]), json!([[1.9, 3.0, 4.1]])),
        ("mine:default", json!([[0, 0, 0, 1], [0, 0, 0, 0]]), json!([[1.9, 3.0, 4.1], [1.0, 2.0, 3.0]])),
        ("mine:1", json!([0, 9, 0, 1]), json!([1])),
        ("mine:1", json!([[0, 9, 0, 1], [9, 0, 0, 0]]), json!([1, 0])),
        ("affine", json!(["0", 0, 0, "1e0"]), json!([1.9, 3.0, 4.1])),
    ] {
        let path = format!("/api/v1/models/{tag}/prediction");
        for method in ["POST", "GET"] {
            let reply = send(&server.app, method, &path, &[], json!({"values": values}).to_string()).await;
            assert_eq!(told(&reply), (200, "Prediction successful".into()), "{tag}");
            assert_eq!(reply.json()["values"], expected, "{tag} {values}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_inputs_and_outputs_go_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let path = "/api/v1/models/add_sub/prediction";
    let reply = post(&server.app, path, r#"{"values": {"a": [5,5,5,5], "b": [1,2,3,4]}}"#).await;
    let body = reply.json();
    assert_eq!(body["values"], json!([6.0, 7.0, 8.0, 9.0]));
    assert_eq!(body["outputs"], json!({"sum": [6.0, 7.0, 8.0, 9.0], "difference": [4.0, 3.0, 2.0, 1.0]}));
    let (code, text) = told(&post(&server.app, path, r#"{"values": [1,2,3,4]}"#).await);
    assert_eq!(code, 422);
    assert!(text.contains(r#"{"a": [...], "b": [...]}"#), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_are_fitted_to_the_models_input() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let convolution = std::fs::read(model("convolution")).unwrap();
    assert_eq!(upload(&server.app, "eyes", "eyes.onnx", &convolution).await.status, 201);
    for (field, kind) in [("path", None), ("file", Some("image/jpeg"))] {
        let (form_kind, body) = form(&[(field, Some("d.jpg"), kind, &picture())]);
        let kind = [("content-type", form_kind.as_str())];
        let reply = send(&server.app, "POST", "/api/v1/models/eyes/prediction", &kind, body).await;
        let scores = reply.json()["values"].clone();
        let scores: Vec<f64> = serde_json::from_value(scores).unwrap_or_else(|_| panic!("{:?}", reply.body));
        assert_eq!(scores.len(), 5);
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{scores:?}");
    }
    let (kind, body) = form(&[("path", Some("d.jpg"), None, b"no picture")]);
    let kind = [("content-type", kind.as_str())];
    let (code, text) = told(&send(&server.app, "POST", "/api/v1/models/eyes/prediction", &kind, body).await);
    assert_eq!((code, text.contains("no JPEG, PNG or WebP")), (422, true), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classes_are_named_as_the_models_file_names_them() {
    let (folder, repository) = (tempfile::tempdir().unwrap(), repository());
    let classes =
        Some(ClassesOutput { output: Some("output_probability".into()), ..ClassesOutput::default() });
    let postprocessing = Some(Box::new(Postprocessing { classes, boxes: None }));
    let serving = Serving { postprocessing, ..Serving::default() };
    let request = LoadRequest::new("iris", "1", model("classical/iris_forest_names"));
    repository.load(LoadRequest { serving, ..request }).unwrap();
    let server = Kept::on(folder.path(), repository, Setup::default());
    let reply =
        post(&server.app, "/api/v1/models/iris/prediction", r#"{"values": [5.1, 3.5, 1.4, 0.2]}"#).await;
    assert_eq!(reply.json()["classes"][0][0]["label"], "setosa", "{:?}", reply.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_engine_reads_is_refused_with_what_to_do_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    for (file, status, words) in [
        ("m.pkl", 415, "skl2onnx"),
        ("m.pt", 415, "torch.onnx.export"),
        ("m.pmml", 415, ".onnx"),
        ("m.mlmodel", 415, "onnxmltools"),
        ("m", 415, "'.onnx'"),
        ("../m.onnx", 422, "slash"),
        ("m.onnx", 422, "can't be served"),
    ] {
        let (code, text) = told(&upload(&server.app, "broken", file, b"not a model").await);
        assert_eq!((code, text.contains(words)), (status, true), "{file}: {text}");
    }
    let large = upload(&server.app, "broken", "m.onnx", &vec![7; 5 << 20]).await;
    assert_eq!(large.status, 422, "its size is not what is wrong with it");
    assert!(!server.shelf.has("broken"));
    assert!(server.repository.list().iter().all(|model| model.name != "broken"));
    let blobs = std::fs::read_dir(folder.path().join("models/blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_the_hubs_is_taken_and_its_model_cant_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let (code, text) = told(&upload(&server.app, "affine", "m.onnx", &own_model("label")).await);
    assert_eq!((code, text.contains("comes from the hub")), (409, true), "{text}");
    for (method, path) in [("DELETE", "affine"), ("DELETE", "affine:1"), ("GET", "affine")] {
        let reply = send(&server.app, method, &format!("/api/v1/models/{path}"), &[], "").await;
        assert_eq!(told(&reply).0, 409, "{method} {path}");
    }
    let information = get(&server.app, "/api/v1/models/affine/information").await.json();
    assert_eq!(information["default_version"], "2");
    let list = get(&server.app, "/api/v1/models").await.json();
    assert!(list["tag_list"].as_array().unwrap().contains(&json!("affine")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptions_change_and_defaults_move_when_theirs_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    for _ in 0..3 {
        upload(&server.app, "t", "m.onnx", &own_model("label")).await;
    }
    let put = r#"{"model_description": "grün"}"#;
    assert_eq!(send(&server.app, "PUT", "/api/v1/models/t:1/information", &[], put).await.status, 200);
    assert_eq!(post(&server.app, "/api/v1/models/t/default", r#"{"default": 2}"#).await.status, 200);
    let reply = send(&server.app, "DELETE", "/api/v1/models/t:default", &[], "").await;
    assert_eq!(told(&reply), (200, "Tag t updated to new default version successfully".into()));
    let reply = get(&server.app, "/api/v1/models/t/information").await;
    assert!(reply.body.is_ascii(), "as Python's json writes it");
    let body = reply.json();
    assert_eq!(body["default_version"], "3");
    assert_eq!(body["tag_list_versions"]["1"]["description"], "grün");
    assert_eq!(server.repository.get("t", None).map(|model| model.version().to_owned()).unwrap(), "3");
    assert_eq!(
        server.repository.get("t", Some("2")).err().map(|error| error.to_string().is_empty()),
        Some(false)
    );
    upload(&server.app, "t", "m.onnx", &own_model("label")).await;
    let body = get(&server.app, "/api/v1/models/t:4/information").await.json();
    assert_eq!(body["tag_list_versions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_paths_methods_and_training_are_answered_in_form() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    for (method, path, status) in [
        ("GET", "/api/nope", 404),
        ("GET", "/api/v1/models/a/b/c", 404),
        ("PATCH", "/api/v1/models", 405),
        ("POST", "/api/v1/train/iris/model.onnx", 501),
        ("GET", "/api/v1/train/download_buildenv", 501),
    ] {
        assert_eq!(told(&send(&server.app, method, path, &[], "").await).0, status, "{method} {path}");
    }
    assert_eq!(get(&server.app, "/help").await.status, 200);
    assert_eq!(
        get(&server.app, "/nope").await.error(),
        "there is no such route here; see the Open Inference Protocol v2"
    );
    assert_eq!(get(&server.app, "/v2/models/affine").await.status, 200);
}

struct Password;

impl Guard for Password {
    fn admit<'a>(&'a self, headers: &'a HeaderMap) -> BoxFuture<'a, Result<(), String>> {
        let good = headers.get("authorization").is_some_and(|given| given == "Bearer good");
        Box::pin(async move { if good { Ok(()) } else { Err("send the token".into()) } })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_changed_and_taken_away_with_the_right_to_only() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup { guard: Some(Arc::new(Password)), ..Setup::default() });
    let (kind, body) =
        form(&[("path", Some("m.onnx"), None, &own_model("label")), ("library_version", None, None, b"x")]);
    let kind = ("content-type", kind.as_str());
    let good = ("authorization", "Bearer good");
    let path = "/api/v1/models/t";
    assert_eq!(
        told(&send(&server.app, "POST", path, &[kind], body.clone()).await),
        (401, "send the token".into())
    );
    assert_eq!(send(&server.app, "POST", path, &[kind, good], body).await.status, 201);
    for (method, path) in [
        ("GET", "/api/v1/models/t"),
        ("GET", "/api/v1/models/t/download"),
        ("DELETE", "/api/v1/models/t"),
        ("POST", "/api/v1/models/t/default"),
        ("PUT", "/api/v1/models/t/information"),
        ("GET", "/v2/jobs"),
    ] {
        assert_eq!(
            send(&server.app, method, path, &[], "").await.status,
            StatusCode::UNAUTHORIZED,
            "{method} {path}"
        );
        assert_ne!(send(&server.app, method, path, &[good], "").await.status, StatusCode::UNAUTHORIZED);
        upload_again(&server).await;
    }
    for path in ["/api/v1/models", "/api/v1/models/t/information", "/api/test"] {
        assert_eq!(get(&server.app, path).await.status, 200, "{path}");
    }
    let body = r#"{"values": [1,2,3,4]}"#;
    assert_eq!(post(&server.app, "/api/v1/models/t/prediction", body).await.status, 200);
}

async fn upload_again(server: &Kept) {
    let (kind, body) =
        form(&[("path", Some("m.onnx"), None, &own_model("label")), ("library_version", None, None, b"x")]);
    let headers = [("content-type", kind.as_str()), ("authorization", "Bearer good")];
    assert_eq!(send(&server.app, "POST", "/api/v1/models/t", &headers, body).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_counters_are_among_the_metrics_in_legacy_mode_too() {
    for legacy in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let server = Kept::open(folder.path(), Setup { legacy, ..Setup::default() });
        upload(&server.app, "t", "m.onnx", &own_model("label")).await;
        for _ in 0..3 {
            let values = r#"{"values": [0, 0, 7, 0]}"#;
            send(&server.app, "POST", "/api/v1/models/t/prediction", &[], values).await;
        }
        get(&server.app, "/api/test").await;
        get(&server.app, "/api/v1/models").await;
        send(&server.app, "POST", "/api/v1/train/t/m", &[], "").await;
        let text = String::from_utf8(get(&server.app, "/metrics").await.body.to_vec()).unwrap();
        for line in [
            "model_request_operations_total 3",
            "test_request_operations_total 1",
            "model_training_operations_total 1",
            "storage_request_operations_total 2",
        ] {
            assert!(text.lines().any(|given| given == line), "{line} is not in {text}");
        }
        let usage = text.lines().find_map(|line| line.strip_prefix("cpu_usage ")).unwrap();
        assert!((0.0..=100.0).contains(&usage.parse::<f64>().unwrap()), "{usage}");
    }
}
