//! `explain placement/NAME` and `placement simulate`: what the hub decides, or would, by the functions that decide there.

mod simulate;

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use api::Client;
use controllers::{Measurements, Outlook, Snapshot, outlook, patient_client};
use planner::Verdict;
use serde_json::{Value, json};
use types::{
    ApplicationSpec, Kind, PlacementDecisionSpec, PlacementScoreSpec, PlacementSpec, Resource, SiteSpec,
};

use crate::cli::{ClientOptions, ExplainOptions, Format};
use crate::config::hub_client;
use crate::output::{print_table, print_value, split_name};

pub use simulate::simulate;

/// All that placements depend on, as the hub has it now.
async fn snapshot(client: &Client) -> anyhow::Result<Snapshot> {
    Ok(Snapshot {
        sites: sorted(client.list::<SiteSpec>("").await?.0),
        placements: sorted(client.list::<PlacementSpec>("").await?.0),
        decisions: sorted(client.list::<PlacementDecisionSpec>("").await?.0),
        applications: sorted(client.list::<ApplicationSpec>("").await?.0),
        scores: sorted(client.list::<PlacementScoreSpec>("").await?.0),
        ..Snapshot::default()
    })
}

fn sorted<S: Kind>(mut resources: Vec<Resource<S>>) -> Vec<Resource<S>> {
    resources.sort_by(|one, other| (one.namespace(), one.name()).cmp(&(other.namespace(), other.name())));
    resources
}

/// What is decided over a snapshot. Metrics are asked from here.
async fn outlooks(snapshot: &Snapshot) -> anyhow::Result<Vec<Outlook>> {
    let measurements = Measurements::default();
    if snapshot.placements.iter().any(|placement| !placement.spec.metrics.is_empty()) {
        let client = patient_client().map_err(anyhow::Error::msg)?;
        measurements.refresh(&client, &snapshot.placements).await;
    }
    Ok(outlook(snapshot, &measurements, daemon::now()))
}

pub async fn explain(options: &ClientOptions, wanted: ExplainOptions) -> anyhow::Result<()> {
    let (info, name) = split_name(&wanted.what)?;
    if info.kind != "Placement" {
        bail!("decisions about {} can't be explained; explain placement/NAME", info.plural);
    }
    let client = hub_client(options)?;
    let snapshot = snapshot(&client).await?;
    let key = (options.namespace.clone(), name.clone());
    let outlooks = outlooks(&snapshot).await?;
    let found = outlooks.into_iter().find(|outlook| outlook.placement == key);
    let Some(outlook) = found else {
        // Answers in the hub's own words that there is none.
        client.get::<PlacementSpec>(&options.namespace, &name).await?;
        bail!("placement `{name}` is being removed");
    };
    print(&outlook, wanted.output)
}

fn print(outlook: &Outlook, format: Format) -> anyhow::Result<()> {
    let outcome = match &outlook.outcome {
        Ok(outcome) => outcome,
        Err(wrong) => {
            let kept = outlook.decided.join(", ");
            bail!("{}: {wrong}; what was decided before is kept ({kept}); correct the spec", wrong.plugin);
        }
    };
    match format {
        Format::Json | Format::Yaml => {
            let sites: Vec<Value> = outcome.verdicts.iter().map(verdict).collect();
            let value = json!({
                "placement": outlook.placement.1, "decided": outlook.decided, "lastDecisionKept": outlook.is_kept(),
                "warnings": outcome.warnings, "sites": sites,
            });
            return print_value(&value, format);
        }
        Format::Name => outcome.selected.iter().for_each(|site| println!("{site}")),
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> =
                outcome.verdicts.iter().map(|verdict| row(verdict, format)).collect();
            let mut heading = vec!["SITE", "CHOSEN", "SCORE"];
            if format == Format::Wide {
                heading.push("TERMS");
            }
            heading.push("WHY");
            print_table(&heading.into_iter().map(str::to_owned).collect::<Vec<_>>(), &rows, true);
            outcome.warnings.iter().for_each(|warning| println!("\nwarning: {warning}"));
            if outlook.is_kept() {
                let kept = outlook.decided.join(", ");
                println!("\nNo site matches now, so the last good decision is kept: {kept}");
            }
        }
    }
    Ok(())
}

fn verdict(verdict: &Verdict) -> Value {
    let scores = verdict
        .scores
        .iter()
        .map(|term| json!({"name": term.name, "weight": term.weight, "score": term.score}));
    json!({
        "site": verdict.site, "selected": verdict.selected, "filter": verdict.filter, "reason": verdict.reason,
        "roundTripMilliseconds": verdict.round_trip_milliseconds, "scores": scores.collect::<Vec<_>>(),
        "total": verdict.total,
    })
}

fn row(verdict: &Verdict, format: Format) -> Vec<String> {
    let chosen = if verdict.selected { "yes" } else { "no" };
    let total = verdict.total.map_or("-".to_owned(), |total| total.to_string());
    let mut row = vec![verdict.site.clone(), chosen.to_owned(), total];
    if format == Format::Wide {
        let terms = verdict.scores.iter().map(|term| {
            let score = term.score.map_or("-".to_owned(), |score| score.to_string());
            format!("{} {score}×{}", term.name, term.weight)
        });
        row.push(terms.collect::<Vec<_>>().join(", "));
    }
    row.push(verdict.reason.clone());
    row
}

/// Why each site is or isn't selected, by name.
fn reasons(outlook: &Outlook) -> BTreeMap<&str, &Verdict> {
    let verdicts = outlook.outcome.iter().flat_map(|outcome| &outcome.verdicts);
    verdicts.map(|verdict| (verdict.site.as_str(), verdict)).collect()
}

/// A manifest of one kind.
fn typed<S: Kind>(value: Value, label: &str) -> anyhow::Result<Resource<S>> {
    serde_json::from_value(value).with_context(|| format!("{label} can't be read"))
}
