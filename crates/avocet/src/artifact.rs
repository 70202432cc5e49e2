//! `artifact`: what a hub need not keep of artifacts, and who vouches for them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use artifacts::signature::{SigningKey, TrustedKeys};
use clap::Subcommand;
use indicatif::HumanBytes;
use registry::Swept;
use reqwest::Method;
use serde_json::json;
use types::Digest;

use crate::apply::hash;
use crate::cli::{ClientOptions, Format, duration};
use crate::config::hub_client;
use crate::oci::{self, SCHEME};
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
    /// Print a signature of an artifact, to be written into its `signatures`; or sign what is in a registry, as cosign does
    #[command(after_help = "Examples:\n  openssl genpkey -algorithm ed25519 -out key.pem\n  \
                            avocet artifact sign --key key.pem model.onnx\n  \
                            avocet artifact sign --key key.pem oci://team/app:v1    in the hub's registry\n\n\
                            For cosign:  cosign import-key-pair --key key.pem  makes its key of the same one")]
    Sign {
        /// A private key of ed25519 or ECDSA P-256, in PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// A file, the digest of an artifact, or oci://[HOST[:PORT]/]REPOSITORY[:TAG]
        #[arg(value_name = "FILE|DIGEST|PLACE")]
        what: String,
    },
    /// Say whether a signature of an artifact is valid, or whether one in a registry is that cosign or we made
    #[command(after_help = "Examples:\n  openssl pkey -in key.pem -pubout -out key.pub\n  \
                            avocet artifact verify --key key.pub model.onnx ed25519:…\n  \
                            avocet artifact verify --key cosign.pub oci://team/app:v1")]
    Verify {
        /// Public keys of ed25519 or ECDSA P-256, in PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// A file, the digest of an artifact, or oci://[HOST[:PORT]/]REPOSITORY[:TAG]
        #[arg(value_name = "FILE|DIGEST|PLACE")]
        what: String,
        /// What `avocet artifact sign` printed; one valid signature suffices
        signatures: Vec<String>,
    },
}

pub async fn artifact(options: &ClientOptions, command: &ArtifactCommand) -> anyhow::Result<()> {
    match command {
        ArtifactCommand::Gc { dry_run, minimum_age, output } => {
            collect(options, *dry_run, *minimum_age, *output).await
        }
        ArtifactCommand::Sign { key, what } => {
            let key = signing_key(key)?;
            let signed = match what.starts_with(SCHEME) {
                true => oci::sign(options, what, &key).await?,
                false => key.sign(&digest(what)?)?,
            };
            println!("{signed}");
            Ok(())
        }
        ArtifactCommand::Verify { key, what, .. } if what.starts_with(SCHEME) => {
            let place = oci::verify(options, what, &trusted_keys(key)?).await?;
            println!("{place} is signed by a key in {}", key.display());
            Ok(())
        }
        ArtifactCommand::Verify { key, what, signatures } => {
            let digest = digest(what)?;
            trusted_keys(key)?.check(&digest, signatures, |_| None)?;
            println!("{digest} is signed by a key in {}", key.display());
            Ok(())
        }
    }
}

/// Reads a key that signs.
pub fn signing_key(file: &Path) -> anyhow::Result<SigningKey> {
    let unusable = || format!("the key in {} can't be used", file.display());
    SigningKey::from_pem(&std::fs::read_to_string(file).with_context(unusable)?).with_context(unusable)
}

/// Reads keys whose signatures count.
pub fn trusted_keys(file: &Path) -> anyhow::Result<TrustedKeys> {
    let unusable = || format!("the keys in {} can't be used", file.display());
    TrustedKeys::from_pem(&std::fs::read_to_string(file).with_context(unusable)?).with_context(unusable)
}

/// The digest that is named, or that of a file.
fn digest(what: &str) -> anyhow::Result<Digest> {
    if let Ok(digest) = what.parse() {
        return Ok(digest);
    }
    let (digest, _) = hash(Path::new(what)).with_context(|| format!("can't read {what}"))?;
    Ok(digest)
}

async fn collect(
    options: &ClientOptions,
    dry_run: bool,
    minimum_age: u64,
    output: Format,
) -> anyhow::Result<()> {
    let client = hub_client(options)?;
    let wanted = json!({"dryRun": dry_run, "minimumAgeSeconds": minimum_age});
    let request = client.request(Method::POST, "/avocet/v1/artifacts/garbage").json(&wanted);
    let swept: Swept = client.json(request).await?;
    if matches!(output, Format::Json | Format::Yaml) {
        return print_value(&serde_json::to_value(swept)?, output);
    }
    let Swept { manifests, links, blobs, bytes } = swept;
    let would = if dry_run { "would free" } else { "freed" };
    println!(
        "{would} {} in {blobs} files ({manifests} manifests, {links} places in repositories)",
        HumanBytes(bytes)
    );
    Ok(())
}
