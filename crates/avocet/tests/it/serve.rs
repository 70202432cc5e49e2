use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::support::{ours, tree};

#[test]
fn avocet_serve_answers_for_a_folder_of_models_and_ends_on_a_signal() {
    let tree = tree();
    let affine = include_bytes!("../../../inference/tests/data/affine.onnx");
    tree.write("models/affine/1/model.onnx", affine);
    tree.write("models/broken/1/model.onnx", "no model");
    let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
    command.args(["serve", "models", "--http-port", "0", "--grpc-port", "0"]).current_dir(tree.folder());
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let address =
        first.strip_prefix("REST at http://").and_then(|rest| rest.split_once(", gRPC at ")).unwrap().0;
    assert!(lines.next().unwrap().starts_with("model affine version 1: "));
    let mut connection = TcpStream::connect(address).unwrap();
    let request = format!("GET /v2/models/affine HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""name":"affine""#), "{answer}");
    assert!(Command::new("kill").arg(server.id().to_string()).status().unwrap().success());
    let mut problems = String::new();
    server.stderr.take().unwrap().read_to_string(&mut problems).unwrap();
    assert!(server.wait().unwrap().success(), "{problems}");
    assert!(problems.contains("failed to load 'broken'"), "{problems}");
    let ran = Command::new(env!("CARGO_BIN_EXE_avocet"))
        .args(["serve", "/nowhere", "--http-port", "0", "--grpc-port", "0"])
        .output();
    assert!(!ran.unwrap().status.success());
}

/// A server with one model in a process of its own.
struct Isolated {
    server: Child,
    address: String,
    _tree: testkit::Tree,
}

impl Isolated {
    /// Files of the model's version are there.
    fn start(engine: &str, onnxruntime: &OsStr, tree: testkit::Tree) -> Isolated {
        let config = format!(
            "backend: \"{engine}\" parameters {{ key: \"isolation\" value {{ string_value: \"process\" }} }}"
        );
        tree.write("models/affine/config.pbtxt", config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
        command.args(["serve", "models", "--http-port", "0", "--grpc-port", "0"]).current_dir(tree.folder());
        command.env("AVOCET_ONNXRUNTIME", onnxruntime).env("SECRET", "in the environment");
        let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        let address =
            first.strip_prefix("REST at http://").and_then(|rest| rest.split_once(", gRPC at ")).unwrap().0;
        let address = address.to_owned();
        // Ended with this value, whatever comes.
        let served = Isolated { server, address, _tree: tree };
        assert_eq!(
            lines.next().unwrap(),
            format!("model affine version 1: {engine}, answers where no version is named")
        );
        served
    }

    fn ask(&self) -> String {
        let body = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
        let mut connection = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head =
            format!("POST /v2/models/affine/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n");
        connection.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The process that holds the model: the server's only child.
    fn worker(&self) -> String {
        let server = self.server.id();
        let threads = std::fs::read_dir(format!("/proc/{server}/task")).unwrap();
        let children = threads.map(|thread| {
            std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default()
        });
        let children: Vec<String> =
            children.flat_map(|ids| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
        let [worker] = children.as_slice() else { panic!("{children:?}") };
        worker.clone()
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A model whose weights are in a file beside it.
fn with_external_data(model: &str) -> testkit::Tree {
    let folder = ours("../inference/tests/data/external").join(model);
    let tree = tree();
    for file in ["model.onnx", "model.onnx.data"] {
        tree.write(&format!("models/affine/1/{file}"), std::fs::read(folder.join(file)).unwrap());
    }
    tree
}

fn a_confined_process_answers_and_is_replaced(engine: &str, onnxruntime: &OsStr) {
    // The second has an operator that the built-in engine lacks.
    let model = if engine == "rten" { "affine" } else { "celu" };
    let served = Isolated::start(engine, onnxruntime, with_external_data(model));
    let right = served.ask();
    assert!(right.starts_with("HTTP/1.1 200"), "{right}");
    assert!(right.contains(r#""data":[7.0,9.0,11.0]"#), "{right}");
    let worker = served.worker();
    let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let score = std::fs::read_to_string(format!("/proc/{worker}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "1000", "it goes first where memory runs out");
    let limits = std::fs::read_to_string(format!("/proc/{worker}/limits")).unwrap();
    let data = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
    let limit: u64 = data.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(limit, daemon::usable_memory().unwrap() / 4 * 3);
    let environment = std::fs::read(format!("/proc/{worker}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("SECRET"));
    assert!(Command::new("kill").args(["-9", &worker]).status().unwrap().success());
    let fates = [served.ask(), served.ask()];
    let body = |answer: &str| answer.rsplit("\r\n\r\n").next().unwrap().to_owned();
    assert_eq!(body(&fates[1]), body(&right), "{fates:?}");
    assert_ne!(served.worker(), worker);
}

#[test]
fn promise_8_a_model_in_a_confined_process_answers_and_outlives_the_process() {
    a_confined_process_answers_and_is_replaced("rten", OsStr::new("off"));
}

/// Set AVOCET_ONNXRUNTIME to its shared library.
#[test]
fn promise_8_onnx_runtime_works_in_a_confined_process() {
    let Some(library) = std::env::var_os("AVOCET_ONNXRUNTIME") else {
        println!("skipped: ONNX Runtime; AVOCET_ONNXRUNTIME is not set");
        return;
    };
    a_confined_process_answers_and_is_replaced("onnxruntime", &library);
}

/// `avocet serve` with a folder of its own, as often as it is started.
pub struct Kept {
    server: Child,
    address: String,
    /// Open, so that the server can go on printing.
    _said: BufReader<ChildStdout>,
}

impl Kept {
    pub fn start(tree: &testkit::Tree, options: &[&str]) -> Kept {
        let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
        command.args(["serve", "--data", "kept", "--http-port", "0", "--grpc-port", "0"]).args(options);
        let mut server = command.current_dir(tree.folder()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let address = first
            .strip_prefix("REST at ")
            .and_then(|rest| rest.split_once(", gRPC at "))
            .unwrap()
            .0
            .to_owned();
        Kept { server, address, _said: said }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_data_folder_uploads_and_jobs_survive_the_server() {
    let (tree, client) = (tree(), api::client::http(None).unwrap());
    let affine = include_bytes!("../../../inference/tests/data/affine.onnx").to_vec();
    tree.write("fixed.onnx", &affine);
    let boundary = "b";
    let part = |name: &str, file: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n")
    };
    let mut form = part("path", "; filename=\"m.onnx\"").into_bytes();
    form.extend(&affine);
    form.extend(format!("\r\n{}1\r\n--b--\r\n", part("library_version", "")).bytes());
    let upload = |server: &Kept, tag: &str| {
        let request = client.post(server.url(&format!("/api/v1/models/{tag}")));
        request.header("content-type", format!("multipart/form-data; boundary={boundary}")).body(form.clone())
    };
    let ask = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;

    let server = Kept::start(&tree, &["fixed.onnx"]);
    assert_eq!(upload(&server, "mine").send().await.unwrap().status(), 201);
    assert_eq!(upload(&server, "fixed").send().await.unwrap().status(), 409, "the name is a file's");
    let infer = server.url("/v2/models/mine/infer");
    let right = client.post(&infer).body(ask).send().await.unwrap();
    assert_eq!(right.status(), 200);
    let right: serde_json::Value = serde_json::from_slice(&right.bytes().await.unwrap()).unwrap();
    let accepted = client.post(&infer).header("prefer", "respond-async").body(ask).send().await.unwrap();
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().unwrap().to_owned();
    drop(server);

    let server = Kept::start(&tree, &["--uploads-gib", "0"]);
    assert_eq!(upload(&server, "other").send().await.unwrap().status(), 507);
    drop(server);

    let server = Kept::start(&tree, &[]);
    let job = loop {
        let answer = client.get(server.url(&location)).send().await.unwrap().bytes().await.unwrap();
        let job: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        if job["status"] == "succeeded" || job["status"] == "failed" {
            break job;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(job["response"]["outputs"], right["outputs"], "{job}");
    let second = Command::new(env!("CARGO_BIN_EXE_avocet"))
        .args(["serve", "--data", "kept", "--http-port", "0", "--grpc-port", "0"])
        .current_dir(tree.folder())
        .output();
    let second = second.unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server uses kept"), "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_say_of_logs_holds_at_once() {
    let (tree, client) = (tree(), api::client::http(None).unwrap());
    tree.write("models/m/1/model.onnx", include_bytes!("../../../inference/tests/data/affine.onnx"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
    command.args(["serve", "models", "--model-control", "explicit", "--http-port", "0", "--grpc-port", "0"]);
    command.env_remove("RUST_LOG").current_dir(tree.folder()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap());
    let mut first = String::new();
    said.read_line(&mut first).unwrap();
    let address = first.strip_prefix("REST at ").unwrap().split(',').next().unwrap().to_owned();
    for (path, body) in [
        ("/v2/repository/models/m/load", "{}"),
        ("/v2/logging", r#"{"log_info": true}"#),
        ("/v2/repository/models/m/load", "{}"),
    ] {
        let answer = client.post(format!("{address}{path}")).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    server.kill().unwrap();
    let written = server.wait_with_output().unwrap().stderr;
    let written = String::from_utf8_lossy(&written);
    assert_eq!(written.matches("model loaded").count(), 1, "{written}");
}

#[test]
fn settings_of_traces_that_can_not_be_followed_end_the_server_at_its_start() {
    let tree = tree();
    tree.write("m.onnx", include_bytes!("../../../inference/tests/data/affine.onnx"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
    command.args([
        "serve",
        "m.onnx",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        "--otlp-endpoint",
        "collector:4318",
    ]);
    let ran = command.current_dir(tree.folder()).output().unwrap();
    assert!(!ran.status.success());
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("--otlp-endpoint can't be `collector:4318`: write http://HOST:4318"), "{said}");
}
