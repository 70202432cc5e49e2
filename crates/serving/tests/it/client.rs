use std::path::Path;
use std::process::Command;

use avocet_serving::{ServerState, router};

use crate::support::repository;

/// Set AVOCET_TEST_PYTHON to a Python that has `tritonclient[http]` and `numpy`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tritons_own_client_works_unchanged() {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: tritonclient; AVOCET_TEST_PYTHON is not set");
        return;
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = axum::serve(listener, router(ServerState::new(repository())));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/tritonclient_http.py");
    let client =
        tokio::task::spawn_blocking(move || Command::new(python).arg(script).arg(address).output().unwrap());
    let output = tokio::select! {
        output = client => output.unwrap(),
        stopped = async { server.await } => panic!("the server stopped: {stopped:?}"),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out.matches("ok: ").count(), 6, "{out}");
}
