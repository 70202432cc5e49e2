use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use avocet_sources::{Credential, Error, Helm, Limits, Wanted, build, fetch};
use types::{GitReference, GitSource};

use crate::backend::Backend;
use crate::repository::{Repository, branch, has, secret, tag};

#[tokio::test]
async fn what_is_followed_is_what_was_pushed_last() {
    let repository = Repository::new();
    repository.write("deploy/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    let first = repository.push(&[]);
    let checkout = repository.fetch(branch("main")).await.unwrap();
    assert_eq!(checkout.revision, format!("main@sha1:{first}"));
    let mut tree = checkout.tree().unwrap();
    let built = build(&mut tree, "deploy", &Helm::default()).unwrap();
    assert_eq!((built.len(), built[0].origin.to_string()), (1, "deploy/a.yaml line 1".into()));

    repository.write("deploy/b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n");
    repository.git(&["tag", "v1.0.0", &first]);
    let second = repository.push(&[]);
    let newest = repository.fetch(GitReference::default()).await.unwrap();
    assert_eq!(newest.revision, format!("main@sha1:{second}"), "HEAD is the branch that it names");
    assert_eq!(repository.fetch(tag("v1.0.0")).await.unwrap().revision, format!("v1.0.0@sha1:{first}"));
    let range = GitReference { semver: Some("^1".into()), ..GitReference::default() };
    assert_eq!(repository.fetch(range).await.unwrap().commit(), first);
    let one = GitReference { commit: Some(first.clone()), ..GitReference::default() };
    assert_eq!(repository.fetch(one).await.unwrap().commit(), first);

    // History may be rewritten.
    repository.git(&["reset", "--quiet", "--hard", &first]);
    repository.write("deploy/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n");
    let third = repository.push(&[]);
    assert_eq!(repository.fetch(branch("main")).await.unwrap().commit(), third);
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let repository = Repository::new();
    repository.write("a", "a");
    repository.push(&[]);
    let told = repository.fetch(branch("gone")).await.unwrap_err();
    assert_eq!(told.to_string(), format!("{} has no branch gone", repository.url()));
    let told = repository.fetch(tag("v9")).await.unwrap_err().to_string();
    assert!(told.ends_with("has no tag v9"), "{told}");
    let gone = "file:///nonexistent/repository.git";
    let told = repository.fetch_from(gone, branch("main"), Credential::default(), None).await.unwrap_err();
    assert_eq!(told.reason(), "FetchFailed", "{told}");
}

#[tokio::test]
async fn files_are_read_without_being_written_and_links_are_not_followed() {
    let repository = Repository::new();
    repository.write(".gitattributes", "*.yaml filter=evil export-subst\n");
    repository.write("real.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    symlink("/etc/passwd", repository.work().join("passwd.yaml")).unwrap();
    repository.push(&[]);
    let checkout = repository.fetch(branch("main")).await.unwrap();
    let mut tree = checkout.tree().unwrap();
    assert_eq!(build(&mut tree, "", &Helm::default()).unwrap().len(), 1);
    let told = tree.read("passwd.yaml").unwrap_err().to_string();
    assert!(told.contains("symbolic link"), "{told}");
    assert!(!repository.options().folder.join("one.git/real.yaml").exists());
}

#[tokio::test]
async fn only_so_much_is_taken() {
    let repository = Repository::new();
    let noise: String =
        (0..400_000_u64).map(|number| format!("{:x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    repository.write("large", &noise);
    repository.push(&[]);
    let mut options = repository.options();
    options.limits.repository_bytes = 1 << 20;
    let git = types::GitSource { url: repository.url(), ..types::GitSource::default() };
    let timeout = std::time::Duration::from_secs(60);
    let wanted = avocet_sources::Wanted {
        cache: "small",
        git: &git,
        credential: Credential::default(),
        verify: None,
        timeout,
    };
    let told = avocet_sources::fetch(&options, wanted).await.unwrap_err();
    assert!(matches!(told, Error::TooLarge(_)), "{told}");
    assert!(!options.folder.join("small.git").exists(), "nothing is left of it");
    let left = std::fs::read_dir(&options.folder).unwrap().count();
    assert_eq!(left, 0, "the session's folder is gone");
}

#[tokio::test]
async fn a_server_over_http_is_shown_the_password_and_nobody_else_is() {
    if !has("git http-backend", Path::new("/usr/lib/git-core/git-http-backend")) {
        return;
    }
    let repository = Repository::new();
    repository.write("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    let commit = repository.push(&[]);
    let backend = Backend::start(repository.folder.path(), "anna:opens sesame");
    let url = format!("{}/deploy.git", backend.url());
    let known = Credential::of(&secret(&[("username", "anna"), ("password", "opens sesame")])).unwrap();
    let checkout = repository.fetch_from(&url, branch("main"), known, None).await.unwrap();
    assert_eq!(checkout.commit(), commit);
    let wrong = Credential::of(&secret(&[("username", "anna"), ("password", "s3cr3t-guess")])).unwrap();
    for credential in [Credential::default(), wrong] {
        let told = repository.fetch_from(&url, branch("main"), credential, None).await.unwrap_err();
        assert_eq!(told.reason(), "FetchFailed");
        assert!(!told.to_string().contains("s3cr3t"), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_left() {
    let repository = Repository::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.git", silent.local_addr().unwrap());
    let git = types::GitSource { url, ..types::GitSource::default() };
    let timeout = std::time::Duration::from_secs(1);
    let credential = Credential::default();
    let wanted = avocet_sources::Wanted { cache: "silent", git: &git, credential, verify: None, timeout };
    let told = avocet_sources::fetch(&repository.options(), wanted).await.unwrap_err();
    assert_eq!(told.reason(), "FetchTimedOut");
}

#[tokio::test]
async fn an_object_that_is_larger_than_memory_ends_git_and_not_the_machine() {
    let repository = Repository::new();
    repository.write("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    // Small where it is sent, and large once it is looked at.
    std::fs::write(repository.work().join("zeros"), vec![0; 96 << 20]).unwrap();
    repository.push(&[]);
    let mut options = repository.options();
    options.limits.memory_bytes = 48 << 20;
    let git = GitSource { url: repository.url(), reference: branch("main"), ..GitSource::default() };
    let wanted = |cache| Wanted {
        cache,
        git: &git,
        credential: Credential::default(),
        verify: None,
        timeout: Duration::from_secs(60),
    };
    let told = fetch(&options, wanted("bounded")).await.unwrap_err();
    assert_eq!(told.reason(), "TooLarge", "{told}");
    assert!(told.to_string().contains("git needs more than the 48 MiB of memory"), "{told}");
    options.limits = Limits::default();
    fetch(&options, wanted("generous")).await.unwrap();
}
