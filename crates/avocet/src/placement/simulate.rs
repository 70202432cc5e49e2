//! `placement simulate`: what would change if manifests were applied.

use api::client::path;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use types::{PLACEMENT_SIMULATION, PLACEMENT_SIMULATIONS, PlacementChange};

use super::Answer;
use crate::cli::{ClientOptions, Format, SimulateOptions};
use crate::config::hub_client;
use crate::manifest;
use crate::output::{print_table, print_value};

#[derive(Deserialize)]
struct Changes {
    placements: Vec<PlacementChange>,
}

pub async fn simulate(options: &ClientOptions, wanted: SimulateOptions) -> anyhow::Result<()> {
    let manifests = manifest::read_all(&wanted.files)?;
    let manifests: Vec<Value> = manifests.into_iter().map(|manifest| manifest.value).collect();
    let simulation = json!({
        "apiVersion": types::API_VERSION, "kind": PLACEMENT_SIMULATION, "spec": {"manifests": manifests},
    });
    let client = hub_client(options)?;
    let path = path(PLACEMENT_SIMULATIONS, &options.namespace, "");
    let answer: Answer = client.json(client.request(Method::POST, &path).json(&simulation)).await?;
    let Changes { placements: changes } = answer.read()?;
    match wanted.output {
        Format::Json | Format::Yaml => print_value(&answer.status, wanted.output)?,
        Format::Name => {
            let changed =
                changes.iter().filter(|change| !change.added.is_empty() || !change.removed.is_empty());
            changed.for_each(|change| println!("{}", name(change)));
        }
        Format::Table | Format::Wide => print_changes(&changes),
    }
    Ok(())
}

fn print_changes(changes: &[PlacementChange]) {
    let rows: Vec<Vec<String>> = changes.iter().flat_map(rows).collect();
    if rows.is_empty() {
        println!("nothing would change");
    } else {
        let heading = ["PLACEMENT", "CHANGE", "SITE", "WHY"].map(str::to_owned);
        print_table(&heading, &rows, true);
    }
    for change in changes {
        if let Some(note) = &change.note {
            println!("\n{}: {note}", name(change));
        }
        if change.left_out > 0 {
            println!("\n{}: {} more names of sites are too many to tell", name(change), change.left_out);
        }
    }
    let (added, removed) = changes.iter().fold((0, 0), |(added, removed), change| {
        (added + change.added.len(), removed + change.removed.len())
    });
    println!("\n{added} added, {removed} removed over {} placements", changes.len());
}

fn name(change: &PlacementChange) -> String {
    format!("{}/{}", change.namespace, change.placement)
}

fn rows(change: &PlacementChange) -> Vec<Vec<String>> {
    let removed = change.removed.iter().map(|site| ("remove", site));
    let added = change.added.iter().map(|site| ("add", site));
    let rows = removed
        .chain(added)
        .map(|(word, site)| vec![name(change), word.to_owned(), site.site.clone(), site.reason.clone()]);
    rows.collect()
}
