//! A folder in an archive of a stranger's: unpacked within limits, or refused.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use artifacts::bundle::{self, MAXIMUM_DEPTH, MAXIMUM_ENTRIES};
use artifacts::zip::Zip;
use flate2::read::GzDecoder;

use super::{FormatError, folder};

/// Most bytes that an archive may unpack to.
const MAXIMUM_BYTES: u64 = bundle::MAXIMUM_BYTES;

#[derive(Clone, Copy)]
pub(super) enum Packing {
    Zip,
    Tar,
    TarGzip,
}

/// Unpacks into a new folder below `scratch`; answers what is in it.
pub(super) fn unpack(archive: &Path, packing: Packing, scratch: &Path) -> Result<folder::Model, FormatError> {
    let into = scratch.join("model");
    match packing {
        Packing::Zip => unzip(archive, &into)?,
        Packing::Tar => bundle::unpack(archive, &into).map_err(refused)?,
        Packing::TarGzip => {
            let tar = scratch.join("model.tar");
            let file = File::open(archive).map_err(FormatError::Io)?;
            let mut content = GzDecoder::new(io::BufReader::new(file)).take(MAXIMUM_BYTES + 1);
            let bytes = io::copy(&mut content, &mut File::create(&tar).map_err(FormatError::Io)?);
            if bytes.map_err(refused)? > MAXIMUM_BYTES {
                return Err(too_large());
            }
            bundle::unpack(&tar, &into).map_err(refused)?;
            fs::remove_file(tar).map_err(FormatError::Io)?;
        }
    }
    folder::model_in(&into).map_err(|error| match error {
        FormatError::Unservable { .. } => foreign(&into),
        other => other,
    })
}

/// Unpacks into a new folder; nothing is made outside of it.
fn unzip(archive: &Path, into: &Path) -> Result<(), FormatError> {
    let mut zip = Zip::open(archive).map_err(refused)?;
    let entries = zip.entries().to_vec();
    if entries.len() > MAXIMUM_ENTRIES {
        return Err(FormatError::Archive(format!("it has more than {MAXIMUM_ENTRIES} files")));
    }
    if entries.iter().map(|entry| entry.size).sum::<u64>() > MAXIMUM_BYTES {
        return Err(too_large());
    }
    fs::create_dir(into).map_err(FormatError::Io)?;
    for entry in &entries {
        let path = inside(into, &entry.name)?;
        if entry.name.ends_with('/') {
            fs::create_dir_all(path).map_err(FormatError::Io)?;
            continue;
        }
        fs::create_dir_all(path.parent().unwrap_or(into)).map_err(FormatError::Io)?;
        let mut file = File::create_new(path).map_err(FormatError::Io)?;
        zip.copy(entry, &mut file).map_err(refused)?;
    }
    Ok(())
}

/// Where an entry goes, if that is inside the folder.
fn inside(folder: &Path, name: &str) -> Result<PathBuf, FormatError> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || name.contains(['\\', '\0']) || path.components().count() > MAXIMUM_DEPTH {
        return Err(FormatError::Archive(format!("`{}` is no path inside it", name.escape_debug())));
    }
    Ok(folder.join(path))
}

/// Archives that are models of other programs have files that tell so.
fn foreign(folder: &Path) -> FormatError {
    if folder.join("model.weights.h5").exists() {
        let remedy = "load it in Keras and call `model.export(folder)`";
        return FormatError::Unservable { what: "a Keras file", remedy };
    }
    if has(folder, "data.pkl") {
        return FormatError::Unservable {
            what: "a PyTorch file",
            remedy: "export it with `torch.onnx.export`",
        };
    }
    let text = "it holds neither `saved_model.pb` nor one `.onnx` file; pack the folder of a SavedModel, or an ONNX \
                model with its data";
    FormatError::Archive(text.into())
}

/// Whether there is such a file in the folder or just below it.
fn has(folder: &Path, name: &str) -> bool {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    folder.join(name).exists() || below.map(|entry| entry.path().join(name)).any(|path| path.exists())
}

fn too_large() -> FormatError {
    FormatError::Archive(format!("it unpacks to more than {} MiB", MAXIMUM_BYTES >> 20))
}

fn refused(error: impl std::error::Error) -> FormatError {
    FormatError::Archive(crate::engine::chain(&error))
}
