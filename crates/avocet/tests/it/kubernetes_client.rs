//! The hub's API, as the Kubernetes client for Python finds it.

use std::process::Command;

use testkit::Ran;

use crate::support::{ours, tree};

/// Needs a Python with the package kubernetes, named by `AVOCET_TEST_PYTHON`.
#[test]
fn the_kubernetes_client_for_python_works_and_elects_leaders() {
    let Ok(python) = std::env::var("AVOCET_TEST_PYTHON") else {
        println!("skipped: AVOCET_TEST_PYTHON names no Python with the package kubernetes");
        return;
    };
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let session = ours("tests/clients/kubernetes_client.py");
    let version = Ran::of(Command::new(&python).arg(&session).arg(hub.kubeconfig())).ok();
    hub.kill_9();
    hub.restart();
    Ran::of(Command::new(&python).arg(session).arg(hub.kubeconfig()).arg(version.trim())).ok();
}
