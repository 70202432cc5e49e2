//! What sites prove with who they are: each has one key, and its certificates are good for that key alone.
//!
//! A certificate is short-lived and of no use without the key, which never leaves the site. So whoever asks for the
//! next one with a request that is signed with the key gets it, even if the last one has expired meanwhile; and to
//! revoke all certificates of a site, it is enough to forget its key.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use daemon::tls::{self, Usage};
use serde::{Deserialize, Serialize};
use store::ledger::{Ledger, Tables};
use types::{Digest, Time};

use super::{Claim, Proof, SITES, User, join_tokens};
use crate::bells::Bells;
use crate::{ApiError, Trust};

const TABLE: &str = "site-identities";
const USAGES: &[Usage] = &[Usage::DigitalSignature, Usage::ClientAuth];

/// For how long certificates of sites are good.
#[derive(Debug, Clone, Copy)]
pub struct IdentityOptions {
    /// One certificate.
    pub ttl: Duration,
    /// How long after the end of its last certificate a site still gets another without a person.
    pub grace: Duration,
}

impl Default for IdentityOptions {
    /// A day, and 90 days.
    fn default() -> Self {
        Self { ttl: Duration::from_secs(24 * 3600), grace: Duration::from_secs(90 * 24 * 3600) }
    }
}

/// What is kept of a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Identity {
    /// The uid of its Site: one that was deleted and made anew is another.
    uid: String,
    /// What its key hashes to; none once it was revoked.
    key: Option<Digest>,
    /// Whether it was revoked because an agent of an older version joined with a secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    by_secret: bool,
    /// Since when it is so.
    since: Time,
    /// Until when the newest certificate is good.
    until: Time,
    /// What the site was told to trust when it last got a certificate; none for agents that don't listen to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<String>,
    /// The next authority by whose certificate it was heard since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moved: Option<String>,
}

impl Identity {
    /// Without a key.
    fn at(now: Time) -> Self {
        Self {
            uid: String::new(),
            key: None,
            by_secret: false,
            since: now,
            until: now,
            told: None,
            moved: None,
        }
    }
}

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is the site's.
    Good,
    /// No key is known of the site: it never joined with one.
    Unknown,
    /// The site has another by now.
    Replaced,
    /// The site's was revoked.
    Revoked,
    /// The site was deleted, and another of its name was made.
    Another,
}

impl Standing {
    /// Why such a key is refused; none if it is not.
    pub fn refusal(self, site: &str) -> Option<String> {
        let remedy =
            format!("make a token with `avocet join-token create --site {site}` and join again with it");
        match self {
            Self::Good | Self::Unknown => None,
            Self::Replaced => Some(format!(
                "site `{site}` joined anew with another key, and this one is good no longer; if this is the right \
                 machine, {remedy}"
            )),
            Self::Revoked => Some(format!("the certificates of site `{site}` were revoked; {remedy}")),
            Self::Another => Some(format!("site `{site}` was deleted here and made anew; {remedy}")),
        }
    }
}

/// The keys of all sites. Cheap to clone.
#[derive(Clone)]
pub struct Identities {
    ledger: Ledger,
    trust: Trust,
    options: IdentityOptions,
    known: Arc<RwLock<HashMap<String, Identity>>>,
    /// How often each site lost what it proved itself with. Sites that never did are missing.
    losses: Arc<RwLock<HashMap<String, u64>>>,
    /// Ring where a site does.
    bells: Bells,
}

impl Identities {
    /// Those that a ledger holds; the hub's authorities sign for them.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn open(
        ledger: Ledger,
        trust: Trust,
        options: IdentityOptions,
    ) -> Result<Self, store::ledger::Error> {
        let rows: Vec<(String, Identity)> = ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let known = Arc::new(RwLock::new(rows.into_iter().collect()));
        Ok(Self { ledger, trust, options, known, losses: Arc::default(), bells: Bells::new() })
    }

    /// By what the hub is known.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// How a key stands that proves to be the key of a site, whose Site has this uid.
    pub fn standing(&self, site: &str, uid: &str, key: Digest) -> Standing {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(site) {
            None => Standing::Unknown,
            Some(identity) if identity.uid != uid => Standing::Another,
            Some(Identity { key: None, by_secret: false, .. }) => Standing::Revoked,
            Some(identity) if identity.key == Some(key) => Standing::Good,
            Some(_) => Standing::Replaced,
        }
    }

    /// The sites whose certificates were revoked.
    pub fn revoked(&self) -> Vec<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let revoked = known.iter().filter(|(_, identity)| identity.key.is_none() && !identity.by_secret);
        revoked.map(|(site, _)| site.clone()).collect()
    }

    /// Makes the key of a request the key of a site, in place of the one before; answers its first certificate. Join
    /// tokens that others used for the site are of no use from then on.
    ///
    /// # Errors
    /// 401 if the proof holds no longer; 400 for a request that is damaged or for somebody else.
    pub async fn enroll(
        &self,
        site: &str,
        uid: &str,
        request: &str,
        proof: Proof,
        now: Time,
    ) -> Result<String, ApiError> {
        let key = check(site, request)?;
        let (certificate, until) = self.sign(request, now)?;
        let uid = uid.to_owned();
        let identity = Identity { uid, key: Some(key), since: now, until, ..Identity::at(now) };
        let name = site.to_owned();
        // What was decided while the request was on its way is not undone.
        let if_proven = move |tables: &Tables, before: Option<Identity>| {
            let is_own = |key| before.as_ref().is_none_or(|before| before.key == Some(key));
            proof.check(tables, &name, key, is_own)?;
            let old = before.and_then(|before| before.key);
            if old != Some(key) {
                join_tokens::forget_used(tables, &name, Some(key))?;
            }
            Ok((identity, old.is_some_and(|old| old != key)))
        };
        if self.change(site, if_proven).await? {
            self.lose(site);
        }
        Ok(certificate)
    }

    /// Whether a key that used a join token once more may have what it got then: nothing was decided of the site since.
    /// `uid` is that of its Site, if there is one.
    pub fn may_repeat(&self, site: &str, uid: Option<&str>, key: Digest, claim: &Claim) -> bool {
        let Some(made) = claim.repeats else { return true };
        match self.identity(site) {
            None => true,
            // The site was deleted since.
            Some(known) if known.key == Some(key) => uid == Some(known.uid.as_str()),
            // What was used before is forgotten at once, but older versions left it. A person takes a while to
            // approve a token that was made later.
            Some(known) => made.0.as_second() >= known.since.0.as_second(),
        }
    }

    /// The next certificate for a site's key; who has the key is proven by the request's signature.
    ///
    /// # Errors
    /// 401 if it is not the site's key, or the last certificate ended too long ago; 400 for a damaged request.
    pub async fn renew(&self, site: &str, uid: &str, request: &str, now: Time) -> Result<String, ApiError> {
        let key = check(site, request)?;
        let standing = self.standing(site, uid, key);
        if let Some(refusal) = standing.refusal(site) {
            return Err(ApiError::unauthorized(refusal));
        }
        let Some(known) = self.identity(site).filter(|_| standing == Standing::Good) else {
            return Err(ApiError::unauthorized(format!("no key of site `{site}` is known here; join first")));
        };
        let late = now.0.as_second() - known.until.0.as_second();
        if late > i64::try_from(self.options.grace.as_secs()).unwrap_or(i64::MAX) {
            let message = format!(
                "the last certificate of site `{site}` ended {} days ago, which is too long; make a token with `avocet \
                 join-token create --site {site}` and join again with it",
                late / (24 * 3600)
            );
            return Err(ApiError::unauthorized(message));
        }
        let (certificate, until) = self.sign(request, now)?;
        // Nothing that was decided meanwhile is undone.
        let unless = move |_: &Tables, now: Option<Identity>| match now {
            Some(now) if now.key == Some(key) && now.uid == known.uid => Ok((Identity { until, ..now }, ())),
            _ => Err(ApiError::unauthorized("the key was replaced or revoked just now")),
        };
        self.change(site, unless).await?;
        Ok(certificate)
    }

    /// Revokes all certificates of a site, and the join tokens that were used for it.
    ///
    /// # Errors
    /// If that can't be stored.
    pub async fn revoke(&self, site: &str, uid: &str, now: Time) -> Result<(), ApiError> {
        let identity = Identity { uid: uid.to_owned(), ..Identity::at(now) };
        let name = site.to_owned();
        let revoked = move |tables: &Tables, _| {
            join_tokens::forget_used(tables, &name, None)?;
            Ok((identity, ()))
        };
        self.change(site, revoked).await?;
        self.lose(site);
        Ok(())
    }

    /// An agent of an older version joined with a secret: certificates that the site had before are another machine's.
    ///
    /// # Errors
    /// 401 if the secret is good no longer, or if that can't be stored.
    pub async fn replace_by_secret(
        &self,
        site: &str,
        uid: &str,
        secret: &str,
        now: Time,
    ) -> Result<(), ApiError> {
        if self.identity(site).is_none_or(|known| known.by_secret) {
            return Ok(());
        }
        let identity = Identity { uid: uid.to_owned(), by_secret: true, ..Identity::at(now) };
        let (name, secret) = (site.to_owned(), Digest::of(secret.as_bytes()));
        let if_proven = move |tables: &Tables, _| {
            Proof::Bearer(secret).check(tables, &name, secret, |_| false)?;
            join_tokens::forget_used(tables, &name, Some(secret))?;
            Ok((identity, ()))
        };
        self.change(site, if_proven).await?;
        self.lose(site);
        Ok(())
    }

    /// Waits until a site loses what it proved itself with: its key, or its bearer token.
    pub async fn lost(&self, site: &str) {
        let before = self.losses_of(site);
        loop {
            let mut rung = pin!(self.bells.of(site).notified());
            rung.as_mut().enable();
            if self.losses_of(site) != before {
                return;
            }
            rung.await;
        }
    }

    /// What a site is to trust that just got a certificate; that it was told is noted.
    ///
    /// # Errors
    /// If that can't be stored.
    pub async fn tell(&self, site: &str) -> Result<String, ApiError> {
        let (bundle, told) = (self.trust.bundle(), Some(self.trust.digest()));
        if self.identity(site).is_some_and(|known| known.told != told) {
            self.note(site, move |known| Identity { told, ..known }).await?;
        }
        Ok(bundle)
    }

    /// Whether a site that shows a certificate of this authority needs another one: it is that of the authority before,
    /// or the site does not know all that it is to trust.
    pub fn is_behind(&self, site: &str, authority: &str) -> bool {
        let Some(known) = self.identity(site) else { return false };
        authority != self.trust.signing() || known.told.is_some_and(|told| told != self.trust.digest())
    }

    /// A site was heard that shows a certificate of this authority.
    ///
    /// # Errors
    /// If what follows can't be stored.
    pub async fn heard(&self, site: &str, authority: &str) -> Result<(), ApiError> {
        if !self.trust.is_rotating() || authority != self.trust.signing() {
            return Ok(());
        }
        let moved = Some(authority.to_owned());
        let told = Some(self.trust.digest());
        if self.identity(site).is_some_and(|known| known.told == told && known.moved != moved) {
            self.note(site, move |known| Identity { moved, ..known }).await?;
        }
        Ok(())
    }

    /// Whether a site was heard with a certificate of the next authority, and trusts it.
    pub fn has_moved(&self, site: &str) -> bool {
        let next = self.trust.authorities.stage().next.as_ref().map(|next| next.id());
        self.identity(site).is_some_and(|known| known.moved == next && next.is_some())
    }

    /// Whether a site proved itself with a key once.
    pub fn has_joined(&self, site: &str) -> bool {
        self.identity(site).is_some()
    }

    /// Changes what is kept of a site that is known.
    async fn note(
        &self,
        site: &str,
        change: impl FnOnce(Identity) -> Identity + Send + 'static,
    ) -> Result<(), ApiError> {
        let gone = || ApiError::unauthorized("the site is not known any more");
        self.change(site, move |_, known| Ok((change(known.ok_or_else(gone)?), ()))).await
    }

    fn lose(&self, site: &str) {
        let mut losses = self.losses.write().unwrap_or_else(PoisonError::into_inner);
        *losses.entry(site.to_owned()).or_default() += 1;
        drop(losses);
        self.bells.of(site).notify_waiters();
    }

    fn losses_of(&self, site: &str) -> u64 {
        let losses = self.losses.read().unwrap_or_else(PoisonError::into_inner);
        losses.get(site).copied().unwrap_or_default()
    }

    fn identity(&self, site: &str) -> Option<Identity> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(site).cloned()
    }

    fn sign(&self, request: &str, now: Time) -> Result<(String, Time), ApiError> {
        let ttl = self.options.ttl;
        let signing = self.trust.authorities.stage().signing().clone();
        let certificate = signing.sign(request, ttl, USAGES, now).map_err(refused)?;
        Ok((certificate, now.0.checked_add(ttl).map_or(now, Time)))
    }

    /// Changes what is kept of a site in one transaction with whatever `change` does besides.
    async fn change<T: Send + 'static>(
        &self,
        site: &str,
        change: impl FnOnce(&Tables, Option<Identity>) -> Result<(Identity, T), ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (key, name, known) = (site.to_owned(), site.to_owned(), self.known.clone());
        let write = move |tables: &Tables| {
            let (identity, more) = change(tables, tables.get(TABLE, &key)?)?;
            tables.put(TABLE, &key, &identity)?;
            Ok::<_, ApiError>((identity, more))
        };
        let show = move |(identity, more)| {
            known.write().unwrap_or_else(PoisonError::into_inner).insert(name, identity);
            more
        };
        self.ledger.write_then(write, show).await
    }
}

/// What the key of a request hashes to, which must be for that site and nobody else.
fn check(site: &str, request: &str) -> Result<Digest, ApiError> {
    let user = User::site_agent(site).name;
    let (name, groups) = tls::applicant(request).map_err(refused)?;
    if name != user || groups != [SITES] {
        return Err(ApiError::bad_request(format!(
            "the request is for CN={name:?}, O={groups:?}; this is for CN={user:?}, O=[{SITES:?}] alone"
        )));
    }
    tls::requested_key(request).map_err(refused)
}

fn refused(error: tls::RequestError) -> ApiError {
    ApiError::bad_request(daemon::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::super::{Invitation, Tokens};
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn identities(ledger: &Ledger) -> Identities {
        let folder = tempfile::tempdir().unwrap();
        let trust = Trust::new(tls::Authorities::open(folder.path()).unwrap(), "");
        Identities::open(ledger.clone(), trust, IdentityOptions::default()).unwrap()
    }

    fn request(key: &str, site: &str) -> String {
        tls::request(key, &format!("site:{site}"), SITES).unwrap()
    }

    /// A proof that holds as long as the site has no other key.
    fn first(key: &str, site: &str) -> Proof {
        Proof::Key(tls::requested_key(&request(key, site)).unwrap())
    }

    fn later(now: Time, seconds: u64) -> Time {
        Time(now.0.checked_add(Duration::from_secs(seconds)).unwrap())
    }

    #[tokio::test]
    async fn promise_1_weeks_after_its_end_a_certificate_is_renewed_by_who_has_the_key_alone() {
        let (all, now) = (identities(&Ledger::memory().unwrap()), daemon::now());
        let (mine, other) = (tls::new_key().unwrap(), tls::new_key().unwrap());
        all.enroll("plant", "u1", &request(&mine, "plant"), first(&mine, "plant"), now).await.unwrap();
        let weeks = later(now, 60 * DAY);
        let renew = async |key: &str, site: &str, uid: &str, now: Time| {
            all.renew("plant", uid, &request(key, site), now).await.map_err(|error| error.code)
        };
        assert_eq!(renew(&other, "plant", "u1", weeks).await, Err(401));
        assert_eq!(renew(&mine, "plant", "u2", weeks).await, Err(401), "another Site of that name");
        assert_eq!(renew(&mine, "shop", "u1", weeks).await, Err(400));
        assert!(renew(&mine, "plant", "u1", weeks).await.is_ok());
        assert!(renew(&mine, "plant", "u1", later(weeks, 91 * DAY)).await.is_ok(), "counted from the last");
        assert_eq!(renew(&mine, "plant", "u1", later(weeks, 184 * DAY)).await, Err(401));
    }

    #[tokio::test]
    async fn promise_7_what_is_replaced_or_revoked_is_refused_also_after_a_restart_of_the_hub() {
        let (ledger, now) = (Ledger::memory().unwrap(), daemon::now());
        let all = identities(&ledger);
        let (one, second) = (tls::new_key().unwrap(), tls::new_key().unwrap());
        let key = |key: &str| tls::requested_key(&request(key, "plant")).unwrap();
        assert_eq!(all.standing("plant", "u1", key(&one)), Standing::Unknown);
        all.enroll("plant", "u1", &request(&one, "plant"), first(&one, "plant"), now).await.unwrap();
        assert_eq!(all.standing("plant", "u1", key(&one)), Standing::Good);
        let asked = request(&second, "plant");
        let ((), replaced) =
            tokio::join!(all.lost("plant"), all.enroll("plant", "u1", &asked, first(&one, "plant"), now));
        replaced.unwrap();
        assert_eq!(all.standing("plant", "u1", key(&one)), Standing::Replaced);
        all.revoke("plant", "u1", now).await.unwrap();
        let all = identities(&ledger);
        assert_eq!(all.standing("plant", "u1", key(&second)), Standing::Revoked);
        assert_eq!(all.revoked(), ["plant"]);
        assert!(all.renew("plant", "u1", &request(&second, "plant"), now).await.is_err());
    }

    #[tokio::test]
    async fn promise_7_a_request_that_was_under_way_when_its_site_was_revoked_changes_nothing() {
        let (ledger, now) = (Ledger::memory().unwrap(), daemon::now());
        let (all, tokens) = (identities(&ledger), Tokens::new(ledger.clone()));
        let (old, new) = (tls::new_key().unwrap(), tls::new_key().unwrap());
        let (asked, secret) = (request(&new, "plant"), "s".repeat(40));
        tokens.grant(&secret, User::site_agent("plant")).await.unwrap();
        let bearer = Proof::Bearer(Digest::of(secret.as_bytes()));
        all.enroll("plant", "u1", &request(&old, "plant"), bearer.clone(), now).await.unwrap();
        tokens.withdraw("plant").await.unwrap();
        all.revoke("plant", "u1", now).await.unwrap();
        for proof in [bearer, first(&old, "plant"), Proof::JoinToken("never used".to_owned())] {
            let refused = all.enroll("plant", "u1", &asked, proof, now).await.unwrap_err();
            assert_eq!(refused.code, 401);
        }
        assert!(all.replace_by_secret("plant", "u1", &secret, now).await.is_err());
        assert_eq!(all.revoked(), ["plant"]);
    }

    #[tokio::test]
    async fn promise_7_a_token_that_an_older_version_left_is_of_no_use_after_the_revocation_either() {
        let (all, now) = (identities(&Ledger::memory().unwrap()), daemon::now());
        let key = tls::new_key().unwrap();
        all.enroll("plant", "u1", &request(&key, "plant"), first(&key, "plant"), now).await.unwrap();
        let shown = tls::requested_key(&request(&key, "plant")).unwrap();
        let claim = |repeats| Claim { invitation: Invitation::default(), repeats };
        assert!(all.may_repeat("plant", Some("u1"), shown, &claim(Some(now))));
        assert!(!all.may_repeat("plant", Some("u2"), shown, &claim(Some(now))), "deleted and made anew");
        all.revoke("plant", "u1", later(now, 60)).await.unwrap();
        assert!(!all.may_repeat("plant", Some("u1"), shown, &claim(Some(now))));
        assert!(all.may_repeat("plant", Some("u1"), shown, &claim(None)), "a new token");
        assert!(
            all.may_repeat("plant", Some("u1"), shown, &claim(Some(later(now, 61)))),
            "a person approved it"
        );
    }
}
