//! A repository on disk, as it changes.

use std::path::{Path, PathBuf};

use avocet_serving::{Control, ControlError, ControlMode, Folder, LoadModel};
use inference::{EngineOptions, Engines, Options, Repository, State};

use crate::onnx::identity;

pub struct Disk {
    pub place: tempfile::TempDir,
    pub repository: Repository,
    pub folder: Folder,
}

pub fn disk(mode: ControlMode) -> Disk {
    let place = tempfile::tempdir().unwrap();
    write(place.path(), "m/1/model.onnx", &identity(1, &[-1]));
    let engines = Engines::discover(&EngineOptions::default());
    let repository = Repository::new(engines, Options { workers: 1, ..Options::default() }).unwrap();
    let folder = Folder::open(vec![place.path().into()], repository.clone(), mode).unwrap();
    Disk { place, repository, folder }
}

pub fn write(place: &Path, path: &str, content: &[u8]) {
    let path = place.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

impl Disk {
    /// The versions that are served, and the shape that each takes.
    pub fn served(&self) -> Vec<(String, String, Option<Vec<i64>>)> {
        let ready = self.repository.list().into_iter().filter(|status| status.state == State::Ready);
        let shape =
            |status: &inference::ModelStatus| status.signature.as_ref().unwrap().inputs[0].shape.clone();
        ready.map(|status| (status.name.clone(), status.version.clone(), shape(&status))).collect()
    }
}

pub fn line(name: &str, version: &str, shape: &[i64]) -> (String, String, Option<Vec<i64>>) {
    (name.into(), version.into(), Some(shape.to_vec()))
}

#[test]
fn polling_follows_new_changed_and_removed_models() {
    let disk = disk(ControlMode::Poll);
    let place = disk.place.path();
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[-1])]);
    write(place, "m/1/model.onnx", &identity(1, &[-1, 4]));
    write(place, "n.onnx", &identity(1, &[2]));
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[-1, 4]), line("n", "1", &[2])]);
    write(place, "m/2/model.onnx", &identity(1, &[3]));
    std::fs::remove_file(place.join("n.onnx")).unwrap();
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "2", &[3])], "the newest version alone");
    write(place, "m/config.pbtxt", b"version_policy { all {} }");
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[-1, 4]), line("m", "2", &[3])]);
    let same: Vec<PathBuf> = disk.repository.list().into_iter().map(|status| status.path).collect();
    disk.folder.poll();
    let again: Vec<PathBuf> = disk.repository.list().into_iter().map(|status| status.path).collect();
    assert_eq!(same, again, "what did not change is not loaded again");
}

#[test]
fn what_is_damaged_or_cannot_be_read_takes_nothing_away() {
    let disk = disk(ControlMode::Poll);
    disk.folder.poll();
    write(disk.place.path(), "m/1/model.onnx", b"half of a model");
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[-1])]);
    std::fs::rename(disk.place.path(), disk.place.path().with_extension("away")).unwrap();
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[-1])]);
    std::fs::rename(disk.place.path().with_extension("away"), disk.place.path()).unwrap();
    write(disk.place.path(), "m/1/model.onnx", &identity(1, &[5]));
    disk.folder.poll();
    assert_eq!(disk.served(), [line("m", "1", &[5])]);
}

#[test]
fn one_model_that_cannot_be_read_stays_as_it_was() {
    let disk = disk(ControlMode::Poll);
    let (model, away) = (disk.place.path().join("m"), tempfile::tempdir().unwrap());
    disk.folder.poll();
    // A link to itself can't be followed, whoever tries.
    for broken in ["m", "m/1", "m/1/model.onnx"] {
        let (broken, away) = (disk.place.path().join(broken), away.path().join("away"));
        std::fs::rename(&broken, &away).unwrap();
        std::os::unix::fs::symlink(&broken, &broken).unwrap();
        disk.folder.poll();
        assert_eq!(disk.served(), [line("m", "1", &[-1])], "{}", broken.display());
        std::fs::remove_file(&broken).unwrap();
        std::fs::rename(&away, &broken).unwrap();
        disk.folder.poll();
        assert_eq!(disk.served(), [line("m", "1", &[-1])]);
    }
    std::fs::remove_dir_all(model).unwrap();
    disk.folder.poll();
    assert_eq!(disk.served(), []);
}

#[test]
fn clients_may_change_models_only_where_the_mode_says_so() {
    for mode in [ControlMode::None, ControlMode::Poll] {
        let disk = disk(mode);
        assert_eq!(disk.folder.load_all(&disk.folder.names()), []);
        assert_eq!(disk.folder.load("m", LoadModel::default()), Err(ControlError::Off));
        assert_eq!(disk.folder.unload("m"), Err(ControlError::Off));
        assert_eq!(disk.served().len(), 1);
    }
}

#[test]
fn names_and_files_lead_nowhere_else() {
    let disk = disk(ControlMode::Explicit);
    let sent = |file: &str| LoadModel {
        files: [(file.to_owned(), identity(1, &[-1]).into())].into(),
        ..LoadModel::default()
    };
    for file in ["model.onnx", "1/../../x", "../1/model.onnx", "1/.hidden", "1/a/b", "01/model.onnx", "/1/m"]
    {
        assert!(matches!(disk.folder.load("s", sent(file)), Err(ControlError::Refused { .. })), "{file}");
    }
    for name in ["..", "", "a/b", ".m"] {
        assert!(disk.folder.load(name, sent("1/model.onnx")).is_err(), "{name}");
    }
    let config = r#"{"output": [{"name": "y", "label_filename": "../../etc/passwd"}]}"#;
    let config = avocet_serving::ModelConfig::from_json(config.as_bytes()).ok();
    let refused = disk.folder.load("m", LoadModel { config, ..LoadModel::default() });
    assert!(matches!(refused, Err(ControlError::Refused { .. })));
    assert_eq!(disk.served(), []);
}
