//! A model out of a registry, as an artifact of the hub.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use artifacts::signature::cosign::Proof;
use serde::Deserialize;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncWriteExt;
use types::Digest;

use super::client::Client;
use super::place::Place;
use super::sign;
use crate::apply::hash;
use crate::cli::ClientOptions;

/// What a path begins with that is a place in a registry.
pub const SCHEME: &str = "oci://";

/// What a ModelPack's layers with models are called, up to how they are packed.
const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.";
/// How many bytes all files of a modelcar may have.
const LARGEST: u64 = 16 << 30;

/// What was taken: a file or folder that is an artifact, and where it is from, whatever its tag points at later.
pub struct Taken {
    folder: TempDir,
    file: PathBuf,
    pub source: String,
    /// Who signed the manifest that it is a layer of.
    pub proofs: Vec<Proof>,
}

impl Taken {
    /// The file or folder.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.file)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
}

/// Fetches the model at `oci://PLACE`: the one layer of a ModelPack, or what an image has below `/models`.
pub async fn take(options: &ClientOptions, address: &str) -> anyhow::Result<Taken> {
    let place = Place::parse(address.strip_prefix(SCHEME).unwrap_or(address))?;
    let mut client = Client::of(options, &place)?;
    let found = client.manifest(&place.reference).await?;
    let manifest: Manifest = serde_json::from_slice(&found.bytes).with_context(|| {
        format!("{place} is no manifest of a model; an index can't be served, name one of its images")
    })?;
    let source = format!("{SCHEME}{}", place.pinned(found.digest));
    let folder = tempfile::tempdir()?;
    let weights: Vec<&Layer> =
        manifest.layers.iter().filter(|layer| layer.media_type.starts_with(WEIGHT)).collect();
    let mut proofs = Vec::new();
    let file = match weights.as_slice() {
        [] => take_image(&mut client, &manifest.layers, folder.path(), &place).await?,
        [layer]
            if layer.media_type == format!("{WEIGHT}raw") || layer.media_type == format!("{WEIGHT}tar") =>
        {
            fetch(&mut client, layer, &folder.path().join("model")).await?;
            proofs = sign::proofs(&mut client, &found.bytes).await?;
            PathBuf::from("model")
        }
        [layer] => bail!(
            "{place} has its model as {}, which can't be read yet; pack it raw or tar",
            layer.media_type
        ),
        layers => bail!("{place} has {} layers with models; push them one by one", layers.len()),
    };
    Ok(Taken { folder, file, source, proofs })
}

async fn fetch(client: &mut Client, layer: &Layer, to: &Path) -> anyhow::Result<()> {
    let mut response = client.blob(&layer.digest.into()).await?;
    let mut file = tokio::fs::File::create(to).await?;
    let mut received = 0;
    while let Some(part) = response.chunk().await? {
        received += part.len() as u64;
        if received > layer.size {
            bail!("layer {} is longer than the {} bytes that its manifest says", layer.digest, layer.size);
        }
        file.write_all(&part).await?;
    }
    file.flush().await?;
    let (actual, _) = hash(to)?;
    if actual != layer.digest {
        bail!(
            "layer {} arrived as {actual}; try again, and check the registry if this repeats",
            layer.digest
        );
    }
    Ok(())
}

/// Unpacks what the layers of an image have below `/models`; answers the one file, or the folder.
async fn take_image(
    client: &mut Client,
    layers: &[Layer],
    folder: &Path,
    place: &Place,
) -> anyhow::Result<PathBuf> {
    let mut left = LARGEST;
    for layer in layers {
        let packed = NamedTempFile::new()?;
        fetch(client, layer, packed.path()).await?;
        let file = File::open(packed.path())?;
        let unpacked = match layer.media_type.as_str() {
            kind if kind.ends_with("tar+gzip") || kind.ends_with("tar.gzip") => {
                unpack(flate2::read::GzDecoder::new(file), folder, &mut left)
            }
            kind if kind.ends_with(".tar") => unpack(file, folder, &mut left),
            kind => bail!("{place} has a layer of type {kind}, which can't be read; use tar or tar+gzip"),
        };
        unpacked.with_context(|| format!("layer {} of {place} can't be unpacked", layer.digest))?;
    }
    let models = folder.join("models");
    let entries =
        std::fs::read_dir(&models).with_context(|| format!("{place} has no files below /models"))?;
    let entries: Result<Vec<_>, _> = entries.collect();
    match entries?.as_slice() {
        [only] if only.file_type()?.is_file() => Ok(Path::new("models").join(only.file_name())),
        [] => bail!("{place} has no files below /models"),
        _ => Ok(PathBuf::from("models")),
    }
}

/// Takes regular files below `models/` and nothing else: links could lead anywhere.
fn unpack(tar: impl Read, folder: &Path, left: &mut u64) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let parts: Option<PathBuf> = path
            .components()
            .filter(|part| !matches!(part, Component::CurDir | Component::RootDir))
            .map(|part| if let Component::Normal(part) = part { Some(part) } else { None })
            .collect();
        let inside =
            parts.filter(|parts| parts.starts_with("models") && entry.header().entry_type().is_file());
        let Some(inside) = inside else { continue };
        *left = left
            .checked_sub(entry.size())
            .with_context(|| format!("its files have more than {} GiB together", LARGEST >> 30))?;
        let to = folder.join(inside);
        std::fs::create_dir_all(to.parent().unwrap_or(folder))?;
        std::io::copy(&mut entry, &mut File::create(to)?)?;
    }
    Ok(())
}
