use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::support::tree;

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
