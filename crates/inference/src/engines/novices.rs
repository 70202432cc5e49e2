//! Which model files are new here, and which were rehearsed well before.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use types::{DigestWriter, ModelSignature};

use crate::format::Source;
use crate::isolation::{Rehearsed, WorkerCommand, rehearse};
use crate::kept::Kept;
use crate::{Engine, EngineInfo};

const TABLE: &str = "rehearsed-models";
/// Files that are remembered in memory.
const MOST: usize = 4096;

/// Rehearses what is new.
pub(crate) struct Novices {
    command: WorkerCommand,
    /// By file and engine.
    known: Mutex<HashSet<String>>,
    kept: Arc<Kept>,
}

/// What is written down, for people: the key says all.
#[derive(Serialize, Deserialize)]
struct Record {
    engine: String,
    file: String,
}

impl Novices {
    pub fn new(command: WorkerCommand, kept: Arc<Kept>) -> Novices {
        Novices { command, known: Mutex::default(), kept }
    }

    /// What came of the rehearsal with each of these engines, now or before.
    pub fn rehearsed(
        &self,
        engines: &[&dyn Engine],
        source: &Source,
        declared: &ModelSignature,
    ) -> Vec<Rehearsed> {
        let content = match content(source, declared) {
            Ok(content) => content,
            Err(error) => return vec![Err(format!("it can't be read: {error}")); engines.len()],
        };
        let infos: Vec<EngineInfo> = engines.iter().map(|engine| engine.info()).collect();
        let keys: Vec<String> = infos.iter().map(|info| key(&content, info)).collect();
        let is_new: Vec<bool> = keys.iter().map(|key| !self.is_known(key)).collect();
        let new = infos.iter().zip(&is_new).filter(|(_, is_new)| **is_new);
        let new: Vec<&EngineInfo> = new.map(|(info, _)| info).collect();
        let verdicts = std::thread::scope(|scope| {
            // They will be needed here, too.
            let in_need = engines.iter().zip(&is_new).filter(|(_, is_new)| **is_new);
            scope.spawn(move || in_need.for_each(|(engine, _)| drop(engine.open())));
            rehearse(&self.command, &new, source, declared)
        });
        let mut verdicts = verdicts.into_iter();
        let file = source.path.display().to_string();
        let verdict = |((key, info), is_new): ((String, &EngineInfo), bool)| {
            if is_new {
                verdicts.next().unwrap_or_else(|| Err("its rehearsal was cut off".into()))?;
                self.know(key, Record { engine: info.name.into(), file: file.clone() });
            }
            Ok(())
        };
        keys.into_iter().zip(&infos).zip(is_new).map(verdict).collect()
    }

    fn is_known(&self, key: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
            || self.kept.get::<Record>(TABLE, key).is_some()
    }

    fn know(&self, key: String, record: Record) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key.clone());
        self.kept.put(TABLE, key, &record);
    }
}

/// The digest of all that engines read of a model.
fn content(source: &Source, declared: &ModelSignature) -> io::Result<String> {
    let mut digest = DigestWriter::default();
    for (name, file) in source.files()? {
        let mut file = File::open(file)?;
        let name = name.as_os_str().as_encoded_bytes();
        digest.update(&(name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update(&file.metadata()?.len().to_le_bytes());
        io::copy(&mut file, &mut digest)?;
    }
    digest.update(&serde_json::to_vec(declared)?);
    Ok(digest.digest().hex())
}

/// Another build of the engine, or of this program, may do otherwise.
fn key(content: &str, info: &EngineInfo) -> String {
    let mut digest = DigestWriter::default();
    let file = info.path.as_deref().and_then(|path| path.metadata().ok());
    let changed = file.as_ref().and_then(|file| file.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    let build = match file {
        // Its version isn't known before it is opened.
        Some(file) => format!("{:?} {} {changed:?}", info.path, file.len()),
        None => info.version.clone(),
    };
    for part in [content, info.name, &build, env!("CARGO_PKG_VERSION")] {
        digest.update(part.as_bytes());
        digest.update(b"\n");
    }
    digest.digest().hex()
}
