//! A SavedModel in an archive of a stranger's: unpacked within limits, or refused.

mod zip;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use artifacts::bundle;
use flate2::read::GzDecoder;

use super::{FormatError, saved_model};

/// Most bytes that an archive may unpack to.
const MAXIMUM_BYTES: u64 = bundle::MAXIMUM_BYTES;

#[derive(Clone, Copy)]
pub(super) enum Packing {
    Zip,
    Tar,
    TarGzip,
}

/// Unpacks into a new folder below `scratch`; answers the folder that holds the model.
pub(super) fn unpack(archive: &Path, packing: Packing, scratch: &Path) -> Result<PathBuf, FormatError> {
    let into = scratch.join("model");
    match packing {
        Packing::Zip => zip::unpack(archive, &into)?,
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
            std::fs::remove_file(tar).map_err(FormatError::Io)?;
        }
    }
    saved_model::folder_in(&into).map_err(|error| match error {
        FormatError::Unservable { .. } => foreign(&into),
        other => other,
    })
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
    FormatError::Archive("it holds no `saved_model.pb`; pack the folder of a SavedModel".into())
}

/// Whether there is such a file in the folder or just below it.
fn has(folder: &Path, name: &str) -> bool {
    let below = std::fs::read_dir(folder).into_iter().flatten().flatten();
    folder.join(name).exists() || below.map(|entry| entry.path().join(name)).any(|path| path.exists())
}

fn too_large() -> FormatError {
    FormatError::Archive(format!("it unpacks to more than {} MiB", MAXIMUM_BYTES >> 20))
}

fn refused(error: impl std::error::Error) -> FormatError {
    FormatError::Archive(crate::engine::chain(&error))
}
