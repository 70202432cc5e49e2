//! `demo`: the mask detection example over two sites, as processes of their own on this machine.

mod outcome;
mod pictures;
mod privacy;
mod report;
mod running;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::process::{self, Step};
use crate::setup::{self, Scope, Tools};
use crate::sites::{SiteOptions, Sites};
use crate::workspace::Workspace;
use outcome::Photo;
use running::Running;
pub use table::aligned;

const APPLICATION: &str = "mask-detection";
/// How long the application may take to be ready.
const READY: Duration = Duration::from_secs(120);

/// Seconds that all photos together may take.
const LIMIT: u64 = 300;

#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --keep\n  \
                        cargo xtask demo --photos ~/Pictures/team\n  cargo xtask demo --stop")]
pub struct Options {
    /// Leave all running, and say how to stop it
    #[arg(long, conflicts_with = "stop")]
    pub keep: bool,
    /// Stop what an earlier `--keep` left running
    #[arg(long)]
    pub stop: bool,
    /// Where runs keep their data [default: demo/ in the target folder]
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Your own photos instead of the example's
    #[arg(long, value_name = "FOLDER")]
    pub photos: Option<PathBuf>,
    /// Seconds that all photos together may take
    #[arg(long, default_value_t = LIMIT, value_name = "SECONDS")]
    pub limit: u64,
    /// Use the program as the tests built it last, instead of a release build
    #[arg(long)]
    pub tested: bool,
}

impl Options {
    /// What tests run.
    pub fn tested() -> Self {
        Self { keep: false, stop: false, data: None, photos: None, limit: LIMIT, tested: true }
    }
}

pub fn demo(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let folder = match &options.data {
        Some(data) => std::path::absolute(data)?,
        None => workspace.target.join("demo"),
    };
    if options.stop {
        return Running::stop(&folder);
    }
    Running::refuse_second(&folder)?;
    let tools = setup::setup(workspace, Scope::Demo)?;
    let avocet = program(workspace, options.tested)?;
    let run = fresh_run(&folder)?;
    let originals = options.photos.clone().unwrap_or_else(|| tools.assets.join("photos"));
    let mut photos = outcome::photos(&originals)?;
    let mut sites = start(workspace, &avocet, &tools, &run)?;
    apply(workspace, &mut sites)?;
    put(&sites, &photos)?;
    let ended = outcome::wait(&mut sites, &mut photos, Duration::from_secs(options.limit))?;
    pictures::fetch(&sites, &run, &mut photos)?;
    let expected = match options.photos {
        None => Some(read_json(&workspace.example().join("expected.json"))?),
        Some(_) => None,
    };
    let verdicts = table::verdicts(&photos, expected.as_ref());
    println!("\n{}", table::table(&photos, verdicts.as_deref()));
    let kept_private = privacy::check(&photos, &sites.site("cloud")?.data, &sites.site("edge")?.data);
    match &kept_private {
        Ok(sentence) => println!("{sentence}"),
        Err(error) => println!("The originals did NOT stay at the edge site: {error:#}"),
    }
    let page = folder.join("report.html");
    let private = kept_private.as_ref().map_or_else(ToString::to_string, Clone::clone);
    std::fs::write(&page, report::page(&photos, verdicts.as_deref(), &private)?)?;
    println!("Original, blurred and result side by side: {}", page.display());
    if options.keep {
        Running::keep(&folder, &mut sites)?;
        print_hints(&avocet, &sites, options);
    }
    conclude(&photos, ended, verdicts.as_deref(), kept_private)
}

fn program(workspace: &Workspace, tested: bool) -> anyhow::Result<PathBuf> {
    if tested {
        let avocet = workspace.target.join("debug/avocet");
        anyhow::ensure!(avocet.exists(), "the tests were never built; run cargo xtask test --no-demo first");
        return Ok(avocet);
    }
    process::run(workspace.cargo().args(["build", "--release", "--package", "avocet"]))?;
    Ok(workspace.target.join("release/avocet"))
}

/// An empty folder for this run; those of earlier runs are removed.
fn fresh_run(folder: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_run = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run-"));
        if is_run && path.is_dir() {
            std::fs::remove_dir_all(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    let run = folder.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&run)?;
    Ok(run)
}

fn start(workspace: &Workspace, avocet: &Path, tools: &Tools, run: &Path) -> anyhow::Result<Sites> {
    println!("sites (data and logs in {})", workspace.shown(run));
    let step = Step::begin("cloud: a hub with a site");
    let cloud = SiteOptions { name: "cloud", tier: "cloud", tools, onnxruntime: true };
    let mut sites = Sites::start(avocet, run, &cloud)?;
    step.done(&sites.url);
    let step = Step::begin("edge: a site that joins with a token");
    sites.join(&SiteOptions { name: "edge", tier: "edge", ..cloud })?;
    sites.wait_for_sites()?;
    step.done("both sites are ready");
    Ok(sites)
}

fn apply(workspace: &Workspace, sites: &mut Sites) -> anyhow::Result<()> {
    let manifest = workspace.example().join("application.yaml");
    println!("application ({})", workspace.shown(&manifest));
    let applied = process::output(sites.avocet().args(["apply", "-f"]).arg(&manifest))?;
    applied.lines().for_each(|line| println!("  ✓ {line}"));
    let step = Step::begin("models and functions travel to their sites");
    sites.wait_for_application(APPLICATION, READY, &|state| step.say(state))?;
    step.done("the application is ready");
    Ok(())
}

fn put(sites: &Sites, photos: &[Photo]) -> anyhow::Result<()> {
    println!("photos");
    let step = Step::begin("into the bucket of the edge site");
    let mut copy = sites.avocet();
    copy.arg("cp").args(photos.iter().map(|photo| &photo.path)).arg("edge:photos/in/");
    process::output(&mut copy)?;
    step.done(&format!("{} files to edge:photos/in/", photos.len()));
    Ok(())
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", path.display()))
}

fn print_hints(avocet: &Path, sites: &Sites, options: &Options) {
    let data = options.data.as_ref().map(|data| format!(" --data {}", data.display())).unwrap_or_default();
    println!(
        "\nThe sites keep running. Stop them with: cargo xtask demo --stop{data}\n\
         Try:\n  export PATH={}:$PATH AVOCET_KUBECONFIG={kubeconfig} KUBECONFIG={kubeconfig}\n  \
         avocet ui          (the address of the hub's page)\n  \
         avocet get sites\n  avocet explain placement/edge-sites\n  avocet get invocations\n  \
         avocet logs function/anonymise\n  kubectl get applications,placements,models\n  \
         kubectl describe application {APPLICATION}",
        avocet.parent().unwrap_or(avocet).display(),
        kubeconfig = sites.kubeconfig.display(),
    );
}

/// The demo is good if every photo came to its end as expected and the originals stayed where they belong.
fn conclude(
    photos: &[Photo],
    ended: bool,
    verdicts: Option<&[table::Verdict]>,
    kept_private: anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    if !ended {
        let open = photos.iter().filter(|photo| !photo.has_ended());
        problems.extend(open.map(|photo| format!("{}: {}", photo.name, photo.state())));
    }
    let wrong = verdicts.into_iter().flatten().zip(photos);
    problems.extend(wrong.filter_map(|(verdict, photo)| {
        verdict.difference.as_ref().map(|difference| format!("{}: {difference}", photo.name))
    }));
    problems.extend(kept_private.err().map(|error| format!("{error:#}")));
    if !problems.is_empty() {
        bail!("the demo is not as it should be:\n  {}", problems.join("\n  "));
    }
    match verdicts {
        Some(verdicts) => println!("All {} photos are as expected.", verdicts.len()),
        None => println!("All {} photos came to their end.", photos.len()),
    }
    Ok(())
}
