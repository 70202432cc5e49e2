//! Zip files as the usual programs write them: stored or deflated, without encryption.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use artifacts::bundle::{MAXIMUM_DEPTH, MAXIMUM_ENTRIES};
use flate2::read::DeflateDecoder;

use super::{MAXIMUM_BYTES, too_large};
use crate::format::FormatError;

const END: &[u8] = b"PK\x05\x06";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
/// The end record and the longest comment behind it.
const TAIL: u64 = 22 + 65_535;
/// The directory of [`MAXIMUM_ENTRIES`] entries with long names.
const MAXIMUM_DIRECTORY: u64 = 16 << 20;

/// Unpacks into a new folder; nothing is made outside of it.
pub(super) fn unpack(archive: &Path, into: &Path) -> Result<(), FormatError> {
    let mut file = BufReader::new(File::open(archive).map_err(FormatError::Io)?);
    let directory = read_directory(&mut file).map_err(broken)?;
    let mut rest = directory.as_slice();
    let (mut count, mut budget) = (0, MAXIMUM_BYTES);
    fs::create_dir(into).map_err(FormatError::Io)?;
    while rest.starts_with(ENTRY) {
        count += 1;
        if count > MAXIMUM_ENTRIES {
            return Err(FormatError::Archive(format!("it has more than {MAXIMUM_ENTRIES} files")));
        }
        let entry = Entry::read(rest).ok_or_else(|| broken(invalid("its directory is cut off")))?;
        rest = rest.get(entry.length..).unwrap_or_default();
        let path = inside(into, &entry.name)?;
        if entry.name.ends_with('/') {
            fs::create_dir_all(path).map_err(FormatError::Io)?;
            continue;
        }
        fs::create_dir_all(path.parent().unwrap_or(into)).map_err(FormatError::Io)?;
        budget = budget.checked_sub(entry.write(&mut file, &path, budget)?).ok_or_else(too_large)?;
    }
    Ok(())
}

/// The central directory, which is at the end.
fn read_directory(file: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let end = tail.windows(END.len()).rposition(|bytes| bytes == END);
    let record = end.and_then(|at| tail.get(at..)).ok_or_else(|| invalid("it is cut off"))?;
    let (size, offset) = (number(record, 12, 4), number(record, 16, 4));
    let (Some(size), Some(offset)) = (size, offset) else { return Err(invalid("it is cut off")) };
    if size > MAXIMUM_DIRECTORY || offset == u64::from(u32::MAX) {
        return Err(invalid("it is larger than 4 GiB or has too many files; use .tar.gz"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut directory = Vec::new();
    file.take(size).read_to_end(&mut directory)?;
    Ok(directory)
}

struct Entry {
    name: String,
    deflated: bool,
    compressed: u64,
    size: u64,
    /// Where its local header is.
    offset: u64,
    /// Bytes of the entry in the directory.
    length: usize,
}

impl Entry {
    fn read(bytes: &[u8]) -> Option<Entry> {
        let method = number(bytes, 10, 2)?;
        let encrypted = number(bytes, 8, 2)? & 1 != 0;
        let lengths = [number(bytes, 28, 2)?, number(bytes, 30, 2)?, number(bytes, 32, 2)?];
        let [name, extra, comment] = lengths.map(|length| length as usize);
        if encrypted || !matches!(method, 0 | 8) {
            return None;
        }
        Some(Entry {
            name: String::from_utf8(bytes.get(46..46 + name)?.to_vec()).ok()?,
            deflated: method == 8,
            compressed: number(bytes, 20, 4)?,
            size: number(bytes, 24, 4)?,
            offset: number(bytes, 42, 4)?,
            length: 46 + name + extra + comment,
        })
    }

    /// Writes the file; answers its bytes, of which there are at most one more than the budget.
    fn write(&self, archive: &mut BufReader<File>, path: &Path, budget: u64) -> Result<u64, FormatError> {
        let mut header = [0; 30];
        archive.seek(SeekFrom::Start(self.offset)).map_err(broken)?;
        archive.read_exact(&mut header).map_err(broken)?;
        let lengths = (number(&header, 26, 2), number(&header, 28, 2));
        let (true, (Some(name), Some(extra))) = (header.starts_with(LOCAL), lengths) else {
            return Err(broken(invalid("an entry is not where the directory says")));
        };
        archive.seek_relative((name + extra) as i64).map_err(broken)?;
        let raw = archive.take(self.compressed);
        let mut content: Box<dyn Read + '_> =
            if self.deflated { Box::new(DeflateDecoder::new(raw)) } else { Box::new(raw) };
        let mut file = File::create_new(path).map_err(FormatError::Io)?;
        let bytes =
            io::copy(&mut content.as_mut().take(budget.saturating_add(1)), &mut file).map_err(broken)?;
        if bytes != self.size && bytes <= budget {
            return Err(broken(invalid("an entry is not as long as it says")));
        }
        Ok(bytes)
    }
}

/// Where an entry goes, if that is inside the folder.
fn inside(folder: &Path, name: &str) -> Result<PathBuf, FormatError> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || name.contains(['\\', '\0']) || path.components().count() > MAXIMUM_DEPTH {
        return Err(FormatError::Archive(format!("`{}` is no path inside it", name.escape_debug())));
    }
    Ok(folder.join(path))
}

/// A little-endian number of a few bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn broken(error: io::Error) -> FormatError {
    FormatError::Archive(error.to_string())
}
