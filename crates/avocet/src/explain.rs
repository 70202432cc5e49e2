//! `explain placement/NAME`: the planner's own words on every site.

use anyhow::bail;
use serde_json::json;
use types::{PlacementDecisionSpec, PlacementSpec, SiteSpec};

use crate::cli::{ClientOptions, ExplainOptions, Format};
use crate::config::hub_client;
use crate::output::{print_table, print_value, split_name};

pub async fn explain(options: &ClientOptions, wanted: ExplainOptions) -> anyhow::Result<()> {
    let (info, name) = split_name(&wanted.what)?;
    if info.kind != "Placement" {
        bail!("decisions about {} can't be explained; explain placement/NAME", info.plural);
    }
    let client = hub_client(options)?;
    let placement = client.get::<PlacementSpec>(&options.namespace, &name).await?;
    let (sites, _) = client.list::<SiteSpec>("").await?;
    let current: Vec<String> = match client.get::<PlacementDecisionSpec>(&options.namespace, &name).await {
        Ok(decision) => decision.status.decisions.into_iter().map(|chosen| chosen.site).collect(),
        Err(error) if error.code() == Some(404) => vec![],
        Err(error) => return Err(error.into()),
    };
    // The very function that decides at the hub, on what the hub sees now.
    let outcome = planner::place(&placement.spec, &sites, &current);
    let frozen = outcome.selected.is_empty() && !current.is_empty();
    match wanted.output {
        Format::Json | Format::Yaml => {
            let verdicts: Vec<_> = outcome
                .verdicts
                .iter()
                .map(|verdict| {
                    json!({
                        "site": verdict.site, "selected": verdict.selected, "reason": verdict.reason,
                        "roundTripMilliseconds": verdict.round_trip_milliseconds,
                    })
                })
                .collect();
            let value =
                json!({"placement": name, "decided": current, "lastDecisionKept": frozen, "sites": verdicts});
            return print_value(&value, wanted.output);
        }
        Format::Name => outcome.selected.iter().for_each(|site| println!("{site}")),
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = outcome
                .verdicts
                .iter()
                .map(|verdict| {
                    let chosen = if verdict.selected { "yes" } else { "no" };
                    vec![verdict.site.clone(), chosen.to_owned(), verdict.reason.clone()]
                })
                .collect();
            print_table(&["SITE", "CHOSEN", "WHY"].map(str::to_owned), &rows, true);
            if frozen {
                println!("\nNo site matches now, so the last good decision is kept: {}", current.join(", "));
            }
        }
    }
    Ok(())
}
