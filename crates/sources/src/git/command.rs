//! Running `git`: its own environment, no terminal, no hooks, an end to all that it started.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::session::Session;
use crate::error::shorten;
use crate::tree::{Entry, Limits, Mode};
use crate::{Error, program, tree};

/// How much of what a program prints is kept, in bytes.
const LONGEST_OUTPUT: u64 = 64 << 20;
const LONGEST_COMPLAINT: u64 = 64 << 10;
/// How often a growing cache is measured.
const MEASURE: Duration = Duration::from_millis(200);

/// Runs git for one session.
pub struct Git<'a> {
    session: &'a Session,
}

/// What a program said.
pub struct Said {
    pub is_success: bool,
    pub output: Vec<u8>,
    pub complaint: String,
}

impl<'a> Git<'a> {
    pub fn new(session: &'a Session) -> Self {
        Self { session }
    }

    /// Runs it and answers what it printed.
    pub async fn run(&self, action: &str, arguments: &[&str]) -> Result<String, Error> {
        let said = self.ask(arguments, &[]).await?;
        self.succeeded(action, said)
    }

    /// The same, but ends it once a folder holds more than so many bytes.
    pub async fn run_watched(
        &self,
        action: &str,
        arguments: &[&str],
        folder: &Path,
        limit: u64,
    ) -> Result<String, Error> {
        let running = self.ask(arguments, &[]);
        let mut running = std::pin::pin!(running);
        let said = loop {
            tokio::select! {
                said = &mut running => break said?,
                () = tokio::time::sleep(MEASURE) => {}
            }
            check_size(folder, limit)?;
        };
        check_size(folder, limit)?;
        self.succeeded(action, said)
    }

    /// Runs it, whether it succeeds or not.
    pub async fn ask(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Said, Error> {
        let mut command = Command::from(program::limited("git", self.session.memory_bytes()));
        command.args(arguments).env_clear().envs(self.session.environment());
        command.envs(environment.iter().copied()).current_dir(self.session.folder());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(Error::io("start git"))?;
        let _group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let output = read_bounded(child.stdout.take(), LONGEST_OUTPUT);
        let complaint = read_bounded(child.stderr.take(), LONGEST_COMPLAINT);
        let (output, complaint, status) = tokio::join!(output, complaint, child.wait());
        let status = status.map_err(Error::io("wait for git"))?;
        if program::is_missing(status) {
            return Err(Error::Missing { program: "git" });
        }
        let complaint = self.session.redact(&String::from_utf8_lossy(&complaint));
        Ok(Said { is_success: status.success(), output, complaint })
    }

    fn succeeded(&self, action: &str, said: Said) -> Result<String, Error> {
        if !said.is_success {
            program::check_memory("git", action, &said.complaint, self.session.memory_bytes())?;
            let message = explain(&said.complaint) + &shorten(&said.complaint);
            return Err(Error::Failed { action: action.to_owned(), message });
        }
        Ok(String::from_utf8_lossy(&said.output).into_owned())
    }

    /// Whether an object is in a repository with all that it needs to be used.
    pub async fn has(&self, repository: &Path, hash: &str) -> Result<bool, Error> {
        let folder = format!("--git-dir={}", repository.display());
        let object = format!("{hash}^{{tree}}");
        Ok(self.ask(&[&folder, "cat-file", "-e", &object], &[]).await?.is_success)
    }

    /// The commit that an object is, or that a tag names.
    pub async fn commit_of(&self, repository: &Path, hash: &str) -> Result<String, Error> {
        let folder = format!("--git-dir={}", repository.display());
        let object = format!("{hash}^{{commit}}");
        let arguments = [folder.as_str(), "rev-parse", "--verify", "--quiet", "--end-of-options", &object];
        Ok(self.run("read the commit", &arguments).await?.trim().to_owned())
    }

    /// All files of a commit.
    pub async fn list(
        &self,
        repository: &Path,
        commit: &str,
        limits: &Limits,
    ) -> Result<BTreeMap<String, Entry>, Error> {
        let folder = format!("--git-dir={}", repository.display());
        let listed = ["ls-tree", "-r", "-z", "-l", "--full-tree", commit];
        let arguments: Vec<&str> = std::iter::once(folder.as_str()).chain(listed).collect();
        let said = self.ask(&arguments, &[]).await?;
        if said.output.len() as u64 >= LONGEST_OUTPUT {
            return Err(tree::too_many(limits.files));
        }
        if !said.is_success {
            let message = shorten(&said.complaint);
            return Err(Error::Failed { action: "list the files".into(), message });
        }
        let entries: BTreeMap<String, Entry> =
            said.output.split(|byte| *byte == 0).filter_map(entry).collect();
        if entries.len() > limits.files { Err(tree::too_many(limits.files)) } else { Ok(entries) }
    }
}

/// What to do about a server that is another one, or lets nobody in; before what ssh says of it, which is long.
fn explain(complaint: &str) -> String {
    if complaint.contains("Host key verification failed") {
        "the server shows a key that is not in `known_hosts` of the Secret; if it is the right one, add what `ssh-keyscan` \
         prints: "
            .to_owned()
    } else if complaint.contains("Permission denied (publickey") {
        "the server lets nobody in who has this key; give the public half of `identity` the right to read there: ".to_owned()
    } else {
        String::new()
    }
}

/// `MODE TYPE HASH SIZE<tab>PATH`. Names that are no UTF-8 are passed over: no manifest can name them.
fn entry(line: &[u8]) -> Option<(String, Entry)> {
    let (about, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    let mut words = about.split_ascii_whitespace();
    let (mode, kind, hash, size) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mode = match (kind, mode) {
        ("blob", "120000") => Mode::Link,
        ("blob", _) => Mode::File,
        _ => return None,
    };
    Some((path.to_owned(), Entry { mode, hash: hash.to_owned(), bytes: size.parse().unwrap_or(0) }))
}

/// Ends a process and all that it started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end, but keeps only the beginning.
async fn read_bounded(from: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        let _ = (&mut from).take(most).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    kept
}

fn check_size(folder: &Path, limit: u64) -> Result<(), Error> {
    if bytes_in(folder) <= limit {
        return Ok(());
    }
    let mib = limit >> 20;
    Err(Error::TooLarge(format!("the repository has more than {mib} MiB; keep manifests in a smaller one")))
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
