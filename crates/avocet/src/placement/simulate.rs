//! `placement simulate`: what would change if manifests were applied.

use anyhow::bail;
use controllers::{Outlook, Snapshot};
use serde_json::{Value, json};
use types::{Kind, Resource, Time};

use super::{outlooks, reasons, snapshot, typed};
use crate::cli::{ClientOptions, Format, SimulateOptions};
use crate::config::hub_client;
use crate::manifest::{self, Manifest};
use crate::output::{print_table, print_value};

/// What would become of one placement.
struct Change<'a> {
    outlook: &'a Outlook,
    added: Vec<&'a String>,
    removed: Vec<&'a String>,
}

pub async fn simulate(options: &ClientOptions, wanted: SimulateOptions) -> anyhow::Result<()> {
    let manifests = manifest::read_all(&wanted.files)?;
    let mut snapshot = snapshot(&hub_client(options)?).await?;
    for manifest in &manifests {
        overlay(&mut snapshot, manifest, &options.namespace)?;
    }
    let outlooks = outlooks(&snapshot).await?;
    let changes: Vec<Change> = outlooks.iter().map(Change::of).collect();
    match wanted.output {
        Format::Json | Format::Yaml => {
            let placements: Vec<Value> = changes.iter().map(Change::value).collect();
            print_value(&json!({"placements": placements}), wanted.output)
        }
        Format::Name => {
            let changed = changes.iter().filter(|change| change.is_any());
            changed.for_each(|change| println!("{}", change.name()));
            Ok(())
        }
        Format::Table | Format::Wide => {
            print_changes(&changes);
            Ok(())
        }
    }
}

fn print_changes(changes: &[Change]) {
    let rows: Vec<Vec<String>> = changes.iter().flat_map(Change::rows).collect();
    if rows.is_empty() {
        println!("nothing would change");
    } else {
        let heading = ["PLACEMENT", "CHANGE", "SITE", "WHY"].map(str::to_owned);
        print_table(&heading, &rows, true);
    }
    for change in changes {
        if let Some(note) = change.note() {
            println!("\n{}: {note}", change.name());
        }
    }
    let (added, removed) = changes.iter().fold((0, 0), |(added, removed), change| {
        (added + change.added.len(), removed + change.removed.len())
    });
    println!("\n{added} added, {removed} removed over {} placements", changes.len());
}

impl<'a> Change<'a> {
    fn of(outlook: &'a Outlook) -> Self {
        let selected = outlook.selected();
        let added = selected.iter().filter(|site| !outlook.decided.contains(site)).collect();
        let removed = outlook.decided.iter().filter(|site| !selected.contains(site)).collect();
        Self { outlook, added, removed }
    }

    fn name(&self) -> String {
        let (namespace, name) = &self.outlook.placement;
        format!("{namespace}/{name}")
    }

    fn is_any(&self) -> bool {
        !self.added.is_empty() || !self.removed.is_empty()
    }

    /// What keeps the last decision, if something does.
    fn note(&self) -> Option<String> {
        match &self.outlook.outcome {
            Err(wrong) => Some(format!("{}: {wrong}; what was decided before would be kept", wrong.plugin)),
            Ok(_) if self.outlook.is_kept() => {
                Some("no site would match; what was decided before would be kept".to_owned())
            }
            Ok(_) => None,
        }
    }

    fn why(&self, site: &str) -> String {
        reasons(self.outlook)
            .get(site)
            .map_or_else(|| "is not there".to_owned(), |verdict| verdict.reason.clone())
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row =
            |change: &str, site: &str| vec![self.name(), change.to_owned(), site.to_owned(), self.why(site)];
        let removed = self.removed.iter().map(|site| row("remove", site));
        removed.chain(self.added.iter().map(|site| row("add", site))).collect()
    }

    fn value(&self) -> Value {
        let told = |sites: &[&String]| -> Vec<Value> {
            sites.iter().map(|site| json!({"site": site, "reason": self.why(site)})).collect()
        };
        // A site that comes for one that goes is a move.
        let moves = self.removed.iter().zip(&self.added).map(|(from, to)| json!({"from": from, "to": to}));
        json!({
            "namespace": self.outlook.placement.0, "placement": self.outlook.placement.1,
            "before": self.outlook.decided, "after": self.outlook.selected(),
            "added": told(&self.added), "removed": told(&self.removed), "moves": moves.collect::<Vec<_>>(),
            "lastDecisionKept": self.outlook.is_kept(), "note": self.note(),
        })
    }
}

/// Puts a manifest over what the hub has, as if it were applied.
fn overlay(snapshot: &mut Snapshot, manifest: &Manifest, namespace: &str) -> anyhow::Result<()> {
    let label = manifest.label();
    let mut value = manifest.value.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        let namespace = manifest.namespace(namespace);
        if !namespace.is_empty() {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
    }
    let value = schema::complete(manifest.info, value, None).map_err(|violations| {
        let violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{label}: {}", violations.join("; "))
    })?;
    match manifest.info.kind {
        "Site" => put(&mut snapshot.sites, typed(value, &label)?, ready),
        "Placement" => put(&mut snapshot.placements, typed(value, &label)?, |_| {}),
        "PlacementScore" => put(&mut snapshot.scores, typed(value, &label)?, |_| {}),
        "Application" => put(&mut snapshot.applications, typed(value, &label)?, |_| {}),
        _ => bail!(
            "{label}: only manifests of Placement, Site, PlacementScore and Application can be simulated"
        ),
    }
    Ok(())
}

/// A site that is not there yet counts as if it had joined.
fn ready(site: &mut types::Site) {
    site.status.conditions.push(types::Condition {
        kind: "Ready".into(),
        status: types::ConditionStatus::True,
        observed_generation: 0,
        last_transition_time: now(),
        reason: "Simulated".into(),
        message: String::new(),
    });
}

fn now() -> Time {
    daemon::now()
}

/// Replaces the spec and the labels of what is there, or adds what isn't.
fn put<S: Kind + PartialEq>(
    known: &mut Vec<Resource<S>>,
    new: Resource<S>,
    complete: impl FnOnce(&mut Resource<S>),
) {
    let place =
        known.binary_search_by(|old| (old.namespace(), old.name()).cmp(&(new.namespace(), new.name())));
    match place {
        Ok(index) => {
            if let Some(old) = known.get_mut(index) {
                if old.spec != new.spec {
                    old.metadata.generation += 1;
                }
                old.metadata.labels = new.metadata.labels;
                old.spec = new.spec;
            }
        }
        Err(index) => {
            let mut new = new;
            complete(&mut new);
            known.insert(index, new);
        }
    }
}
