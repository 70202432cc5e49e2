//! Who makes a request: bearer tokens, kept as hashes, and the single-use tokens that sites join with.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::ledger::{self, Ledger, Tables};
use types::{Digest, Time};

use crate::ApiError;

const TOKENS: &str = "tokens";
const JOIN_TOKENS: &str = "join-tokens";

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// May do everything.
    Admin,
    /// The agent of a site.
    Site(String),
}

impl Identity {
    /// The user name, as Kubernetes would word it.
    pub fn user(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::Site(name) => format!("site:{name}"),
        }
    }

    /// The groups, as Kubernetes would word them.
    pub fn groups(&self) -> Vec<&'static str> {
        match self {
            Self::Admin => vec!["system:masters", "system:authenticated"],
            Self::Site(_) => vec!["avocet:sites", "system:authenticated"],
        }
    }
}

/// A join token as it is kept: for which site, until when, and who used it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct JoinToken {
    site: String,
    expires: Time,
    /// The hash of the secret of the agent that joined with it. The same agent may repeat its request, which it
    /// must if the answer was lost; nobody else may use the token again.
    used_by: Option<Digest>,
}

/// The tokens of a hub. Only hashes are kept: who reads the disk can't use them.
#[derive(Clone)]
pub struct Tokens {
    ledger: Ledger,
}

impl Tokens {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    /// Who has this token.
    ///
    /// # Errors
    /// 401 if nobody has.
    pub fn identify(&self, token: &str) -> Result<Identity, ApiError> {
        let found = self.ledger.read(|tables| tables.get(TOKENS, &hash(token).hex()))?;
        found.ok_or_else(|| ApiError::unauthorized("the bearer token is not known here; was it revoked?"))
    }

    /// Gives a token to someone, in place of all that they had before.
    ///
    /// # Errors
    /// If it can't be stored.
    pub async fn grant(&self, token: &str, identity: Identity) -> Result<(), ApiError> {
        let key = hash(token).hex();
        self.ledger.write(move |tables| replace_token(tables, &key, &identity)).await
    }

    /// Makes a token that lets one agent join as that site.
    ///
    /// # Errors
    /// If it can't be stored.
    pub async fn create_join_token(&self, site: &str, now: Time, ttl: Duration) -> Result<String, ApiError> {
        let token = daemon::random_hex(24).map_err(|error| ApiError::internal(&error))?;
        let expires =
            now.0.checked_add(ttl).map(Time).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let record = JoinToken { site: site.to_owned(), expires, used_by: None };
        let key = hash(&token).hex();
        let write = move |tables: &Tables| {
            forget_expired(tables, now)?;
            tables.put(JOIN_TOKENS, &key, &record)?;
            Ok::<_, ApiError>(())
        };
        self.ledger.write(write).await?;
        Ok(token)
    }

    /// Uses a join token: from then on `secret` is the bearer token of the site whose name this answers.
    ///
    /// # Errors
    /// 401 if the token is not known, has expired, or was used by another agent.
    pub async fn join(&self, token: &str, secret: &str, now: Time) -> Result<String, ApiError> {
        if secret.len() < 32 {
            return Err(ApiError::bad_request("`secret` is too short: send at least 32 random characters"));
        }
        let (token, secret) = (hash(token), hash(secret));
        self.ledger
            .write(move |tables| {
                let unknown = || ApiError::unauthorized("the join token is not known here; make another");
                let mut record: JoinToken = tables.get(JOIN_TOKENS, &token.hex())?.ok_or_else(unknown)?;
                match record.used_by {
                    Some(user) if user == secret => return Ok(record.site),
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
                record.used_by = Some(secret);
                tables.put(JOIN_TOKENS, &token.hex(), &record)?;
                replace_token(tables, &secret.hex(), &Identity::Site(record.site.clone()))?;
                Ok(record.site)
            })
            .await
    }
}

/// Expired join tokens are of no use to anybody.
fn forget_expired(tables: &Tables, now: Time) -> Result<(), ledger::Error> {
    let all: Vec<(String, JoinToken)> = tables.range(JOIN_TOKENS, "", "", usize::MAX)?;
    for (key, _) in all.iter().filter(|(_, record)| record.expires < now) {
        tables.delete(JOIN_TOKENS, key)?;
    }
    Ok(())
}

fn hash(token: &str) -> Digest {
    Digest::of(token.as_bytes())
}

fn replace_token(tables: &Tables, key: &str, identity: &Identity) -> Result<(), ApiError> {
    let all: Vec<(String, Identity)> = tables.range(TOKENS, "", "", usize::MAX)?;
    for (old, _) in all.iter().filter(|(_, owner)| owner == identity) {
        tables.delete(TOKENS, old)?;
    }
    tables.put(TOKENS, key, identity)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn tokens() -> Tokens {
        Tokens::new(Ledger::memory().unwrap())
    }

    #[tokio::test]
    async fn promise_7_a_join_token_works_once_and_for_its_user_alone() {
        let (tokens, now) = (tokens(), daemon::now());
        let token = tokens.create_join_token("plant", now, Duration::from_secs(60)).await.unwrap();
        assert_eq!(tokens.join(&token, SECRET, now).await.unwrap(), "plant");
        assert_eq!(tokens.join(&token, SECRET, now).await.unwrap(), "plant", "the answer may have been lost");
        let thief = "f".repeat(32);
        assert_eq!(tokens.join(&token, &thief, now).await.unwrap_err().code, 401);
        assert_eq!(tokens.identify(SECRET).unwrap(), Identity::Site("plant".into()));
        assert_eq!(tokens.identify(&token).unwrap_err().code, 401);
    }

    #[tokio::test]
    async fn an_expired_join_token_is_refused() {
        let (tokens, now) = (tokens(), daemon::now());
        let token = tokens.create_join_token("plant", now, Duration::from_secs(60)).await.unwrap();
        let later = Time(now.0.checked_add(Duration::from_secs(61)).unwrap());
        assert!(tokens.join(&token, SECRET, later).await.unwrap_err().message.contains("expired"));
    }

    #[tokio::test]
    async fn joining_again_revokes_what_the_site_had() {
        let (tokens, now) = (tokens(), daemon::now());
        let other = "e".repeat(32);
        for secret in [SECRET, &other] {
            let token = tokens.create_join_token("plant", now, Duration::from_secs(60)).await.unwrap();
            tokens.join(&token, secret, now).await.unwrap();
        }
        assert!(tokens.identify(SECRET).is_err());
        assert!(tokens.identify(&other).is_ok());
    }
}
