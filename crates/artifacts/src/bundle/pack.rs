//! Packing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::{Error, MAXIMUM_BYTES, MAXIMUM_DEPTH, MAXIMUM_ENTRIES};

/// Writes the folder's content, or the single file, to `out` as a tar archive. Names are sorted and times, owners
/// and all of the modes but "executable" are left out, so that equal content gives equal bytes. What tools leave
/// behind (`__pycache__`, `*.pyc`, `.git`) is skipped. Blocks.
///
/// # Errors
/// A symbolic link or a device ([`Error::Unsupported`]), too much of it, or a disk that fails.
pub fn pack(path: &Path, out: impl Write) -> Result<(), Error> {
    let mut packer = Packer { tar: Builder::new(out), entries: 0, bytes: 0 };
    if kind(path)? == Kind::Folder {
        packer.folder(path, Path::new(""), 0)?;
    } else {
        let name = path.file_name().ok_or_else(|| Error::Outside { path: path.to_owned() })?;
        packer.entry(path, Path::new(name), 0)?;
    }
    packer.tar.finish().map_err(Error::io("write the bundle of", path))
}

struct Packer<W: Write> {
    tar: Builder<W>,
    entries: usize,
    bytes: u64,
}

impl<W: Write> Packer<W> {
    fn folder(&mut self, path: &Path, name: &Path, depth: usize) -> Result<(), Error> {
        if depth > MAXIMUM_DEPTH {
            return Err(Error::TooDeep { path: path.to_owned() });
        }
        let entries = fs::read_dir(path).map_err(Error::io("read folder", path))?;
        let mut names = entries
            .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
            .collect::<io::Result<Vec<_>>>()
            .map_err(Error::io("read folder", path))?;
        names.retain(|name| !is_litter(name));
        names.sort();
        for child in names {
            self.entry(&path.join(&child), &name.join(&child), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, depth: usize) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > MAXIMUM_ENTRIES {
            return Err(Error::TooMany);
        }
        if kind(path)? == Kind::File {
            return self.file(path, name);
        }
        let mut header = header(EntryType::Directory, 0o755, 0);
        let written = self.tar.append_data(&mut header, name, io::empty());
        written.map_err(Error::io("write the bundle's entry for", path))?;
        self.folder(path, name, depth + 1)
    }

    fn file(&mut self, path: &Path, name: &Path) -> Result<(), Error> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        let size = metadata.len();
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MAXIMUM_BYTES {
            return Err(Error::TooLarge { path: path.to_owned() });
        }
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let mut header = header(EntryType::Regular, if executable { 0o755 } else { 0o644 }, size);
        let mut content = (&mut file).take(size);
        let written = self.tar.append_data(&mut header, name, &mut content);
        written.map_err(Error::io("write the bundle's entry for", path))?;
        let short = content.limit() != 0;
        let long = file.read(&mut [0]).map_err(Error::io("read", path))? != 0;
        if short || long { Err(Error::Changed { path: path.to_owned() }) } else { Ok(()) }
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn is_litter(name: &Path) -> bool {
    name == "__pycache__" || name == ".git" || name.extension().is_some_and(|extension| extension == "pyc")
}

#[derive(PartialEq)]
enum Kind {
    File,
    Folder,
}

fn kind(path: &Path) -> Result<Kind, Error> {
    let kind = fs::symlink_metadata(path).map_err(Error::io("read", path))?.file_type();
    if kind.is_file() {
        return Ok(Kind::File);
    }
    if kind.is_dir() {
        return Ok(Kind::Folder);
    }
    let what = if kind.is_symlink() { "a symbolic link" } else { "a device, socket or pipe" };
    Err(Error::Unsupported { path: path.to_owned(), what })
}
