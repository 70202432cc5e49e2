//! Bearer tokens, kept as hashes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::ledger::{self, Ledger, Tables};
use types::{Digest, Time};

use super::User;
use crate::ApiError;

const TOKENS: &str = "tokens";
/// How many digits of a token's hash are its id.
const ID_DIGITS: usize = 12;

/// A token as it is kept: whose it is, since when and until when.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Stored")]
struct Grant {
    user: User,
    created: Option<Time>,
    /// None for the tokens that the hub itself grants: they are good until others are granted in their place.
    expires: Option<Time>,
}

/// All forms in which tokens were ever stored.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Grant { user: User, created: Option<Time>, expires: Option<Time> },
    Identity(Identity),
}

/// Whose a token is, as it was stored before users had groups of their own.
#[derive(Deserialize)]
enum Identity {
    Admin,
    Site(String),
}

impl From<Stored> for Grant {
    fn from(stored: Stored) -> Self {
        let user = match stored {
            Stored::Grant { user, created, expires } => return Self { user, created, expires },
            Stored::Identity(Identity::Admin) => User::admin(),
            Stored::Identity(Identity::Site(name)) => User::site_agent(&name),
        };
        Self { user, created: None, expires: None }
    }
}

/// What may be told of a token: everything but the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// By what it is revoked.
    pub id: String,
    /// Whose it is.
    pub user: User,
    /// Since when.
    pub created: Option<Time>,
    /// Until when; without it until it is revoked.
    pub expires: Option<Time>,
}

/// The tokens of a hub. Only hashes are kept: who reads the disk can't use them.
#[derive(Clone)]
pub struct Tokens {
    pub(super) ledger: Ledger,
    seen: Arc<Mutex<Seen>>,
    /// When join tokens that have ended were looked for.
    pub(super) swept: Arc<Mutex<Option<Time>>>,
}

/// The tokens that were shown of late, as they are kept; forgotten whenever any is written.
#[derive(Default)]
struct Seen {
    grants: HashMap<Digest, Grant>,
    /// How often all was forgotten: what was read before that is not remembered after it.
    forgotten: u64,
}

/// How many tokens are remembered.
const SEEN: usize = 4096;

impl Tokens {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, seen: Arc::default(), swept: Arc::default() }
    }

    /// Who has this token, if anybody has.
    ///
    /// # Errors
    /// If the tokens can't be read.
    pub fn identify(&self, token: &str, now: Time) -> Result<Option<User>, ApiError> {
        let found = self.find(hash(token))?;
        let good = found.filter(|grant| grant.expires.is_none_or(|expires| now < expires));
        Ok(good.map(|grant| grant.user))
    }

    fn find(&self, token: Digest) -> Result<Option<Grant>, ApiError> {
        let forgotten = {
            let seen = self.seen();
            if let Some(grant) = seen.grants.get(&token) {
                return Ok(Some(grant.clone()));
            }
            seen.forgotten
        };
        let found: Option<Grant> = self.ledger.read(|tables| tables.get(TOKENS, &token.hex()))?;
        let mut seen = self.seen();
        if let Some(grant) = found.clone().filter(|_| seen.forgotten == forgotten && seen.grants.len() < SEEN)
        {
            seen.grants.insert(token, grant);
        }
        Ok(found)
    }

    /// Writes tokens. Once that is durable, nothing is remembered that may have changed.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Tables) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let tokens = self.clone();
        let forget = move |done| {
            let mut seen = tokens.seen();
            seen.grants.clear();
            seen.forgotten += 1;
            done
        };
        self.ledger.write_then(change, forget).await
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a token to a user, in place of those that the hub granted before.
    ///
    /// # Errors
    /// If it can't be stored.
    pub async fn grant(&self, token: &str, user: User) -> Result<(), ApiError> {
        let key = hash(token).hex();
        self.write(move |tables| replace_token(tables, &key, user)).await
    }

    /// Makes a further token for a user; answers the token and what may be told of it.
    ///
    /// # Errors
    /// If it can't be stored.
    pub async fn create(
        &self,
        user: User,
        now: Time,
        ttl: Duration,
    ) -> Result<(String, TokenInfo), ApiError> {
        let token = random_token()?;
        let grant = Grant { user, created: Some(now), expires: Some(after(now, ttl)?) };
        let key = hash(&token).hex();
        let told = info(&key, grant.clone());
        let write = move |tables: &Tables| {
            forget_expired(tables, now)?;
            tables.put(TOKENS, &key, &grant)?;
            Ok::<_, ApiError>(())
        };
        self.write(write).await?;
        Ok((token, told))
    }

    /// All tokens that are good.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn list(&self, now: Time) -> Result<Vec<TokenInfo>, ApiError> {
        let all: Vec<(String, Grant)> =
            self.ledger.read(|tables| tables.range(TOKENS, "", "", usize::MAX))?;
        let good = all.into_iter().filter(|(_, grant)| grant.expires.is_none_or(|expires| now < expires));
        Ok(good.map(|(key, grant)| info(&key, grant)).collect())
    }

    /// Takes a token away by its id.
    ///
    /// # Errors
    /// 404 if no token has that id.
    pub async fn revoke(&self, id: &str) -> Result<(), ApiError> {
        let id = id.to_owned();
        self.write(move |tables| {
            let all: Vec<(String, Grant)> = tables.range(TOKENS, "", "", usize::MAX)?;
            let found = all.iter().find(|(key, _)| id_of(key) == id);
            let (key, _) = found.ok_or_else(|| ApiError::not_found(format!("tokens \"{id}\" not found")))?;
            tables.delete(TOKENS, key)?;
            Ok(())
        })
        .await
    }

    /// Takes away what the hub granted to a site that has a certificate now; answers whether it had something.
    ///
    /// # Errors
    /// If that can't be stored.
    pub async fn withdraw(&self, site: &str) -> Result<bool, ApiError> {
        let user = User::site_agent(site).name;
        self.write(move |tables| Ok(forget_granted(tables, &user)? > 0)).await
    }
}

/// Expired tokens are of no use to anybody.
fn forget_expired(tables: &Tables, now: Time) -> Result<(), ledger::Error> {
    let all: Vec<(String, Grant)> = tables.range(TOKENS, "", "", usize::MAX)?;
    for (key, _) in all.iter().filter(|(_, grant)| grant.expires.is_some_and(|expires| expires < now)) {
        tables.delete(TOKENS, key)?;
    }
    Ok(())
}

pub(super) fn random_token() -> Result<String, ApiError> {
    daemon::random_hex(24).map_err(|error| ApiError::internal(&error))
}

pub(super) fn after(now: Time, ttl: Duration) -> Result<Time, ApiError> {
    now.0.checked_add(ttl).map(Time).map_err(|error| ApiError::bad_request(error.to_string()))
}

pub(super) fn hash(token: &str) -> Digest {
    Digest::of(token.as_bytes())
}

pub(super) fn id_of(key: &str) -> &str {
    key.get(..ID_DIGITS).unwrap_or(key)
}

fn info(key: &str, grant: Grant) -> TokenInfo {
    let Grant { user, created, expires } = grant;
    TokenInfo { id: id_of(key).to_owned(), user, created, expires }
}

pub(super) fn replace_token(tables: &Tables, key: &str, user: User) -> Result<(), ApiError> {
    forget_granted(tables, &user.name)?;
    tables.put(TOKENS, key, &Grant { user, created: Some(daemon::now()), expires: None })?;
    Ok(())
}

/// Whether a token, by its key, is what the hub granted to a user.
pub(super) fn is_granted(tables: &Tables, key: &str, user: &str) -> Result<bool, ledger::Error> {
    let grant: Option<Grant> = tables.get(TOKENS, key)?;
    Ok(grant.is_some_and(|grant| grant.expires.is_none() && grant.user.name == user))
}

/// Takes away what the hub granted to a user; answers how much that was.
fn forget_granted(tables: &Tables, user: &str) -> Result<usize, ApiError> {
    let all: Vec<(String, Grant)> = tables.range(TOKENS, "", "", usize::MAX)?;
    let granted = all.iter().filter(|(_, grant)| grant.expires.is_none() && grant.user.name == user);
    let keys: Vec<&String> = granted.map(|(key, _)| key).collect();
    for key in &keys {
        tables.delete(TOKENS, key)?;
    }
    Ok(keys.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn tokens() -> Tokens {
        Tokens::new(Ledger::memory().unwrap())
    }

    fn later(now: Time, seconds: u64) -> Time {
        Time(now.0.checked_add(Duration::from_secs(seconds)).unwrap())
    }

    #[tokio::test]
    async fn tokens_stored_before_users_had_groups_are_still_good() {
        let ledger = Ledger::memory().unwrap();
        let tokens = Tokens::new(ledger.clone());
        let old = [
            ("old admin", r#""Admin""#, User::admin()),
            ("old site", r#"{"Site":"plant"}"#, User::site_agent("plant")),
        ];
        for (token, stored, user) in old {
            let record: serde_json::Value = serde_json::from_str(stored).unwrap();
            let key = hash(token).hex();
            ledger.write(move |tables: &Tables| tables.put(TOKENS, &key, &record)).await.unwrap();
            assert_eq!(tokens.identify(token, daemon::now()).unwrap(), Some(user));
        }
        // Granting anew takes the old ones away.
        tokens.grant("new admin", User::admin()).await.unwrap();
        assert_eq!(tokens.identify("old admin", daemon::now()).unwrap(), None);
        assert!(tokens.identify("old site", daemon::now()).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_made_token_is_good_until_it_expires_or_is_revoked() {
        let (tokens, now) = (tokens(), daemon::now());
        let anna = User::new("anna", ["operators".to_owned()]);
        let (first, told) = tokens.create(anna.clone(), now, HOUR).await.unwrap();
        let (second, _) = tokens.create(anna.clone(), now, HOUR).await.unwrap();
        assert_eq!(tokens.identify(&first, now).unwrap(), Some(anna.clone()));
        assert_eq!(tokens.identify(&first, later(now, 3600)).unwrap(), None);
        tokens.revoke(&told.id).await.unwrap();
        assert_eq!(tokens.identify(&first, now).unwrap(), None);
        assert_eq!(tokens.identify(&second, now).unwrap(), Some(anna), "others stay");
        assert_eq!(tokens.revoke(&told.id).await.unwrap_err().code, 404);
        assert_eq!(tokens.list(now).unwrap().len(), 1);
        assert_eq!(tokens.list(later(now, 3600)).unwrap(), []);
    }

    #[tokio::test]
    async fn the_hubs_own_grant_leaves_made_tokens_alone() {
        let (tokens, now) = (tokens(), daemon::now());
        let (made, _) = tokens.create(User::admin(), now, HOUR).await.unwrap();
        tokens.grant("one", User::admin()).await.unwrap();
        tokens.grant("two", User::admin()).await.unwrap();
        assert_eq!(tokens.identify("one", now).unwrap(), None);
        assert!(tokens.identify(&made, now).unwrap().is_some());
    }
}
