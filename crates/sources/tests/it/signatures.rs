use std::path::{Path, PathBuf};
use std::process::Command;

use avocet_sources::{Credential, Signers};
use types::VerificationMode::{Commit, Tag};

use crate::repository::{Repository, branch, has, secret, tag};

/// A key of ssh, and the line that lets its owner sign.
fn key(repository: &Repository, name: &str) -> (PathBuf, String) {
    let file = repository.folder.path().join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
        .arg(&file)
        .output();
    assert!(made.unwrap().status.success());
    let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
    (file, format!("{name}@example.com {public}"))
}

fn signing(key: &Path) -> [String; 6] {
    let key = format!("user.signingkey={}", key.display());
    ["-c", "gpg.format=ssh", "-c", "commit.gpgsign=true", "-c", &key].map(str::to_owned)
}

#[tokio::test]
async fn commits_count_if_a_known_key_of_ssh_signed_them() {
    if !has("ssh-keygen", Path::new("/usr/bin/ssh-keygen")) {
        return;
    }
    let repository = Repository::new();
    let (anna, allowed) = key(&repository, "anna");
    let (mallory, _) = key(&repository, "mallory");
    let signers = || Signers::of(&secret(&[("allowed_signers", &allowed)])).unwrap();
    let verified = async |reference| {
        let verify = Some((Commit, signers()));
        repository.fetch_from(&repository.url(), reference, Credential::default(), verify).await
    };
    let push = |key: Option<&Path>| {
        repository.write("a", &format!("{key:?}"));
        let options = key.map(signing);
        let options: Vec<&str> = options.iter().flatten().map(String::as_str).collect();
        repository.push(&options)
    };
    let commit = push(Some(&anna));
    assert_eq!(verified(branch("main")).await.unwrap().commit(), commit);
    for key in [None, Some(mallory.as_path())] {
        push(key);
        let told = verified(branch("main")).await.unwrap_err();
        assert_eq!(told.reason(), "NotVerified", "{told}");
    }
}

#[tokio::test]
async fn a_signed_tag_counts_under_its_own_name_alone() {
    if !has("ssh-keygen", Path::new("/usr/bin/ssh-keygen")) {
        return;
    }
    let repository = Repository::new();
    let (anna, allowed) = key(&repository, "anna");
    repository.write("a", "a");
    repository.push(&[]);
    let mut options: Vec<String> = signing(&anna).into();
    options.extend(["tag", "-s", "-m", "release", "v1.0.0"].map(str::to_owned));
    repository.git(&options.iter().map(String::as_str).collect::<Vec<_>>());
    repository.git(&["update-ref", "refs/tags/v2.0.0", "refs/tags/v1.0.0"]);
    repository.git(&["tag", "plain"]);
    repository.push(&[]);
    let verified = async |name: &str| {
        let verify = Some((Tag, Signers::of(&secret(&[("allowed_signers", &allowed)])).unwrap()));
        repository.fetch_from(&repository.url(), tag(name), Credential::default(), verify).await
    };
    assert!(verified("v1.0.0").await.is_ok());
    let told = verified("v2.0.0").await.unwrap_err().to_string();
    assert!(told.contains("was signed as tag v1.0.0"), "{told}");
    assert_eq!(verified("plain").await.unwrap_err().reason(), "NotVerified");
}

#[tokio::test]
async fn commits_count_if_a_known_key_of_openpgp_signed_them() {
    if !has("gpg", Path::new("/usr/bin/gpg")) {
        return;
    }
    let repository = Repository::new();
    let home = repository.folder.path().join("gpg");
    std::fs::create_dir(&home).unwrap();
    let chmod = Command::new("chmod").arg("700").arg(&home).status();
    assert!(chmod.unwrap().success());
    let gpg = |arguments: &[&str]| {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet", "--passphrase", ""]).args(arguments).env("GNUPGHOME", &home);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if !gpg(&["--quick-generate-key", "anna@example.com", "ed25519", "sign"]).0 {
        println!("skipped: gpg makes no key here");
        return;
    }
    let (_, public) = gpg(&["--armor", "--export", "anna@example.com"]);
    repository.write("a", "a");
    repository.git(&["add", "--all"]);
    let committed = Command::new("git")
        .args(["-c", "user.name=Anna", "-c", "user.email=anna@example.com", "commit", "-q"])
        .args(["--gpg-sign=anna@example.com", "-m", "signed"])
        .current_dir(repository.work())
        .env("GNUPGHOME", &home)
        .output()
        .unwrap();
    assert!(committed.status.success(), "{}", String::from_utf8_lossy(&committed.stderr));
    repository.git(&["push", "--quiet", &repository.url(), "HEAD:main"]);
    let verified = async || {
        let verify = Some((Commit, Signers::of(&secret(&[("anna.asc", &public)])).unwrap()));
        repository.fetch_from(&repository.url(), branch("main"), Credential::default(), verify).await
    };
    verified().await.unwrap();
    repository.push(&[]);
    assert_eq!(verified().await.unwrap_err().reason(), "NotVerified");
    let _ = Command::new("gpgconf").args(["--kill", "all"]).env("GNUPGHOME", &home).status();
}
