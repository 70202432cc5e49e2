//! Files out of layers: archives of strangers.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;

/// How many bytes all files may have.
const LARGEST: u64 = 16 << 30;
/// How many entries all layers may have together.
const MOST: usize = 100_000;
/// What the name of an entry begins with that takes a file of a lower layer away, and the name of the one that takes away
/// all that lower layers have in its folder.
const GONE: &str = ".wh.";
const ALL_GONE: &str = ".wh..wh..opq";

/// Files that come out of layers, the upper ones after the lower ones.
pub struct Files {
    folder: PathBuf,
    /// Where in an image files are looked for; others are left.
    below: &'static str,
    /// How many bytes and entries there may still be.
    left: u64,
    entries: usize,
}

impl Files {
    /// Files below a path of the layers (all where it is empty), put into a folder under the paths that they have.
    pub fn of(folder: &Path, below: &'static str) -> Self {
        Self { folder: folder.to_owned(), below, left: LARGEST, entries: MOST }
    }

    /// Takes a layer that is a file, as it is.
    pub fn put(&mut self, layer: &Path, name: &str) -> anyhow::Result<()> {
        let Some(inside) = inside(Path::new(name)) else {
            bail!("`{name}` is not a path inside the model");
        };
        self.count(layer.metadata()?.len())?;
        let to = self.make_way(&inside)?;
        std::fs::copy(layer, to).map(drop).with_context(|| format!("can't keep `{name}`"))
    }

    /// Takes what an archive has: regular files and nothing else, as links could lead anywhere.
    pub fn unpack(&mut self, layer: &Path, media_type: &str) -> anyhow::Result<()> {
        if self.entries < MOST {
            self.take_away(layer, media_type)?;
        }
        let mut archive = tar::Archive::new(open(layer, media_type)?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let Some(inside) = self.wanted(&entry.path()?) else { continue };
            if gone(&inside).is_some() || !entry.header().entry_type().is_file() {
                continue;
            }
            self.count(entry.size())?;
            let to = self.make_way(&inside)?;
            io::copy(&mut entry, &mut File::create(to)?)?;
        }
        Ok(())
    }

    /// Removes what a layer says is no more, wherever in the layer it says so.
    fn take_away(&self, layer: &Path, media_type: &str) -> anyhow::Result<()> {
        let mut archive = tar::Archive::new(open(layer, media_type)?);
        for entry in archive.entries()? {
            let path = entry?.path()?.into_owned();
            if let Some(gone) = self.wanted(&path).as_deref().and_then(gone) {
                remove(&self.folder.join(gone))?;
            }
        }
        Ok(())
    }

    fn wanted(&self, path: &Path) -> Option<PathBuf> {
        inside(path).filter(|inside| inside.starts_with(self.below))
    }

    fn count(&mut self, size: u64) -> anyhow::Result<()> {
        let left = self.left.checked_sub(size);
        self.left =
            left.with_context(|| format!("its files have more than {} GiB together", LARGEST >> 30))?;
        let entries = self.entries.checked_sub(1);
        self.entries = entries.with_context(|| format!("it has more than {MOST} files"))?;
        Ok(())
    }

    /// The place of a file, which replaces what a lower layer has there.
    fn make_way(&self, inside: &Path) -> io::Result<PathBuf> {
        let to = self.folder.join(inside);
        if to.is_dir() {
            remove(&to)?;
        }
        std::fs::create_dir_all(to.parent().unwrap_or(&self.folder))?;
        Ok(to)
    }
}

/// What an entry takes away, if that is what it is there for.
fn gone(entry: &Path) -> Option<PathBuf> {
    let (folder, name) = (entry.parent()?, entry.file_name()?.to_str()?);
    let gone = name.strip_prefix(GONE)?;
    Some(if name == ALL_GONE { folder.to_owned() } else { folder.join(inside(Path::new(gone))?) })
}

/// A path without what leads out of a folder; none where it does, or names the folder itself.
fn inside(path: &Path) -> Option<PathBuf> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
    let parts: Option<PathBuf> =
        parts.map(|part| if let Component::Normal(part) = part { Some(part) } else { None }).collect();
    parts.filter(|parts| parts.file_name().is_some())
}

/// A layer's archive, whatever it is packed with.
fn open(layer: &Path, media_type: &str) -> anyhow::Result<Box<dyn Read>> {
    let file = File::open(layer)?;
    let packed_with = |ends: &[&str]| ends.iter().any(|end| media_type.ends_with(end));
    Ok(if packed_with(&["tar+gzip", "tar.gzip"]) {
        Box::new(MultiGzDecoder::new(file))
    } else if packed_with(&["tar+zstd"]) {
        Box::new(zstd::stream::read::Decoder::new(file)?)
    } else if packed_with(&[".tar"]) {
        Box::new(io::BufReader::new(file))
    } else {
        bail!("{media_type} can't be read; use tar, tar+gzip or tar+zstd")
    })
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(there) if there.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::TempDir;

    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            // As it is, for names that the builder wouldn't write.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack(files: &mut Files, layer: &[u8], media_type: &str) -> anyhow::Result<()> {
        let mut packed = tempfile::NamedTempFile::new()?;
        packed.write_all(layer)?;
        files.unpack(packed.path(), media_type)
    }

    fn read(folder: &TempDir, path: &str) -> Option<String> {
        std::fs::read_to_string(folder.path().join(path)).ok()
    }

    #[test]
    fn upper_layers_replace_and_take_away_however_they_are_packed() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::of(folder.path(), "models");
        let lower = archive(&[("./models/a", "old"), ("models/b", "b"), ("models/c/d", "d"), ("etc/e", "e")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&lower).unwrap();
        unpack(&mut files, &gzip.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip").unwrap();
        // What a layer has itself stays, though it stands before the word that the lower ones' is gone.
        let upper = archive(&[("models/c/f", "f"), ("models/c/.wh..wh..opq", ""), ("models/.wh.b", "")]);
        // Builders that let clients fetch single files make a frame of each.
        let (first, second) = upper.split_at(700);
        let frames = [first, second].map(|part| zstd::encode_all(part, 1).unwrap()).concat();
        unpack(&mut files, &frames, "application/vnd.oci.image.layer.v1.tar+zstd").unwrap();
        unpack(&mut files, &archive(&[("models/a", "new")]), "application/vnd.oci.image.layer.v1.tar")
            .unwrap();
        assert_eq!(read(&folder, "models/a").as_deref(), Some("new"));
        assert_eq!(read(&folder, "models/c/f").as_deref(), Some("f"));
        for gone in ["models/b", "models/c/d", "etc/e", "models/.wh.b"] {
            assert_eq!(read(&folder, gone), None, "{gone}");
        }
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(folder.path().join("outside"), "here").unwrap();
        let mut files = Files::of(&inner, "");
        let hostile =
            [("../outside", "x"), ("a/../../outside", "x"), (".wh...", ""), (".wh..", ""), ("/b", "b")];
        for entry in hostile {
            unpack(&mut files, &archive(&[entry]), "x.tar").unwrap();
        }
        assert_eq!(read(&folder, "outside").as_deref(), Some("here"));
        assert_eq!(read(&folder, "inner/b").as_deref(), Some("b"));
        let named = files.put(&folder.path().join("outside"), "../else").unwrap_err();
        assert_eq!(named.to_string(), "`../else` is not a path inside the model");
        let kind = unpack(&mut files, b"", "application/x-rar").unwrap_err();
        assert!(kind.to_string().contains("use tar, tar+gzip or tar+zstd"), "{kind}");
    }
}
