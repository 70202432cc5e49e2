//! What nobody needs any more makes room for what is wanted.

use std::time::Duration;

use registry::{Garbage, Swept};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::{Prepared, Preparer, function_folders};
use crate::{Error, offload};

/// How long a blob that nothing names any more is kept, for the assignment that comes back.
const KEEP_UNUSED: Duration = Duration::from_secs(3600);
/// The same while the disk takes nothing more: long enough for what is just being fetched or pushed.
const KEEP_IN_NEED: Duration = Duration::from_secs(60);
impl Preparer {
    /// Takes away what no assignment needs, be it wanted or running; answers whether there was any. Where the disk takes
    /// nothing more that is done at once, and a failure of it keeps nothing else up.
    pub(super) async fn make_room(&self, prepared: Prepared) -> bool {
        let minimum_age = if prepared == Prepared::DiskFailed { KEEP_IN_NEED } else { KEEP_UNUSED };
        let bundles = self.remove_bundles().await.unwrap_or_else(|error| {
            warn!(error = %daemon::chain(&error), "functions that nobody needs can't be removed");
            0
        });
        let garbage = Garbage { minimum_age, ..Garbage::default() };
        let swept = self.registry.collect_garbage(garbage, || self.needed().into_keys().collect()).await;
        let swept = swept.unwrap_or_else(|error| {
            warn!(error = %daemon::chain(&error), "artifacts that nobody needs can't be removed");
            Swept::default()
        });
        if bundles > 0 || swept.blobs > 0 {
            info!(bundles, artifacts = swept.blobs, bytes = swept.bytes, "removed what nobody needs");
        }
        bundles > 0 || swept.blobs > 0
    }

    async fn remove_bundles(&self) -> Result<usize, Error> {
        let mut needed = function_folders(&self.assignments);
        needed.extend(offload::function_folders(&self.guests.all()?));
        let bundles = self.bundles.clone();
        let removed = spawn_blocking(move || bundles.remove_others(&needed)).await;
        let removed = removed.map_err(|_| Error::Interrupted)?;
        removed.map_err(|error| Error::disk(self.bundles.folder(), error))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use api::Client;
    use artifacts::Blobs;
    use inference::{EngineOptions, Engines, Repository};
    use registry::Registry;
    use serde_json::json;
    use serving::{Shelf, shelf};
    use store::Ledger;
    use types::{Assignment, Digest};

    use super::*;
    use crate::assignments::Assignments;
    use crate::bundles::Bundles;
    use crate::links::{Links, Named};
    use crate::offload::Guests;
    use crate::peers::Peers;
    use crate::verified::Verified;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Of a site whose hub is away.
    fn preparer(folder: &Path) -> Preparer {
        let ledger = Ledger::memory().unwrap();
        let blobs = Blobs::open(folder.join("artifacts")).unwrap();
        let uploads = folder.join("artifacts/uploads");
        let limits = registry::Limits::default();
        let repository =
            Repository::new(Engines::discover(&EngineOptions::default()), inference::Options::default())
                .unwrap();
        let client = Client::new("http://127.0.0.1:9", "", None).unwrap();
        let links = Links::open(folder.join("links.json"), String::new(), Named::default());
        let functions = folder.join("functions");
        std::fs::create_dir_all(&functions).unwrap();
        let models = folder.join("models");
        Preparer {
            peers: Peers::alone(&client, links),
            registry: Registry::open(&uploads, blobs, ledger.clone(), limits).unwrap(),
            signers: None,
            bundles: Bundles::new(functions),
            guests: Guests::open(ledger.clone()),
            shelf: Shelf::open(&models, ledger.clone(), repository.clone(), shelf::Options::default())
                .unwrap(),
            repository,
            assignments: Assignments::load(ledger).unwrap(),
        }
    }

    fn assignment(digest: &Digest) -> Assignment {
        let function = json!({"name": "f", "spec": {"runtime": "shell", "handler": "h",
            "artifact": {"digest": digest, "size": 1000}}});
        serde_json::from_value(json!({
            "apiVersion": types::API_VERSION, "kind": "Assignment",
            "metadata": {"name": "a", "namespace": "edge", "uid": "1", "generation": 1},
            "spec": {"applicationNamespace": "default", "application": "app", "applicationUid": "u",
                "component": "c", "function": function},
        }))
        .unwrap()
    }

    async fn blob(preparer: &Preparer, content: &'static [u8], age: Duration) -> Digest {
        let blobs = preparer.registry.blobs();
        let (digest, _) = blobs.put_reader(content).await.unwrap();
        let file = std::fs::File::open(blobs.path(&digest)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        digest
    }

    fn unpacked(preparer: &Preparer, digest: &Digest) -> std::path::PathBuf {
        let path = preparer.bundles.folder().join(digest.hex());
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn one_assignment_that_can_not_be_made_ready_keeps_no_garbage() {
        let folder = tempfile::tempdir().unwrap();
        let preparer = preparer(folder.path());
        let missing = Digest::of(b"missing");
        preparer.assignments.put(assignment(&missing)).await.unwrap();
        let (old, new) =
            (blob(&preparer, b"old", 10 * HOUR).await, blob(&preparer, b"new", Duration::ZERO).await);
        let [needless, needed] = [&old, &missing].map(|digest| unpacked(&preparer, digest));
        let prepared = preparer.prepare_all(&mut Verified::default()).await.unwrap();
        assert_eq!(prepared, Prepared::NotReady);
        assert!(preparer.make_room(prepared).await);
        let blobs = preparer.registry.blobs();
        assert!(!blobs.has(&old) && blobs.has(&new));
        assert!(!needless.exists() && needed.exists());
        assert!(!preparer.make_room(prepared).await);
    }

    #[tokio::test]
    async fn where_the_disk_fails_what_nobody_needs_goes_at_once_and_what_runs_stays() {
        let folder = tempfile::tempdir().unwrap();
        let preparer = preparer(folder.path());
        let runs = blob(&preparer, b"runs", 10 * HOUR).await;
        preparer.assignments.put(assignment(&runs)).await.unwrap();
        let known = preparer.assignments.get("a").unwrap().assignment;
        preparer.assignments.ready(&known, None).await.unwrap();
        let wanted = Digest::of(b"wanted");
        let mut next = assignment(&wanted);
        next.metadata.generation = 2;
        preparer.assignments.put(next).await.unwrap();
        let minutes = Duration::from_secs(120);
        let (old, new) =
            (blob(&preparer, b"old", minutes).await, blob(&preparer, b"new", Duration::ZERO).await);
        let [needless, running] = [&old, &runs].map(|digest| unpacked(&preparer, digest));
        // Where the beginning of what is fetched would be no file can be.
        std::fs::create_dir_all(folder.path().join("artifacts/partial").join(wanted.hex())).unwrap();
        let prepared = preparer.prepare_all(&mut Verified::default()).await.unwrap();
        assert_eq!(prepared, Prepared::DiskFailed);
        let blobs = preparer.registry.blobs();
        assert!(preparer.make_room(Prepared::Ready).await);
        assert!(!needless.exists() && running.exists());
        assert!(blobs.has(&old), "without need it is kept for longer");
        assert!(preparer.make_room(prepared).await);
        assert!(!blobs.has(&old) && blobs.has(&new) && blobs.has(&runs));
    }
}
