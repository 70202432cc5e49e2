//! `tidy`: what a compiler does not check of this workspace.

mod failures;
mod layers;
mod sources;

use anyhow::bail;

use crate::workspace::Workspace;

/// One thing that is wrong, in a sentence.
type Problem = String;

pub fn tidy(workspace: &Workspace) -> anyhow::Result<()> {
    let crates = layers::read(&workspace.packages);
    let mut problems = layers::upward_edges(&crates);
    problems.extend(layers::shared_heavy_dependencies(&crates));
    let sources = sources::read(&workspace.root)?;
    problems.extend(sources.iter().flat_map(sources::problems));
    problems.extend(failures::problems(&workspace.root, &sources)?);
    let warnings: Vec<Problem> = sources.iter().filter_map(sources::warning).collect();
    warnings.iter().for_each(|warning| println!("tidy: warning: {warning}"));
    if !problems.is_empty() {
        bail!("not tidy:\n  {}", problems.join("\n  "));
    }
    println!("tidy: {} crates and {} sources are in order", crates.len(), sources.len());
    Ok(())
}
