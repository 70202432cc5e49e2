//! `source`: Git repositories that are followed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::{Client, client::path};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use sources::{Helm, Tree};
use types::names::annotation::RECONCILE_AT;
use types::{ConditionStatus, Kind, Source, SourceSpec, condition};

use crate::cli::{ClientOptions, Format, GetOptions};
use crate::config::hub_client;
use crate::get;
use crate::output::{print_documents, print_table, print_value};

/// What can be asked and said about Sources.
#[derive(Subcommand)]
pub enum SourceCommand {
    /// List what is followed, and how far it is
    #[command(after_help = "Examples:\n  avocet source list -A\n  avocet source list -o json")]
    List(ListOptions),
    /// Show what a repository brought, commit by object, and what is wrong with it
    #[command(after_help = "Examples:\n  avocet source show deploy\n  avocet source show deploy -o json")]
    Show(ShowOptions),
    /// Look at the repository now, and wait for what comes of it
    #[command(after_help = "Example:\n  avocet source reconcile deploy\n\nThe same with kubectl:\n  \
                      kubectl annotate source deploy --overwrite avocet.dev/reconcile-at=\"$(date)\"")]
    Reconcile(ReconcileOptions),
    /// Leave all as it is until resumed
    #[command(after_help = "Example:\n  avocet source suspend deploy")]
    Suspend(Named),
    /// Go on with what was suspended
    #[command(after_help = "Example:\n  avocet source resume deploy")]
    Resume(Named),
    /// Print the manifests that a folder of this machine stands for: plain ones, an overlay, or a chart
    #[command(after_help = "Examples:\n  avocet source build deploy/overlays/north\n  \
                      avocet source build deploy | kubectl diff -f -        what a commit would change")]
    Build(BuildOptions),
}

#[derive(Args)]
pub struct Named {
    /// The Source
    pub source: String,
}

#[derive(Args)]
pub struct ListOptions {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

#[derive(Args)]
pub struct ShowOptions {
    #[command(flatten)]
    pub named: Named,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
pub struct ReconcileOptions {
    #[command(flatten)]
    pub named: Named,
    /// Give up waiting after so many seconds; 0 doesn't wait
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Args)]
pub struct BuildOptions {
    /// The folder; what it refers to must be in the repository that it is part of, or else beside it
    pub folder: PathBuf,
}

pub async fn source(options: &ClientOptions, command: SourceCommand) -> anyhow::Result<()> {
    let at = |named: &Named| -> anyhow::Result<Followed> {
        let name = named.source.split_once('/').map_or(named.source.as_str(), |(_, name)| name).to_owned();
        Ok(Followed { client: hub_client(options)?, namespace: options.namespace.clone(), name })
    };
    match command {
        SourceCommand::List(wanted) => {
            let ListOptions { output, all_namespaces } = wanted;
            let kind = SourceSpec::PLURAL.to_owned();
            let wanted = GetOptions {
                kind,
                name: None,
                output,
                selector: None,
                all_namespaces,
                watch: false,
                site: None,
            };
            get::get(options, wanted).await
        }
        SourceCommand::Show(wanted) => at(&wanted.named)?.show(wanted.output).await,
        SourceCommand::Reconcile(wanted) => at(&wanted.named)?.reconcile(wanted.timeout).await,
        SourceCommand::Suspend(named) => at(&named)?.suspend(true).await,
        SourceCommand::Resume(named) => at(&named)?.suspend(false).await,
        SourceCommand::Build(wanted) => build(&wanted),
    }
}

/// One Source.
struct Followed {
    client: Client,
    namespace: String,
    name: String,
}

/// How often a Source that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl Followed {
    async fn read(&self) -> anyhow::Result<Source> {
        Ok(self.client.get::<SourceSpec>(&self.namespace, &self.name).await?)
    }

    async fn patch(&self, patch: &Value) -> anyhow::Result<Source> {
        let url = path(SourceSpec::PLURAL, &self.namespace, &self.name);
        let request = self.client.request(Method::PATCH, &url).body(patch.to_string());
        let request = request.header("content-type", "application/merge-patch+json");
        Ok(self.client.json(request).await?)
    }

    async fn suspend(&self, suspend: bool) -> anyhow::Result<()> {
        self.patch(&json!({"spec": {"suspend": suspend}})).await?;
        println!("source/{} {}", self.name, if suspend { "suspended" } else { "resumed" });
        Ok(())
    }

    async fn reconcile(&self, timeout: u64) -> anyhow::Result<()> {
        let word = format!("{}-{}", daemon::now(), daemon::random_hex(4)?);
        let asked = self.patch(&json!({"metadata": {"annotations": {RECONCILE_AT: word}}})).await?;
        if asked.spec.suspend {
            bail!("source `{}` is suspended; avocet source resume {}", self.name, self.name);
        }
        if timeout == 0 {
            println!("source/{} is looked at", self.name);
            return Ok(());
        }
        let began = Instant::now();
        loop {
            let source = self.read().await?;
            if source.status.last_handled_reconcile_at == word {
                return told(&source);
            }
            if began.elapsed() > Duration::from_secs(timeout) {
                bail!(
                    "source `{}` was asked for, but isn't through after {timeout} s; --timeout waits longer",
                    self.name
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn show(&self, format: Format) -> anyhow::Result<()> {
        let source = self.read().await?;
        match format {
            Format::Json | Format::Yaml => print_value(&json!(source), format),
            Format::Name => {
                println!("source/{}", self.name);
                Ok(())
            }
            Format::Table | Format::Wide => {
                print(&source);
                Ok(())
            }
        }
    }
}

/// What came of a turn that was waited for.
fn told(source: &Source) -> anyhow::Result<()> {
    let ready = condition(&source.status.conditions, "Ready").context("its status says nothing")?;
    match ready.status {
        ConditionStatus::True => {
            println!("source/{} {}: {}", source.name(), source.status.last_applied_revision, ready.message);
            Ok(())
        }
        _ => bail!("{}: {}", ready.reason, ready.message),
    }
}

fn print(source: &Source) {
    let (spec, status) = (&source.spec, &source.status);
    println!("Repository:  {}", spec.git.url);
    println!("Folder:      {}", if spec.git.path.is_empty() { "." } else { &spec.git.path });
    println!("Applied:     {}", status.last_applied_revision);
    if status.last_attempted_revision != status.last_applied_revision {
        println!("Tried:       {}", status.last_attempted_revision);
    }
    for known in &status.conditions {
        let word = match (known.kind.as_str(), known.status) {
            ("Ready", ConditionStatus::True) => "yes",
            ("Ready", _) => "no",
            _ => continue,
        };
        println!("Ready:       {word}, {}: {}", known.reason, known.message);
    }
    if spec.suspend {
        println!("Suspended:   yes");
    }
    section(
        "\nObjects:",
        ["KIND", "NAMESPACE", "NAME", "COMMIT", "FROM BEFORE"],
        status.inventory.iter().map(|one| {
            let adopted = if one.adopted { "yes" } else { "" };
            [
                one.kind.clone(),
                one.namespace.clone(),
                one.name.clone(),
                short(&one.revision),
                adopted.to_owned(),
            ]
        }),
    );
    section(
        "\nChanged by others:",
        ["OBJECT", "FIELDS", "SEEN", "PUT RIGHT"],
        status.drift.iter().map(|one| {
            let fields =
                if one.fields.is_empty() { "it was deleted".to_owned() } else { one.fields.join(", ") };
            let seen = one.seen.map(|seen| seen.to_string()).unwrap_or_default();
            [one.object.clone(), fields, seen, if one.corrected { "yes" } else { "no" }.to_owned()]
        }),
    );
    section(
        "\nFailed:",
        ["OBJECT", "WHERE", "WHY"],
        status.failures.iter().map(|one| [one.object.clone(), one.origin.clone(), one.message.clone()]),
    );
}

fn section<const N: usize>(title: &str, heading: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let rows: Vec<Vec<String>> = rows.map(Into::into).collect();
    if !rows.is_empty() {
        println!("{title}");
        print_table(&heading.map(str::to_owned), &rows, true);
    }
}

/// `main@1a2b3c4d5e6f` of `main@sha1:1a2b3c4d5e6f…`.
fn short(revision: &str) -> String {
    match revision.split_once('@') {
        Some((name, commit)) => {
            let hash = commit.split_once(':').map_or(commit, |(_, hash)| hash);
            format!("{name}@{}", hash.get(..12).unwrap_or(hash))
        }
        None => revision.to_owned(),
    }
}

/// Overlays refer to folders beside them: as much of the machine is read as the repository has.
fn build(wanted: &BuildOptions) -> anyhow::Result<()> {
    let shown = wanted.folder.display();
    let folder = wanted.folder.canonicalize().with_context(|| format!("can't find {shown}"))?;
    let root = folder.ancestors().find(|above| above.join(".git").exists());
    let root = root.or_else(|| folder.parent()).unwrap_or(&folder);
    let inside =
        folder.strip_prefix(root)?.to_str().with_context(|| format!("{shown} is no text"))?.to_owned();
    let mut tree = Tree::of_folder(root)?;
    let helm = Helm { release: "release".into(), namespace: "default".into(), ..Helm::default() };
    let manifests = sources::build(&mut tree, &inside, &helm)?;
    print_documents(manifests.into_iter().map(|manifest| manifest.value))
}
