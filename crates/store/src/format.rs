//! The format of a database, and how older ones are brought up to it.
//!
//! SQLite's `user_version` holds the number. Migrations run in order in one transaction when a ledger opens; a copy
//! of the database as it was stays beside it until the next migration. A new format is a new entry in
//! [`MIGRATIONS`], and a sample of the old one in `tests/data`.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use crate::backup;
use crate::ledger::Error;

/// The format that this version writes. It reads all before it.
pub const FORMAT: usize = MIGRATIONS.len();

/// A step from one format to the next.
struct Migration {
    /// The oldest Avocet that reads the new format.
    readable_since: &'static str,
    run: fn(&Connection) -> rusqlite::Result<()>,
}

const MIGRATIONS: &[Migration] = &[Migration { readable_since: "0.1.0", run: make_records }];

/// Format 1. Databases from before formats were counted are the same but for the number.
fn make_records(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS records (
             tab TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (tab, key)
         ) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    )
}

/// Brings the database at `path` (none: in memory) to the newest format.
pub(crate) fn prepare(connection: &Connection, path: Option<&Path>) -> Result<(), Error> {
    bring_up(connection, path, MIGRATIONS)
}

fn bring_up(connection: &Connection, path: Option<&Path>, migrations: &[Migration]) -> Result<(), Error> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(missing) = migrations.get(found..) else {
        return Err(Error::Newer {
            format: found,
            known: migrations.len(),
            needs: readable_since(connection).unwrap_or_else(|| "a newer one".to_owned()),
        });
    };
    let Some(newest) = missing.last() else { return Ok(()) };
    if let (Some(path), true) = (path, has_tables(connection)?) {
        backup::copy_database(path, &copy_of_old(path), |_, _| {})?;
    }
    let transaction = connection.unchecked_transaction()?;
    for migration in missing {
        (migration.run)(&transaction)?;
    }
    transaction.execute(
        "INSERT OR REPLACE INTO meta (name, value) VALUES ('readable-since', ?)",
        [newest.readable_since],
    )?;
    transaction.pragma_update(None, "user_version", u32::try_from(migrations.len()).unwrap_or(u32::MAX))?;
    transaction.commit()?;
    Ok(())
}

/// Where the database is kept as it was before its last migration; there is one at most.
fn copy_of_old(path: &Path) -> PathBuf {
    let mut copy = path.as_os_str().to_owned();
    copy.push(".before-migration");
    copy.into()
}

fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables > 0)
}

fn readable_since(connection: &Connection) -> Option<String> {
    let query = "SELECT value FROM meta WHERE name = 'readable-since'";
    connection.query_row(query, [], |row| row.get(0)).optional().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Migration = Migration {
        readable_since: "7.1.0",
        run: |connection| connection.execute_batch("UPDATE records SET value = '\"second\"' WHERE tab = 't'"),
    };
    const BROKEN: Migration = Migration {
        readable_since: "7.2.0",
        run: |connection| connection.execute_batch("DELETE FROM records; UPDATE nothing SET value = 1"),
    };
    const FIRST: Migration = Migration { readable_since: "0.1.0", run: make_records };

    fn value(connection: &Connection) -> String {
        connection.query_row("SELECT value FROM records", [], |row| row.get(0)).unwrap()
    }

    fn database(folder: &Path) -> (Connection, PathBuf) {
        let path = folder.join("a.db");
        let connection = Connection::open(&path).unwrap();
        bring_up(&connection, Some(&path), &[FIRST]).unwrap();
        connection.execute("INSERT INTO records VALUES ('t', 'k', '\"first\"')", []).unwrap();
        (connection, path)
    }

    #[test]
    fn a_migration_changes_the_database_once_and_keeps_a_copy_of_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, path) = database(folder.path());
        assert!(!copy_of_old(&path).exists(), "a new database has no old one");
        bring_up(&connection, Some(&path), &[FIRST, SECOND]).unwrap();
        assert_eq!(value(&connection), "\"second\"");
        let old = Connection::open(copy_of_old(&path)).unwrap();
        assert_eq!(value(&old), "\"first\"");
        connection.execute("UPDATE records SET value = '\"mine\"'", []).unwrap();
        bring_up(&connection, Some(&path), &[FIRST, SECOND]).unwrap();
        assert_eq!(value(&connection), "\"mine\"");
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, path) = database(folder.path());
        bring_up(&connection, Some(&path), &[FIRST, SECOND, BROKEN]).unwrap_err();
        assert_eq!(value(&connection), "\"first\"");
        bring_up(&connection, Some(&path), &[FIRST, SECOND]).unwrap();
        assert_eq!(value(&connection), "\"second\"");
    }

    #[test]
    fn a_newer_database_is_refused_with_the_version_that_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, path) = database(folder.path());
        bring_up(&connection, Some(&path), &[FIRST, SECOND]).unwrap();
        let refused = bring_up(&connection, Some(&path), &[FIRST]).unwrap_err().to_string();
        assert!(refused.contains("format 2") && refused.contains("7.1.0"), "{refused}");
        assert_eq!(value(&connection), "\"second\"");
    }
}
