//! `bench`: memory at rest, latency from put to result, what serving costs over the bare engine, and what the hub's
//! store and API do beside etcd.
//!
//! All in one run against sites like those of the demo, with the program optimised as it ships. Numbers are medians; machines that are
//! shared are noisy, so compare within a run.

mod agents;
mod api;
mod counted;
mod distribution;
mod latency;
mod load;
mod memory;
mod multiplexed;
mod overhead;
mod samples;
mod servers;
mod serving;
mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::process::{self, Step};
use crate::setup::{self, Scope, Tools};
use crate::sites::{SiteOptions, Sites};
use crate::workspace::Workspace;

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Memory, latency and serving of sites
    Sites,
    /// The model server beside Triton, MLServer and LitServe
    Serving,
    /// Durable writes: through the store, over HTTP, and of etcd
    Store,
    /// Fan-out of watches, memory of idle watchers, a long list
    Api,
    /// Thousands of simulated agents: joining, memory and CPU at rest, from apply to applied, coming back at once
    Agents,
    /// One new artifact on its way to many real agents: how often it leaves the hub
    Distribution,
    /// Decisions of placements over up to a million sites
    Placement,
}

#[derive(Args)]
pub struct Options {
    /// What to measure [default: all]
    #[arg(value_enum)]
    pub parts: Vec<Part>,
    /// A program to measure instead of this checkout's, optimised as it ships: an older one, or what `cargo xtask dist` built
    /// (the same, but smaller at rest)
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Seconds for each rate of writes
    #[arg(long, default_value_t = 3)]
    pub seconds: u64,
    /// Watchers at once, at most
    #[arg(long, default_value_t = 10_000)]
    pub watchers: usize,
    /// Simulated agents at once, at most
    #[arg(long, default_value_t = 10_000)]
    pub agents: usize,
    /// Real agents that want one artifact at once
    #[arg(long, default_value_t = 50)]
    pub receivers: usize,
    /// Its size
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    pub artifact_mebibytes: usize,
    /// Objects in the long list
    #[arg(long, default_value_t = 100_000)]
    pub listed: usize,
    /// Rounds of the measurements; each value is the median over rounds
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Objects that are put one after the other
    #[arg(long, default_value_t = 30)]
    pub objects: usize,
    /// Seconds that sites rest before their memory is measured
    #[arg(long, default_value_t = 10)]
    pub rest: u64,
}

/// The benchmark's sites: a hub, an edge with the built-in engine, and one with ONNX Runtime.
const HUB: &str = "cloud";
const EDGE: &str = "edge";
const FAST: &str = "accelerated";

pub fn bench(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        // The load comes from this very program: unoptimised, it would take the processor from what is measured.
        let again = std::env::args_os().skip(1);
        return process::run(
            workspace.cargo().args(["run", "--release", "--package", "xtask", "--"]).args(again),
        );
    }
    let wants = |part| options.parts.is_empty() || options.parts.contains(&part);
    let workspace = &Workspace { program: options.program.clone(), ..workspace.clone() };
    // What needs no site needs no program.
    if options.parts != [Part::Placement] && workspace.program.is_none() {
        process::run(workspace.cargo().args(["build", "--profile", "dist", "--package", "avocet"]))?;
    }
    let folder = workspace.target.join("bench");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)?;
    println!("\n{}", machine());
    if wants(Part::Placement) {
        build_example(workspace, "avocet-planner", "placement_bench")?;
        process::run(&mut std::process::Command::new(
            workspace.target.join("release/examples/placement_bench"),
        ))?;
    }
    if wants(Part::Store) {
        println!("\n{}", store::writes(workspace, &folder.join("store"), options)?);
    }
    if wants(Part::Api) {
        println!("\n{}", api::measure(workspace, &folder.join("api"), options)?);
    }
    if wants(Part::Agents) {
        println!("\n{}", agents::measure(workspace, &folder.join("agents"), options)?);
    }
    if wants(Part::Distribution) {
        println!("\n{}", distribution::measure(workspace, &folder.join("distribution"), options)?);
    }
    if wants(Part::Serving) {
        println!("\n{}", serving::measure(workspace, &folder.join("serving"), options)?);
    }
    if wants(Part::Sites) {
        sites(workspace, &folder.join("sites"), options)?;
    }
    Ok(())
}

fn sites(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<()> {
    let tools = setup::setup(workspace, Scope::Demo)?;
    build_example(workspace, "avocet-inference", "infer")?;
    std::fs::create_dir_all(folder)?;
    println!("{}", memory::binary_size(&workspace.shipped(), folder)?);
    let mut sites = start(workspace, &tools, folder)?;
    println!("\n{}", memory::at_rest(&sites, options)?);
    apply(workspace, folder, &mut sites)?;
    println!("\n{}", latency::put_to_result(&sites, folder, options)?);
    let infer = workspace.target.join("release/examples/infer");
    println!("\n{}", overhead::compare(&sites, &infer, &tools, &models(workspace), options)?);
    Ok(())
}

/// Builds an example apart from the program: built together, their dependencies would get other features and be
/// built anew.
fn build_example(workspace: &Workspace, package: &str, example: &str) -> anyhow::Result<()> {
    process::run(workspace.cargo().args(["build", "--release", "--package", package, "--example", example]))
}

fn start(workspace: &Workspace, tools: &Tools, folder: &Path) -> anyhow::Result<Sites> {
    let step = Step::begin("a hub and two sites that joined it");
    let hub = SiteOptions { name: HUB, tier: "cloud", tools, onnxruntime: false };
    let mut sites = Sites::start(&workspace.shipped(), folder, &hub)?;
    sites.join(&SiteOptions { name: EDGE, tier: "edge", tools, onnxruntime: false })?;
    if tools.onnxruntime.is_some() {
        sites.join(&SiteOptions { name: FAST, tier: "accelerated", tools, onnxruntime: true })?;
    }
    sites.wait_for_sites()?;
    step.done("");
    Ok(sites)
}

/// A model and its file.
pub struct Model {
    pub name: &'static str,
    pub path: std::path::PathBuf,
}

fn models(workspace: &Workspace) -> [Model; 2] {
    [
        Model { name: "affine", path: workspace.root.join("crates/inference/tests/data/affine.onnx") },
        Model {
            name: "mask-classifier",
            path: workspace.example().join("build/models/mask-classifier.onnx"),
        },
    ]
}

fn apply(workspace: &Workspace, folder: &Path, sites: &mut Sites) -> anyhow::Result<()> {
    let mut manifest = include_str!("bench/application.yaml").to_owned();
    for model in models(workspace) {
        manifest = manifest.replace(&format!("@{}@", model.name), &model.path.display().to_string());
    }
    std::fs::write(folder.join("copy.sh"), "cp \"$INPUT_FILE_PATH\" \"$TMP_OUTPUT_DIR/\"\n")?;
    let path = folder.join("application.yaml");
    std::fs::write(&path, manifest)?;
    process::output(sites.avocet().args(["apply", "-f"]).arg(&path))?;
    let step = Step::begin("the benchmark's applications");
    for name in ["one-site", "two-sites", "served"] {
        sites.wait_for_application(name, Duration::from_secs(60), &|state| step.say(state))?;
    }
    step.done("ready");
    Ok(())
}

/// What it ran on, so that numbers are not compared that can't be.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "machine: {} ({cores} cores), {} memory, Linux {}, load {}",
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}
