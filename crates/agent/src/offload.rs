//! Work that other sites do for this one ([`asking`]), and work that it does for others ([`hosting`]).
//!
//! An invocation that would wait for long is offered: the hub passes the question on, others judge by themselves, and the
//! site with the earliest end is handed the input under an attempt of a name of its own. From then on the invocation is
//! `Offloaded`, durably. Whoever takes the attempt's lease out of [`asking::Leases`] has the say about the invocation:
//! the result that comes in, or the clock when nothing was heard for too long. After that every result of the attempt is
//! dropped, so that outputs are published once. What runs for others is a guest, and guests are never offered on.

mod answer;
mod asking;
mod counters;
mod guests;
mod hosting;
mod rates;

use std::path::Path;

use api::{Client, Delivery, DeliveryKind, Note, client};
use daemon::Tasks;
use futures::StreamExt;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use sha2::Digest as _;
use tokio::io::AsyncWriteExt;
use tracing::debug;
use types::Digest;

use crate::Error;
use crate::links::Links;
pub(crate) use asking::Asking;
pub(crate) use counters::Counters;
pub(crate) use guests::Guests;
pub(crate) use hosting::{Hosting, Means, cpus, function_folders};
pub(crate) use rates::Rates;

/// What other sites are reached by. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Line {
    pub site: String,
    pub client: Client,
    pub links: Links,
    pub counters: Counters,
    pub tasks: Tasks,
}

impl Line {
    fn path(&self, rest: &str) -> String {
        format!("/avocet/v1/offload/{}/{rest}", self.site)
    }

    async fn post(&self, rest: &str, body: &impl Serialize) -> Result<(), client::Error> {
        let request = self.client.request(Method::POST, &self.path(rest));
        self.client.send(request.json(body)).await.map(drop)
    }

    /// Tells another site something. It may be lost.
    fn tell(&self, to: String, note: Note) {
        let line = self.clone();
        self.tasks.spawn("offload-note", async move {
            if let Err(error) = line.post(&format!("notes/{to}"), &note).await {
                debug!(to, error = %daemon::chain(&error), "a note for another site is lost");
            }
        });
    }

    /// Brings a delivery into a file, durably.
    async fn fetch(&self, address: &str, delivery: &Delivery, file: &Path) -> Result<(), Error> {
        let failed = |error| Error::disk(file, error);
        let request = self.client.request(Method::GET, &format!("{address}/{}", delivery.id));
        let response = self.client.send(request).await?;
        let mut body = std::pin::pin!(self.client.stream(response));
        let mut target = tokio::fs::File::create(file).await.map_err(failed)?;
        let (mut hasher, mut size) = (sha2::Sha256::new(), 0);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| Error::Damaged(format!("the delivery broke off: {error}")))?;
            size += chunk.len() as u64;
            if size > delivery.size {
                return Err(Error::Damaged(format!("delivery {} is larger than announced", delivery.id)));
            }
            hasher.update(&chunk);
            target.write_all(&chunk).await.map_err(failed)?;
        }
        if Digest::from_hasher(hasher) != delivery.digest {
            return Err(Error::Damaged(format!("delivery {} is not what its digest says", delivery.id)));
        }
        target.sync_all().await.map_err(failed)
    }

    /// Tells the hub that a delivery needs to be kept no longer.
    async fn confirm(&self, address: &str, id: &str) -> Result<(), Error> {
        self.client.send(self.client.request(Method::DELETE, &format!("{address}/{id}"))).await?;
        Ok(())
    }
}

/// Both directions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Offload {
    pub asking: Asking,
    pub hosting: Hosting,
}

impl Offload {
    /// Takes what another site says.
    pub(crate) fn note(&self, note: Value) {
        match serde_json::from_value(note) {
            Ok(Note::Ask(ask)) => self.hosting.asked(*ask),
            Ok(Note::Cancel { from, attempt }) => self.hosting.cancel(&from, &attempt),
            Ok(Note::Progress { from, attempt }) => self.asking.progresses(from, attempt),
            Ok(Note::GivenBack { from, attempt, reason }) => self.asking.given_back(&from, &attempt, &reason),
            Err(error) => debug!(%error, "another site says what this version does not know"),
        }
    }

    /// Takes an input or a result from the site's box.
    pub(crate) async fn receive(&self, address: &str, delivery: Delivery) -> Result<(), Error> {
        match delivery.kind {
            DeliveryKind::Result => self.asking.receive(address, &delivery).await,
            _ => self.hosting.receive(address, &delivery).await,
        }
    }
}
