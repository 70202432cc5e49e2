//! Contents of files, read out of a bare repository without a work tree.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::{Error, program};

/// A `git cat-file --batch` that waits for questions.
#[derive(Debug)]
pub struct Objects {
    child: Child,
    asked: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Objects {
    pub fn open(repository: &Path, memory_bytes: u64) -> Result<Self, Error> {
        let mut command = program::limited("git", memory_bytes);
        command.arg(format!("--git-dir={}", repository.display())).args(["cat-file", "--batch"]).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_NO_LAZY_FETCH", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(Error::io("start git"))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(asked), Some(told)) => Ok(Self { child, asked, told: BufReader::new(told) }),
            _ => Err(Error::Failed { action: "start git".into(), message: "it has no pipes".into() }),
        }
    }

    /// The content of a blob that has so many bytes.
    pub fn read(&mut self, hash: &str, bytes: u64) -> Result<Vec<u8>, Error> {
        let problem = Error::io("read a file out of a cache");
        self.try_read(hash, bytes).map_err(problem)
    }

    fn try_read(&mut self, hash: &str, bytes: u64) -> std::io::Result<Vec<u8>> {
        writeln!(self.asked, "{hash}")?;
        self.asked.flush()?;
        let mut heading = String::new();
        (&mut self.told).take(256).read_line(&mut heading)?;
        if heading.trim_end() != format!("{hash} blob {bytes}") {
            return Err(std::io::Error::other(format!("git answers {:?}", heading.trim_end())));
        }
        let mut content = Vec::new();
        (&mut self.told).take(bytes + 1).read_to_end(&mut content)?;
        // What a newline follows that is not of the content.
        content.pop();
        if content.len() as u64 == bytes {
            Ok(content)
        } else {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
