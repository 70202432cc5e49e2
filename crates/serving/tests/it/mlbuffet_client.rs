//! What MLBuffet's manual shows, done with the library that it shows.

use std::path::Path;
use std::process::Command;

use crate::support::{Kept, Setup};

/// Set AVOCET_TEST_PYTHON to a Python that has `requests`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mlbuffets_manual_shows_works_with_requests() {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: requests; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tests = Path::new("tests");
    let mut command = Command::new(python);
    command.arg(tests.join("clients/mlbuffet_requests.py")).arg(listener.local_addr().unwrap().to_string());
    command.arg(tests.join("data/label.onnx"));
    let serving = axum::serve(listener, server.app.clone());
    let client = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::select! {
        output = client => output.unwrap(),
        stopped = async { serving.await } => panic!("the server stopped: {stopped:?}"),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out.matches("ok: ").count(), 6, "{out}");
}
