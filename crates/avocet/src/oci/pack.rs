//! A model as an artifact of a registry: in the form of CNCF's ModelPack, or as an image with files below `/models`,
//! as KServe mounts them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use types::Digest;

use super::client::Client;
use super::place::Place;
use crate::apply::hash;
use crate::cli::ClientOptions;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const MODEL_MANIFEST: &str = "application/vnd.cncf.model.manifest.v1+json";
const MODEL_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
const WEIGHT_FILE: &str = "application/vnd.cncf.model.weight.v1.raw";
const WEIGHT_FOLDER: &str = "application/vnd.cncf.model.weight.v1.tar";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const IMAGE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    avocet model push iris.onnx models/iris:v1                    to the hub's registry\n  \
    avocet model push iris.onnx registry.example/iris:v1          to another one, after podman login\n  \
    avocet model push savedmodel/ models/faces:v2 --modelcar      as an image with files below /models\n  \
    avocet model push iris.onnx models/iris:arm --modelcar --platform linux/arm64\n\n\
    Serve it:  artifact: {path: \"oci://models/iris:v1\"}  in the version of a Model that avocet apply reads")]
pub struct PushModelOptions {
    /// A model's file or folder
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Where to: [HOST[:PORT]/]REPOSITORY[:TAG]; without a host, the hub's registry
    #[arg(value_name = "PLACE")]
    pub place: String,
    /// As an image with the files below /models, instead of a ModelPack
    #[arg(long)]
    pub modelcar: bool,
    /// For which machines the image says it is; its files are the same for all
    #[arg(long, requires = "modelcar", default_value = "linux/amd64", value_name = "OS/ARCH")]
    pub platform: Platform,
}

/// An operating system and an architecture, as images name them.
#[derive(Debug, Clone)]
pub struct Platform {
    os: String,
    architecture: String,
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
        match text.split_once('/') {
            Some((os, architecture)) if is_word(os) && is_word(architecture) => {
                Ok(Self { os: os.to_owned(), architecture: architecture.to_owned() })
            }
            _ => Err(format!("`{text}` is no platform; write it as linux/arm64")),
        }
    }
}

pub async fn push_model(options: &ClientOptions, wanted: &PushModelOptions) -> anyhow::Result<()> {
    let place = Place::parse(&wanted.place)?;
    let path = &wanted.path;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.is_empty() || !path.exists() {
        bail!("{} is not there", path.display());
    }
    let (layer, config, artifact_type) = if wanted.modelcar {
        let layer = Layer::of_image(path, name)?;
        let config = json!({
            "architecture": wanted.platform.architecture, "os": wanted.platform.os, "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        (layer, Config { media_type: IMAGE_CONFIG, content: config }, None)
    } else {
        let layer = Layer::of_model(path)?;
        let format = path.extension().and_then(|end| end.to_str()).unwrap_or("savedmodel");
        let config = json!({
            "descriptor": {"name": place.repository.as_str().rsplit('/').next()},
            "config": {"format": format},
            "modelfs": {"type": "layers", "diffIds": [layer.digest]},
        });
        (layer, Config { media_type: MODEL_CONFIG, content: config }, Some(MODEL_MANIFEST))
    };
    let mut client = Client::of(options, &place)?;
    client.push_blob(layer.path(path), &layer.digest).await?;
    let config_file = config.file()?;
    let (config_digest, config_size) = hash(config_file.path())?;
    client.push_blob(config_file.path(), &config_digest).await?;
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": config.media_type, "digest": config_digest, "size": config_size},
        "layers": [{
            "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size,
            "annotations": {"org.cncf.model.filepath": name},
        }],
    });
    if let (Some(artifact_type), Some(fields)) = (artifact_type, manifest.as_object_mut()) {
        fields.insert("artifactType".to_owned(), Value::from(artifact_type));
    }
    let digest = client.push_manifest(&place.reference, MANIFEST, &manifest).await?;
    println!("{}", place.pinned(digest.into()));
    Ok(())
}

struct Config {
    media_type: &'static str,
    content: Value,
}

impl Config {
    fn file(&self) -> anyhow::Result<NamedTempFile> {
        let file = NamedTempFile::new()?;
        std::fs::write(file.path(), self.content.to_string())?;
        Ok(file)
    }
}

struct Layer {
    media_type: &'static str,
    digest: Digest,
    size: u64,
    /// What was packed; a single file goes as it is.
    packed: Option<NamedTempFile>,
}

impl Layer {
    fn of_model(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            return Self::packed(WEIGHT_FOLDER, path);
        }
        let (digest, size) = hash(path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(Self { media_type: WEIGHT_FILE, digest, size, packed: None })
    }

    fn of_image(path: &Path, name: &str) -> anyhow::Result<Self> {
        let stage = tempfile::tempdir()?;
        let models = stage.path().join("models");
        if path.is_dir() {
            // The bundle of a folder has what is in it: the stage is the folder above.
            copy_folder(path, &models)?;
        } else {
            std::fs::create_dir(&models)?;
            std::fs::copy(path, models.join(name))
                .with_context(|| format!("can't read {}", path.display()))?;
        }
        Self::packed(IMAGE_LAYER, stage.path())
    }

    fn packed(media_type: &'static str, folder: &Path) -> anyhow::Result<Self> {
        let mut packed = NamedTempFile::new()?;
        let failed = || format!("can't pack {}", folder.display());
        artifacts::bundle::pack(folder, &mut packed).with_context(failed)?;
        let (digest, size) = hash(packed.path())?;
        Ok(Self { media_type, digest, size, packed: Some(packed) })
    }

    fn path<'a>(&'a self, given: &'a Path) -> &'a Path {
        self.packed.as_ref().map_or(given, NamedTempFile::path)
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &place)?,
            false => std::fs::copy(entry.path(), place).map(drop)?,
        }
    }
    Ok(())
}
