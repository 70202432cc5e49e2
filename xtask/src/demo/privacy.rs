//! Whether the originals stayed at the edge site: none of them, and no piece of one, is in the cloud's files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::outcome::Photo;
use crate::setup::hex;

/// How long the piece is that is looked for, in bytes: from the middle of a photo, where its data is.
const PIECE: usize = 32;

/// What was found of the originals below a folder.
#[derive(Debug, Default, PartialEq)]
struct Found {
    files: usize,
    bytes: u64,
    /// Originals that are there, whole or in part, and where.
    originals: BTreeMap<String, PathBuf>,
}

/// Searches all files of both sites; answers a sentence that says what was checked.
pub fn check(photos: &[Photo], cloud: &Path, edge: &Path) -> anyhow::Result<String> {
    let originals = Originals::read(photos)?;
    let at_cloud = originals.search(cloud)?;
    if let Some((name, path)) = at_cloud.originals.first_key_value() {
        bail!("{name} is in {}", path.display());
    }
    // A search that can't find them where they are would prove nothing.
    let at_edge = originals.search(edge)?;
    ensure!(
        at_edge.originals.len() == photos.len(),
        "the search found {} of {} originals at the edge site, where they all are: it can't be trusted",
        at_edge.originals.len(),
        photos.len()
    );
    Ok(format!(
        "The originals never left the edge site: in the {} files ({:.1} MB) of the cloud site none has the SHA-256 of \
         an original, and none contains {PIECE} bytes from the middle of one. The same search finds all {} at the edge.",
        at_cloud.files,
        megabytes(at_cloud.bytes),
        photos.len()
    ))
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

struct Originals {
    /// Name by SHA-256.
    hashes: BTreeMap<String, String>,
    /// Name by piece.
    pieces: BTreeMap<Vec<u8>, String>,
    /// The first two bytes of all pieces, so that few places are looked at closely.
    beginnings: Vec<bool>,
}

impl Originals {
    fn read(photos: &[Photo]) -> anyhow::Result<Self> {
        let mut originals =
            Self { hashes: BTreeMap::new(), pieces: BTreeMap::new(), beginnings: vec![false; 1 << 16] };
        for photo in photos {
            let content =
                std::fs::read(&photo.path).with_context(|| format!("can't read {}", photo.path.display()))?;
            originals.add(&photo.name, &content);
        }
        Ok(originals)
    }

    fn add(&mut self, name: &str, content: &[u8]) {
        self.hashes.insert(hex(content), name.to_owned());
        let from = content.len().saturating_sub(PIECE) / 2;
        if let Some(piece) = content.get(from..from + PIECE) {
            if let Some(beginning) = beginning(piece).and_then(|index| self.beginnings.get_mut(index)) {
                *beginning = true;
            }
            self.pieces.insert(piece.to_owned(), name.to_owned());
        }
    }

    fn search(&self, folder: &Path) -> anyhow::Result<Found> {
        let mut found = Found::default();
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let entries =
                std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
            for entry in entries {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    open.push(entry.path());
                } else if kind.is_file() {
                    // The site still runs: what it has removed meanwhile is not there to be checked.
                    let content = match std::fs::read(entry.path()) {
                        Ok(content) => content,
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(error.into()),
                    };
                    found.files += 1;
                    found.bytes += content.len() as u64;
                    for name in self.names_in(&content) {
                        found.originals.entry(name.to_owned()).or_insert_with(|| entry.path());
                    }
                }
            }
        }
        Ok(found)
    }

    fn names_in(&self, content: &[u8]) -> Vec<&str> {
        let mut names: Vec<&str> = self.hashes.get(&hex(content)).map(String::as_str).into_iter().collect();
        for piece in content.windows(PIECE) {
            let is_candidate =
                beginning(piece).and_then(|index| self.beginnings.get(index)).copied().unwrap_or(false);
            if is_candidate && let Some(name) = self.pieces.get(piece) {
                names.push(name);
            }
        }
        names
    }
}

fn beginning(piece: &[u8]) -> Option<usize> {
    Some(usize::from(*piece.first()?) << 8 | usize::from(*piece.get(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_photos_and_pieces_inside_other_files_are_found() {
        let original: Vec<u8> = (0..200_u8).map(|index| index.wrapping_mul(83)).collect();
        let short = b"not an image".to_vec();
        let mut originals =
            Originals { hashes: BTreeMap::new(), pieces: BTreeMap::new(), beginnings: vec![false; 1 << 16] };
        originals.add("a.jpg", &original);
        originals.add("short.jpg", &short);
        assert_eq!(originals.names_in(&original), ["a.jpg", "a.jpg"]);
        assert_eq!(originals.names_in(&[b"before".as_slice(), &original, b"after"].concat()), ["a.jpg"]);
        assert_eq!(originals.names_in(&short), ["short.jpg"]);
        assert!(originals.names_in(&original[100..]).is_empty());
        assert!(originals.names_in(b"").is_empty());
    }
}
