//! What became of an attempt, as one file: a line of JSON, the log, and the outputs one after the other. So it lies in a
//! box as a whole or not at all.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use types::Digest;

use crate::Error;
use crate::publish::{MOST_FILES, files_below};

/// How much of a log travels, from its end, in bytes.
const LOG_TAIL: u64 = 1 << 20;
/// How long the line of JSON may be, in bytes.
const LONGEST_HEAD: u64 = 16 << 20;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ended {
    pub succeeded: bool,
    /// Why it failed: a word for programs.
    pub reason: String,
    /// Why it failed: a sentence for people.
    pub message: String,
    pub duration_milliseconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    ended: Ended,
    log_bytes: u64,
    /// Paths below the output folder, and sizes.
    files: Vec<(String, u64)>,
}

/// Writes a result into a file, durably. Outputs that can't travel make it a failure.
///
/// # Errors
/// That of the disk.
pub(super) fn pack(mut ended: Ended, made: &Path, log: &Path, into: &Path) -> Result<(Digest, u64), Error> {
    let files = match files_below(made) {
        _ if !ended.succeeded => vec![],
        Ok(files) => files,
        Err(error @ (Error::TooManyOutputs(_) | Error::OutputName(_))) => {
            let reason = if matches!(error, Error::OutputName(_)) { "OutputName" } else { "TooManyOutputs" };
            (ended.succeeded, ended.reason, ended.message) = (false, reason.to_owned(), error.to_string());
            vec![]
        }
        Err(error) => return Err(error),
    };
    let log_size = log.metadata().map_or(0, |metadata| metadata.len());
    let log_bytes = log_size.min(LOG_TAIL);
    let head = serde_json::to_vec(&Head { ended, log_bytes, files: files.clone() });
    let failed = |error| Error::disk(into, error);
    let mut head = head.map_err(|error| failed(error.into()))?;
    head.push(b'\n');
    let mut out = Hashing { file: File::create(into).map_err(failed)?, hasher: sha2::Sha256::new(), size: 0 };
    out.write_all(&head).map_err(failed)?;
    let mut copy = |path: &Path, skip: u64, bytes: u64| -> io::Result<()> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(skip))?;
        let copied = io::copy(&mut file.take(bytes), &mut out)?;
        if copied == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    };
    if log_bytes > 0 {
        copy(log, log_size - log_bytes, log_bytes).map_err(|error| Error::disk(log, error))?;
    }
    for (name, size) in files {
        let path = made.join(name);
        copy(&path, 0, size).map_err(|error| Error::disk(&path, error))?;
    }
    out.file.sync_all().map_err(failed)?;
    Ok((Digest::from_hasher(out.hasher), out.size))
}

struct Hashing {
    file: File,
    hasher: sha2::Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Unpacks a result: outputs into an empty folder, which is made, and the log into its file.
///
/// # Errors
/// `Damaged` if another site sent what is no result, else that of the disk.
pub(super) fn unpack(from: &Path, made: &Path, log: &Path) -> Result<Ended, Error> {
    let failed = |error| Error::disk(from, error);
    let mut file = BufReader::new(File::open(from).map_err(failed)?);
    let mut line = Vec::new();
    Read::by_ref(&mut file).take(LONGEST_HEAD).read_until(b'\n', &mut line).map_err(failed)?;
    let head: Head = serde_json::from_slice(&line).map_err(|error| Error::Damaged(error.to_string()))?;
    if head.files.len() > MOST_FILES {
        return Err(Error::Damaged(format!("it has more than {MOST_FILES} files")));
    }
    if let Some((name, _)) = head.files.iter().find(|(name, _)| !is_inside(name)) {
        return Err(Error::Damaged(format!("{name:?} is no path of an output")));
    }
    let told = head.files.iter().try_fold(head.log_bytes, |sum, (_, size)| sum.checked_add(*size));
    let there = file.get_ref().metadata().map_err(failed)?.len();
    if told.and_then(|told| told.checked_add(line.len() as u64)) != Some(there) {
        return Err(Error::Damaged("its files are not as long as it says".to_owned()));
    }
    match std::fs::remove_dir_all(made) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::disk(made, error)),
        _ => std::fs::create_dir_all(made).map_err(|error| Error::disk(made, error))?,
    }
    let mut place = |path: &Path, size: u64| -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        io::copy(&mut Read::by_ref(&mut file).take(size), &mut File::create(path)?).map(drop)
    };
    place(log, head.log_bytes).map_err(|error| Error::disk(log, error))?;
    for (name, size) in &head.files {
        let path = made.join(name);
        place(&path, *size).map_err(|error| match error.kind() {
            // One name is a folder of another.
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
                Error::Damaged(format!("{name:?} is a file and a folder"))
            }
            _ => Error::disk(&path, error),
        })?;
    }
    Ok(head.ended)
}

/// Whether a name stays below the folder that it is joined to.
fn is_inside(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_))) && !name.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Ended {
        Ended { succeeded: true, reason: String::new(), message: String::new(), duration_milliseconds: 7 }
    }

    #[test]
    fn outputs_and_log_come_out_as_they_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("made/deep/er")).unwrap();
        std::fs::write(at("made/a.txt"), "first").unwrap();
        std::fs::write(at("made/deep/er/b.bin"), [0, 10, 255]).unwrap();
        std::fs::write(at("made/empty"), "").unwrap();
        std::fs::write(at("log"), "said\n").unwrap();
        let (digest, size) = pack(ended(), &at("made"), &at("log"), &at("packed")).unwrap();
        let bytes = std::fs::read(at("packed")).unwrap();
        assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
        let end = unpack(&at("packed"), &at("out"), &at("log2")).unwrap();
        assert_eq!(end, ended());
        assert_eq!(files_below(&at("out")).unwrap(), files_below(&at("made")).unwrap());
        assert_eq!(std::fs::read(at("out/deep/er/b.bin")).unwrap(), [0, 10, 255]);
        assert_eq!(std::fs::read_to_string(at("log2")).unwrap(), "said\n");
    }

    #[test]
    fn what_failed_brings_no_outputs() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("made")).unwrap();
        std::fs::write(at("made/half"), "ha").unwrap();
        let failure = Ended { succeeded: false, reason: "TimedOut".to_owned(), ..ended() };
        pack(failure.clone(), &at("made"), &at("no log"), &at("packed")).unwrap();
        assert_eq!(unpack(&at("packed"), &at("out"), &at("log")).unwrap(), failure);
        assert_eq!(files_below(&at("out")).unwrap(), []);
    }

    #[test]
    fn promise_6_no_result_of_another_site_leaves_its_folder_or_lies_about_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let refused = |files: serde_json::Value, body: &str| {
            let head = serde_json::json!({"ended": ended(), "logBytes": 0, "files": files});
            std::fs::write(at("packed"), format!("{head}\n{body}")).unwrap();
            let error = unpack(&at("packed"), &at("out"), &at("log")).unwrap_err();
            assert!(matches!(error, Error::Damaged(_)), "{error}");
        };
        for name in ["../evil", "/evil", "a/../../evil", "", ".", "a\0b"] {
            refused(serde_json::json!([[name, 1]]), "x");
        }
        refused(serde_json::json!([["a", 2]]), "x");
        refused(serde_json::json!([["a", u64::MAX], ["b", u64::MAX]]), "x");
        refused(serde_json::json!([["a", 0]]), "x");
        refused(serde_json::json!([["a", 1], ["a/b", 1]]), "xy");
        refused(serde_json::json!([["a/b", 1], ["a", 1]]), "xy");
        std::fs::write(at("packed"), "nonsense").unwrap();
        assert!(matches!(unpack(&at("packed"), &at("out"), &at("log")), Err(Error::Damaged(_))));
        assert!(!folder.path().parent().unwrap().join("evil").exists());
    }
}
