//! What functions get, and what they can't do: to files, the network, the machine, or by outliving their run.
//! Needs Python 3 and a kernel with Landlock.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod confinement;
mod contract;
mod endings;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use avocet_runtimes::{Options, Outcome, Run, Runtimes};
use types::Runtime;

const SHIM: &str = env!("CARGO_BIN_EXE_runtime-shim");

async fn runtimes() -> Runtimes {
    Runtimes::discover(Options { shim: vec![SHIM.into()], ..Options::default() }).await
}

/// A function and the folders of one invocation.
struct Invocation {
    folder: tempfile::TempDir,
    run: Run,
}

impl Invocation {
    fn new(runtime: Runtime, code: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { run: Self::prepare(folder.path(), runtime, code), folder }
    }

    fn shell(code: &str) -> Self {
        Self::new(Runtime::Shell, code)
    }

    fn python(code: &str) -> Self {
        Self::new(Runtime::Python, code)
    }

    fn prepare(root: &Path, runtime: Runtime, code: &str) -> Run {
        for name in ["bundle", "input", "work", "output"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("input/photo.txt"), "a photo").unwrap();
        let handler = root.join("bundle/handler");
        fs::write(&handler, code).unwrap();
        fs::set_permissions(&handler, fs::Permissions::from_mode(0o755)).unwrap();
        Run {
            runtime,
            bundle: root.join("bundle"),
            handler: "handler".into(),
            environment: BTreeMap::new(),
            input: root.join("input/photo.txt"),
            workdir: root.join("work"),
            output: root.join("output"),
            log: root.join("log"),
            timeout: Duration::from_secs(60),
            memory_bytes: 512 << 20,
            tcp_ports: Vec::new(),
            event: None,
            storage_object_key: None,
        }
    }

    fn environment(mut self, key: &str, value: impl ToString) -> Self {
        self.run.environment.insert(key.into(), value.to_string());
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Run)) -> Self {
        change(&mut self.run);
        self
    }

    async fn run(&self) -> Outcome {
        runtimes().await.run(&self.run).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.run.log).unwrap_or_default()
    }

    fn output(&self, name: &str) -> String {
        fs::read_to_string(self.run.output.join(name)).unwrap_or_else(|_| panic!("log: {}", self.log()))
    }
}
