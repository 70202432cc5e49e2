//! The hub as Helm finds it.

use std::process::Command;

use testkit::Ran;

use crate::support::{ours, registry, token, tree};

/// Needs a Python with helm-python-sdk, which is Helm's own code, named by `AVOCET_TEST_HELM`.
#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls_and_keeps_charts_in_the_registry() {
    let Ok(python) = std::env::var("AVOCET_TEST_HELM") else {
        println!("skipped: AVOCET_TEST_HELM names no Python with helm-python-sdk");
        return;
    };
    let tree = tree();
    let hub = tree.hub("cloud");
    let folder = tempfile::tempdir().unwrap();
    let session = ours("tests/clients/helm_session.py");
    let mut helm = Command::new(python);
    helm.arg(session).arg(hub.kubeconfig()).arg(registry(&hub)).arg(token(&hub)).arg(folder.path());
    // Go's programs take authorities from there.
    helm.env("SSL_CERT_FILE", hub.process.data().join("hub/ca.crt"));
    Ran::of(&mut helm).ok();
}
