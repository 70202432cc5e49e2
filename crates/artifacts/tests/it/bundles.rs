use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use avocet_artifacts::bundle::{Error, pack, unpack};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

fn packed(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(path, &mut bytes).unwrap();
    bytes
}

fn files(root: &Path) -> BTreeMap<PathBuf, (bool, Vec<u8>)> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                files.insert(name, (false, b"<folder>".to_vec()));
                folders.push(path);
            } else {
                let executable = path.metadata().unwrap().permissions().mode() & 0o111 != 0;
                files.insert(name, (executable, fs::read(&path).unwrap()));
            }
        }
    }
    files
}

/// Unpacks an archive with one hostile entry after an innocent one; nothing may be left of either.
fn refused(kind: EntryType, name: &str, size: u64, link: &str) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    tar.append_data(&mut header, "innocent", &b"ok"[..]).unwrap();
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_size(size);
    header.set_cksum();
    tar.append(&header, &b"evil"[..size.min(4) as usize]).unwrap();
    unpack_refused(&folder, &tar.into_inner().unwrap())
}

fn unpack_refused(folder: &tempfile::TempDir, bytes: &[u8]) -> Error {
    fs::create_dir(folder.path().join("in")).unwrap();
    let tar = folder.path().join("in/bundle.tar");
    fs::write(&tar, bytes).unwrap();
    let error = unpack(&tar, &folder.path().join("out/bundle")).unwrap_err();
    assert_eq!(fs::read_dir(folder.path().join("out")).map_or(0, Iterator::count), 0);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().filter(|e| e.as_ref().unwrap().path().is_file()).count(),
        0
    );
    error
}

#[test]
fn equal_content_gives_equal_bytes_whatever_the_times_and_the_litter() {
    let folder = tempfile::tempdir().unwrap();
    for (name, order) in [("one", ["b.py", "a.py"]), ("two", ["a.py", "b.py"])] {
        let root = folder.path().join(name);
        fs::create_dir_all(root.join("empty")).unwrap();
        for file in order {
            fs::write(root.join(file), file).unwrap();
        }
    }
    let litter = folder.path().join("two/__pycache__");
    fs::create_dir_all(&litter).unwrap();
    fs::write(litter.join("a.cpython-312.pyc"), "x").unwrap();
    fs::write(folder.path().join("two/old.pyc"), "x").unwrap();
    let file = fs::File::open(folder.path().join("two/a.py")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    fs::set_permissions(folder.path().join("two/b.py"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(packed(&folder.path().join("one")), packed(&folder.path().join("two")));
}

#[test]
fn a_single_file_is_a_bundle_of_one_and_unpacking_twice_is_unpacking_once() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("run.sh");
    fs::write(&script, "echo hi").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    let tar = folder.path().join("bundle.tar");
    fs::write(&tar, packed(&script)).unwrap();
    let into = folder.path().join("deep/bundle");
    unpack(&tar, &into).unwrap();
    unpack(&tar, &into).unwrap();
    assert_eq!(files(&into), BTreeMap::from([("run.sh".into(), (true, b"echo hi".to_vec()))]));
}

#[test]
fn a_link_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("secrets")).unwrap();
    let error = pack(folder.path(), Vec::new()).unwrap_err().to_string();
    assert!(error.contains("secrets` is a symbolic link"), "{error}");
}

#[test]
fn promise_6_hostile_archives_are_refused_and_leave_nothing() {
    for name in ["../evil", "a/../../evil", "/tmp/evil", ".."] {
        let error = refused(EntryType::Regular, name, 4, "");
        assert!(matches!(error, Error::Outside { .. }), "{name}: {error}");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let error = refused(kind, "evil", 0, "/etc/passwd");
        assert!(matches!(error, Error::Unsupported { .. }), "{kind:?}: {error}");
    }
    assert!(matches!(refused(EntryType::Regular, "innocent", 4, ""), Error::Twice { .. }));
    assert!(matches!(refused(EntryType::Regular, "innocent/evil", 4, ""), Error::Twice { .. }));
    assert!(matches!(refused(EntryType::Directory, "innocent", 0, ""), Error::Twice { .. }));
    for (kind, size) in [(EntryType::Regular, 2 << 30), (EntryType::Regular, u64::MAX >> 1)] {
        let error = refused(kind, "evil", size, "");
        assert!(matches!(error, Error::TooLarge { .. } | Error::NotTar { .. }), "{size}: {error}");
    }
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let error = refused(kind, "evil", 1 << 20, "");
        assert!(matches!(error, Error::NotTar { .. }), "{kind:?}: {error}");
    }
    assert!(matches!(refused(EntryType::Regular, "evil", 4000, ""), Error::NotTar { .. }));
}

#[test]
fn too_many_entries_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    for i in 0..=10_000 {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{i}"), std::io::empty()).unwrap();
    }
    assert!(matches!(unpack_refused(&folder, &tar.into_inner().unwrap()), Error::TooMany));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_folder_comes_out_as_it_went_in(
        tree in proptest::collection::btree_map("[a-e]{1,3}(/[f-jé ]{1,60}){0,3}/[k-z]{1,120}", (any::<bool>(), any::<Vec<u8>>()), 0..12)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("in");
        fs::create_dir(&root).unwrap();
        for (name, (executable, content)) in &tree {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(if *executable { 0o755 } else { 0o640 })).unwrap();
        }
        let tar = folder.path().join("bundle.tar");
        fs::write(&tar, packed(&root)).unwrap();
        let out = folder.path().join("out");
        unpack(&tar, &out).unwrap();
        prop_assert_eq!(files(&root), files(&out));
        prop_assert_eq!(packed(&out), fs::read(&tar).unwrap());
    }

    #[test]
    fn no_bytes_make_unpacking_panic_or_leave_a_half(bytes in any::<Vec<u8>>(), at in 0_usize..1536, with in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let tar = folder.path().join("bundle.tar");
        fs::write(&tar, &bytes).unwrap();
        let _ = unpack(&tar, &folder.path().join("a"));
        let script = folder.path().join("run.sh");
        fs::write(&script, "echo hi").unwrap();
        let mut broken = packed(&script);
        broken[at] = with;
        fs::write(&tar, &broken).unwrap();
        let out = folder.path().join("b");
        prop_assert_eq!(unpack(&tar, &out).is_ok(), out.is_dir());
    }
}
