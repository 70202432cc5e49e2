//! The single-use tokens that sites join with, kept as hashes.

use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::ledger::{self, Tables};
use types::{Digest, SmallMap, Time};

use super::User;
use super::tokens::{Tokens, after, hash, id_of, is_granted, random_token, replace_token};
use crate::ApiError;

const TABLE: &str = "join-tokens";
/// Which tokens there are for a site: `SITE/KEY` of each, so that nobody looks through all for those of one.
const BY_SITE: &str = "join-tokens-by-site";
/// The record there that says that all are in it: older versions had no such table. No site has such a name.
const COMPLETE: &str = "^complete";
/// How often tokens that have ended are looked for, in seconds.
const SWEEP: i64 = 60;
/// For how long a token that was used is remembered after its end: its agent may still wait for a person.
const REMEMBERED: i64 = 30 * 24 * 3600;

/// What a join token lets an agent become.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    /// The site.
    pub site: String,
    /// Its tier; empty leaves it to the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tier: String,
    /// Labels beside those that the agent names; where both name one, these count.
    #[serde(default, skip_serializing_if = "SmallMap::is_empty")]
    pub labels: SmallMap,
    /// Whether a person approves before the agent is in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
}

/// A join token as it is kept: for what, until when, and who used it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct JoinToken {
    #[serde(flatten)]
    invitation: Invitation,
    #[serde(default)]
    created: Option<Time>,
    expires: Time,
    /// The hash of the secret or of the key of the agent that joined with it. The same agent may repeat its request,
    /// which it must if the answer was lost; nobody else may use the token again.
    used_by: Option<Digest>,
}

/// A key that used a join token.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What the token lets it become.
    pub invitation: Invitation,
    /// When the token was made, where it had been used before: the key asks again.
    pub repeats: Option<Time>,
}

/// What may be told of a join token: everything but the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenInfo {
    /// By what it is revoked.
    pub id: String,
    /// What it lets an agent become.
    #[serde(flatten)]
    pub invitation: Invitation,
    /// Since when.
    pub created: Option<Time>,
    /// Until when.
    pub expires: Time,
    /// Whether an agent came with it.
    pub used: bool,
}

impl Tokens {
    /// Makes a token that lets one agent join.
    ///
    /// # Errors
    /// If it can't be stored.
    pub async fn create_join_token(
        &self,
        invitation: Invitation,
        now: Time,
        ttl: Duration,
    ) -> Result<(String, JoinTokenInfo), ApiError> {
        let token = random_token()?;
        let record = JoinToken { invitation, created: Some(now), expires: after(now, ttl)?, used_by: None };
        let key = hash(&token).hex();
        let told = info(&key, record.clone());
        let sweeps = self.is_time_to_sweep(now);
        let write = move |tables: &Tables| {
            if sweeps {
                forget_expired(tables, now)?;
            }
            tables.put(BY_SITE, &entry(&record.invitation.site, &key), &true)?;
            tables.put(TABLE, &key, &record)?;
            Ok::<_, ApiError>(())
        };
        self.write(write).await?;
        Ok((token, told))
    }

    fn is_time_to_sweep(&self, now: Time) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = swept.is_none_or(|swept| (now.0.as_second() - swept.0.as_second()).abs() >= SWEEP);
        if is_time {
            *swept = Some(now);
        }
        is_time
    }

    /// All join tokens that are good, or were used of late.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn list_join_tokens(&self, now: Time) -> Result<Vec<JoinTokenInfo>, ApiError> {
        let all: Vec<(String, JoinToken)> =
            self.ledger.read(|tables| tables.range(TABLE, "", "", usize::MAX))?;
        let shown = all.into_iter().filter(|(_, record)| now <= record.expires || record.used_by.is_some());
        Ok(shown.map(|(key, record)| info(&key, record)).collect())
    }

    /// Takes a join token away by its id. Who joined with it stays.
    ///
    /// # Errors
    /// 404 if no token has that id.
    pub async fn revoke_join_token(&self, id: &str) -> Result<(), ApiError> {
        let id = id.to_owned();
        self.write(move |tables| {
            let all: Vec<(String, JoinToken)> = tables.range(TABLE, "", "", usize::MAX)?;
            let found = all.iter().find(|(key, _)| id_of(key) == id);
            let (key, record) =
                found.ok_or_else(|| ApiError::not_found(format!("join tokens \"{id}\" not found")))?;
            Ok(forget(tables, key, record)?)
        })
        .await
    }

    /// Uses a join token with a secret: from then on it is the bearer token of the site whose invitation this answers.
    ///
    /// # Errors
    /// 401 if the token is not known, has expired, or was used by another agent.
    pub async fn join(&self, token: &str, secret: &str, now: Time) -> Result<Invitation, ApiError> {
        if secret.len() < 32 {
            return Err(ApiError::bad_request("`secret` is too short: send at least 32 random characters"));
        }
        let (token, secret) = (hash(token), hash(secret));
        self.write(move |tables| {
            let Claim { invitation, repeats } = claim(tables, token, secret, now)?;
            if invitation.manual {
                let message =
                    "this join token wants a person's approval, which this agent is too old to wait for";
                return Err(ApiError::forbidden(message));
            }
            let user = User::site_agent(&invitation.site);
            if repeats.is_none() {
                replace_token(tables, &secret.hex(), user)?;
            } else if !is_granted(tables, &secret.hex(), &user.name)? {
                return Err(outlived());
            }
            Ok(invitation)
        })
        .await
    }

    /// Uses a join token with a key, whose hash this is.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_with_key(
        &self,
        token: &str,
        site: &str,
        key: Digest,
        now: Time,
    ) -> Result<Claim, ApiError> {
        let (token, site) = (hash(token), site.to_owned());
        self.write(move |tables| {
            let claim = claim(tables, token, key, now)?;
            if claim.invitation.site != site {
                return Err(ApiError::bad_request(format!(
                    "the join token is for site `{}`, and the request for site `{site}`",
                    claim.invitation.site
                )));
            }
            Ok(claim)
        })
        .await
    }
}

/// Notes who uses a token; answers what it is for.
fn claim(tables: &Tables, token: Digest, by: Digest, now: Time) -> Result<Claim, ApiError> {
    let unknown = || ApiError::unauthorized("the join token is not known here; make another");
    let mut record: JoinToken = tables.get(TABLE, &token.hex())?.ok_or_else(unknown)?;
    match record.used_by {
        Some(user) if user == by => {
            let made = record.created.unwrap_or(Time(jiff::Timestamp::UNIX_EPOCH));
            return Ok(Claim { invitation: record.invitation, repeats: Some(made) });
        }
        Some(_) => {
            let message = "the join token was used already, and each works once; make another";
            return Err(ApiError::unauthorized(message));
        }
        None => {}
    }
    if record.expires < now {
        let message = format!("the join token expired at {}; make another", record.expires);
        return Err(ApiError::unauthorized(message));
    }
    record.used_by = Some(by);
    tables.put(TABLE, &token.hex(), &record)?;
    Ok(Claim { invitation: record.invitation, repeats: None })
}

/// 401 for a token that was used before the site was revoked, deleted or given another key.
pub(crate) fn outlived() -> ApiError {
    let message =
        "the join token was used before the site was revoked, deleted or given another key; make another";
    ApiError::unauthorized(message)
}

/// Whether a key used a token that is still known.
pub(super) fn is_used_by(tables: &Tables, token: &str, key: Digest) -> Result<bool, ledger::Error> {
    let record: Option<JoinToken> = tables.get(TABLE, &hash(token).hex())?;
    Ok(record.is_some_and(|record| record.used_by == Some(key)))
}

/// Takes away the tokens for a site that were used, by others than `but` if that is said: nobody comes in with them
/// once more.
pub(super) fn forget_used(tables: &Tables, site: &str, but: Option<Digest>) -> Result<(), ledger::Error> {
    complete_by_site(tables)?;
    let prefix = entry(site, "");
    let all: Vec<(String, bool)> = tables.range(BY_SITE, &prefix, "", usize::MAX)?;
    for key in all.iter().filter_map(|(entry, _)| entry.strip_prefix(&prefix)) {
        let Some(record) = tables.get::<JoinToken>(TABLE, key)? else { continue };
        if record.used_by.is_some_and(|user| Some(user) != but) {
            forget(tables, key, &record)?;
        }
    }
    Ok(())
}

/// Expired tokens are of no use to anybody.
fn forget_expired(tables: &Tables, now: Time) -> Result<(), ledger::Error> {
    let all: Vec<(String, JoinToken)> = tables.range(TABLE, "", "", usize::MAX)?;
    let is_old = |record: &JoinToken| {
        let remembered = if record.used_by.is_some() { REMEMBERED } else { 0 };
        record.expires.0.as_second() + remembered < now.0.as_second()
    };
    all.iter().filter(|(_, record)| is_old(record)).try_for_each(|(key, record)| forget(tables, key, record))
}

fn forget(tables: &Tables, key: &str, record: &JoinToken) -> Result<(), ledger::Error> {
    tables.delete(BY_SITE, &entry(&record.invitation.site, key))?;
    tables.delete(TABLE, key).map(drop)
}

/// Notes the tokens of all sites that are from before there was this table, once.
fn complete_by_site(tables: &Tables) -> Result<(), ledger::Error> {
    if tables.get::<bool>(BY_SITE, COMPLETE)?.is_some() {
        return Ok(());
    }
    let all: Vec<(String, JoinToken)> = tables.range(TABLE, "", "", usize::MAX)?;
    for (key, record) in all {
        tables.put(BY_SITE, &entry(&record.invitation.site, &key), &true)?;
    }
    tables.put(BY_SITE, COMPLETE, &true)
}

fn entry(site: &str, key: &str) -> String {
    format!("{site}/{key}")
}

fn info(key: &str, record: JoinToken) -> JoinTokenInfo {
    let JoinToken { invitation, created, expires, used_by } = record;
    JoinTokenInfo { id: id_of(key).to_owned(), invitation, created, expires, used: used_by.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Ledger;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const MINUTE: Duration = Duration::from_secs(60);

    fn tokens() -> Tokens {
        Tokens::new(Ledger::memory().unwrap())
    }

    fn plant() -> Invitation {
        Invitation { site: "plant".to_owned(), ..Invitation::default() }
    }

    fn later(now: Time, seconds: u64) -> Time {
        Time(now.0.checked_add(Duration::from_secs(seconds)).unwrap())
    }

    #[tokio::test]
    async fn promise_7_used_tokens_of_one_site_are_forgotten_also_those_of_older_versions() {
        let (tokens, now) = (tokens(), daemon::now());
        let mill = Invitation { site: "mill".to_owned(), ..Invitation::default() };
        for (invitation, of) in [(plant(), "a"), (mill.clone(), "b"), (mill, "c")] {
            let (token, _) = tokens.create_join_token(invitation, now, MINUTE).await.unwrap();
            tokens.join(&token, &of.repeat(32), now).await.unwrap();
        }
        tokens.create_join_token(plant(), now, MINUTE).await.unwrap();
        // As if nobody had noted which are of which site.
        let clear = |tables: &Tables| {
            let noted: Vec<(String, bool)> = tables.range(BY_SITE, "", "", usize::MAX)?;
            assert_eq!(noted.len(), 4);
            noted.iter().try_for_each(|(entry, _)| tables.delete(BY_SITE, entry).map(drop))
        };
        tokens.ledger.write(clear).await.unwrap();
        let left = async |site: &'static str, but: Option<Digest>| {
            let forget = move |tables: &Tables| forget_used(tables, site, but);
            tokens.ledger.write(forget).await.unwrap();
            let left = tokens.list_join_tokens(now).unwrap();
            let mut left: Vec<_> = left.into_iter().map(|info| (info.invitation.site, info.used)).collect();
            left.sort();
            left
        };
        let known = |site: &str, used| (site.to_owned(), used);
        let all = [known("mill", true), known("mill", true), known("plant", false), known("plant", true)];
        assert_eq!(left("other", None).await, all);
        assert_eq!(left("mill", Some(hash(&"b".repeat(32)))).await, all[1..]);
        assert_eq!(left("plant", None).await, all[1..3]);
        let rest = |tables: &Tables| tables.range::<bool>(BY_SITE, "", "", usize::MAX);
        assert_eq!(tokens.ledger.read(rest).unwrap().len(), 3, "with the note that all are there");
    }

    #[tokio::test]
    async fn promise_7_a_join_token_works_once_and_for_its_user_alone() {
        let (tokens, now) = (tokens(), daemon::now());
        let (token, _) = tokens.create_join_token(plant(), now, MINUTE).await.unwrap();
        assert_eq!(tokens.join(&token, SECRET, now).await.unwrap(), plant());
        assert_eq!(tokens.join(&token, SECRET, now).await.unwrap(), plant(), "the answer may have been lost");
        let thief = "f".repeat(32);
        assert_eq!(tokens.join(&token, &thief, now).await.unwrap_err().code, 401);
        assert_eq!(tokens.identify(SECRET, now).unwrap(), Some(User::site_agent("plant")));
        assert_eq!(tokens.identify(&token, now).unwrap(), None);
    }

    #[tokio::test]
    async fn a_token_is_for_its_site_and_used_by_one_key() {
        let (tokens, now) = (tokens(), daemon::now());
        let (token, _) = tokens.create_join_token(plant(), now, MINUTE).await.unwrap();
        let [mine, thiefs] = [Digest::of(b"mine"), Digest::of(b"thief's")];
        assert_eq!(tokens.join_with_key(&token, "shop", mine, now).await.unwrap_err().code, 400);
        tokens.join_with_key(&token, "plant", mine, now).await.unwrap();
        assert_eq!(tokens.join_with_key(&token, "plant", thiefs, now).await.unwrap_err().code, 401);
        // A person takes a while to approve.
        tokens.create_join_token(plant(), later(now, 3600), MINUTE).await.unwrap();
        tokens.join_with_key(&token, "plant", mine, later(now, 7200)).await.unwrap();
    }

    #[tokio::test]
    async fn an_expired_join_token_is_refused() {
        let (tokens, now) = (tokens(), daemon::now());
        let (token, _) = tokens.create_join_token(plant(), now, MINUTE).await.unwrap();
        let refused = tokens.join(&token, SECRET, later(now, 61)).await.unwrap_err();
        assert!(refused.message.contains("expired"));
    }

    #[tokio::test]
    async fn a_revoked_join_token_is_refused_and_listed_no_more() {
        let (tokens, now) = (tokens(), daemon::now());
        let (token, told) = tokens.create_join_token(plant(), now, MINUTE).await.unwrap();
        let listed = tokens.list_join_tokens(now).unwrap();
        assert_eq!((listed.len(), &listed[0].id), (1, &told.id));
        assert_eq!(tokens.list_join_tokens(later(now, 61)).unwrap(), []);
        tokens.revoke_join_token(&told.id).await.unwrap();
        assert_eq!(tokens.list_join_tokens(now).unwrap(), []);
        assert_eq!(tokens.join(&token, SECRET, now).await.unwrap_err().code, 401);
        assert_eq!(tokens.revoke_join_token(&told.id).await.unwrap_err().code, 404);
    }

    #[tokio::test]
    async fn joining_again_revokes_what_the_site_had() {
        let (tokens, now) = (tokens(), daemon::now());
        let other = "e".repeat(32);
        for secret in [SECRET, &other] {
            let (token, _) = tokens.create_join_token(plant(), now, MINUTE).await.unwrap();
            tokens.join(&token, secret, now).await.unwrap();
        }
        assert_eq!(tokens.identify(SECRET, now).unwrap(), None);
        assert!(tokens.identify(&other, now).unwrap().is_some());
        assert!(tokens.withdraw("plant").await.unwrap());
        assert!(!tokens.withdraw("plant").await.unwrap());
        assert_eq!(tokens.identify(&other, now).unwrap(), None);
    }

    #[tokio::test]
    async fn join_tokens_stored_before_they_told_more_than_the_site_are_still_good() {
        let ledger = Ledger::memory().unwrap();
        let (tokens, now) = (Tokens::new(ledger.clone()), daemon::now());
        let record = serde_json::json!({"site": "plant", "expires": later(now, 60), "used_by": null});
        let key = hash("old").hex();
        ledger.write(move |tables: &Tables| tables.put(TABLE, &key, &record)).await.unwrap();
        assert_eq!(tokens.join("old", SECRET, now).await.unwrap(), plant());
    }
}
