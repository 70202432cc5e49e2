//! One turn of one Source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sources::{Brought, Delivery, Helm, Order, REASONS};
use store::{Error, Key, Store};
use tracing::{debug, warn};
use types::core::{SecretBody, ServiceAccountBody};
use types::names::finalizer;
use types::{
    AppliedObject, ConditionStatus, DeletionPolicy, HelmOptions, Kind, Plain, SecretReference, Site,
    SiteSpec, Source, SourceSpec, SourceStatus, Time, condition,
};

use super::apply::{Outcome, Turn};
use super::cluster::{Account, Cluster};
use super::desired::desired;
use super::errands::Errands;
use super::report::{Done, Failure, failures_in_words, report};
use crate::write::{Write, is_terminating};
use crate::{Events, Occurrence};

/// How often a status is written anew when somebody else was faster.
const TRIES: u32 = 5;
/// How often it is looked whether a site that is to bring something is still there.
const LISTEN: Duration = Duration::from_secs(1);

/// What turns need. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    pub store: Store,
    pub events: Events,
    pub cluster: Arc<dyn Cluster>,
    pub git: Arc<sources::Options>,
    pub errands: Errands,
}

impl Worker {
    /// Does one turn; answers whether all went well.
    pub async fn turn(&self, source: &Source) -> bool {
        let now = daemon::now();
        let worked = match source.is_deleting() {
            true => self.say_goodbye(source, now).await,
            false => self.follow(source, now).await,
        };
        worked.unwrap_or_else(|error| {
            warn!(source = source.name(), namespace = source.namespace(), %error, "can't keep what became of a source");
            false
        })
    }

    async fn follow(&self, source: &Source, now: Time) -> Result<bool, Error> {
        if !source.metadata.finalizers.iter().any(|known| known == finalizer::SOURCE) {
            let mut held = source.clone();
            held.metadata.finalizers.push(finalizer::SOURCE.to_owned());
            match Write::spec(&held).apply(&self.store, &self.events, now).await {
                // Somebody changed it; the next turn sees what.
                Err(Error::Conflict { .. } | Error::NotFound(_)) => return Ok(false),
                other => other?,
            }
        }
        let mut attempted = String::new();
        let turn = self.attempt(source, &mut attempted, now).await;
        let is_well = turn.as_ref().is_ok_and(|done| done.outcome.failures.is_empty());
        if let Err(failure) = &turn {
            debug!(source = source.name(), reason = failure.reason, message = failure.message, "not applied");
        }
        self.keep(source, now, |current| report(current, &turn, &attempted, now)).await?;
        Ok(is_well)
    }

    async fn attempt(&self, source: &Source, attempted: &mut String, now: Time) -> Result<Done, Failure> {
        let account = self.account(source)?;
        let order = self.order(source)?;
        let (revision, brought) = match &source.spec.site {
            Some(site) => self.bring_from(site, order).await?,
            None => {
                let (revision, brought) = sources::bring(&self.git, &order).await;
                (revision, brought.map_err(Failure::from))
            }
        };
        revision.clone_into(attempted);
        let Brought { bytes, manifests } = brought?;
        if manifests.is_empty() {
            let problem =
                "the folder has no manifests, so all stays as it is; delete the Source to take it away";
            return Err(Failure::new("NoManifests", problem));
        }
        let desired = desired(source, manifests)?;
        let status = &source.status;
        let store = self.store.clone();
        let exists = move |mark: &str| {
            let (namespace, name) = mark.split_once('/').unwrap_or_default();
            store.get(&Key::new(SourceSpec::PLURAL, namespace, name)).is_some()
        };
        let turn = Turn {
            cluster: &*self.cluster,
            account: &account,
            source,
            revision: &revision,
            is_repeated: status.last_applied_revision == revision
                && status.observed_generation == source.metadata.generation,
            exists: &exists,
            now,
        };
        let steps = turn.plan(desired).await.map_err(|failures| refused(&account, failures))?;
        self.remember(source, turn.inventory_of(&steps), now).await?;
        let outcome = turn.carry_out(steps).await;
        Ok(Done { revision, bytes, outcome })
    }

    /// What is to be fetched for a Source, with all that is needed for it.
    fn order(&self, source: &Source) -> Result<Order, Failure> {
        let SourceSpec { git, verify, timeout, .. } = &source.spec;
        let secret = |reference: &SecretReference| {
            let found = secret_data(&self.store, source.namespace(), &reference.name);
            found.ok_or_else(|| {
                let problem =
                    format!("the Secret `{}` is not in the namespace {}", reference.name, source.namespace());
                Failure::passing("SecretNotFound", problem)
            })
        };
        Ok(Order {
            id: source.metadata.uid.clone(),
            git: git.clone(),
            secret: git.secret_ref.as_ref().map(secret).transpose()?,
            verify: verify.as_ref().map(|verify| verify.mode),
            signers: verify
                .as_ref()
                .map(|verify| secret(&verify.secret_ref))
                .transpose()?
                .unwrap_or_default(),
            helm: helm(source),
            timeout_seconds: timeout.duration().as_secs(),
        })
    }

    /// Has a site fetch, if it is there.
    async fn bring_from(
        &self,
        site: &str,
        order: Order,
    ) -> Result<(String, Result<Brought, Failure>), Failure> {
        if self.store.get(&Key::new(SiteSpec::PLURAL, "", site)).is_none() {
            return Err(Failure::passing(
                "SiteNotFound",
                format!("there is no site `{site}`; see spec.site"),
            ));
        }
        let silent = || {
            let problem = format!("site `{site}` brings nothing; does it run, and with --fetch-host?");
            Failure::passing("SiteSilent", problem)
        };
        let delivery = tokio::select! {
            delivery = self.errands.send(site, order) => delivery,
            () = self.silence_of(site) => None,
        };
        let Delivery { revision, brought, reason, message, is_lasting } = delivery.ok_or_else(silent)?;
        let reason = REASONS.into_iter().find(|known| *known == reason).unwrap_or("SiteFailed");
        let failure =
            || Failure { is_stalled: is_lasting, ..Failure::new(reason, format!("site {site}: {message}")) };
        Ok((revision, brought.ok_or_else(failure)))
    }

    /// Waits until a site is not heard any more.
    async fn silence_of(&self, site: &str) {
        loop {
            let found = self.store.get(&Key::new(SiteSpec::PLURAL, "", site));
            let found: Option<Site> = found.and_then(|object| object.resource().ok());
            let ready = found.as_ref().and_then(|site| condition(&site.status.conditions, "Ready"));
            if ready.is_none_or(|ready| ready.status != ConditionStatus::True) {
                return;
            }
            tokio::time::sleep(LISTEN).await;
        }
    }

    /// Keeps what is about to be made, so that a hub that ends in the middle knows it later.
    async fn remember(
        &self,
        source: &Source,
        inventory: Vec<AppliedObject>,
        now: Time,
    ) -> Result<(), Failure> {
        let known = &source.status.inventory;
        let is_known =
            |one: &AppliedObject| known.iter().any(|other| other.is(one) && other.adopted == one.adopted);
        if inventory.iter().all(is_known) {
            return Ok(());
        }
        let kept = self.keep(source, now, |current| {
            (SourceStatus { inventory: inventory.clone(), ..current.status.clone() }, vec![])
        });
        kept.await.map_err(|error| Failure {
            is_stalled: false,
            ..Failure::new("HubFailed", format!("can't keep the inventory: {error}"))
        })
    }

    /// Takes away what the Source created, unless it is to stay, and lets the Source go.
    async fn say_goodbye(&self, source: &Source, now: Time) -> Result<bool, Error> {
        if !source.metadata.finalizers.iter().any(|known| known == finalizer::SOURCE) {
            return Ok(true);
        }
        let is_pruned = source.spec.deletion_policy == DeletionPolicy::Prune
            && !is_terminating(&self.store, source.namespace());
        // Without the account nobody has the right; a namespace that goes takes its own along.
        if let Ok(account) = self.account(source)
            && is_pruned
        {
            let (cluster, revision) = (&*self.cluster, source.status.last_applied_revision.as_str());
            let turn = Turn {
                cluster,
                account: &account,
                source,
                revision,
                is_repeated: true,
                exists: &|_| true,
                now,
            };
            let mut outcome = Outcome::default();
            turn.prune(source.status.inventory.clone(), &mut outcome).await;
            if !outcome.failures.is_empty() {
                let message = failures_in_words(&outcome.failures, "could not be deleted")
                    + "; with deletionPolicy Leave the Source goes without it";
                let failure = Failure { failures: outcome.failures, ..Failure::new("PruneFailed", message) };
                self.keep(source, now, |current| report(current, &Err(failure_of(&failure)), "", now))
                    .await?;
                return Ok(false);
            }
        }
        sources::forget(&self.git, &source.metadata.uid);
        let mut tries = 0;
        loop {
            let Some(mut current) = self.current(source) else { return Ok(true) };
            current.metadata.finalizers.retain(|known| known != finalizer::SOURCE);
            match Write::spec(&current).apply(&self.store, &self.events, now).await {
                Err(Error::Conflict { .. }) if tries < TRIES => tries += 1,
                Err(Error::NotFound(_)) => return Ok(true),
                other => return other.map(|()| true),
            }
        }
    }

    /// Writes the status that follows from the Source as it is now.
    async fn keep(
        &self,
        source: &Source,
        now: Time,
        status: impl Fn(&Source) -> (SourceStatus, Vec<Occurrence>),
    ) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let Some(current) = self.current(source) else { return Ok(()) };
            // What was worked on is what is told of, not what somebody made of it meanwhile.
            let mut seen = source.clone();
            seen.status = current.status.clone();
            let (status, told) = status(&seen);
            if status == current.status && told.is_empty() {
                return Ok(());
            }
            let changed = Source { status, ..current };
            match Write::status(&changed).telling(told).apply(&self.store, &self.events, now).await {
                Err(Error::Conflict { .. }) if tries < TRIES => tries += 1,
                Err(Error::NotFound(_)) => return Ok(()),
                other => return other,
            }
        }
    }

    /// The Source as it is now, unless it is another one of its name.
    fn current(&self, source: &Source) -> Option<Source> {
        let object = self.store.get(&Key::new(SourceSpec::PLURAL, source.namespace(), source.name()))?;
        object.resource().ok().filter(|found: &Source| found.metadata.uid == source.metadata.uid)
    }

    fn account(&self, source: &Source) -> Result<Account, Failure> {
        let (namespace, name) = (source.namespace(), source.spec.service_account_name.as_str());
        let found = self.store.get(&Key::new(ServiceAccountBody::PLURAL, namespace, name));
        let found = found.ok_or_else(|| {
            let problem = format!(
                "the service account `{name}` is not there; `kubectl -n {namespace} create serviceaccount {name}` makes it"
            );
            Failure { is_stalled: false, ..Failure::new("ServiceAccountNotFound", problem) }
        })?;
        Ok(Account {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: found.metadata.uid.clone(),
        })
    }
}

/// The data of a Secret.
pub fn read_secret(store: &Store, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let data = secret_data(store, namespace, name)?.into_iter();
    Some(data.filter_map(|(key, text)| Some((key, STANDARD.decode(text).ok()?))).collect())
}

/// The same in Base64.
fn secret_data(store: &Store, namespace: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let object = store.get(&Key::new(SecretBody::PLURAL, namespace, name))?;
    let secret: Plain<SecretBody> = object.parse().ok()?;
    Some(secret.body.data)
}

fn failure_of(failure: &Failure) -> Failure {
    let Failure { reason, message, is_stalled, failures } = failure;
    Failure { reason, message: message.clone(), is_stalled: *is_stalled, failures: failures.clone() }
}

/// A plan that can't be carried out: nothing was changed.
fn refused(account: &Account, failures: Vec<types::FailedObject>) -> Failure {
    let mut message = failures_in_words(&failures, "can't be applied, so nothing was");
    let Account { namespace, name, .. } = account;
    if failures.iter().any(|failure| failure.message.contains("is forbidden: User")) {
        message += &format!(
            "; give the account rights, for example `kubectl -n {namespace} create rolebinding source-{name} \
             --clusterrole=edit --serviceaccount={namespace}:{name}`"
        );
    }
    Failure { is_stalled: false, failures, ..Failure::new("DryRunFailed", message) }
}

fn helm(source: &Source) -> Helm {
    let HelmOptions { release_name, values, value_files } = source.spec.helm.clone().unwrap_or_default();
    let release = if release_name.is_empty() { source.name().to_owned() } else { release_name };
    let namespace = source.spec.target_namespace.clone().unwrap_or_else(|| source.namespace().to_owned());
    Helm { release, namespace, values, value_files }
}
