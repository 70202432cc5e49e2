//! `avocet serve` with tokens, TLS, limits, and models of other formats.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::support::{ours, tree};

const AFFINE: &[u8] = include_bytes!("../../../inference/tests/data/affine.onnx");
const ASK: &str = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
const TOKEN: &str = "a-token-of-some-length";

struct Server {
    process: Child,
    rest: String,
    grpc: String,
    said: BufReader<ChildStdout>,
}

impl Server {
    fn start(tree: &testkit::Tree, arguments: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
        command.args(["serve", "--http-port", "0", "--grpc-port", "0"]).args(arguments);
        let mut process =
            command.current_dir(tree.folder()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let addresses = first.trim().strip_prefix("REST at ").and_then(|rest| rest.split_once(", gRPC at "));
        let (rest, grpc) = addresses.unwrap_or_else(|| {
            let mut problem = String::new();
            process.stderr.take().unwrap().read_to_string(&mut problem).unwrap();
            panic!("{first}{problem}")
        });
        Server { rest: rest.to_owned(), grpc: grpc.to_owned(), process, said }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Ends it, and gives what it said of problems.
    fn end(mut self) -> String {
        assert!(Command::new("kill").arg(self.process.id().to_string()).status().unwrap().success());
        let mut problems = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut problems).unwrap();
        assert!(self.process.wait().unwrap().success(), "{problems}");
        problems
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A certificate for this machine, which is its own authority, and its key.
fn certificate(tree: &testkit::Tree) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    tree.write("cert.pem", certificate.pem());
    tree.write("key.pem", key.serialize_pem());
    certificate.pem()
}

/// A call of gRPC without a message: its status and the bytes of the answer.
async fn call(client: &reqwest::Client, url: &str, method: &str, token: &str) -> (String, Vec<u8>) {
    let request = client
        .post(format!("{url}/inference.GRPCInferenceService/{method}"))
        .version(reqwest::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(vec![0_u8; 5]);
    let answer = request.send().await.unwrap();
    let status = answer.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
    (status.unwrap_or_default(), answer.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tokens_and_tls_only_who_shows_a_token_is_answered_encrypted() {
    let tree = tree();
    let authority = certificate(&tree);
    tree.write("m.onnx", AFFINE);
    tree.write("tokens", format!("# of the tests\n{TOKEN}\n"));
    let guarded = ["m.onnx", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--token-file", "tokens"];
    // Beyond loopback it needs no further word.
    let server = Server::start(&tree, &[&guarded[..], &["--host", "0.0.0.0"]].concat());
    let on_loopback = |address: &str| address.replace("0.0.0.0", "127.0.0.1");
    let rest = on_loopback(&server.rest);
    assert!(rest.starts_with("https://"), "{rest}");
    let client = api::client::http(Some(&authority)).unwrap();
    let infer = format!("{rest}/v2/models/m/infer");
    let ask = |token: &str| client.post(&infer).header("authorization", format!("Bearer {token}")).body(ASK);
    let refused = ask("another-token-of-that-length").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    assert_eq!(client.get(format!("{rest}/metrics")).send().await.unwrap().status(), 401);
    assert_eq!(client.get(format!("{rest}/v2/health/ready")).send().await.unwrap().status(), 200);
    let answered = ask(TOKEN).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    assert!(answered.text().await.unwrap().contains("7.0"));
    let plain = rest.replace("https://", "http://");
    assert!(
        client.get(format!("{plain}/v2/health/ready")).send().await.is_err(),
        "nothing is said in the open"
    );

    let grpc = format!("https://{}", on_loopback(&server.grpc));
    assert_eq!(call(&client, &grpc, "ServerLive", "").await.1, [0, 0, 0, 0, 2, 8, 1]);
    assert_eq!(call(&client, &grpc, "ServerMetadata", "").await, ("16".into(), vec![]));
    let (status, answer) = call(&client, &grpc, "ServerMetadata", TOKEN).await;
    assert!(status.is_empty() && answer.len() > 5, "{status} {answer:?}");
    server.end();
}

#[test]
fn beyond_loopback_half_a_guard_is_none() {
    let tree = tree();
    certificate(&tree);
    tree.write("m.onnx", AFFINE);
    tree.write("tokens", TOKEN);
    tree.write("short", "short");
    let ends = |arguments: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_avocet"))
            .args(["serve", "m.onnx", "--http-port", "0", "--grpc-port", "0"])
            .args(arguments)
            .current_dir(tree.folder())
            .output()
            .unwrap();
        assert!(!ran.status.success());
        String::from_utf8_lossy(&ran.stderr).into_owned()
    };
    let host = ["--host", "0.0.0.0"];
    for half in [&["--token-file", "tokens"][..], &["--tls-cert", "cert.pem", "--tls-key", "key.pem"], &[]] {
        assert!(ends(&[&host, half].concat()).contains("can be reached from other machines"), "{half:?}");
    }
    assert!(ends(&["--token-file", "short"]).contains("shorter than 16 characters"));
    assert!(ends(&["--token-file", "gone"]).contains("--token-file can't be used"));
    assert!(ends(&["--tls-cert", "tokens", "--tls-key", "key.pem"]).contains("certificate can't be used"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_from_elsewhere_changes_nothing() {
    let tree = tree();
    tree.write("models/m.onnx", AFFINE);
    let server = Server::start(&tree, &["models", "--model-control", "explicit", "--load-model", "m"]);
    let client = api::client::http(None).unwrap();
    let unload = |origin: &str| {
        let request = client.post(format!("{}/v2/repository/models/m/unload", server.rest));
        request.header("origin", origin.to_owned()).send()
    };
    assert_eq!(unload("https://evil.example").await.unwrap().status(), 403);
    let infer = client.post(format!("{}/v2/models/m/infer", server.rest)).body(ASK);
    assert_eq!(infer.send().await.unwrap().status(), 200);
    assert_eq!(unload(&server.rest).await.unwrap().status(), 200, "its own page may");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_formats_settings_and_limits_are_taken_from_folder_and_flags() {
    let tree = tree();
    let lightgbm = ours("../inference/tests/data/classical/lgb_binary.txt");
    tree.write("models/lgb/1/model.txt", std::fs::read(lightgbm).unwrap());
    tree.write("models/m/1/model.onnx", AFFINE);
    tree.write("models/m/avocet.yaml", "aliases: {champion: '1'}\nserving: {payloads: {redact: []}}\n");
    tree.write("models/notes.md", "# Notes");
    let flags = [
        "models",
        "--lazy",
        "--model-memory",
        "1Gi",
        "--cache-mib",
        "8",
        "--queue",
        "16",
        "--max-message-mib",
        "1",
        "--payload-log",
        "log.jsonl",
        "--payload-redact",
        "x",
    ];
    let mut server = Server::start(&tree, &flags);
    let lazy = "loaded when it is asked for, answers where no version is named";
    assert_eq!(server.line(), format!("model lgb version 1: {lazy}"));
    assert_eq!(server.line(), format!("model m version 1: {lazy}"));
    let client = api::client::http(None).unwrap();
    let infer = format!("{}/v2/models/m/versions/champion/infer", server.rest);
    let answered = client.post(&infer).body(ASK).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    let large = client.post(&infer).body(vec![b' '; 2 << 20]).send().await.unwrap();
    assert_eq!(large.status(), 413);
    let loaded = client.post(format!("{}/v2/models/lgb/infer", server.rest)).body(ASK).send().await.unwrap();
    assert_eq!(loaded.status(), 400, "it is loaded, and has another input");
    let log = tree.folder().join("log.jsonl");
    let problems = server.end();
    assert!(problems.contains("skipped ") && problems.contains("notes.md: neither its name"), "{problems}");
    let logged = std::fs::read_to_string(log).unwrap();
    let line: serde_json::Value = serde_json::from_str(logged.lines().next().unwrap()).unwrap();
    assert_eq!(line["model"], "m");
    assert!(!line["inputs"].to_string().contains("[1.0,2.0,3.0,4.0]"), "{line}");
    assert!(line["outputs"].to_string().contains("7.0"), "{line}");
}

#[test]
fn top_fails_where_nobody_answers() {
    let run = |url: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_avocet"))
            .args(["models", "top", "--once", "--every", "1", "--server", url])
            .output()
            .unwrap();
        (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    // A port that was free a moment ago, and that nobody listens at.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (succeeded, said) = run(&format!("http://{address}"));
    assert!(!succeeded && said.contains("error: none of 1 servers told"), "{said}");
    let tree = tree();
    tree.write("m.onnx", AFFINE);
    let server = Server::start(&tree, &["m.onnx"]);
    let (succeeded, said) = run(&server.rest);
    assert!(succeeded, "{said}");
}
