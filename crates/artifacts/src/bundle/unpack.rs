//! Unpacking an archive from a stranger.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::{Error, MAXIMUM_BYTES, MAXIMUM_DEPTH, MAXIMUM_ENTRIES};

/// Long names and the like; the parser holds each in memory.
const MAXIMUM_EXTENSION_BYTES: u64 = 64 << 10;

/// Unpacks the archive into the new folder `into`, which appears complete and durable or not at all; one that
/// exists is left as it is. Only files and folders inside `into` are ever made. Blocks.
///
/// # Errors
/// Anything in the archive but files and folders, paths that lead elsewhere, more than the limits allow, an
/// archive that can't be read, a disk that fails.
pub fn unpack(tar: &Path, into: &Path) -> Result<(), Error> {
    if into.is_dir() {
        return Ok(());
    }
    check_extensions(tar)?;
    let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Error::io("create folder", parent))?;
    let scratch = Scratch::create(parent)?;
    let mut archive = Archive::new(open(tar)?);
    let (mut count, mut bytes) = (0, 0_u64);
    for entry in archive.entries().map_err(not_tar(tar))? {
        let mut entry = entry.map_err(not_tar(tar))?;
        count += 1;
        if count > MAXIMUM_ENTRIES {
            return Err(Error::TooMany);
        }
        let name = entry.path().map_err(not_tar(tar))?.into_owned();
        bytes = bytes.saturating_add(entry.size());
        if bytes > MAXIMUM_BYTES {
            return Err(Error::TooLarge { path: name });
        }
        place(&mut entry, &name, &scratch.0, tar)?;
    }
    let folder = File::open(&scratch.0).map_err(Error::io("open", &scratch.0))?;
    rustix::fs::syncfs(&folder).map_err(|error| Error::io("fsync", &scratch.0)(error.into()))?;
    match fs::rename(&scratch.0, into) {
        // Another unpacked the same meanwhile.
        Err(_) if into.is_dir() => Ok(()),
        Err(error) => Err(Error::io("create folder", into)(error)),
        Ok(()) => daemon::sync_folder(parent).map_err(Error::io("fsync", parent)),
    }
}

fn place(entry: &mut Entry<'_, impl Read>, name: &Path, root: &Path, tar: &Path) -> Result<(), Error> {
    let kind = entry.header().entry_type();
    // `git archive` notes the commit in one.
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let inside = inside(name)?;
    let path = root.join(&inside);
    match kind {
        EntryType::Directory => make_folders(&path, name),
        EntryType::Regular => {
            if inside.as_os_str().is_empty() {
                return Err(Error::Outside { path: name.to_owned() });
            }
            if let Some(parent) = path.parent() {
                make_folders(parent, name)?;
            }
            let executable = entry.header().mode().map_err(not_tar(tar))? & 0o111 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)
                .map_err(twice_or_io("create", name))?;
            let copied = io::copy(entry, &mut file).map_err(Error::io("write", &path))?;
            if copied == entry.size() {
                return Ok(());
            }
            Err(not_tar(tar)(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a file")))
        }
        other => {
            let what = match other {
                EntryType::Symlink => "a symbolic link",
                EntryType::Link => "a hard link",
                EntryType::Char | EntryType::Block => "a device",
                EntryType::Fifo => "a pipe",
                _ => "of a kind",
            };
            Err(Error::Unsupported { path: name.to_owned(), what })
        }
    }
}

/// The path without `.` parts, if it stays inside.
fn inside(name: &Path) -> Result<PathBuf, Error> {
    let mut inside = PathBuf::new();
    for (depth, part) in name.components().enumerate() {
        match part {
            Component::Normal(_) if depth > MAXIMUM_DEPTH => {
                return Err(Error::TooDeep { path: name.to_owned() });
            }
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            _ => return Err(Error::Outside { path: name.to_owned() }),
        }
    }
    Ok(inside)
}

fn make_folders(path: &Path, name: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(twice_or_io("create folder", name))
}

/// Looks at the raw headers first: the parser reads long names and extended headers whole, however long they say
/// they are, and an extended header may give a file another size, behind which a second look would see other
/// entries than the first.
fn check_extensions(tar: &Path) -> Result<(), Error> {
    let mut archive = Archive::new(open(tar)?);
    let entries = archive.entries().map_err(not_tar(tar))?.raw(true);
    // A long name and an extended header may precede each entry.
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(not_tar(tar))?;
        if count > 3 * MAXIMUM_ENTRIES {
            return Err(Error::TooMany);
        }
        let kind = entry.header().entry_type();
        let is_extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        let misleading = if !is_extension {
            false
        } else if entry.size() > MAXIMUM_EXTENSION_BYTES {
            true
        } else {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(not_tar(tar))?;
            !kind.is_gnu_longname() && content.windows(6).any(|window| window == b" size=")
        };
        if misleading {
            let source = io::Error::new(io::ErrorKind::InvalidData, "an extended header is misleading");
            return Err(not_tar(tar)(source));
        }
    }
    Ok(())
}

/// A folder that goes when it is dropped, unless it was renamed before.
struct Scratch(PathBuf);

impl Scratch {
    fn create(parent: &Path) -> Result<Self, Error> {
        let name = daemon::random_hex(8).map_err(Error::io("name a folder in", parent))?;
        let path = parent.join(format!(".unpacking-{name}"));
        fs::DirBuilder::new().mode(0o755).create(&path).map_err(Error::io("create folder", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(tar: &Path) -> Result<BufReader<File>, Error> {
    File::open(tar).map(BufReader::new).map_err(Error::io("open", tar))
}

fn not_tar(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::NotTar { path: path.to_owned(), source }
}

fn twice_or_io(action: &'static str, name: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Error::Twice { path: name.to_owned() }
        }
        _ => Error::io(action, name)(error),
    }
}
