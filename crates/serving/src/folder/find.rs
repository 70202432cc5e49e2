//! Which file or folder is a model, told by its name and its beginning.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use inference::Format;

/// Most entries of one folder that are looked at.
pub(super) const MOST: usize = 10_000;

/// What a version's model is called where its configuration names no file: Triton's names and those of its backends,
/// the first that is there.
const NAMES: [&str; 9] = [
    "model.onnx",
    "model.savedmodel",
    "model.graphdef",
    "model.tflite",
    "xgboost.json",
    "xgboost.ubj",
    "model.json",
    "model.ubj",
    "model.txt",
];
/// Endings of models, whatever is inside.
const ENDINGS: [&str; 8] =
    [".onnx", ".savedmodel", ".graphdef", ".tflite", ".tar.gz", ".tgz", ".tar", ".zip"];
/// Endings of models that nothing here runs, and what to do about it.
const FOREIGN: [(&[&str], &str); 4] = [
    (&["h5", "hdf5", "keras"], "it is Keras' own format: load it in Keras and call `model.export(folder)`"),
    (&["pt", "pth", "mar"], "it is PyTorch's: export it to ONNX with `torch.onnx.export`"),
    (&["pkl", "pickle", "joblib"], "it is a pickle, which could run any code: convert it with skl2onnx"),
    (
        &["plan", "engine", "xml", "pmml", "mlmodel", "safetensors", "gguf", "cbm", "pdmodel"],
        "no engine here runs that format: export the model to ONNX",
    ),
];
/// What lies in the folder of a TensorFlow `SavedModel`.
const SAVED_MODEL: &str = "saved_model.pb";

/// What is told of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    /// Why it is none.
    Not(&'static str),
}

/// Of what a path leads to; `None` where nothing is there.
pub(super) fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The name of the model in a lone file, or in a folder.
pub(super) fn model_name(path: &Path, is_folder: bool) -> String {
    let name = file_name(path);
    let ending = ENDINGS.iter().find(|ending| name.len() > ending.len() && name.ends_with(*ending));
    match ending.and_then(|ending| name.strip_suffix(ending)) {
        Some(stem) => stem.to_owned(),
        None if is_folder => name,
        None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// The entries of a folder that aren't hidden, in order.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = folder.read_dir()?.take(MOST).map(|entry| entry.map(|entry| entry.path()));
    let mut entries: Vec<PathBuf> = entries.collect::<io::Result<_>>()?;
    entries.retain(|path| !file_name(path).starts_with('.'));
    entries.sort();
    Ok(entries)
}

/// Whether a folder is a `SavedModel`.
pub(super) fn is_saved_model(folder: &Path) -> bool {
    folder.join(SAVED_MODEL).is_file()
}

/// What is at a path whose metadata these are.
pub(super) fn kind(path: &Path, metadata: &Metadata) -> Kind {
    let name = file_name(path);
    if metadata.is_dir() {
        let is_model = is_saved_model(path) || name.ends_with(".onnx") || name.ends_with(".savedmodel");
        return if is_model { Kind::Model } else { Kind::Not("it is a folder without a model in it") };
    }
    if !metadata.is_file() {
        return Kind::Not("it is neither a file nor a folder");
    }
    if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return Kind::Model;
    }
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    if let Some((_, remedy)) = FOREIGN.iter().find(|(endings, _)| endings.contains(&ending)) {
        return Kind::Not(remedy);
    }
    match Format::told_by(path) {
        // Any file might begin like a graph.
        Some(Format::FrozenGraph) if ending == "pb" => Kind::Model,
        Some(Format::TfLite | Format::XgboostJson | Format::XgboostUbj | Format::Lightgbm) => Kind::Model,
        _ if name == SAVED_MODEL => Kind::Not("it is a part of a SavedModel: name its folder"),
        _ => Kind::Not("neither its name nor its beginning is that of a model"),
    }
}

/// The model in a folder, and why there is none.
///
/// # Errors
/// When something in it can't be looked at, which is not taken for gone.
pub(super) fn model_in(folder: &Path) -> io::Result<Result<PathBuf, String>> {
    if is_saved_model(folder) {
        return Ok(Ok(folder.to_owned()));
    }
    let (mut models, mut refusal) = (Vec::new(), None);
    for path in entries(folder)? {
        let Some(metadata) = metadata(&path)? else { continue };
        match kind(&path, &metadata) {
            Kind::Model => models.push(path),
            Kind::Not(why) if metadata.is_file() => {
                let is_foreign = FOREIGN.iter().any(|(_, remedy)| *remedy == why);
                refusal = refusal.or_else(|| is_foreign.then(|| format!("of {}, {why}", file_name(&path))));
            }
            Kind::Not(_) => {}
        }
    }
    let named = NAMES.iter().find_map(|name| models.iter().position(|path| file_name(path) == *name));
    if let Some(index) = named {
        return Ok(Ok(models.swap_remove(index)));
    }
    let names = || models.iter().map(|path| file_name(path)).collect::<Vec<_>>().join(", ");
    Ok(match models.as_slice() {
        [model] => Ok(model.clone()),
        [] => Err(refusal.unwrap_or_else(|| "it holds no model".into())),
        _ => Err(format!("it holds {}: name one as default_model_filename in config.pbtxt", names())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    fn found(files: &[(&str, &str)]) -> Result<String, String> {
        let folder = folder(files);
        let model = model_in(folder.path()).unwrap();
        model.map(|path| path.strip_prefix(folder.path()).unwrap().to_string_lossy().into_owned())
    }

    #[test]
    fn a_known_name_counts_before_a_file_that_is_alone() {
        for (files, expected) in [
            (&[("model.onnx", ""), ("other.onnx", "")][..], "model.onnx"),
            (&[("net.onnx", ""), ("net.onnx.data", ""), ("README.md", "")], "net.onnx"),
            (&[("saved_model.pb", ""), ("variables/variables.index", "")], ""),
            (&[("model.savedmodel/saved_model.pb", ""), ("labels.txt", "cat")], "model.savedmodel"),
            (&[("model.txt", "tree\nversion=v4"), ("notes.txt", "")], "model.txt"),
            (&[("model.json", "{\"learner\":{}}")], "model.json"),
            (&[("m.bst", "{L\0\0\0\0\0\0\0\u{7}learner")], "m.bst"),
        ] {
            assert_eq!(found(files).as_deref(), Ok(expected), "{files:?}");
        }
    }

    #[test]
    fn what_is_no_model_is_told_with_a_remedy() {
        let refused = |files: &[(&str, &str)]| found(files).unwrap_err();
        assert!(refused(&[("a.onnx", ""), ("b.onnx", "")]).contains("a.onnx, b.onnx: name one"));
        assert!(refused(&[("model.h5", "")]).contains("model.export(folder)"));
        assert!(refused(&[("config.json", "{\"hidden_size\": 4}")]).contains("no model"));
        assert!(refused(&[("notes.txt", "trees\n")]).contains("no model"));
    }

    #[test]
    fn models_are_named_without_their_ending() {
        for (path, name) in [("a.b.onnx", "a.b"), ("m.tar.gz", "m"), ("lgb.txt", "lgb"), ("m", "m")] {
            assert_eq!(model_name(Path::new(path), false), name);
        }
        assert_eq!(model_name(Path::new("resnet.v2"), true), "resnet.v2");
        assert_eq!(model_name(Path::new("m.savedmodel"), true), "m");
    }
}
