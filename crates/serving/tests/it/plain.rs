//! Pictures and tables as they are, and answers that people can read.

use std::path::{Path, PathBuf};
use std::process::Command;

use avocet_serving::{ServerState, router, serve};
use axum::Router;
use axum::http::StatusCode;
use inference::{EngineChoice, EngineOptions, Engines, LoadRequest, Options, Repository};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::onnx::{identity, mean_over_pixels};
use crate::support::{Reply, model, post, send};

const INFER: &str = "/v2/models/colours/infer";

fn engines() -> Repository {
    let engines = Engines::discover(&EngineOptions::default());
    Repository::new(engines, Options { workers: 1, ..Options::default() }).unwrap()
}

fn load(repository: &Repository, name: &str, path: PathBuf, serving: &Value) -> Result<(), String> {
    let serving = serde_json::from_value(serving.clone()).unwrap();
    let request = LoadRequest { engine: EngineChoice::Rten, serving, ..LoadRequest::new(name, "1", path) };
    repository.load(request).map(drop).map_err(|error| error.to_string())
}

/// `colours` says which of red, green and blue a picture has most of; `rows` gives the rows of a table back as
/// scores; `affine` takes tensors only.
fn repository() -> Repository {
    let (repository, folder) = (engines(), tempfile::tempdir().unwrap());
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let colours = write("colours.onnx", &mean_over_pixels(&[-1, 3, 2, 2], &[-1, 3, 1, 1]));
    let serving = json!({
        "preprocessing": {"image": {}},
        "postprocessing": {"classes": {"topK": 2, "labels": ["red", "green", "blue"]}},
    });
    load(&repository, "colours", colours, &serving).unwrap();
    let rows = write("rows.onnx", &identity(1, &[-1, 2]));
    load(&repository, "rows", rows, &json!({"preprocessing": {"csv": {}}})).unwrap();
    load(&repository, "affine", model("affine"), &json!({})).unwrap();
    repository
}

fn app() -> Router {
    router(ServerState::new(repository()))
}

/// A picture of one colour.
fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut content = Vec::new();
    let mut encoder = png::Encoder::new(&mut content, 4, 2);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&colour.repeat(8)).unwrap();
    content
}

async fn send_as(app: &Router, path: &str, kind: &str, body: impl Into<axum::body::Body>) -> Reply {
    send(app, "POST", path, &[("content-type", kind)], body).await
}

fn form(kind: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: {kind}\r\n\r\n"
    );
    [head.as_bytes(), content, b"\r\n--b--\r\n"].concat()
}

const TEAL: [u8; 3] = [0, 204, 102];

fn teal() -> Value {
    json!({
        "model_name": "colours", "model_version": "1", "outputs": [],
        "classes": [[{"label": "green", "index": 1, "score": 0.8}, {"label": "blue", "index": 2, "score": 0.4}]],
    })
}

#[tokio::test]
async fn a_picture_is_answered_by_its_classes() {
    let app = app();
    for kind in ["image/png", "IMAGE/*", "image/jpeg"] {
        let reply = send_as(&app, INFER, kind, png(TEAL)).await;
        assert_eq!(
            (reply.status, reply.json()),
            (StatusCode::OK, teal()),
            "{kind}: what it is shows the content"
        );
    }
    let reply = send_as(&app, "/v2/models/colours/versions/1/infer", "image/png", png(TEAL)).await;
    assert_eq!(reply.json(), teal());
}

#[tokio::test]
async fn outputs_come_with_the_reading_where_they_are_asked_for() {
    let reply = send_as(&app(), &format!("{INFER}?outputs=raw"), "image/png", png(TEAL)).await.json();
    assert_eq!(reply["classes"], teal()["classes"]);
    assert_eq!(reply["outputs"][0]["shape"], json!([1, 3, 1, 1]));
    assert_eq!(reply["outputs"][0]["data"], json!([0.0, 0.8, 0.4]));
}

#[tokio::test]
async fn a_form_with_one_file_is_that_file() {
    let app = app();
    for kind in ["image/png", "application/octet-stream"] {
        let reply = send_as(&app, INFER, "multipart/form-data; boundary=b", form(kind, &png(TEAL))).await;
        assert_eq!(reply.json(), teal(), "{kind}");
    }
    let rows = form("text/csv", b"a,b\n1,2.5\n");
    let reply = send_as(&app, "/v2/models/rows/infer", "multipart/form-data; boundary=b", rows).await;
    assert_eq!(reply.json()["outputs"][0]["data"], json!([1.0, 2.5]));
}

#[tokio::test]
async fn a_table_without_a_reading_is_answered_by_the_outputs() {
    let reply = send_as(&app(), "/v2/models/rows/infer", "text/csv; charset=utf-8", "a,b\n1,2\n3,4\n").await;
    let expected = json!({
        "model_name": "rows", "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]}],
    });
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn what_a_model_does_not_take_is_refused_with_the_reason() {
    let app = app();
    let rows = "/v2/models/rows/infer";
    let long = "multipart/form-data";
    for (path, kind, body, status, reason) in [
        (INFER, "text/csv", b"1,2".to_vec(), 415, "takes no CSV table; send a picture"),
        (rows, "image/png", png(TEAL), 415, "takes no picture; send a CSV table"),
        (INFER, "image/png", b"GIF89a".to_vec(), 415, "no JPEG, PNG or WebP"),
        (INFER, "image/png", png(TEAL)[..40].to_vec(), 422, "the PNG picture can't be read"),
        (rows, "text/csv", b"a,b\n1,x\n".to_vec(), 422, "the table "),
        ("/v2/models/affine/infer", "text/csv", b"1,2".to_vec(), 415, "takes tensors only"),
        (INFER, long, b"".to_vec(), 400, "no `boundary`"),
        (INFER, "multipart/form-data; boundary=b", b"--b--".to_vec(), 400, "no file"),
        ("/v2/models/none/infer", "image/png", png(TEAL), 404, "unknown model"),
    ] {
        let reply = send_as(&app, path, kind, body).await;
        assert_eq!(reply.status.as_u16(), status, "{path} {kind}: {:?}", reply.body);
        assert!(reply.error().contains(reason), "{}", reply.error());
    }
}

#[tokio::test]
async fn a_request_of_tensors_gets_a_reading_if_it_asks() {
    let app = app();
    let request = |outputs: Value, reading: bool| {
        let data = [0.0, 0.0, 0.0, 0.0, 0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4];
        let input = json!({"name": "x", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": data});
        let parameters = json!({"reading": reading});
        json!({"id": "7", "parameters": parameters, "inputs": [input], "outputs": outputs}).to_string()
    };
    let reply = post(&app, INFER, request(json!([]), true)).await.json();
    assert_eq!(
        (&reply["classes"], &reply["outputs"], &reply["id"]),
        (&teal()["classes"], &json!([]), &json!("7"))
    );
    let reply = post(&app, INFER, request(json!([{"name": "y"}]), true)).await.json();
    assert_eq!((&reply["classes"], &reply["outputs"][0]["name"]), (&teal()["classes"], &json!("y")));
    let reply = post(&app, INFER, request(json!([]), false)).await.json();
    assert_eq!((reply.get("classes"), &reply["outputs"][0]["name"]), (None, &json!("y")));
    let binary = json!([{"name": "y", "parameters": {"binary_data": true}}]);
    let reply = post(&app, INFER, request(binary, true)).await;
    let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    let json: Value = serde_json::from_slice(&reply.body[..length]).unwrap();
    assert_eq!((&json["classes"], reply.body.len() - length), (&teal()["classes"], 12));
    let body = r#"{"parameters":{"reading":true},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    let reply = post(&app, "/v2/models/rows/infer", body).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.error().contains("gives no reading"));
}

#[tokio::test]
async fn classification_uses_the_names_that_the_model_declares() {
    let body = json!({
        "inputs": [{"name": "x", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]}],
        "outputs": [{"name": "y", "parameters": {"classification": 1}}],
    });
    let reply = post(&app(), INFER, body.to_string()).await.json();
    assert_eq!(reply["outputs"][0]["data"], json!(["1.000000:1:green"]));
}

#[tokio::test]
async fn a_declaration_that_does_not_fit_is_an_error_when_the_model_is_loaded() {
    let serving = json!({"preprocessing": {"image": {}}});
    let error = load(&engines(), "m", model("affine"), &serving).unwrap_err();
    assert!(error.starts_with("`serving.preprocessing.image"), "{error}");
}

/// Set AVOCET_TEST_ASSETS to the folder of photos and the face detector.
#[tokio::test]
async fn a_photo_is_answered_by_the_faces_in_it() {
    let Some(assets) = std::env::var_os("AVOCET_TEST_ASSETS").map(PathBuf::from) else {
        println!("skipped: CenterFace; AVOCET_TEST_ASSETS is not set");
        return;
    };
    let references = include_str!("../../../inference/tests/data/vision/references.json");
    let references: Value = serde_json::from_str(references).unwrap();
    for case in references["centerface"].as_array().unwrap() {
        let photo = std::fs::read(assets.join("photos").join(case["photo"].as_str().unwrap())).unwrap();
        let image = json!({
            "width": case["width"], "height": case["height"], "scale": 1.0, "interpolation": "bilinear", "antialias": false,
        });
        let boxes =
            json!({"decoder": "centerFace", "scoreThreshold": 0.4, "iouThreshold": 0.3, "labels": ["face"]});
        let serving = json!({"preprocessing": {"image": image}, "postprocessing": {"boxes": boxes}});
        let repository = engines();
        load(&repository, "faces", assets.join("models/face-detector.onnx"), &serving).unwrap();
        let app = router(ServerState::new(repository));
        let reply = send_as(&app, "/v2/models/faces/infer", "image/jpeg", photo).await.json();
        let (found, expected) = (reply["boxes"][0].as_array().unwrap(), case["faces"].as_array().unwrap());
        assert_eq!(found.len(), expected.len(), "{}", case["photo"]);
        for (face, expected) in found.iter().zip(expected) {
            let apart = face["x"].as_f64().unwrap() - expected["box"][0].as_f64().unwrap();
            assert!(face["label"] == "face" && apart.abs() < 1.0, "{face} is not {expected}");
        }
    }
}

/// Set AVOCET_TEST_PYTHON to a Python that has `requests`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_up_with_two_lines_of_python() {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: requests; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let tasks = daemon::Tasks::default();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = http.local_addr().unwrap().to_string();
    tasks.spawn("rest", serve(http, app(), tasks.shutdown()));
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("teal.png");
    std::fs::write(&picture, png(TEAL)).unwrap();
    let script = Path::new("tests/clients/plain.py");
    let client = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).arg(address).arg(picture).output().unwrap()
    });
    let output = client.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap(),
        json!([teal()["classes"], teal()["classes"]]),
        "{err}"
    );
    assert!(tasks.end(std::time::Duration::from_secs(10)).await);
}

/// Set AVOCET_TEST_PYTHON to a Python that has `tritonclient[http,grpc]` and `numpy`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_and_readings_are_tensors_for_tritons_clients() {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: tritonclient; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let tasks = daemon::Tasks::default();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [&http, &rpc].map(|listener| listener.local_addr().unwrap().to_string());
    let repository = repository();
    // An ensemble takes and gives the same.
    let pairs = |name: &str, tensor: &str| [(name.to_owned(), tensor.to_owned())].into();
    let step = types::EnsembleStep {
        name: "colours".into(),
        model: "colours".into(),
        version: None,
        inputs: pairs("picture", "photo"),
        outputs: pairs("classes.labels", "best"),
    };
    let ensemble =
        types::Ensemble { inputs: vec!["photo".into()], steps: vec![step], outputs: vec!["best".into()] };
    let request = LoadRequest { ensemble: Some(ensemble), ..LoadRequest::new("pipe", "1", "") };
    repository.load(request).unwrap();
    let state = ServerState::new(repository);
    tasks.spawn("rest", serve(http, router(state.clone()), tasks.shutdown()));
    tasks.spawn("grpc", avocet_serving::grpc::serve(rpc, state, tasks.shutdown()));
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("teal.png");
    std::fs::write(&picture, png(TEAL)).unwrap();
    let script = Path::new("tests/clients/pictures.py");
    let client = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).args(addresses).arg(picture).output().unwrap()
    });
    let output = client.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("ok: pictures"), "{out}{err}");
}
