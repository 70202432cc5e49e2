//! Which kind of model a file holds, told by its content, and how it gets ready for an engine.

mod archive;
mod classical;
mod folder;
mod graph_def;
mod saved_model;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub(crate) use graph_def::read as read_graph_def;
pub(crate) use saved_model::read as read_saved_model;

/// A kind of model that some engine serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// ONNX, the one that all general engines take.
    Onnx,
    /// A folder with `saved_model.pb`, as TensorFlow 1 and 2 and Keras 3 export it.
    SavedModel,
    /// A TensorFlow graph in one file, its variables turned into constants.
    FrozenGraph,
    /// TensorFlow Lite's flat buffer, which engines get as ONNX.
    TfLite,
    /// What XGBoost saves, as JSON.
    XgboostJson,
    /// What XGBoost saves, as Universal Binary JSON.
    XgboostUbj,
    /// What LightGBM saves, as text.
    Lightgbm,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Onnx => "ONNX",
            Format::SavedModel => "TensorFlow SavedModel",
            Format::FrozenGraph => "frozen TensorFlow graph",
            Format::TfLite => "TFLite",
            Format::XgboostJson => "XGBoost JSON",
            Format::XgboostUbj => "XGBoost UBJSON",
            Format::Lightgbm => "LightGBM text",
        })
    }
}

impl Format {
    /// What a file or folder holds, by a look at its beginning; `None` for an archive, and for what can't be read.
    pub fn at(path: &Path) -> Option<Format> {
        if path.is_dir() {
            return folder::model_in(path).ok().map(|model| model.format);
        }
        match kind(&head(path).ok()?).ok()? {
            Kind::Model(format) => Some(format),
            Kind::Archive(_) => None,
        }
    }

    /// The format of a file that is no archive; what isn't known counts as ONNX, whose reader says what is wrong.
    pub(crate) fn of(path: &Path) -> Result<Format, FormatError> {
        match kind(&head(path)?)? {
            Kind::Model(format) => Ok(format),
            Kind::Archive(_) => Ok(Format::Onnx),
        }
    }

    /// What a file surely is by its beginning. `None` for ONNX, which has no beginning of its own, for archives, and for
    /// what can't be read or is no model.
    pub fn told_by(path: &Path) -> Option<Format> {
        let head = head(path).ok()?;
        let Kind::Model(format) = kind(&head).ok()? else { return None };
        match format {
            Format::Onnx => None,
            // Any JSON begins like that.
            Format::XgboostJson | Format::XgboostUbj => {
                head.windows(LEARNER.len()).any(|part| part == LEARNER).then_some(format)
            }
            _ => Some(format),
        }
    }

    /// Whether engines get an ONNX file of it.
    pub(crate) fn is_onnx(self) -> bool {
        matches!(self, Format::Onnx | Format::TfLite)
    }

    pub(crate) fn damaged(self, problem: impl Into<String>) -> FormatError {
        FormatError::Damaged { format: self, problem: problem.into() }
    }
}

/// Why a file has no readable signature.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file can't be opened or read.
    #[error("can't read the model file; check the path and its permissions")]
    Io(#[source] io::Error),
    /// Not what its beginning says.
    #[error("the file is not a valid {format} model ({problem}); export it again")]
    Damaged { format: Format, problem: String },
    /// Known, but nothing that can be served as it is.
    #[error("this is {what}; {remedy}")]
    Unservable { what: &'static str, remedy: &'static str },
    /// An archive that can't be unpacked, or holds no model.
    #[error("the archive can't be used: {0}")]
    Archive(String),
    /// An input that isn't a tensor, or of an element type outside the protocol.
    #[error(
        "input `{input}` is {kind}, which can't be served; export the model with plain tensors as inputs"
    )]
    Input { input: String, kind: String },
    /// Nothing to answer with.
    #[error("the model has no output that is a plain tensor; export it so (scikit-learn: `zipmap=False`)")]
    NoOutput,
    /// No signature that stands out.
    #[error(
        "the SavedModel has no signature `serving_default` and {given}; export it with `signatures=`, or from \
         Keras with `model.export()`"
    )]
    NoSignature { given: String },
}

/// A model as engines take it: archives are unpacked, TFLite is translated to ONNX.
#[derive(Debug)]
pub struct Source {
    pub format: Format,
    /// The file, or the folder of a SavedModel.
    pub path: PathBuf,
    /// The folder that was given or unpacked: all in it is the model's.
    folder: Option<PathBuf>,
    /// Goes with this value; engines keep nothing of it.
    _scratch: Option<TempDir>,
}

impl Source {
    /// Looks into a file or folder, and unpacks it where it is an archive.
    ///
    /// # Errors
    /// When it can't be read or is no model that any engine could take.
    pub fn open(path: &Path) -> Result<Source, FormatError> {
        if path.is_dir() {
            let folder::Model { format, path: model } = folder::model_in(path)?;
            return Ok(Source { format, path: model, folder: Some(path.into()), _scratch: None });
        }
        match kind(&head(path)?)? {
            Kind::Model(Format::TfLite) => {
                let scratch = tempfile::tempdir().map_err(FormatError::Io)?;
                let translated = scratch.path().join("model.onnx");
                std::fs::write(&translated, crate::tflite::to_onnx(path)?).map_err(FormatError::Io)?;
                Ok(Source { path: translated, ..Source::unpacked(Format::TfLite, scratch) })
            }
            Kind::Model(format) => Ok(Source { format, path: path.into(), folder: None, _scratch: None }),
            Kind::Archive(packing) => {
                let scratch = tempfile::tempdir().map_err(FormatError::Io)?;
                let folder::Model { format, path } = archive::unpack(path, packing, scratch.path())?;
                Ok(Source { path, ..Source::unpacked(format, scratch) })
            }
        }
    }

    fn unpacked(format: Format, scratch: TempDir) -> Source {
        let folder = scratch.path().to_path_buf();
        Source { format, path: folder.clone(), folder: Some(folder), _scratch: Some(scratch) }
    }

    /// The files and folders that engines may have to read beside [`Source::path`].
    pub fn others(&self) -> Vec<PathBuf> {
        self.folder.clone().map_or_else(|| folder::companions(&self.path), |folder| vec![folder])
    }
}

impl Source {
    /// Where an engine may find what the model names: beside it, under whatever name.
    pub(crate) fn around(&self) -> Vec<PathBuf> {
        let beside = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        vec![self.folder.clone().or(beside.map(Path::to_path_buf)).unwrap_or_else(|| PathBuf::from("."))]
    }

    /// Every file that is the model's, by its name there, in the order of names.
    pub(crate) fn files(&self) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        let root = self.folder.as_deref().unwrap_or(&self.path);
        let mut files = Vec::new();
        folder::files_below(root, Path::new(""), &mut files)?;
        for other in self.others().iter().filter(|_| self.folder.is_none()) {
            files.push((other.file_name().map(PathBuf::from).unwrap_or_default(), other.clone()));
        }
        files.sort();
        Ok(files)
    }
}

/// Bytes that tell every format apart; a tar says so at byte 257.
const HEAD: usize = 512;

/// What XGBoost's files hold in their first lines.
const LEARNER: &[u8] = b"learner";

/// The beginning of a file.
fn head(path: &Path) -> Result<Vec<u8>, FormatError> {
    let mut head = Vec::with_capacity(HEAD);
    let file = File::open(path).map_err(FormatError::Io)?;
    file.take(HEAD as u64).read_to_end(&mut head).map_err(FormatError::Io)?;
    Ok(head)
}

enum Kind {
    Model(Format),
    Archive(archive::Packing),
}

fn kind(head: &[u8]) -> Result<Kind, FormatError> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let unservable = |what, remedy| Err(FormatError::Unservable { what, remedy });
    if let Some(format) = classical::starting(head) {
        return Ok(Kind::Model(format));
    }
    if at(4, b"TFL3") {
        return Ok(Kind::Model(Format::TfLite));
    }
    if at(0, b"PK\x03\x04") {
        return Ok(Kind::Archive(archive::Packing::Zip));
    }
    if at(0, &[0x1f, 0x8b]) {
        return Ok(Kind::Archive(archive::Packing::TarGzip));
    }
    if at(257, b"ustar") {
        return Ok(Kind::Archive(archive::Packing::Tar));
    }
    if at(0, b"\x89HDF\r\n\x1a\n") {
        return unservable("a Keras file in HDF5", "load it in Keras and call `model.export(folder)`");
    }
    if graph_def::is_likely(head) {
        return Ok(Kind::Model(Format::FrozenGraph));
    }
    if saved_model::is_likely(head) {
        return unservable(
            "the graph of a SavedModel without its folder",
            "give the whole folder, or a .zip or .tar.gz of it",
        );
    }
    Ok(Kind::Model(Format::Onnx))
}
