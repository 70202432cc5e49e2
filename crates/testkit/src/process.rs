//! One long-running `avocet` process that can be killed and started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{LIMIT, wait_until};

/// A process that keeps its folder and arguments over restarts, and whose output goes to files. Killed when
/// dropped.
pub struct Process {
    name: String,
    binary: PathBuf,
    /// Its own, with `data`, `out.N` and `log.N` for the N-th start.
    folder: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    starts: u32,
}

impl Process {
    /// Not started yet. Of this process's environment it gets the path and nothing else.
    pub(crate) fn new(name: &str, binary: &Path, folder: PathBuf, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let mut all: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        all.extend(["--data".to_owned(), folder.join("data").display().to_string()]);
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = vec![("PATH".to_owned(), path), ("HOME".to_owned(), folder.display().to_string())];
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            folder,
            arguments: all,
            environment,
            child: None,
            starts: 0,
        }
    }

    /// Sets an environment variable for the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Another command of the same program, with this one's environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        let environment = self.environment.iter().map(|(key, value)| (key, value));
        command.args(arguments).env_clear().envs(environment).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What it has printed since it was last started.
    pub fn output(&self) -> String {
        let read = |kind: &str| {
            let path = self.folder.join(format!("{kind}.{}", self.starts));
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        read("out") + &read("log")
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// If it runs already or can't be started.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.starts += 1;
        let file = |kind: &str| File::create(self.folder.join(format!("{kind}.{}", self.starts))).unwrap();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let child = self.command(&arguments).stdout(file("out")).stderr(file("log")).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("can't start {}: {error}", self.name)));
    }

    /// Starts it and waits until it prints these words.
    ///
    /// # Panics
    /// If it ends instead, or does not print them in time.
    #[track_caller]
    pub fn start_until(&mut self, words: &str) {
        self.start();
        wait_until(&format!("{} prints `{words}`", self.name), LIMIT, || {
            let output = self.output();
            if output.contains(words) {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "{} ended with {ended:?} after saying:\n{}", self.name, self.output());
            Err(output)
        });
    }

    /// Waits until it ends by itself; answers whether it ended well.
    ///
    /// # Panics
    /// If it was not started or does not end in time.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> bool {
        let child = self.child.as_mut().unwrap();
        let ended = || child.try_wait().unwrap().ok_or_else(|| "it goes on".to_owned());
        let status = wait_until(&format!("{} ends", self.name), LIMIT, ended);
        self.child = None;
        status.success()
    }

    /// Sends it a signal by name, such as `STOP` or `CONT`.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name));
        let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        assert!(sent.unwrap().success(), "can't send {name} to {}", self.name);
    }

    /// Kills it with signal 9 and waits until it is gone.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- {} said (start {}):\n{}", self.name, self.starts, self.output());
        }
    }
}
