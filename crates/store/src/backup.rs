//! Copies of a database that is in use: each is of one moment, and whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::ledger::{self, Error, check};
use crate::resources::{LATEST, VERSION_TABLE};
use crate::{format, resources};

/// How many pages are copied between two reports, in pages of 4 KiB.
const PAGES: i32 = 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Copies the database of a ledger, which may be open in this or another process and go on writing. The copy is
/// readable by its owner only, durable, and appears under its name when it is whole. `progress` is told how many
/// pages were copied, of how many.
///
/// # Errors
/// If the database can't be read or the copy can't be written.
pub fn copy_database(from: &Path, to: &Path, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
    let source = Connection::open_with_flags(
        from,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    source.busy_timeout(PATIENCE)?;
    // One read transaction around all steps: what is committed meanwhile neither shows nor begins the copy anew.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    let beside = beside(to);
    let written = write(&source, &beside, &mut progress).and_then(|()| Ok(keep(&beside, to)?));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write(source: &Connection, beside: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Error> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    let mut target = Connection::open(beside)?;
    {
        let backup = Backup::new(source, &mut target)?;
        loop {
            let step = backup.step(PAGES)?;
            let all = u64::try_from(backup.progress().pagecount).unwrap_or(0);
            let left = u64::try_from(backup.progress().remaining).unwrap_or(0);
            progress(all.saturating_sub(left), all);
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    // One file, without a log beside it.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    target.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn keep(beside: &Path, to: &Path) -> io::Result<()> {
    File::open(beside)?.sync_all()?;
    fs::rename(beside, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(to: &Path) -> PathBuf {
    let mut beside = to.as_os_str().to_owned();
    beside.push(".part");
    beside.into()
}

/// Reads a whole database and compares what it says with itself: slower and stricter than what opening does.
///
/// # Errors
/// If it is damaged.
pub fn check_database(path: &Path) -> Result<(), Error> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    check(&database, path, "integrity_check")
}

/// Makes a copied database fit to go on from: brings it to the newest format, and lets it go on from a version
/// that is at least this, so that no version that a client may have seen before is made again. Answers the version.
/// Nothing else may have the database open.
///
/// # Errors
/// If it is of a newer format, or can't be written.
pub fn prepare_restored(path: &Path, least_version: u64) -> Result<u64, Error> {
    let database = Connection::open(path)?;
    database.pragma_update(None, "synchronous", "FULL")?;
    format::prepare(&database, None)?;
    let version = ledger::with_tables(&database, |tables| {
        let version = resources::stored_version(tables)?.max(least_version);
        tables.put(VERSION_TABLE, LATEST, &version)?;
        Ok(version)
    })?;
    database.close().map_err(|(_, error)| error)?;
    Ok(version)
}
