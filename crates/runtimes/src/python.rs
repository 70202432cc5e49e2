//! The site's Python.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

const PROBE: &str = "import sys, json; print(json.dumps(dict(executable=sys.executable, \
    prefixes=[sys.prefix, sys.base_prefix, sys.exec_prefix], version='.'.join(map(str, sys.version_info[:3])), \
    major=sys.version_info[0])))";
/// A version manager's first start can be slow on a small device.
const PATIENCE: Duration = Duration::from_secs(20);

/// An interpreter that was asked what it is, so that wrappers of version managers are seen through.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Python {
    pub executable: PathBuf,
    pub prefixes: Vec<PathBuf>,
    pub version: String,
    major: u32,
}

impl Python {
    /// Asks `python`, or else the `python3` in the agent's path. An error says what is wrong and what to do.
    pub async fn probe(python: Option<&Path>) -> Result<Self, String> {
        let program = python.unwrap_or(Path::new("python3"));
        let advice = "install Python 3 or say where it is";
        let mut command = Command::new(program);
        command.args(["-I", "-c", PROBE]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(PATIENCE, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(format!("can't run `{}`: {error}; {advice}", program.display())),
            Err(_) => {
                return Err(format!("`{}` gave no answer within {PATIENCE:?}; {advice}", program.display()));
            }
        };
        match serde_json::from_slice::<Self>(&output.stdout) {
            Ok(found) if found.major == 3 && found.executable.is_absolute() => Ok(found),
            Ok(found) => Err(format!("`{}` is Python {}; {advice}", program.display(), found.version)),
            Err(_) => Err(format!("`{}` ended with {}; {advice}", program.display(), output.status)),
        }
    }

    /// What it reads: its folders, but never the whole file system.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let own = self.executable.parent().map(Path::to_owned);
        self.prefixes.iter().cloned().chain(own).filter(|folder| folder.parent().is_some())
    }
}
