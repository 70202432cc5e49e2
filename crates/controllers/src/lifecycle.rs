//! The loop of the controllers that work on objects of all kinds: namespaces, quotas, garbage, requests for
//! certificates, old events. A change leads them to the few objects that it concerns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use daemon::Shutdown;
use futures::StreamExt;
use store::{Error, Key, Object, Store};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};
use types::core::{CertificateSigningRequestSpec, EventBody, NamespaceSpec, ResourceQuotaSpec};
use types::{Kind, KindInfo, SiteSpec, Time, kinds};

use crate::dependents::Dependents;
use crate::garbage::{self, Objects};
use crate::write::Write;
use crate::{Events, Signer, certificate, events, namespace, quota};

/// How often what is old is looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// After how many new events old ones are looked for at once.
const MANY_EVENTS: usize = 1000;
/// How long after a refused write it is thought over again.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// How many writes are under way at once: they share commits.
const AT_ONCE: usize = 64;

/// The hub's authority: what it is known by, and what it signs with.
#[derive(Clone)]
pub struct Authority {
    /// The certificates by which it is known, in PEM, as they are.
    pub certificates: watch::Receiver<Arc<str>>,
    /// Signs for others.
    pub signer: Arc<dyn Signer>,
}

/// Runs the controllers that work on objects of all kinds until the shutdown.
///
/// # Errors
/// If the store failed for another reason than a conflict, or changes came faster than they could be followed; call
/// it again.
pub async fn run_lifecycle(
    store: Store,
    events: Events,
    authority: Authority,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let (index, concerned) = Dependents::read(&store);
    let mut watch = store.watch(index.version)?;
    let mut known_by = authority.certificates.clone();
    let mut keeper = Keeper { store, events, authority, index };
    let mut concerned = keeper.act(concerned, daemon::now()).await?;
    let mut sweep_at = Instant::now();
    loop {
        if Instant::now() >= sweep_at {
            sweep_at = Instant::now() + SWEEP;
            keeper.sweep(daemon::now()).await?;
        }
        let wake_at = if concerned.is_empty() { sweep_at } else { Instant::now() + TRY_AGAIN };
        let changes = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = tokio::time::sleep_until(wake_at) => vec![],
            changes = watch.next() => changes?,
            () = changes_of(&mut known_by) => {
                let namespaces = keeper.store.list(NamespaceSpec::PLURAL, None).0;
                concerned.extend(namespaces.iter().map(|namespace| namespace.key.clone()));
                vec![]
            }
        };
        for change in &changes {
            concerned.extend(keeper.index.follow(change));
        }
        if changes.iter().filter(|change| change.object.key.plural == EventBody::PLURAL).count() > MANY_EVENTS
        {
            sweep_at = Instant::now();
        }
        concerned = keeper.act(concerned, daemon::now()).await?;
    }
}

/// Waits until something changes; for ever where nothing can any more.
async fn changes_of(known_by: &mut watch::Receiver<Arc<str>>) {
    if known_by.changed().await.is_err() {
        std::future::pending().await
    }
}

struct Keeper {
    store: Store,
    events: Events,
    authority: Authority,
    index: Dependents,
}

impl Keeper {
    /// Does what is to be done about these objects; answers those that it must be thought over again for.
    async fn act(&self, concerned: BTreeSet<Key>, now: Time) -> Result<BTreeSet<Key>, Error> {
        let writes =
            concerned.iter().flat_map(|key| self.think(key, now).into_iter().map(move |write| (key, write)));
        let refused = self.write(writes.collect(), now).await?;
        Ok(refused.into_iter().cloned().collect())
    }

    /// What is to be done about an object.
    fn think(&self, key: &Key, now: Time) -> Vec<Write> {
        let find = |key: &Key| self.store.get(key);
        let Some(object) = find(key) else { return vec![] };
        let mut writes = garbage::collect(&object, &Objects { find: &find, dependents: &self.index });
        let is_going = object.metadata.deletion_timestamp.is_some();
        match key.plural {
            NamespaceSpec::PLURAL if is_going => {
                writes.extend(namespace::empty(&object, &self.content(&key.name), now));
            }
            NamespaceSpec::PLURAL => {
                let certificates = self.authority.certificates.borrow().clone();
                writes.extend(namespace::furnish(&key.name, &find, &certificates));
            }
            SiteSpec::PLURAL if !is_going => {
                let there = find(&Key::new(NamespaceSpec::PLURAL, "", &*key.name));
                writes.extend(there.is_none().then(|| namespace::for_site(&object)));
            }
            CertificateSigningRequestSpec::PLURAL => {
                writes.extend(certificate::reconcile(&object, &*self.authority.signer, now));
            }
            ResourceQuotaSpec::PLURAL => {
                let count = |info: &'static KindInfo| self.store.count(info.plural, &key.namespace);
                writes.extend(quota::reconcile(&object, count));
            }
            _ => {}
        }
        writes
    }

    /// Everything in a namespace.
    fn content(&self, namespace: &str) -> Vec<Arc<Object>> {
        let kinds = kinds().filter(|info| info.namespaced && !info.is_alias());
        kinds.flat_map(|info| self.store.list(info.plural, Some(namespace)).0).collect()
    }

    /// Takes away what is old.
    async fn sweep(&self, now: Time) -> Result<(), Error> {
        let mut writes = events::expired(&self.store.list(EventBody::PLURAL, None).0, now);
        let requests = self.store.list(CertificateSigningRequestSpec::PLURAL, None).0;
        let old = requests.iter().filter(|request| certificate::is_old(request, now));
        writes.extend(old.map(|request| Write::delete_object(request, None)));
        self.write(writes.into_iter().map(|write| ((), write)).collect(), now).await.map(drop)
    }

    /// Makes writes; answers what those were for that somebody else was faster with.
    async fn write<T>(&self, writes: Vec<(T, Write)>, now: Time) -> Result<Vec<T>, Error> {
        let mut made = futures::stream::iter(writes.into_iter().map(|(of, write)| async move {
            let key = write.key.clone();
            (of, key, write.apply(&self.store, &self.events, now).await)
        }))
        .buffer_unordered(AT_ONCE);
        let mut refused = Vec::new();
        while let Some((of, key, outcome)) = made.next().await {
            match outcome {
                Ok(()) => debug!(%key, "written"),
                Err(Error::Conflict { .. } | Error::Exists(_)) => refused.push(of),
                Err(Error::NotFound(_)) => {}
                Err(error) => {
                    warn!(%key, %error, "can't write");
                    return Err(error);
                }
            }
        }
        Ok(refused)
    }
}
