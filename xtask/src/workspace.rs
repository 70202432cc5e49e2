//! Where things are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::process;

/// The checkout and its build folder.
#[derive(Clone)]
pub struct Workspace {
    /// The checkout.
    pub root: PathBuf,
    /// Cargo's target folder, wherever configuration puts it.
    pub target: PathBuf,
    /// What `cargo metadata` says of the workspace's own packages.
    pub packages: Vec<Value>,
    /// What is measured instead of the program as it ships.
    pub program: Option<PathBuf>,
}

impl Workspace {
    pub fn find() -> anyhow::Result<Self> {
        // Cargo names the folder of the xtask that it runs; the one at compile time may be another checkout's.
        let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = xtask.parent().context("the xtask is not inside a workspace")?.to_owned();
        let mut command = cargo(&root);
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let metadata: Value = serde_json::from_str(&process::output(&mut command)?)?;
        let target = metadata.get("target_directory").and_then(Value::as_str);
        let target = PathBuf::from(target.context("cargo metadata names no target_directory")?);
        let packages = metadata.get("packages").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Self { root, target, packages, program: None })
    }

    /// Cargo, run at the root.
    pub fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// The program as it ships, once it was built with the profile `dist`.
    pub fn shipped(&self) -> PathBuf {
        self.program.clone().unwrap_or_else(|| self.target.join("dist/avocet"))
    }

    /// What [`crate::setup`] installs.
    pub fn setup(&self) -> PathBuf {
        self.target.join("setup")
    }

    /// The running example.
    pub fn example(&self) -> PathBuf {
        self.root.join("examples/mask-detection")
    }

    /// A path as people would type it from the root.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    // What `cargo run` tells the xtask of itself; build scripts that look at it would run again each time.
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| shown.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}
