//! The model in a folder, and what belongs to a model that has none.

use std::path::{Path, PathBuf};

use super::{Format, FormatError};

/// How many folders may lie in each other, nothing beside them, above the model.
const NESTED: usize = 4;

/// How deep, and how many, the files of a model may lie.
const DEEPEST: usize = 16;
const MOST: usize = 10_000;

pub(super) struct Model {
    pub format: Format,
    /// The folder of a SavedModel, or the ONNX file.
    pub path: PathBuf,
}

/// A SavedModel, or the only ONNX file: in this folder, or in the only one in it.
pub(super) fn model_in(folder: &Path) -> Result<Model, FormatError> {
    let mut folder = folder.to_path_buf();
    for _ in 0..NESTED {
        if folder.join("saved_model.pb").is_file() {
            return Ok(Model { format: Format::SavedModel, path: folder });
        }
        let inside = entries(&folder).map_err(FormatError::Io)?;
        if let Some(path) =
            only(&inside, |path| path.is_file() && path.extension().is_some_and(|end| end == "onnx"))
        {
            return Ok(Model { format: Format::Onnx, path });
        }
        match only(&inside, |path| path.is_dir()) {
            Some(inner) => folder = inner,
            None => break,
        }
    }
    Err(FormatError::Unservable {
        what: "a folder with neither `saved_model.pb` nor one `.onnx` file",
        remedy: "give the folder that TensorFlow's `saved_model.save` or Keras' `model.export` made, or one with an \
                 ONNX model and its data",
    })
}

/// The files beside a model's that are called as it is and some more, such as `model.onnx.data` and
/// `model.onnx_data`: those that exporters put weights into.
pub(super) fn companions(model: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (model.parent(), model.file_name()) else { return Vec::new() };
    let is_companion = |path: &PathBuf| {
        let rest =
            path.file_name().and_then(|own| own.as_encoded_bytes().strip_prefix(name.as_encoded_bytes()));
        rest.is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'_' | b'-'))) && path.is_file()
    };
    entries(folder).unwrap_or_default().into_iter().filter(is_companion).collect()
}

/// Adds what lies below a folder, or the file alone, with its name from there on.
pub(super) fn files_below(
    path: &Path,
    name: &Path,
    files: &mut Vec<(PathBuf, PathBuf)>,
) -> std::io::Result<()> {
    if !path.is_dir() {
        files.push((name.to_path_buf(), path.to_path_buf()));
        return Ok(());
    }
    if name.components().count() > DEEPEST || files.len() > MOST {
        return Err(std::io::Error::other("the model's folder holds too much"));
    }
    for entry in entries(path)? {
        let inside = name.join(entry.file_name().unwrap_or_default());
        files_below(&entry, &inside, files)?;
    }
    Ok(())
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

fn only(paths: &[PathBuf], wanted: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut found = paths.iter().filter(|path| wanted(path));
    found.next().filter(|_| found.next().is_none()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    #[test]
    fn the_only_onnx_file_is_the_model_however_its_data_are_called() {
        let one = folder(&["export/net.onnx", "export/weights.bin", "export/README.md"]);
        let found = model_in(one.path()).unwrap();
        assert_eq!((found.format, found.path), (Format::Onnx, one.path().join("export/net.onnx")));
        let two = folder(&["encoder.onnx", "decoder.onnx"]);
        assert!(matches!(model_in(two.path()), Err(FormatError::Unservable { .. })));
        let saved = folder(&["m/saved_model.pb", "m/net.onnx"]);
        assert_eq!(model_in(saved.path()).unwrap().format, Format::SavedModel);
    }

    #[test]
    fn what_is_not_called_as_the_model_does_not_belong_to_it() {
        let files = ["m.onnx", "m.onnx.data", "m.onnx_data", "m.onnxy", "other.onnx.data", "secret"];
        let folder = folder(&files);
        let mut found = companions(&folder.path().join("m.onnx"));
        found.sort();
        assert_eq!(found, ["m.onnx.data", "m.onnx_data"].map(|name| folder.path().join(name)));
    }
}
