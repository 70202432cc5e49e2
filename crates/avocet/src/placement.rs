//! `explain placement/NAME` and `placement simulate`: what the hub decides, or would; it works that out itself.

mod simulate;

use anyhow::bail;
use api::client::path;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use types::{Kind, PlacementExplanation, PlacementSpec, SiteVerdict};

use crate::cli::{ClientOptions, ExplainOptions, Format};
use crate::config::hub_client;
use crate::output::{print_table, print_value, split_name};

pub use simulate::simulate;

/// What the hub answers.
#[derive(Deserialize)]
struct Answer {
    status: Value,
}

impl Answer {
    fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.status)
    }
}

pub async fn explain(options: &ClientOptions, wanted: ExplainOptions) -> anyhow::Result<()> {
    let (info, name) = split_name(&wanted.what)?;
    if info.kind != PlacementSpec::KIND {
        bail!("decisions about {} can't be explained; explain placement/NAME", info.plural);
    }
    let client = hub_client(options)?;
    let path = format!("{}/explanation", path(info.plural, &options.namespace, &name));
    let request = client.request(Method::GET, &path);
    let request = match &wanted.site {
        Some(site) => request.query(&[("site", site)]),
        None => request,
    };
    let answer: Answer = client.json(request).await?;
    print(&answer, wanted.output)
}

fn print(answer: &Answer, format: Format) -> anyhow::Result<()> {
    let explanation: PlacementExplanation = answer.read()?;
    let kept = explanation.decided.join(", ");
    if let Some(wrong) = explanation.misconfigured {
        bail!("{wrong}; what was decided before is kept ({kept}); correct the spec");
    }
    match format {
        Format::Json | Format::Yaml => return print_value(&answer.status, format),
        Format::Name => {
            let selected = explanation.sites.iter().filter(|verdict| verdict.selected);
            selected.for_each(|verdict| println!("{}", verdict.site));
        }
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> =
                explanation.sites.iter().map(|verdict| row(verdict, format)).collect();
            let mut heading = vec!["SITE", "CHOSEN", "SCORE"];
            if format == Format::Wide {
                heading.push("TERMS");
            }
            heading.push("WHY");
            print_table(&heading.into_iter().map(str::to_owned).collect::<Vec<_>>(), &rows, true);
            if explanation.left_out > 0 {
                println!("\n{} more sites; --site NAME explains one", explanation.left_out);
            }
            explanation.warnings.iter().for_each(|warning| println!("\nwarning: {warning}"));
            if explanation.last_decision_kept {
                println!("\nNo site matches now, so the last good decision is kept: {kept}");
            }
        }
    }
    Ok(())
}

fn row(verdict: &SiteVerdict, format: Format) -> Vec<String> {
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
