//! Whoever may load models can't take the server down with a file: what is broken or malicious is refused, and other
//! models answer meanwhile.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::tree;

const DATA: &str = "../inference/tests/data";
/// Bytes that the server may hold at its peak, whatever comes.
const MEMORY: u64 = 4 << 30;

/// A server that takes models from clients.
struct Server {
    process: Child,
    address: String,
    client: reqwest::Client,
    tree: testkit::Tree,
    /// Open, so that the server can go on printing.
    _said: BufReader<ChildStdout>,
}

impl Server {
    fn start() -> Server {
        let tree = tree();
        tree.write("models/good/1/model.onnx", read("log.onnx"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_avocet"));
        command.args(["serve", "models", "--model-control", "explicit", "--load-model", "good"]);
        command.args(["--http-port", "0", "--grpc-port", "0", "--log", "error"]).current_dir(tree.folder());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut said, mut first) = (BufReader::new(process.stdout.take().unwrap()), String::new());
        said.read_line(&mut first).unwrap();
        let address = first.strip_prefix("REST at ").unwrap().split(',').next().unwrap().to_owned();
        Server { process, address, client: api::client::http(None).unwrap(), tree, _said: said }
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> (u16, String) {
        let request = self.client.post(format!("{}{path}", self.address)).body(body.to_string());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Loads a file that comes with the request.
    async fn load(&self, file: &str, content: &[u8]) -> (u16, String) {
        let parameters = json!({"config": "{}", format!("file:1/{file}"): STANDARD.encode(content)});
        self.post("/v2/repository/models/bad/load", json!({"parameters": parameters})).await
    }

    async fn ask(&self) -> u16 {
        let input = json!({"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]});
        self.post("/v2/models/good/infer", json!({"inputs": [input]})).await.0
    }

    /// Most bytes that it held so far.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(DATA).join(file)).unwrap()
}

/// A field of protobuf with bytes in it.
pub fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [varint(u64::from(number) << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

pub fn number(field: u8, value: i64) -> Vec<u8> {
    [varint(u64::from(field) << 3), varint(value.cast_unsigned())].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

pub fn node(operator: &str, domain: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| field(1, name)).collect();
    [inputs, field(2, output), field(4, operator), field(7, domain)].concat()
}

/// INT64 values.
pub fn integers(name: &str, values: &[i64]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [number(1, values.len() as i64), number(2, 7), field(8, name), field(9, data)].concat()
}

/// FP32 values that claim this shape.
fn claim(shape: &[i64], data: &[u8]) -> Vec<u8> {
    let shape = shape.iter().flat_map(|&size| number(1, size)).collect();
    [shape, number(2, 1), field(8, "w"), field(9, data)].concat()
}

fn external(path: &str, length: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| field(13, [field(1, key), field(2, value)].concat());
    let place = [entry("location", path), entry("length", length)].concat();
    [number(1, 1), number(1, 4), number(2, 1), field(8, "w"), place, number(14, 1)].concat()
}

/// A model of FP32 `x` `[1, 4]` in and `y` out.
pub fn onnx(nodes: &[Vec<u8>], initializers: &[Vec<u8>], rest: &[u8]) -> Vec<u8> {
    let sizes = [1, 4].map(|size| field(1, number(1, size))).concat();
    let tensor = |name: &str, shape: Vec<u8>| {
        [field(1, name), field(2, field(1, [number(1, 1), shape].concat()))].concat()
    };
    let all =
        |number, parts: &[Vec<u8>]| parts.iter().flat_map(|part| field(number, part)).collect::<Vec<u8>>();
    let ends = [field(11, tensor("x", field(2, sizes))), field(12, tensor("y", Vec::new()))].concat();
    let graph = [all(1, nodes), field(2, "g"), all(5, initializers), ends].concat();
    let opset = |domain: &str, version| field(8, [field(1, domain), number(2, version)].concat());
    [number(1, 8), field(7, graph), opset("", 17), opset("d", 1), rest.to_vec()].concat()
}

fn hostile_onnx() -> Vec<(&'static str, Vec<u8>)> {
    let sum = [node("ReduceSum", "", &["z"], "s"), node("Add", "", &["x", "s"], "y")];
    let fill = |size| {
        let nodes = [vec![node("ConstantOfShape", "", &["n"], "z")], sum.to_vec()].concat();
        onnx(&nodes, &[integers("n", &[size])], &[])
    };
    let product = |side| {
        let fill = [node("ConstantOfShape", "", &["n"], "q"), node("MatMul", "", &["q", "q"], "z")];
        onnx(&[fill.to_vec(), sum.to_vec()].concat(), &[integers("n", &[side, side])], &[])
    };
    let grown =
        |operator, sizes: &[i64]| onnx(&[node(operator, "", &["x", "n"], "y")], &[integers("n", sizes)], &[]);
    let added = |tensor: Vec<u8>| onnx(&[node("Add", "", &["x", "w"], "y")], &[tensor], &[]);
    let function = |name: &str, nodes: &[Vec<u8>]| {
        let nodes = nodes.iter().flat_map(|node| field(7, node)).collect();
        let opsets = [field(9, number(2, 17)), field(9, [field(1, "d"), number(2, 1)].concat())].concat();
        field(25, [field(1, name), field(4, "a"), field(5, "b"), nodes, opsets, field(10, "d")].concat())
    };
    let nested = (0..20_000).fold(Vec::new(), |inner, _| {
        field(1, [field(4, "If"), field(5, [field(1, "then_branch"), field(6, inner)].concat())].concat())
    });
    let passwd = "../../../../../../../../etc/passwd";
    vec![
        ("fills terabytes", fill(1 << 40)),
        ("fills a negative number", fill(-1)),
        ("multiplies until nothing is left", product(30_000)),
        ("expands", grown("Expand", &[1 << 30, 4])),
        ("repeats beyond counting", grown("Tile", &[1 << 40, 1 << 40])),
        ("claims more than there is", added(claim(&[1 << 40, 1 << 30], &[0; 16]))),
        ("has negative dimensions", added(claim(&[-5, 4], &[0; 16]))),
        ("reads the machine's files", added(external(passwd, "16"))),
        ("reads memory", added(external("/proc/self/mem", "1099511627776"))),
        ("reads without end", added(external("/dev/zero", "1099511627776"))),
        ("goes round", onnx(&[node("Add", "", &["x", "b"], "a"), node("Abs", "", &["a"], "b")], &[], &[])),
        (
            "calls itself",
            onnx(&[node("F", "d", &["x"], "y")], &[], &function("F", &[node("F", "d", &["a"], "b")])),
        ),
        ("is nested", [number(1, 8), field(7, nested), field(8, number(2, 17))].concat()),
        ("is no model", b"no model".to_vec()),
        ("is empty", Vec::new()),
    ]
}

/// Other formats, by the name of the file.
fn hostile_others() -> Vec<(&'static str, Vec<u8>)> {
    let replaced = |file: &str, from: &str, to: &str| {
        let text = String::from_utf8(read(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        text.replace(from, to).into_bytes()
    };
    let lgb = "classical/lgb_binary.txt";
    vec![
        ("model.txt", replaced(lgb, "num_tree_per_iteration=1", "num_tree_per_iteration=99999999999")),
        ("model.txt", replaced(lgb, "max_feature_idx=", "max_feature_idx=9999999999999")),
        ("model.txt", replaced(lgb, "left_child=", "left_child=0 0 0 -9223372036854775808 ")),
        ("model.json", [&b"{\"learner\":"[..], &b"[".repeat(1 << 20)].concat()),
        ("model.json", [&b"{\"learner\":"[..], &b"{\"a\":".repeat(1 << 18)].concat()),
        ("model.ubj", [&b"{L\0\0\0\0\0\0\0\x07learner"[..], &b"[".repeat(1 << 20)].concat()),
        ("model.ubj", b"{L\0\0\0\0\0\0\0\x07learner[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec()),
    ]
}

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) as u32).unwrap() % limit.max(1)
    }

    /// A few bytes are others, or the end is missing.
    fn damaged(&mut self, file: &[u8]) -> Vec<u8> {
        let mut file = file.to_vec();
        match self.below(4) {
            0 => file.truncate(self.below(file.len())),
            _ => {
                for _ in 0..=self.below(5) {
                    let (at, byte) = (self.below(file.len()), self.below(256) as u8);
                    file[at] = [0, 0xff, 0x7f, 0x80, byte][self.below(5)];
                }
            }
        }
        file
    }
}

/// Does something to the server while another of its models is asked all the time.
async fn besieged(siege: impl AsyncFnOnce(&Server)) {
    let (server, ended, answers) = (Server::start(), Cell::new(false), Cell::new(0));
    let asking = async {
        while !ended.get() {
            assert_eq!(server.ask().await, 200);
            answers.set(answers.get() + 1);
        }
    };
    let besieging = async {
        siege(&server).await;
        ended.set(true);
    };
    tokio::join!(asking, besieging);
    assert!(answers.get() > 10, "another model answered meanwhile");
    assert_eq!(server.ask().await, 200);
    assert!(server.peak() < MEMORY, "it held {} bytes", server.peak());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malicious_onnx_files_are_refused_and_the_server_goes_on() {
    besieged(async |server| {
        for (what, file) in hostile_onnx() {
            let (status, told) = server.load("model.onnx", &file).await;
            // What overflows counts as empty for some engine, and may be served.
            assert!(
                status == 400 || (status == 200 && what.starts_with("repeats")),
                "{what}: {status} {told}"
            );
            assert!(status == 200 || told.contains("failed to load 'bad'"), "{what}: {told}");
        }
        let (status, told) = server.load("model.onnx", &read("affine.onnx")).await;
        assert_eq!(status, 200, "a good one is loaded under that name: {told}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malicious_trees_are_refused_and_the_server_goes_on() {
    besieged(async |server| {
        for (file, content) in hostile_others() {
            let (status, told) = server.load(file, &content).await;
            let head = String::from_utf8_lossy(&content[..content.len().min(60)]).into_owned();
            assert_eq!(status, 400, "{file} {head}: {told}");
        }
        let mut random = Random(11);
        let seeds = [
            ("model.txt", read("classical/lgb_binary.txt")),
            ("model.txt", read("classical/lgb_categories.txt")),
            ("model.json", read("classical/xgb_binary.json")),
            ("model.ubj", read("classical/xgb_binary_ubj.ubj")),
        ];
        for _ in 0..600 {
            let (file, seed) = &seeds[random.below(seeds.len())];
            server.load(file, &random.damaged(seed)).await;
        }
    })
    .await;
}

/// Those that are ONNX for the engines. Set AVOCET_ONNXRUNTIME to its shared library, to have it tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_graphs_do_no_harm() {
    besieged(async |server| {
        let mut random = Random(23);
        let seeds = [
            ("model.onnx", read("convolution.onnx")),
            ("model.onnx", read("affine.onnx")),
            ("model.onnx", read("small_types.onnx")),
            ("model.onnx", read("classical/iris_forest.onnx")),
            ("model.tflite", read("tensorflow/float.tflite")),
            ("model.tflite", read("tensorflow/int8.tflite")),
        ];
        for _ in 0..60 {
            let (file, seed) = &seeds[random.below(seeds.len())];
            server.load(file, &random.damaged(seed)).await;
        }
    })
    .await;
}

/// Set AVOCET_TENSORFLOW to its shared library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_models_of_tensorflow_do_no_harm() {
    if std::env::var_os("AVOCET_TENSORFLOW").is_none() {
        println!("skipped: TensorFlow; AVOCET_TENSORFLOW is not set");
        return;
    }
    besieged(async |server| {
        let mut random = Random(5);
        let (frozen, saved) = (read("tensorflow/frozen.pb"), read("tensorflow/tf1/saved_model.pb"));
        for round in 0..6 {
            server.load("model.graphdef", &random.damaged(&frozen)).await;
            let name = format!("saved{round}");
            let file = format!("models/{name}/1/model.savedmodel/saved_model.pb");
            server.tree.write(&file, random.damaged(&saved));
            server.post(&format!("/v2/repository/models/{name}/load"), json!({})).await;
        }
        let (status, told) = server.load("model.graphdef", &frozen).await;
        assert_eq!(status, 200, "{told}");
    })
    .await;
}
