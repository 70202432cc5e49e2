//! The other end: a process that serves one model on its standard input.

use std::io::{BufReader, BufWriter};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use types::ModelSignature;

use super::frames::{self, Hello};
use crate::engine::chain;
use crate::{EngineChoice, Engines, LoadOptions, Tensor};

/// Loads the model with each of these engines in turn, runs it on what is made up for it, and tells on standard input, which
/// must be a socket, what came of it. Whatever should confine the process must do so before.
///
/// # Errors
/// When the socket fails.
pub fn rehearse_in_worker(
    engines: &Engines,
    choices: &[EngineChoice],
    path: &Path,
    declared: &ModelSignature,
) -> std::io::Result<()> {
    let mut writer = BufWriter::new(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?));
    for &choice in choices {
        let verdict = engines.rehearse(choice, path, declared).map_err(|error| chain(&error));
        frames::write_verdict(&mut writer, verdict.as_ref().map(drop).map_err(String::as_str))?;
    }
    Ok(())
}

/// Loads the model with so many threads a run, 0 for the engine's own number, and answers on standard input, which
/// must be a socket, until that is closed. Whatever should confine the process must do so before.
///
/// # Errors
/// When the socket fails.
pub fn serve_worker(
    engines: &Engines,
    choice: EngineChoice,
    path: &Path,
    threads: usize,
    declared: &ModelSignature,
) -> std::io::Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut writer = BufWriter::new(socket);
    let loaded =
        engines.load_declared(choice, path, &LoadOptions { workers: 1, threads, instances: 0 }, declared);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return frames::write_hello(&mut writer, Err(&chain(&error))),
    };
    let model = loaded.model;
    let signature = model.signature().clone();
    // More labels than the other side takes are left out.
    let named = signature.outputs.iter().filter_map(|spec| {
        let labels = model.labels(&spec.name).filter(|labels| labels.len() as u64 <= frames::MAX_ITEMS)?;
        Some((spec.name.clone(), labels.to_vec()))
    });
    let labels = named.collect();
    let hello = Hello { engine: loaded.engine.into(), why: loaded.why, signature, labels };
    frames::write_hello(&mut writer, Ok(&hello))?;
    let mut outcome = Ok(());
    engines.enter(Box::new(|| {
        outcome = (|| {
            while let Some((inputs, outputs)) = frames::read_request(&mut reader)? {
                let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
                let answer: Result<Vec<Tensor>, String> =
                    model.run(&inputs, &names).map_err(|error| chain(&error));
                frames::write_reply(&mut writer, answer.as_deref().map_err(String::as_str))?;
            }
            Ok(())
        })();
    }));
    outcome
}
