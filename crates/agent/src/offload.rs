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

use api::{Arriving, Client, Delivery, DeliveryKind, Note, client};
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
use crate::inbox::{LARGE, gather};
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
    /// The beginnings of what comes in, on the file system of the folder where work is done.
    pub arriving: Arriving,
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

    /// Brings a delivery into a file, durably; tells of each bit that `comes`. A large one goes on where it broke off.
    async fn fetch(
        &self,
        address: &str,
        delivery: &Delivery,
        file: &Path,
        comes: impl Fn() + Send,
    ) -> Result<(), Error> {
        let Delivery { id, digest, size, .. } = delivery;
        if *size < LARGE {
            return self.fetch_small(address, delivery, file).await;
        }
        let what = beginning(delivery);
        gather(&self.client, &format!("{address}/{id}"), &self.arriving, &what, *size, comes).await?;
        Ok(self.arriving.take(&what, *size, digest, file).await?)
    }

    /// Forgets what came of a delivery that nobody wants any more.
    fn forget(&self, delivery: &Delivery) {
        if let Err(error) = self.arriving.forget(&beginning(delivery)) {
            debug!(id = delivery.id, error = daemon::chain(&error), "it goes within a week");
        }
    }

    async fn fetch_small(&self, address: &str, delivery: &Delivery, file: &Path) -> Result<(), Error> {
        let failed = |error| Error::disk(file, error);
        let client = self.client.clone().in_bulk();
        let request = client.request(Method::GET, &format!("{address}/{}", delivery.id));
        let response = client.send(request).await?;
        let mut body = std::pin::pin!(client.stream(response));
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

/// Tells a delivery from everything else that may arrive.
fn beginning(delivery: &Delivery) -> String {
    format!("{} {}", delivery.id, delivery.digest)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::inbox::tests::{Giving, SIZE, content};
    use crate::links::Named;

    #[tokio::test]
    async fn a_large_input_goes_on_where_it_broke_off_also_after_a_restart_and_a_wrong_one_is_forgotten() {
        let giving = Giving::default();
        let (hub, client) = giving.serve().await;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let line = || Line {
            site: "b".to_owned(),
            client: client.clone(),
            links: Links::open(at("links.json"), String::new(), Named::default()),
            arriving: Arriving::open(&at("arriving")).unwrap(),
            counters: Counters::default(),
            tasks: Tasks::default(),
        };
        let delivery = |digest: Digest| -> Delivery {
            let told = serde_json::json!({"id": "d1", "kind": "task", "bucket": "", "key": "in", "size": SIZE, "digest": digest});
            serde_json::from_value(told).unwrap()
        };
        let signs = AtomicUsize::new(0);
        let fetched = async {
            let comes = || {
                signs.fetch_add(1, Ordering::Relaxed);
            };
            let right = delivery(Digest::of(&content()));
            let broken = line().fetch("/box", &right, &at("in"), comes).await;
            assert!(matches!(broken, Err(Error::Damaged(_))), "{broken:?}");
            assert!(!at("in").exists());
            line().fetch("/box", &right, &at("in"), comes).await.unwrap();
            let wrong = delivery(Digest::of(b"else"));
            assert!(line().fetch("/box", &wrong, &at("else"), comes).await.is_err());
            assert!(line().fetch("/box", &wrong, &at("else"), comes).await.is_err());
            let forgotten = line();
            assert_eq!(forgotten.arriving.received(&beginning(&wrong)), 0);
        };
        tokio::select! {
            ended = hub => panic!("the hub ended: {ended:?}"),
            () = fetched => {}
        }
        assert!(std::fs::read(at("in")).unwrap() == content());
        assert!(signs.load(Ordering::Relaxed) >= 2, "what comes is a sign of life");
        let asked = giving.asked.lock().unwrap()[..2].to_vec();
        assert_eq!(asked, [String::new(), format!("bytes={}-", SIZE / 2)], "nothing is fetched twice");
    }
}
