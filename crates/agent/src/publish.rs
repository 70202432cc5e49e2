//! What an invocation made goes where it belongs: into the site's own buckets, or into the outbox.
//!
//! Every step may be repeated after a crash: local objects and parcels have ids made of the invocation's id and
//! the output's place.

use std::path::{Path, PathBuf};

use objects::{Objects, PutOptions};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;
use types::{Assignment, Digest};

use crate::Error;
use crate::invocations::{Invocation, Output};
use crate::outbox::{Outbox, Parcel};

/// How many files an invocation may leave.
pub(crate) const MOST_FILES: usize = 10_000;
/// How long a key may be, in bytes, in S3 and so in our buckets.
const LONGEST_KEY: usize = 1024;

/// What an invocation left in its output folder, and where each goes: to every output path that takes its name.
///
/// # Errors
/// If the folder can't be read, there is too much in it, or a name in it can't be part of a key.
pub(crate) fn collect(assignment: &Assignment, folder: &Path) -> Result<Vec<Output>, Error> {
    let mut outputs = Vec::new();
    for (file, size) in files_below(folder)? {
        for output in assignment.spec.outputs.iter().filter(|output| output.to.takes(&file)) {
            let key = format!("{}{file}", output.to.key_prefix());
            if key.len() > LONGEST_KEY {
                return Err(Error::OutputName(file));
            }
            outputs.push(Output {
                bucket: output.to.bucket().to_owned(),
                key,
                sites: output.sites.clone(),
                file: file.clone(),
                size,
            });
        }
    }
    Ok(outputs)
}

/// Paths below a folder and sizes, sorted; links and special files are passed over.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<(String, u64)>, Error> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(inside) = open.pop() {
        let path = folder.join(&inside);
        let entries = std::fs::read_dir(&path).map_err(|error| Error::disk(&path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Error::disk(&path, error))?;
            let kind = entry.file_type().map_err(|error| Error::disk(&path, error))?;
            let name = inside.join(entry.file_name());
            if kind.is_dir() {
                open.push(name);
            } else if kind.is_file() {
                let size = entry.metadata().map_err(|error| Error::disk(&path, error))?.len();
                let name = name.to_str().ok_or_else(|| Error::OutputName(name.display().to_string()))?;
                files.push((name.to_owned(), size));
            }
            if files.len() + open.len() > MOST_FILES {
                return Err(Error::TooManyOutputs(MOST_FILES));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Publishes all outputs of an invocation. Answers when each is durable, here or in the outbox.
pub(crate) async fn publish(
    invocation: &Invocation,
    folder: &Path,
    objects: &Objects,
    outbox: &Outbox,
) -> Result<(), Error> {
    let mut parcels = Vec::new();
    for output in &invocation.outputs {
        let path = folder.join(&output.file);
        for site in &output.sites {
            let place = [&invocation.id, &output.bucket, &output.key, site].map(String::as_str).join("\0");
            let id: String = Digest::of(place.as_bytes()).hex().chars().take(40).collect();
            if *site == invocation.site {
                put(objects, &path, output, id).await?;
            } else {
                let digest = enclose(&path, &outbox.file(&id)).await?;
                parcels.push(Parcel {
                    id,
                    assignment: invocation.assignment.clone(),
                    site: site.clone(),
                    bucket: output.bucket.clone(),
                    key: output.key.clone(),
                    digest,
                    size: output.size,
                    result: None,
                });
            }
        }
    }
    if !parcels.is_empty() {
        let folder = outbox.folder();
        daemon::sync_folder(folder).map_err(|error| Error::disk(folder, error))?;
        outbox.add(parcels).await?;
    }
    Ok(())
}

async fn put(objects: &Objects, path: &Path, output: &Output, id: String) -> Result<(), Error> {
    let file = tokio::fs::File::open(path).await.map_err(|error| Error::disk(path, error))?;
    let options = PutOptions { idempotency_key: Some(id), create_bucket: true, ..PutOptions::default() };
    objects.put(&output.bucket, &output.key, ReaderStream::new(file), options).await?;
    Ok(())
}

/// Copies a file into the outbox, durably, and hashes it.
async fn enclose(from: &Path, to: &Path) -> Result<Digest, Error> {
    use sha2::Digest as _;
    use tokio::io::AsyncWriteExt;
    let (from_failed, to_failed) = (|error| Error::disk(from, error), |error| Error::disk(to, error));
    let mut source = tokio::fs::File::open(from).await.map_err(from_failed)?;
    let mut target = tokio::fs::File::create(to).await.map_err(to_failed)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = source.read(&mut buffer).await.map_err(from_failed)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
        hasher.update(chunk);
        target.write_all(chunk).await.map_err(to_failed)?;
    }
    target.sync_all().await.map_err(to_failed)?;
    Ok(Digest::from_hasher(hasher))
}
