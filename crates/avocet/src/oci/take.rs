//! A model out of a registry, as an artifact of the hub.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use artifacts::signature::cosign::Proof;
use serde::Deserialize;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncWriteExt;
use types::Digest;

use super::client::Client;
use super::place::Place;
use super::sign;
use super::unpack::Files;
use crate::apply::hash;
use crate::cli::ClientOptions;

/// What a path begins with that is a place in a registry.
pub const SCHEME: &str = "oci://";

/// What a ModelPack's layers with models are called, up to how they are packed.
const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.";
/// Where in a ModelPack a layer with a file says what its name is.
const FILE_PATH: &str = "org.cncf.model.filepath";
/// Where images have models.
const MODELS: &str = "models";
/// What a layer that is the artifact is called here, and the folder of what was unpacked.
const LAYER: &str = "layer";
const MODEL: &str = "model";

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
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Layer {
    /// Whether it is a file, and no archive.
    fn is_file(&self) -> bool {
        self.media_type.ends_with(".raw")
    }

    /// Whether its bytes are a file or an archive as artifacts are, not compressed.
    fn is_plain(&self) -> bool {
        self.is_file() || self.media_type.ends_with(".tar")
    }
}

/// Fetches the model at `oci://PLACE`: what a ModelPack's layers with models hold, or what an image has below `/models`.
pub async fn take(options: &ClientOptions, address: &str) -> anyhow::Result<Taken> {
    let place = Place::parse(address.strip_prefix(SCHEME).unwrap_or(address))?;
    let mut client = Client::of(options, &place)?;
    let found = client.image(&place.reference).await.with_context(|| format!("{place} can't be read"))?;
    let manifest: Manifest =
        serde_json::from_slice(&found.bytes).with_context(|| format!("{place} is no manifest of a model"))?;
    let source = format!("{SCHEME}{}", place.pinned(found.digest));
    let folder = tempfile::tempdir()?;
    let weights: Vec<&Layer> =
        manifest.layers.iter().filter(|layer| layer.media_type.starts_with(WEIGHT)).collect();
    let mut proofs = Vec::new();
    let file = match weights.as_slice() {
        [] => take_image(&mut client, &manifest.layers, folder.path(), &place).await?,
        [layer] if layer.is_plain() => {
            let file = take_plain(&mut client, layer, folder.path()).await?;
            // What is signed are the bytes of the layer: only who serves these has the proof.
            if file == Path::new(LAYER) {
                proofs = sign::proofs(&mut client, &found.bytes).await?;
            }
            file
        }
        layers => take_pack(&mut client, layers, folder.path(), &place).await?,
    };
    Ok(Taken { folder, file, source, proofs })
}

/// Takes the one layer of a ModelPack that isn't compressed. It is the artifact itself, but for an archive of one file: so
/// other tools pack files.
async fn take_plain(client: &mut Client, layer: &Layer, folder: &Path) -> anyhow::Result<PathBuf> {
    let packed = folder.join(LAYER);
    fetch(client, layer, &packed).await?;
    if layer.is_file() || !has_one_file(&packed)? {
        return Ok(PathBuf::from(LAYER));
    }
    let mut files = Files::of(&folder.join(MODEL), "");
    files.unpack(&packed, &layer.media_type)?;
    only_file(folder, MODEL)?.with_context(|| format!("layer {} has no files", layer.digest))
}

fn has_one_file(archive: &Path) -> anyhow::Result<bool> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    let mut files = 0;
    for entry in archive.entries()? {
        files += usize::from(entry?.header().entry_type().is_file());
    }
    Ok(files == 1)
}

/// Unpacks the layers of a ModelPack; answers the one file, or the folder.
async fn take_pack(
    client: &mut Client,
    layers: &[&Layer],
    folder: &Path,
    place: &Place,
) -> anyhow::Result<PathBuf> {
    let mut files = Files::of(&folder.join(MODEL), "");
    for (index, layer) in layers.iter().enumerate() {
        let packed = NamedTempFile::new()?;
        fetch(client, layer, packed.path()).await?;
        let taken = if layer.is_file() {
            let name = layer.annotations.get(FILE_PATH).cloned();
            files.put(packed.path(), &name.unwrap_or_else(|| format!("model-{index}")))
        } else {
            files.unpack(packed.path(), &layer.media_type)
        };
        taken.with_context(|| format!("layer {} of {place} can't be unpacked", layer.digest))?;
    }
    only_file(folder, MODEL)?.with_context(|| format!("{place} has no files"))
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
    let mut files = Files::of(folder, MODELS);
    for layer in layers {
        let packed = NamedTempFile::new()?;
        fetch(client, layer, packed.path()).await?;
        let unpacked = files.unpack(packed.path(), &layer.media_type);
        unpacked.with_context(|| format!("layer {} of {place} can't be unpacked", layer.digest))?;
    }
    only_file(folder, MODELS)?.with_context(|| format!("{place} has no files below /{MODELS}"))
}

/// The one file that a folder in another has, or that folder; none where it is empty.
fn only_file(folder: &Path, name: &str) -> anyhow::Result<Option<PathBuf>> {
    let inside = folder.join(name);
    if !inside.is_dir() {
        return Ok(None);
    }
    let entries: Result<Vec<_>, _> = std::fs::read_dir(inside)?.collect();
    Ok(match entries?.as_slice() {
        [] => None,
        [only] if only.file_type()?.is_file() => Some(Path::new(name).join(only.file_name())),
        _ => Some(PathBuf::from(name)),
    })
}
