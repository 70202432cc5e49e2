//! A site's buckets, as boto3 sees them.

use std::process::Command;

use testkit::Ran;

use crate::support::{list, ours, put, tree};

/// Needs a Python with boto3, named by `AVOCET_TEST_PYTHON`.
#[test]
fn boto3_and_the_command_line_share_a_sites_buckets() {
    let Ok(python) = std::env::var("AVOCET_TEST_PYTHON") else {
        println!("skipped: AVOCET_TEST_PYTHON names no Python with boto3");
        return;
    };
    let tree = tree();
    let hub = tree.hub("cloud");
    put(&tree, &hub, "shared/by-cli.txt", "from the command line");
    let session = ours("tests/clients/boto3_site.py");
    let mut command = Command::new(python);
    command.arg(session).args(["objects", "accessKey", "secretKey"].map(|field| hub.access(field)));
    Ran::of(&mut command).ok();
    let keys: Vec<_> = list(&hub, "shared/").into_iter().map(|object| object["key"].clone()).collect();
    assert_eq!(keys, ["by-boto3.txt", "by-cli.txt"]);
}
