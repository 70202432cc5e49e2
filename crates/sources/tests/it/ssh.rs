use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use avocet_sources::Credential;

use crate::repository::{Repository, branch, secret};

/// Stands in for ssh: looks at how it was called, then does here what it should do there.
const SSH: &str = r#"#!/bin/sh
case "$*" in *StrictHostKeyChecking=yes*) ;; *) echo "it believes any host" >&2; exit 1 ;; esac
all="$*"
case "$*" in *BatchMode=yes*) ;; *) echo "it may ask" >&2; exit 1 ;; esac
case "$*" in *" git@git.example.com "*) ;; *) echo "it goes to $*" >&2; exit 1 ;; esac
while [ $# -gt 1 ]; do
    case "$1" in
        -i) key=1; [ "$(stat -c %a "$2")" = 600 ] && grep -q "the private key" "$2" || { echo "no key" >&2; exit 1; } ;;
        UserKnownHostsFile=*) grep -q "git.example.com ssh-ed25519" "${1#*=}" || { echo "no hosts" >&2; exit 1; } ;;
    esac
    shift
done
[ -n "$key" ] || case "$all" in *IdentityFile=none*) ;; *) echo "it shows keys of others" >&2; exit 1 ;; esac
exec sh -c "$1"
"#;

/// Set in the process that finds the stand-in.
const INSIDE: &str = "AVOCET_TEST_INSIDE";

#[tokio::test]
async fn a_server_over_ssh_is_shown_the_key_and_must_be_a_known_host() {
    if std::env::var_os(INSIDE).is_none() {
        let folder = tempfile::tempdir().unwrap();
        let ssh = folder.path().join("ssh");
        std::fs::write(&ssh, SSH).unwrap();
        std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let name = "ssh::a_server_over_ssh_is_shown_the_key_and_must_be_a_known_host";
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command
            .args([name, "--exact", "--nocapture"])
            .env("PATH", path)
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let repository = Repository::new();
    repository.write("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    let commit = repository.push(&[]);
    let pairs = [("identity", "the private key"), ("known_hosts", "git.example.com ssh-ed25519 AAAA")];
    let known = Credential::of(&secret(&pairs)).unwrap();
    let url = format!("git@git.example.com:{}", repository.bare().display());
    let checkout = repository.fetch_from(&url, branch("main"), known, None).await.unwrap();
    assert_eq!(checkout.commit(), commit);
    let hosts = Credential::of(&secret(&pairs[1..])).unwrap();
    assert_eq!(repository.fetch_from(&url, branch("main"), hosts, None).await.unwrap().commit(), commit);
    let unknown = repository.fetch_from(&url, branch("main"), Credential::default(), None).await.unwrap_err();
    assert!(unknown.to_string().contains("no hosts"), "{unknown}");
}
