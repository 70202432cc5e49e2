//! `artifact`: what a hub keeps of artifacts, and what it need not keep.

use clap::Subcommand;
use indicatif::HumanBytes;
use registry::Swept;
use reqwest::Method;
use serde_json::json;

use crate::cli::{ClientOptions, Format, duration};
use crate::config::hub_client;
use crate::output::print_value;

#[derive(Subcommand)]
pub enum ArtifactCommand {
    /// Remove what no resource, tag or upload names any more
    #[command(after_help = "Examples:\n  avocet artifact gc --dry-run        says what would go\n  \
                            avocet artifact gc --minimum-age 7d")]
    Gc {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        /// Keep what came within this time, whoever names it: 30s, 15m, 1h or 2d
        #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
        minimum_age: u64,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

pub async fn artifact(options: &ClientOptions, command: &ArtifactCommand) -> anyhow::Result<()> {
    let ArtifactCommand::Gc { dry_run, minimum_age, output } = command;
    let client = hub_client(options)?;
    let wanted = json!({"dryRun": dry_run, "minimumAgeSeconds": minimum_age});
    let request = client.request(Method::POST, "/avocet/v1/artifacts/garbage").json(&wanted);
    let swept: Swept = client.json(request).await?;
    if matches!(output, Format::Json | Format::Yaml) {
        return print_value(&serde_json::to_value(swept)?, *output);
    }
    let Swept { manifests, links, blobs, bytes } = swept;
    let would = if *dry_run { "would free" } else { "freed" };
    println!(
        "{would} {} in {blobs} files ({manifests} manifests, {links} places in repositories)",
        HumanBytes(bytes)
    );
    Ok(())
}
