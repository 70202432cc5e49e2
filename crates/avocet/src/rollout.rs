//! `rollout`: how a change reaches its sites, and the words that people have in it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use api::{Client, client::path};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use types::names::annotation::{ABORT, PROMOTE, UNDO};
use types::names::label;
use types::{
    Application, ApplicationRevision, ApplicationRevisionSpec, ApplicationSpec, Assignment, AssignmentSpec,
    ConditionStatus, Kind, RolloutStatus, SiteState, condition,
};

use crate::cli::{ClientOptions, Format};
use crate::config::hub_client;
use crate::output::{print_table, print_value};

/// What can be asked and said about a rollout.
#[derive(Subcommand)]
pub enum RolloutCommand {
    /// Show how far each site is
    #[command(
        after_help = "Examples:\n  avocet rollout status letters\n  avocet rollout status letters --watch    ends when it does, \
                      with an error if it was gone back from\n  avocet rollout status letters -o json"
    )]
    Status(StatusOptions),
    /// List the revisions that are kept
    #[command(after_help = "Example:\n  avocet rollout history letters")]
    History(HistoryOptions),
    /// Change no further site until it is resumed
    #[command(after_help = "Example:\n  avocet rollout pause letters\n\nThe same with kubectl:\n  \
                            kubectl patch application letters --type merge -p '{\"spec\": {\"rollout\": {\"paused\": true}}}'")]
    Pause(Named),
    /// Go on with what was paused
    #[command(after_help = "Example:\n  avocet rollout resume letters")]
    Resume(Named),
    /// Bring it to all remaining sites now: no waiting, no groups, the failure budget stays
    #[command(after_help = "Example:\n  avocet rollout promote letters\n\nThe same with kubectl:\n  \
                            kubectl annotate application letters --overwrite avocet.dev/rollout-promote=NUMBER")]
    Promote(Named),
    /// Go back to the last revision that all sites ran
    #[command(after_help = "Example:\n  avocet rollout abort letters\n\nThe same with kubectl:\n  \
                            kubectl annotate application letters --overwrite avocet.dev/rollout-abort=NUMBER")]
    Abort(Named),
    /// Run an earlier revision, until the manifests change
    #[command(
        after_help = "Examples:\n  avocet rollout undo letters                    what all sites ran before\n  \
                            avocet rollout undo letters --to-revision 3    also one that was gone back from: it is tried again"
    )]
    Undo(UndoOptions),
}

#[derive(Args)]
pub struct Named {
    /// The application
    pub application: String,
}

#[derive(Args)]
pub struct StatusOptions {
    #[command(flatten)]
    pub named: Named,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Go on and print what changes, until it is through
    #[arg(short, long)]
    pub watch: bool,
    /// With --watch: give up after so many seconds; 0 never does
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Args)]
pub struct HistoryOptions {
    #[command(flatten)]
    pub named: Named,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
pub struct UndoOptions {
    #[command(flatten)]
    pub named: Named,
    /// The number of the revision, as `avocet rollout history` shows it
    #[arg(long, value_name = "NUMBER")]
    pub to_revision: Option<i64>,
}

pub async fn rollout(options: &ClientOptions, command: RolloutCommand) -> anyhow::Result<()> {
    let client = hub_client(options)?;
    let namespace = options.namespace.clone();
    let at = |named: &Named| Rollout {
        client: client.clone(),
        namespace: namespace.clone(),
        name: plain_name(&named.application),
    };
    match command {
        RolloutCommand::Status(options) => at(&options.named).status(&options).await,
        RolloutCommand::History(options) => at(&options.named).history(options.output).await,
        RolloutCommand::Pause(named) => at(&named).pause(true).await,
        RolloutCommand::Resume(named) => at(&named).pause(false).await,
        RolloutCommand::Promote(named) => at(&named).promote().await,
        RolloutCommand::Abort(named) => at(&named).abort().await,
        RolloutCommand::Undo(options) => at(&options.named).undo(options.to_revision).await,
    }
}

/// `NAME`, also where `application/NAME` was written.
fn plain_name(text: &str) -> String {
    text.split_once('/').map_or(text, |(_, name)| name).to_owned()
}

/// The rollout of one application.
struct Rollout {
    client: Client,
    namespace: String,
    name: String,
}

/// How often a rollout that is watched is looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Rollout {
    async fn application(&self) -> anyhow::Result<Application> {
        Ok(self.client.get::<ApplicationSpec>(&self.namespace, &self.name).await?)
    }

    async fn standing(&self) -> anyhow::Result<(Application, RolloutStatus)> {
        let application = self.application().await?;
        let status = application.status.rollout.clone();
        let status =
            status.with_context(|| format!("nothing of application `{}` was rolled out yet", self.name))?;
        Ok((application, status))
    }

    async fn patch(&self, patch: Value) -> anyhow::Result<()> {
        let url = path(ApplicationSpec::PLURAL, &self.namespace, &self.name);
        let request =
            self.client.request(Method::PATCH, &url).header("content-type", "application/merge-patch+json");
        self.client.send(request.body(patch.to_string())).await?;
        Ok(())
    }

    async fn status(&self, options: &StatusOptions) -> anyhow::Result<()> {
        if !options.watch {
            return self.print(options.output).await;
        }
        let started = std::time::Instant::now();
        let mut told = String::new();
        let mut has_ended = false;
        loop {
            let application = self.application().await?;
            let line = describe(&application);
            if line != told {
                match options.output {
                    Format::Json => println!("{}", serde_json::to_string(&summary(&application))?),
                    Format::Yaml => crate::output::print_documents([summary(&application)].into_iter())?,
                    _ => println!("{line}"),
                }
                told = line;
            }
            let progressing = condition(&application.status.conditions, "Progressing");
            let is_current = application.status.observed_generation == application.metadata.generation;
            let ended = progressing.filter(|one| one.status == ConditionStatus::False && is_current);
            // The hub may not have seen yet what was applied a moment ago: it has to say so twice.
            match ended {
                Some(ended) if has_ended && ended.reason == "Complete" => return Ok(()),
                Some(ended) if has_ended => bail!("{}", ended.message),
                ended => has_ended = ended.is_some(),
            }
            if options.timeout > 0 && started.elapsed() >= Duration::from_secs(options.timeout) {
                bail!("not through after {} s: {told}", options.timeout);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn print(&self, format: Format) -> anyhow::Result<()> {
        let application = self.application().await?;
        let sites = self.sites(&application).await?;
        match format {
            Format::Json | Format::Yaml => {
                let mut value = summary(&application);
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("atSites".to_owned(), sites.iter().map(Standing::to_json).collect());
                }
                return print_value(&value, format);
            }
            Format::Name => sites.iter().for_each(|standing| println!("{}", standing.site)),
            Format::Table | Format::Wide => {
                println!("{}\n", describe(&application));
                let rows: Vec<Vec<String>> = sites.iter().map(Standing::to_row).collect();
                print_table(
                    &["SITE", "REVISION", "STATE", "SINCE", "MESSAGE"].map(str::to_owned),
                    &rows,
                    true,
                );
            }
        }
        Ok(())
    }

    /// How far each site is: as far as the last of its components.
    async fn sites(&self, application: &Application) -> anyhow::Result<Vec<Standing>> {
        let (all, _) = self.client.list::<AssignmentSpec>("").await?;
        let mut sites: BTreeMap<String, Standing> = BTreeMap::new();
        for assignment in all.iter().filter(|one| one.spec.application_uid == application.metadata.uid) {
            let here = Standing::of(assignment);
            match sites.get_mut(&here.site) {
                Some(known) if known.rank() >= here.rank() => {}
                _ => drop(sites.insert(here.site.clone(), here)),
            }
        }
        Ok(sites.into_values().collect())
    }

    async fn revisions(&self, application: &Application) -> anyhow::Result<Vec<ApplicationRevision>> {
        let (mut all, _) = self.client.list::<ApplicationRevisionSpec>(&self.namespace).await?;
        all.retain(|revision| {
            revision.metadata.owner_references.iter().any(|owner| owner.uid == application.metadata.uid)
        });
        all.sort_by_key(|revision| revision.spec.number);
        Ok(all)
    }

    async fn history(&self, format: Format) -> anyhow::Result<()> {
        let (application, status) = self.standing().await?;
        let revisions = self.revisions(&application).await?;
        match format {
            Format::Json | Format::Yaml => return print_value(&json!(revisions), format),
            Format::Name => {
                revisions.iter().for_each(|revision| println!("applicationrevision/{}", revision.name()));
            }
            Format::Table | Format::Wide => {
                let row = |revision: &ApplicationRevision| {
                    let time =
                        |time: Option<types::Time>| time.map(|time| time.to_string()).unwrap_or_default();
                    vec![
                        revision.spec.number.to_string(),
                        if revision.name() == status.revision { "yes".into() } else { String::new() },
                        time(revision.metadata.creation_timestamp),
                        time(revision.status.succeeded),
                        artifacts(&revision.spec),
                        revision.status.rejected.clone(),
                    ]
                };
                let rows: Vec<Vec<String>> = revisions.iter().map(row).collect();
                let heading =
                    ["REVISION", "CURRENT", "CREATED", "ALL SITES RAN IT", "CONTENT", "GONE BACK FROM"];
                print_table(&heading.map(str::to_owned), &rows, true);
            }
        }
        Ok(())
    }

    async fn pause(&self, paused: bool) -> anyhow::Result<()> {
        self.patch(json!({"spec": {"rollout": {"paused": paused}}})).await?;
        println!("application/{} {}", self.name, if paused { "paused" } else { "resumed" });
        Ok(())
    }

    async fn promote(&self) -> anyhow::Result<()> {
        let (application, status) = self.standing().await?;
        if let Some(rejected) = &status.rejected {
            bail!(
                "revision {} was gone back from ({}); to try it again: avocet rollout undo {} --to-revision {}",
                status.wanted,
                rejected.message,
                self.name,
                status.wanted
            );
        }
        let mut patch = json!({"metadata": {"annotations": {PROMOTE: status.number.to_string()}}});
        if application.spec.rollout.is_some_and(|rollout| rollout.paused)
            && let Some(fields) = patch.as_object_mut()
        {
            fields.insert("spec".to_owned(), json!({"rollout": {"paused": false}}));
        }
        self.patch(patch).await?;
        println!("application/{} revision {} goes to all remaining sites", self.name, status.number);
        Ok(())
    }

    async fn abort(&self) -> anyhow::Result<()> {
        let (_, status) = self.standing().await?;
        if status.last_good == status.revision {
            bail!("nothing is on its way: revision {} is what all sites ran last", status.number);
        }
        if status.last_good.is_empty() {
            bail!("there is no revision to go back to; stop it with: avocet rollout pause {}", self.name);
        }
        self.patch(json!({"metadata": {"annotations": {ABORT: status.number.to_string()}}})).await?;
        println!("application/{} goes back from revision {}", self.name, status.number);
        Ok(())
    }

    async fn undo(&self, to: Option<i64>) -> anyhow::Result<()> {
        let (application, status) = self.standing().await?;
        let revisions = self.revisions(&application).await?;
        let to = match to {
            Some(number) => {
                if !revisions.iter().any(|revision| revision.spec.number == number) {
                    bail!("there is no revision {number}; see: avocet rollout history {}", self.name);
                }
                number
            }
            None => {
                let before = revisions.iter().filter(|revision| revision.spec.number != status.number);
                let ran = before.filter(|revision| revision.status.succeeded.is_some());
                let last = ran.max_by_key(|revision| revision.status.succeeded);
                last.map(|revision| revision.spec.number)
                    .context("there is no other revision that all sites ran; name one with --to-revision")?
            }
        };
        // What is behind the @ makes it a new word, also where the same was said before.
        let word = format!("{}:{to}@{}", status.wanted, daemon::now());
        self.patch(json!({"metadata": {"annotations": {UNDO: word, ABORT: null}}})).await?;
        println!("application/{} goes to revision {to}, until its manifests change", self.name);
        if application.spec.rollout.is_some_and(|rollout| rollout.paused) {
            println!("it is paused: avocet rollout resume {}", self.name);
        }
        Ok(())
    }
}

/// How far a site is.
struct Standing {
    site: String,
    revision: String,
    state: Option<SiteState>,
    since: String,
    message: String,
}

impl Standing {
    fn of(assignment: &Assignment) -> Self {
        let progress = assignment.status.progress.as_ref();
        let available = condition(&assignment.status.conditions, "Available");
        Self {
            site: assignment.namespace().to_owned(),
            revision: assignment.metadata.labels.get(label::REVISION).cloned().unwrap_or_default(),
            state: progress.map(|progress| progress.state),
            since: progress.map(|progress| progress.since.to_string()).unwrap_or_default(),
            message: available.map(|available| available.message.clone()).unwrap_or_default(),
        }
    }

    /// The higher, the more it is what holds a site up.
    fn rank(&self) -> u8 {
        match self.state {
            Some(SiteState::Failed) => 3,
            None | Some(SiteState::ToApply) => 2,
            Some(SiteState::Progressing) => 1,
            Some(SiteState::Succeeded) => 0,
        }
    }

    fn state(&self) -> String {
        self.state.map_or_else(|| "ToApply".to_owned(), |state| format!("{state:?}"))
    }

    fn to_row(&self) -> Vec<String> {
        vec![self.site.clone(), self.revision.clone(), self.state(), self.since.clone(), self.message.clone()]
    }

    fn to_json(&self) -> Value {
        json!({
            "site": self.site, "revision": self.revision, "state": self.state(), "since": self.since,
            "message": self.message,
        })
    }
}

/// One line that says how a rollout stands.
fn describe(application: &Application) -> String {
    let Some(progressing) = condition(&application.status.conditions, "Progressing") else {
        return format!("{}: nothing was rolled out yet", application.name());
    };
    let counts = application.status.rollout.as_ref().map(|status| status.sites).unwrap_or_default();
    format!(
        "{}: {} ({} of {} sites done): {}",
        application.name(),
        progressing.reason,
        counts.done,
        counts.total,
        progressing.message
    )
}

/// The same for programs.
fn summary(application: &Application) -> Value {
    let mut value = json!(application.status.rollout.clone().unwrap_or_default());
    if let Some(fields) = value.as_object_mut() {
        fields.insert("application".to_owned(), json!(application.name()));
        let progressing = condition(&application.status.conditions, "Progressing");
        fields.insert("progressing".to_owned(), json!(progressing));
    }
    value
}

/// What a revision is made of, in short.
fn artifacts(revision: &ApplicationRevisionSpec) -> String {
    let short = |artifact: &types::Artifact| {
        let hex = artifact.digest.as_ref().map(types::Digest::hex).unwrap_or_default();
        hex.chars().take(8).collect::<String>()
    };
    let functions = revision.functions.iter();
    let functions = functions.map(|function| format!("{}={}", function.name, short(&function.spec.artifact)));
    let models = revision.models.iter();
    let models =
        models.map(|model| format!("{}@{}", model.name, model.spec.default_version().unwrap_or_default()));
    functions.chain(models).collect::<Vec<_>>().join(" ")
}
