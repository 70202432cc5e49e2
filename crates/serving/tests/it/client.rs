use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use axum::Router;

use avocet_serving::{ServerState, router};

use crate::support::{Kept, Setup, repository};

/// Runs a script of `tests/clients` against a server, and counts the checks that it prints. Set AVOCET_TEST_PYTHON to
/// a Python that has what it imports.
async fn run(app: Router, script: &str, further: &[OsString]) -> Option<usize> {
    let Some(python) = std::env::var_os("AVOCET_TEST_PYTHON") else {
        println!("skipped: {script}; AVOCET_TEST_PYTHON is not set");
        return None;
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = axum::serve(listener, app);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut command = Command::new(python);
    command.arg(script).arg(address).args(further);
    let client = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::select! {
        output = client => output.unwrap(),
        stopped = async { server.await } => panic!("the server stopped: {stopped:?}"),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    Some(out.matches("ok: ").count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tritons_own_client_works_unchanged() {
    let checks = run(router(ServerState::new(repository())), "tritonclient_http.py", &[]).await;
    assert!(matches!(checks, None | Some(6)), "{checks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mlbuffets_manual_shows_works_with_requests() {
    let folder = tempfile::tempdir().unwrap();
    let server = Kept::open(folder.path(), Setup::default());
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/label.onnx");
    let checks = run(server.app.clone(), "mlbuffet_requests.py", &[model.into()]).await;
    assert!(matches!(checks, None | Some(6)), "{checks:?}");
}
