//! What a server keeps in a folder: uploaded models, and requests that are answered later.
//!
//!     DATA/server.db         records of both          DATA/models/  uploaded models by digest
//!     DATA/jobs/             requests, responses      DATA/callback-secret  signs results that are sent (0600)

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use daemon::Tasks;
use serving::mlbuffet::{self, Buffet};
use serving::{Folder, Jobs, Router, ServerState, Shelf, Unguarded, jobs, shelf};
use store::Ledger;

use super::{ServeOptions, message_limit};

/// The folder, while no other server may use it.
pub struct Data<'a> {
    path: &'a Path,
    pub ledger: Ledger,
    lock: File,
}

impl Data<'_> {
    pub fn open(path: &Path) -> anyhow::Result<Data<'_>> {
        std::fs::create_dir_all(path).with_context(|| format!("can't make {}", path.display()))?;
        let lock = File::create(path.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!("another server uses {}; end that one, or name another folder with --data", path.display());
        }
        let ledger = Ledger::open(&path.join("server.db"))?;
        Ok(Data { path, ledger, lock })
    }
}

/// Every route of the server, and those of what is kept; jobs are computed until the tasks end.
pub fn router(
    data: Data<'_>,
    options: &ServeOptions,
    state: ServerState,
    folder: &Arc<Folder>,
    tasks: &Tasks,
) -> anyhow::Result<Router> {
    let Data { path: data, ledger, lock } = data;
    let repository = state.repository().clone();
    let on_disk = Arc::clone(folder);
    let taken = Arc::new(move |name: &str| on_disk.names().iter().any(|known| known == name));
    let bytes = options.uploads_gib.saturating_mul(1 << 30);
    let limits = shelf::Options { taken, bytes, ..shelf::Options::default() };
    let shelf = Shelf::open(&data.join("models"), ledger.clone(), repository.clone(), limits)?;
    let uploaded = shelf.clone();
    folder.leave(move |name| uploaded.holds(name));
    // Whoever the door lets in may do everything.
    let guard = Arc::new(Unguarded);
    let limit = message_limit(options);
    let buffet = Buffet::new(state.clone(), shelf, guard.clone()).legacy(options.mlbuffet_legacy);
    let answering = serving::router(state).merge(mlbuffet::router(buffet));
    let limits = jobs::Options {
        origins: jobs::Origins::new(&options.callback_origins)?,
        secret: callback_secret(&data.join("callback-secret"))?,
        body_limit: limit,
        ..jobs::Options::default()
    };
    let later = Jobs::open(&data.join("jobs"), ledger, repository, guard, limits)?;
    let router = later.router(answering.clone());
    let lock = Arc::new(lock);
    tasks.supervise("jobs", move |shutdown| {
        let (later, answering, lock) = (later.clone(), answering.clone(), Arc::clone(&lock));
        async move {
            later.run(answering, || true, shutdown).await;
            drop(lock);
            Ok::<(), std::convert::Infallible>(())
        }
    });
    Ok(router)
}

fn callback_secret(file: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(file) {
        Ok(secret) => Ok(secret.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let secret = daemon::random_hex(24)?;
            daemon::write_private(file, secret.as_bytes())?;
            Ok(secret)
        }
        Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
    }
}
