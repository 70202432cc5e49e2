//! `test` and `ci`.

use std::process::Command;

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
    process::run(with_tools(workspace.cargo().args(["test", "--workspace", "--doc"]), workspace, &tools))?;
    if in_path("cargo-nextest").is_some() {
        process::run(with_tools(
            workspace.cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]),
            workspace,
            &tools,
        ))?;
    } else {
        println!(
            "cargo-nextest is not installed (cargo install --locked cargo-nextest); cargo test does, too"
        );
        process::run(with_tools(
            workspace.cargo().args(["test", "--workspace", "--all-targets"]),
            workspace,
            &tools,
        ))?;
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
fn with_tools<'a>(command: &'a mut Command, workspace: &Workspace, tools: &Tools) -> &'a mut Command {
    let named = [
        ("AVOCET_TEST_PYTHON", tools.test_python.as_ref()),
        ("AVOCET_TEST_FUNCTIONS_PYTHON", Some(&tools.functions_python)),
        ("AVOCET_TEST_ASSETS", Some(&tools.assets)),
        ("AVOCET_TEST_MODELS", tools.models.as_ref()),
        ("AVOCET_ONNXRUNTIME", tools.onnxruntime.as_ref()),
        ("AVOCET_TENSORFLOW", tools.tensorflow.as_ref()),
        ("AVOCET_TEST_ONNX", tools.onnx_nodes.as_ref()),
        ("AVOCET_TEST_HELM", tools.helm.as_ref()),
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
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(setup::programs(workspace)).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}
