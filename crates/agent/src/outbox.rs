//! Outputs for other sites, kept until the hub has them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{Client, client};
use daemon::Shutdown;
use reqwest::Method;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use store::ledger::{self, Ledger, Tables};
use tokio::sync::watch;
use tokio_util::io::ReaderStream;
use tracing::{debug, warn};
use types::Digest;

use crate::Error;
use crate::tally::Tally;

const TABLE: &str = "outbox";
/// What the hub refused for good. It is kept, counted as undelivered and tried again when the agent starts.
const REFUSED: &str = "outbox-refused";

/// One output on its way to one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parcel {
    /// The same however often it is made; also the name of its file.
    pub id: String,
    pub assignment: String,
    pub site: String,
    pub bucket: String,
    pub key: String,
    pub digest: Digest,
    pub size: u64,
    /// Set where it is no output but what became of an attempt that was run for the other site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultOf>,
}

/// Whose result a parcel is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResultOf {
    /// This site.
    pub site: String,
    /// What the hub gave it to prove that it was asked to.
    pub ticket: String,
}

/// The outbox. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    ledger: Ledger,
    folder: PathBuf,
    /// How many parcels of each assignment have not reached the hub.
    undelivered: Tally,
    changed: watch::Sender<u64>,
}

impl Outbox {
    pub(crate) fn open(ledger: Ledger, folder: PathBuf) -> Result<Self, ledger::Error> {
        let undelivered = Tally::default();
        for table in [TABLE, REFUSED] {
            let rows: Vec<(String, Parcel)> =
                ledger.read(|tables| tables.range(table, "", "", usize::MAX))?;
            rows.iter().for_each(|(_, parcel)| undelivered.change(&parcel.assignment, 1));
        }
        Ok(Self { ledger, folder, undelivered, changed: watch::Sender::new(0) })
    }

    /// Tells when something was added or delivered.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Where a parcel's content is.
    pub(crate) fn file(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes parcels in; their files must be in place, durably.
    pub(crate) async fn add(&self, parcels: Vec<Parcel>) -> Result<(), ledger::Error> {
        let (changed, undelivered) = (self.changed.clone(), self.undelivered.clone());
        let write = move |tables: &Tables| {
            let mut new = Vec::new();
            for parcel in parcels {
                if tables.get::<IgnoredAny>(TABLE, &parcel.id)?.is_none() {
                    new.push(parcel.assignment.clone());
                }
                tables.put(TABLE, &parcel.id, &parcel)?;
            }
            Ok::<_, ledger::Error>(new)
        };
        let after = move |new: Vec<String>| {
            new.iter().for_each(|assignment| undelivered.change(assignment, 1));
            changed.send_modify(|count| *count += 1);
        };
        self.ledger.write_then(write, after).await
    }

    /// How many parcels of an assignment have not reached the hub. Costs the same however many there are.
    pub(crate) fn count(&self, assignment: &str) -> u64 {
        self.undelivered.of(assignment)
    }

    /// Ids of all parcels, which are the names of their files.
    pub(crate) fn ids(&self) -> Result<HashSet<String>, ledger::Error> {
        let all: Vec<(String, Parcel)> =
            self.ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        Ok(all.into_iter().map(|(id, _)| id).collect())
    }

    async fn done(&self, id: &str) -> Result<(), Error> {
        let (key, changed, undelivered) = (id.to_owned(), self.changed.clone(), self.undelivered.clone());
        let write = move |tables: &Tables| {
            let parcel: Option<Parcel> = tables.get(TABLE, &key)?;
            tables.delete(TABLE, &key)?;
            Ok::<_, ledger::Error>(parcel)
        };
        let after = move |parcel: Option<Parcel>| {
            parcel.iter().for_each(|parcel| undelivered.change(&parcel.assignment, -1));
            changed.send_modify(|count| *count += 1);
        };
        self.ledger.write_then(write, after).await?;
        let file = self.file(id);
        tokio::fs::remove_file(&file).await.map_err(|error| Error::disk(&file, error))
    }

    async fn refused(&self, parcel: Parcel) -> Result<(), ledger::Error> {
        let undelivered = self.undelivered.clone();
        let write = move |tables: &Tables| {
            // The same may have been refused before.
            let by = i64::from(tables.get::<IgnoredAny>(REFUSED, &parcel.id)?.is_none())
                - i64::from(tables.delete(TABLE, &parcel.id)?);
            tables.put(REFUSED, &parcel.id, &parcel)?;
            Ok::<_, ledger::Error>((parcel.assignment, by))
        };
        self.ledger.write_then(write, move |(assignment, by)| undelivered.change(&assignment, by)).await
    }

    /// Puts what was refused before back into the outbox: another time, another answer.
    pub(crate) async fn retry_refused(&self) -> Result<(), ledger::Error> {
        self.ledger
            .write(|tables| {
                let refused: Vec<(String, Parcel)> = tables.range(REFUSED, "", "", usize::MAX)?;
                for (id, parcel) in refused {
                    tables.delete(REFUSED, &id)?;
                    tables.put(TABLE, &id, &parcel)?;
                }
                Ok(())
            })
            .await
    }
}

/// How many parcels are looked up at once.
const PAGE: usize = 64;

/// Sends what is in the outbox, and what comes into it, until the hub can't be reached.
pub(crate) async fn send_all(client: Client, outbox: Outbox, shutdown: Shutdown) -> Result<(), Error> {
    // The hub answers once it has all of an output, which has a time limit of its own.
    let client = client.without_patience();
    let mut changed = outbox.subscribe();
    loop {
        let waiting: Vec<(String, Parcel)> =
            outbox.ledger.read(|tables| tables.range(TABLE, "", "", PAGE))?;
        if waiting.is_empty() {
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                _ = changed.changed() => continue,
            }
        }
        for (id, parcel) in waiting {
            if shutdown.is_due() {
                return Ok(());
            }
            match send(&client, &outbox, &parcel).await {
                Ok(()) => {
                    debug!(id, site = parcel.site, key = parcel.key, "output is at the hub");
                    outbox.done(&id).await?;
                }
                Err(Error::Hub(client::Error::Refused { code: 400 | 403 | 404 | 413, message, .. }))
                    if parcel.result.is_some() =>
                {
                    debug!(id, site = parcel.site, message, "nobody waits for what was run for another site");
                    outbox.done(&id).await?;
                }
                Err(Error::Hub(client::Error::Refused {
                    code: code @ (400 | 403 | 404 | 413),
                    message,
                    ..
                })) => {
                    warn!(
                        id,
                        site = parcel.site,
                        key = parcel.key,
                        code,
                        message,
                        "the hub refused an output; it is kept"
                    );
                    outbox.refused(parcel).await?;
                }
                // One parcel whose file is lost must not hold up the others for ever.
                Err(Error::Disk { path, source }) if source.kind() == std::io::ErrorKind::NotFound => {
                    tracing::error!(id, path = %path.display(), "the content of an output is lost; check the disk");
                    outbox.refused(parcel).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

const LONGEST_SEND: Duration = Duration::from_secs(3600);

async fn send(client: &Client, outbox: &Outbox, parcel: &Parcel) -> Result<(), Error> {
    let path = outbox.file(&parcel.id);
    let file = tokio::fs::File::open(&path).await.map_err(|error| Error::disk(&path, error))?;
    let Parcel { id, site, .. } = parcel;
    let request = match &parcel.result {
        None => client
            .request(Method::PUT, &format!("/avocet/v1/mailbox/{site}/{id}"))
            .query(&[("bucket", &parcel.bucket), ("key", &parcel.key)]),
        Some(result) => client
            .request(Method::PUT, &format!("/avocet/v1/offload/{}/results/{site}/{id}", result.site))
            .query(&[("ticket", &result.ticket)]),
    };
    let request = request
        .query(&[("digest", parcel.digest.to_string())])
        .header("content-length", parcel.size)
        .timeout(LONGEST_SEND)
        .body(reqwest::Body::wrap_stream(ReaderStream::new(file)));
    client.send(request).await?;
    Ok(())
}
