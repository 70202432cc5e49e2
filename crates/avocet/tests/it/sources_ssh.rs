//! Sources whose repository is behind a real sshd.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testkit::{LIMIT, Ran, Tree, wait_until};

use crate::sources::{Repository, config_map, ready, source, status, wait_until_applied};
use crate::support::{apply, tree};

/// Not in everybody's path.
const SSHD: &str = "/usr/sbin/sshd";

/// Lets the user that runs the tests in, by one key. Ended when dropped.
struct Sshd {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Sshd {
    /// None where there is no sshd, which is said.
    fn start(tree: &Tree) -> Option<Self> {
        if !Path::new(SSHD).exists() {
            eprintln!("SKIPPED: there is no {SSHD}; on Debian and Ubuntu: apt-get install openssh-server");
            return None;
        }
        let folder = tree.folder().join("sshd");
        std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        for name in ["host", "other-host", "allowed", "stranger"] {
            let file = folder.join(name);
            let words = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"];
            Ran::of(Command::new("ssh-keygen").args(words).arg(file)).ok();
        }
        // Where root starts it, it wants a folder to be locked up in.
        let _ = std::fs::create_dir_all("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| folder.join(name).display().to_string();
        let settings = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
            at("host"),
            at("allowed.pub"),
        );
        std::fs::write(folder.join("sshd_config"), settings).unwrap();
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f", &at("sshd_config")]).stdin(Stdio::null());
        let child = command.stderr(File::create(folder.join("log")).unwrap()).spawn().unwrap();
        let sshd = Self { child, port, folder };
        wait_until("sshd listens", LIMIT, || match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(format!("{error}: {}", std::fs::read_to_string(sshd.folder.join("log")).unwrap()))
            }
        });
        Some(sshd)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap()
    }

    /// What `ssh-keyscan` prints of a server with this host key.
    fn known(&self, host_key: &str) -> String {
        format!("[127.0.0.1]:{} {}", self.port, self.read(&format!("{host_key}.pub")))
    }

    fn secret(&self, identity: &str, host_key: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "deploy-git"},
            "stringData": {"identity": self.read(identity), "known_hosts": self.known(host_key)}})
    }

    fn url(&self, repository: &Repository) -> String {
        let user = Ran::of(Command::new("id").arg("-un")).ok();
        format!("ssh://{}@127.0.0.1:{}{}", user.trim(), self.port, repository.bare.display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_repository_over_ssh_is_followed_and_only_a_known_server_and_a_key_with_a_right_will_do() {
    let tree = tree();
    let Some(sshd) = Sshd::start(&tree) else { return };
    // ssh is spoken without being asked for.
    let hub = tree.hub("cloud");
    let repository = Repository::new(&tree);
    repository.write("deploy/a.yaml", &config_map("a", "1"));
    let first = repository.push();
    let git = json!({"url": sshd.url(&repository), "path": "deploy", "secretRef": {"name": "deploy-git"}});
    let [source, rights] = source(&repository, &json!({"git": git, "timeout": "30s"}));
    apply(&tree, &hub, &[sshd.secret("allowed", "host"), source, rights]);
    wait_until_applied(&hub, &first);

    repository.write("deploy/a.yaml", &config_map("a", "2"));
    let second = repository.push();
    for (identity, host_key, words) in [
        ("allowed", "other-host", "a key that is not in `known_hosts` of the Secret"),
        ("stranger", "host", "give the public half of `identity` the right to read there"),
    ] {
        apply(&tree, &hub, &[sshd.secret(identity, host_key)]);
        let refused = hub.cli(&["source", "reconcile", "deploy"]).refused();
        assert!(refused.contains("FetchFailed") && refused.contains(words), "{refused}");
        let status = status(&hub);
        assert_eq!(ready(&status)["reason"], "FetchFailed");
        assert_eq!(status["lastAppliedRevision"], first.as_str(), "what was applied stays");
        let key = sshd.read(identity);
        assert!(!status.to_string().contains(key.lines().nth(1).unwrap()), "no secret is told");
    }
    apply(&tree, &hub, &[sshd.secret("allowed", "host")]);
    hub.cli(&["source", "reconcile", "deploy"]).ok();
    wait_until_applied(&hub, &second);
}
