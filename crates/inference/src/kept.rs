//! What a repository learnt that outlives the process: small records in the server's ledger.
//!
//! They are written behind whoever has something to keep, in milliseconds; a crash before that forgets it.

use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use store::Ledger;
use store::ledger::{self, Tables};

use crate::repository::wait_for;

/// Most records of one table; the first by its key goes for a further one.
const MOST: u64 = 4096;
/// Notes that wait; further ones are dropped.
const WAITING: usize = 1024;

/// Records by table and key, or none where there is no ledger.
#[derive(Default)]
pub(crate) struct Kept(Option<Notes>);

struct Notes {
    ledger: Ledger,
    /// `None` once no more come.
    writes: Option<SyncSender<Note>>,
    writer: Option<JoinHandle<()>>,
}

/// A record, or that there is none any more.
struct Note {
    table: &'static str,
    key: String,
    record: Option<Value>,
}

impl Kept {
    /// Starts the thread that writes.
    pub fn start(ledger: Option<Ledger>) -> io::Result<Kept> {
        let Some(ledger) = ledger else { return Ok(Kept(None)) };
        let (writes, notes) = mpsc::sync_channel(WAITING);
        let to = ledger.clone();
        let writer = std::thread::Builder::new().name("keep".into());
        let writer = writer.spawn(move || notes.into_iter().for_each(|note| write(&to, note)))?;
        Ok(Kept(Some(Notes { ledger, writes: Some(writes), writer: Some(writer) })))
    }

    /// A record that was written and can be read.
    pub fn get<T: DeserializeOwned>(&self, table: &str, key: &str) -> Option<T> {
        let Notes { ledger, .. } = self.0.as_ref()?;
        let found = ledger.read(|tables| tables.get(table, key));
        found.unwrap_or_else(|error: ledger::Error| {
            tracing::warn!(
                table,
                key,
                error = daemon::chain(&error),
                "a record about a model is passed over"
            );
            None
        })
    }

    pub fn put(&self, table: &'static str, key: String, record: &impl Serialize) {
        if let Ok(record) = serde_json::to_value(record) {
            self.note(Note { table, key, record: Some(record) });
        }
    }

    pub fn delete(&self, table: &'static str, key: String) {
        self.note(Note { table, key, record: None });
    }

    fn note(&self, note: Note) {
        if let Some(writes) = self.0.as_ref().and_then(|notes| notes.writes.as_ref()) {
            // It is forgotten with the process, no more.
            let _ = writes.try_send(note);
        }
    }
}

impl Drop for Notes {
    /// Waits for what is being written.
    fn drop(&mut self) {
        self.writes = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(ledger: &Ledger, Note { table, key, record }: Note) {
    let about = key.clone();
    let change = move |tables: &Tables| match record {
        Some(record) => put(tables, table, &key, &record),
        None => tables.delete(table, &key).map(drop),
    };
    if let Err(error) = wait_for(ledger.write::<(), ledger::Error>(change)) {
        tracing::warn!(
            table,
            key = about,
            error = daemon::chain(&error),
            "what was learnt about a model can't be kept"
        );
    }
}

fn put(tables: &Tables, table: &str, key: &str, record: &Value) -> Result<(), ledger::Error> {
    let is_new = tables.get::<IgnoredAny>(table, key)?.is_none();
    if is_new && tables.count(table, "")? >= MOST {
        let first = tables.range::<IgnoredAny>(table, "", "", 1)?.into_iter().next();
        first.map(|(first, _)| tables.delete(table, &first)).transpose()?;
    }
    tables.put(table, key, record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_there_for_the_next_process_and_old_records_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = || Some(Ledger::open(&folder.path().join("l.db")).unwrap());
        let kept = Kept::start(ledger()).unwrap();
        kept.put("t", "gone".into(), &1);
        kept.delete("t", "gone".into());
        kept.put("t", "a".into(), &7);
        drop(kept);
        let kept = Kept::start(ledger()).unwrap();
        assert_eq!((kept.get::<u32>("t", "gone"), kept.get("t", "a")), (None, Some(7)));
        assert_eq!(kept.get::<String>("t", "a"), None, "not what it was written as");
        kept.put("t", "a".into(), &8);
        let full = Ledger::memory().unwrap();
        wait_for(full.write::<(), ledger::Error>(|tables| {
            (0..=MOST).try_for_each(|number| put(tables, "t", &format!("{number:05}"), &number.into()))
        }))
        .unwrap();
        let count = full.read::<_, ledger::Error>(|tables| {
            Ok((tables.count("t", "")?, tables.get::<u64>("t", "00000")?))
        });
        assert_eq!(count.unwrap(), (MOST, None));
        assert_eq!(Kept::default().get::<u32>("t", "a"), None);
    }
}
