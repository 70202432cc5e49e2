//! Zip files as the usual programs write them: stored or deflated, without encryption, up to 4 GiB.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::read::DeflateDecoder;

const END: &[u8] = b"PK\x05\x06";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
/// The end record and the longest comment behind it.
const TAIL: u64 = 22 + 65_535;
/// Tens of thousands of entries with long names.
const MAXIMUM_DIRECTORY: u64 = 16 << 20;

/// An archive whose directory was read.
pub struct Zip {
    file: BufReader<File>,
    entries: Vec<Entry>,
}

/// A file or folder in an archive.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As the archive has it: it may lead anywhere. Folders end in `/`.
    pub name: String,
    /// Bytes when unpacked, as the directory says.
    pub size: u64,
    method: u64,
    encrypted: bool,
    compressed: u64,
    /// Where its local header is.
    offset: u64,
}

impl Zip {
    /// Opens an archive and reads its directory, which is at its end.
    ///
    /// # Errors
    /// When the file can't be read or is no such archive.
    pub fn open(path: &Path) -> io::Result<Zip> {
        let mut file = BufReader::new(File::open(path)?);
        let directory = read_directory(&mut file)?;
        let (mut rest, mut entries) = (directory.as_slice(), Vec::new());
        while rest.starts_with(ENTRY) {
            let (entry, length) = Entry::read(rest).ok_or_else(|| invalid("its directory is cut off"))?;
            rest = rest.get(length..).unwrap_or_default();
            entries.push(entry);
        }
        Ok(Zip { file, entries })
    }

    /// Files and folders in the directory's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Unpacks an entry of this archive into a writer; never more bytes than its directory says.
    ///
    /// # Errors
    /// When the entry is encrypted, packed in an unusual way, damaged, or the disk fails.
    pub fn copy(&mut self, entry: &Entry, into: &mut impl Write) -> io::Result<()> {
        if entry.encrypted {
            return Err(invalid("it is encrypted"));
        }
        let mut header = [0; 30];
        self.file.seek(SeekFrom::Start(entry.offset))?;
        self.file.read_exact(&mut header)?;
        let lengths = (number(&header, 26, 2), number(&header, 28, 2));
        let (true, (Some(name), Some(extra))) = (header.starts_with(LOCAL), lengths) else {
            return Err(invalid("an entry is not where the directory says"));
        };
        self.file.seek_relative((name + extra) as i64)?;
        let raw = (&mut self.file).take(entry.compressed);
        let bytes = match entry.method {
            0 => io::copy(&mut raw.take(entry.size), into)?,
            8 => io::copy(&mut DeflateDecoder::new(raw).take(entry.size), into)?,
            _ => return Err(invalid("it is packed with something else than deflate")),
        };
        if bytes != entry.size {
            return Err(invalid("an entry is shorter than it says"));
        }
        Ok(())
    }
}

fn read_directory(file: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let end = tail.windows(END.len()).rposition(|bytes| bytes == END);
    let record = end.and_then(|at| tail.get(at..at + 22)).ok_or_else(|| invalid("it is cut off"))?;
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

impl Entry {
    /// An entry of the directory, and how many bytes it takes there.
    fn read(bytes: &[u8]) -> Option<(Entry, usize)> {
        let lengths = [number(bytes, 28, 2)?, number(bytes, 30, 2)?, number(bytes, 32, 2)?];
        let [name, extra, comment] = lengths.map(|length| length as usize);
        let entry = Entry {
            name: String::from_utf8(bytes.get(46..46 + name)?.to_vec()).ok()?,
            size: number(bytes, 24, 4)?,
            method: number(bytes, 10, 2)?,
            encrypted: number(bytes, 8, 2)? & 1 != 0,
            compressed: number(bytes, 20, 4)?,
            offset: number(bytes, 42, 4)?,
        };
        Some((entry, 46 + name + extra + comment))
    }
}

/// A little-endian number of a few bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stored entry `a` that holds `hi`.
    fn archive() -> Vec<u8> {
        let mut zip = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0\x01\0\0\0ahi".to_vec();
        let directory = zip.len() as u32;
        zip.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0\x01\0");
        zip.extend([0; 16]);
        zip.extend(b"a");
        let size = zip.len() as u32 - directory;
        zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        zip.extend(size.to_le_bytes());
        zip.extend(directory.to_le_bytes());
        zip.extend([0, 0]);
        zip
    }

    fn unpack(bytes: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), bytes)?;
        let mut zip = Zip::open(file.path())?;
        let entries = zip.entries().to_vec();
        let read = |entry: &Entry| {
            let mut content = Vec::new();
            zip.copy(entry, &mut content).map(|()| (entry.name.clone(), content))
        };
        entries.iter().map(read).collect()
    }

    #[test]
    fn stored_entries_are_unpacked() {
        assert_eq!(unpack(&archive()).unwrap(), [("a".to_owned(), b"hi".to_vec())]);
    }

    #[test]
    fn any_byte_may_be_wrong_and_any_end_missing() {
        let whole = archive();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let _ = unpack(&bytes);
            assert!(unpack(&whole[..at]).is_err());
        }
    }
}
