//! `test` and `ci`.

use std::path::PathBuf;

use clap::Args;

use crate::demo;
use crate::process::{self, in_path};
use crate::setup::{self, Scope, Tools};
use crate::tidy;
use crate::workspace::Workspace;

#[derive(Args)]
pub struct Options {
    /// Leave out the demo, which is the end-to-end test
    #[arg(long)]
    pub no_demo: bool,
}

pub fn test(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let tools = setup::setup(workspace, Scope::Tests)?;
    tidy::tidy(workspace)?;
    process::run(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    process::run(workspace.cargo().args(lints))?;
    process::run(with_tools(workspace.cargo().args(["test", "--workspace", "--doc"]), &tools))?;
    if in_path("cargo-nextest").is_some() {
        process::run(with_tools(workspace.cargo().args(["nextest", "run", "--workspace"]), &tools))?;
    } else {
        println!(
            "cargo-nextest is not installed (cargo install --locked cargo-nextest); cargo test does, too"
        );
        process::run(with_tools(workspace.cargo().args(["test", "--workspace", "--all-targets"]), &tools))?;
    }
    if !options.no_demo {
        demo::demo(workspace, &demo::Options::tested())?;
    }
    Ok(())
}

pub fn ci(workspace: &Workspace) -> anyhow::Result<()> {
    if in_path("cargo-deny").is_some() {
        process::run(workspace.cargo().args(["deny", "check"]))?;
    } else {
        println!(
            "cargo-deny is not installed (cargo install --locked cargo-deny): licences and advisories unchecked"
        );
    }
    test(workspace, &Options { no_demo: false })
}

/// Tells tests where their tools are; without these variables they pass over what needs them.
fn with_tools<'a>(command: &'a mut std::process::Command, tools: &Tools) -> &'a mut std::process::Command {
    let named: [(&str, Option<&PathBuf>); 7] = [
        ("AVOCET_TEST_PYTHON", tools.test_python.as_ref()),
        ("AVOCET_TEST_FUNCTIONS_PYTHON", Some(&tools.functions_python)),
        ("AVOCET_TEST_ASSETS", Some(&tools.assets)),
        ("AVOCET_TEST_MODELS", tools.models.as_ref()),
        ("AVOCET_ONNXRUNTIME", tools.onnxruntime.as_ref()),
        ("AVOCET_TENSORFLOW", tools.tensorflow.as_ref()),
        ("AVOCET_TEST_ONNX", tools.onnx_nodes.as_ref()),
    ];
    for (name, path) in named {
        if let Some(path) = path {
            command.env(name, path);
        }
    }
    if let Ok(kubectls) = std::env::join_paths(&tools.kubectls)
        && !kubectls.is_empty()
    {
        command.env("AVOCET_TEST_KUBECTL", kubectls);
    }
    command
}
