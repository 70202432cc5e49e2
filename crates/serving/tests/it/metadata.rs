use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inference::{EngineOptions, Engines, LoadRequest, Options, Repository, Routing};
use serde_json::json;

use avocet_serving::{ControlMode, Folder, ServerState, router};

use crate::support::{app, get, model, post, repository, x};

#[tokio::test]
async fn the_server_says_what_it_is_and_only_the_extensions_it_has() {
    let json = get(&app(), "/v2").await.json();
    assert_eq!(json["name"], "avocet");
    let expected = json!([
        "binary_tensor_data",
        "classification",
        "logging",
        "model_configuration",
        "model_repository",
        "parameters",
        "schedule_policy",
        "statistics",
    ]);
    assert_eq!(json["extensions"], expected);
}

#[tokio::test]
async fn liveness_and_readiness_are_told_apart() {
    let ready = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ready);
    let app = router(ServerState::new(repository()).ready_when(move || flag.load(Ordering::Relaxed)));
    assert_eq!(get(&app, "/v2/health/live").await.status, 200);
    let reply = get(&app, "/v2/health/ready").await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, Some("1")));
    assert_eq!(reply.error(), "the server is not ready; try again in a moment");
    ready.store(true, Ordering::Relaxed);
    let reply = get(&app, "/v2/health/ready").await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
}

#[tokio::test]
async fn a_models_metadata_has_its_declared_types_and_all_versions() {
    let app = app();
    let json = get(&app, "/v2/models/affine").await.json();
    assert_eq!(
        json,
        json!({
            "name": "affine",
            "versions": ["1", "2"],
            "platform": "rten_onnx",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
        })
    );
    let json = get(&app, "/v2/models/int64/versions/1").await.json();
    assert_eq!(json["inputs"][0]["datatype"], "INT64");
}

#[tokio::test]
async fn a_model_is_ready_once_it_is_loaded() {
    let app = app();
    assert_eq!(get(&app, "/v2/models/affine/ready").await.status, 200);
    assert_eq!(get(&app, "/v2/models/affine/versions/1/ready").await.status, 200);
    assert_eq!(get(&app, "/v2/models/affine/versions/7/ready").await.status, 404);
    assert_eq!(get(&app, "/v2/models/nope/ready").await.status, 404);
}

#[tokio::test]
async fn statistics_count_what_was_answered() {
    let app = app();
    post(&app, "/v2/models/affine/infer", x("[3,4]", "[1,2,3,4,1,2,3,4,1,2,3,4]")).await;
    post(&app, "/v2/models/affine/infer", x("[1,3]", "[1,2,3]")).await;
    let json = get(&app, "/v2/models/affine/versions/2/stats").await.json();
    let stats = &json["model_stats"][0];
    assert_eq!((&stats["name"], &stats["version"]), (&json!("affine"), &json!("2")));
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(3), &json!(1)));
    assert_eq!(stats["inference_stats"]["success"]["count"], 1);
    assert_eq!(stats["inference_stats"]["fail"]["count"], 1);
    assert!(stats["inference_stats"]["compute_infer"]["ns"].as_u64().unwrap() > 0);
    let count = |json: serde_json::Value| json["model_stats"].as_array().unwrap().len();
    assert_eq!(count(get(&app, "/v2/models/affine/stats").await.json()), 2);
    assert_eq!(count(get(&app, "/v2/models/stats").await.json()), 6);
    assert_eq!(get(&app, "/v2/models/nope/stats").await.status, 404);
}

#[tokio::test]
async fn the_index_lists_failed_models_with_their_reason_unless_only_ready_ones_are_wanted() {
    let repository = repository();
    repository.load(LoadRequest::new("broken", "1", model("missing"))).unwrap_err();
    let app = router(ServerState::new(repository));
    let all = post(&app, "/v2/repository/index", "").await.json();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 7);
    let broken = all.iter().find(|line| line["name"] == "broken").unwrap();
    assert_eq!(broken["state"], "UNAVAILABLE");
    assert!(broken["reason"].as_str().unwrap().contains("missing.onnx"));
    let ready = post(&app, "/v2/repository/index", r#"{"ready":true}"#).await.json();
    assert_eq!(ready[1], json!({"name": "affine", "version": "1", "state": "READY"}));
    assert_eq!(ready.as_array().unwrap().len(), 6);
    assert_eq!(post(&app, "/v2/repository/index", "{oops").await.status, 400);
    let infer = post(&app, "/v2/models/broken/infer", x("[1]", "[1]")).await;
    assert_eq!(infer.status, 503);
    assert!(infer.error().contains("loading failed"));
}

#[tokio::test]
async fn what_is_loaded_by_its_first_request_is_ready_under_all_its_names() {
    let repository = repository();
    let (idle, share) = (LoadRequest::new("affine", "3", model("affine")), |version: &str, weight| {
        types::Share { version: version.into(), weight }
    });
    repository.register(LoadRequest { default: false, ..idle }).unwrap();
    let aliases = [("next".to_owned(), "3".to_owned())].into();
    let traffic = types::Traffic { split: vec![share("2", 1), share("3", 1)], ..types::Traffic::default() };
    repository.set_routing("affine", Routing { aliases, traffic: Some(traffic) }).unwrap();
    let app = router(ServerState::new(repository));
    for path in ["/ready", "/stats", "/versions/3/ready", "/versions/next/ready", "/versions/next/stats"] {
        // Whichever version the split picks.
        for _ in 0..4 {
            assert_eq!(get(&app, &format!("/v2/models/affine{path}")).await.status, 200, "{path}");
        }
    }
    assert_eq!(get(&app, "/v2/models/affine/versions/4/ready").await.status, 404);
}

#[tokio::test]
async fn statistics_and_metadata_by_an_alias_are_those_of_its_version() {
    let repository = repository();
    let idle = LoadRequest { default: false, ..LoadRequest::new("affine", "3", model("affine")) };
    repository.register(idle).unwrap();
    let aliases = [("old".to_owned(), "1".to_owned()), ("next".to_owned(), "3".to_owned())].into();
    repository.set_routing("affine", Routing { aliases, traffic: None }).unwrap();
    let app = router(ServerState::new(repository));
    let asked = post(&app, "/v2/models/affine/versions/old/infer", x("[1,4]", "[1,2,3,4]")).await;
    assert_eq!(asked.status, 200);
    let stats = get(&app, "/v2/models/affine/versions/old/stats").await.json();
    assert_eq!(stats["model_stats"].as_array().unwrap().len(), 1, "{stats}");
    assert_eq!(stats["model_stats"][0]["version"], "1");
    assert_eq!(stats["model_stats"][0]["inference_stats"]["success"]["count"], 1);
    assert_eq!(get(&app, "/v2/models/affine/versions/old").await.json()["versions"], json!(["1"]));
    let stats = get(&app, "/v2/models/affine/versions/next/stats").await.json();
    assert_eq!(stats, json!({"model_stats": []}), "what no request has loaded has counted nothing");
    assert_eq!(get(&app, "/v2/models/affine/versions/next").await.json()["versions"], json!(["3"]));
}

#[tokio::test]
async fn a_configuration_is_shown_as_it_was_given_with_what_holds() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["1", "2"] {
        std::fs::create_dir_all(folder.path().join("m").join(version)).unwrap();
        std::fs::copy(model("affine"), folder.path().join("m").join(version).join("model.onnx")).unwrap();
    }
    std::fs::write(folder.path().join("m/labels.txt"), "ant\nbee\ncat\n").unwrap();
    let config = r#"
        backend: "rten" max_batch_size: 8
        output { name: "y" dims: 3 label_filename: "labels.txt" }
        version_policy { all {} }
        dynamic_batching { preferred_batch_size: [ 2, 4 ] priority_levels: 3 default_priority_level: 2 preserve_ordering: true }
        parameters { key: "mine" value { string_value: "kept" } }
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }
    "#;
    std::fs::write(folder.path().join("m/config.pbtxt"), config).unwrap();
    let repository = repository();
    let control =
        Folder::open(vec![folder.path().into()], repository.clone(), ControlMode::Explicit).unwrap();
    let app = router(ServerState::new(repository).control(Arc::new(control)));
    assert_eq!(post(&app, "/v2/repository/models/m/load", "{}").await.status, 200);
    let shown = get(&app, "/v2/models/m/config").await.json();
    assert_eq!(shown["version_policy"], json!({"all": {}}));
    assert_eq!(shown["output"][0]["label_filename"], "labels.txt");
    let batching = &shown["dynamic_batching"];
    assert_eq!(batching["preferred_batch_size"], json!([2, 4]));
    assert_eq!((&batching["priority_levels"], &batching["preserve_ordering"]), (&json!(3), &json!(true)));
    assert_eq!(batching["default_priority_level"], 2);
    assert_eq!(shown["parameters"]["mine"]["string_value"], "kept");
    assert_eq!(shown["parameters"]["intra_op_thread_count"]["string_value"], "2");
    assert_eq!(shown["instance_group"][0]["count"], 2, "no more than there are threads");
    let shown = get(&app, "/v2/models/affine/config").await.json();
    assert_eq!(shown["instance_group"][0]["count"], 2, "no more than there are threads");
    assert_eq!(shown["version_policy"], json!({"latest": {"num_versions": 1}}));
    let other = json!({"parameters": {"config": r#"{"backend": "rten", "version_policy": {"specific": {"versions": [2]}}}"#}});
    assert_eq!(post(&app, "/v2/repository/models/m/load", other.to_string()).await.status, 200);
    let shown = get(&app, "/v2/models/m/config").await.json();
    assert_eq!(shown["version_policy"], json!({"specific": {"versions": [2]}}));
    assert_eq!(shown["output"][0]["label_filename"], "");
}

/// Set AVOCET_TENSORFLOW to its shared library for the models that only TensorFlow runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_is_what_a_model_is_and_what_runs_it() {
    let tensorflow = std::env::var_os("AVOCET_TENSORFLOW").map(PathBuf::from);
    let with_tensorflow = tensorflow.is_some();
    let options = EngineOptions { tensorflow, onnxruntime: Some("off".into()), ..EngineOptions::default() };
    let repository =
        Repository::new(Engines::discover(&options), Options { workers: 1, ..Options::default() }).unwrap();
    let data = Path::new("../inference/tests/data");
    let mut models = vec![
        ("classical/xgb_binary.json", "native_xgboost"),
        ("classical/xgb_binary_ubj.ubj", "native_xgboost"),
        ("classical/lgb_binary.txt", "native_lightgbm"),
        ("classical/tree.onnx", "native_onnx"),
        ("affine.onnx", "rten_onnx"),
        ("tensorflow/float.tflite", "rten_tflite"),
    ];
    if with_tensorflow {
        models.extend([
            ("tensorflow/keras3", "tensorflow_savedmodel"),
            ("tensorflow/frozen.pb", "tensorflow_graphdef"),
        ]);
    }
    let app = router(ServerState::new(repository.clone()));
    for (file, platform) in models {
        repository.load(LoadRequest::new("m", "1", data.join(file))).unwrap();
        let metadata = get(&app, "/v2/models/m").await.json();
        assert_eq!(metadata["platform"], platform, "{file}");
        let config = get(&app, "/v2/models/m/config").await.json();
        assert_eq!(config["platform"], platform, "{file}");
        assert_eq!(config["backend"], platform.split('_').next().unwrap(), "{file}");
    }
}
