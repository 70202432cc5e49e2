//! The keys of an issuer: fetched when they are first needed, kept while the issuer is away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::{info, warn};
use types::Time;

use super::jwt::PublicKey;
use super::oidc::{OidcError, is_safe};

/// For how long keys are used without asking whether they are still the issuer's.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// The issuer is asked at most once in this time, whatever tokens come.
const PAUSE: Duration = Duration::from_secs(10);
/// How long the issuer may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How large an answer of the issuer may be, in bytes.
const LARGEST: usize = 1 << 20;

/// The keys of an issuer.
pub struct IssuerKeys {
    issuer: String,
    http: reqwest::Client,
    cache: Mutex<Cache>,
    /// Held by the one who asks the issuer; the others wait for what it brings.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Cache {
    keys: Arc<Vec<PublicKey>>,
    fetched: Option<Time>,
    tried: Option<Time>,
}

impl Cache {
    fn has(&self, id: Option<&str>) -> bool {
        self.keys.iter().any(|key| id.is_none() || key.id.as_deref() == id)
    }

    fn is_fresh(&self, now: Time) -> bool {
        self.fetched.is_some_and(|fetched| !is_apart(now, fetched, MAX_AGE))
    }

    fn may_be_tried(&self, now: Time) -> bool {
        self.tried.is_none_or(|tried| is_apart(now, tried, PAUSE))
    }
}

/// Whether two times are that far apart. A clock that was set back must not make the wait endless.
fn is_apart(one: Time, other: Time, by: Duration) -> bool {
    one.0.duration_since(other.0).unsigned_abs() >= by
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0} can't be reached")]
    Unreachable(String, #[source] reqwest::Error),
    #[error("{0} gave an answer that can't be read: {1}")]
    Answer(String, String),
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

impl IssuerKeys {
    /// Of one issuer, which is not asked for anything yet.
    pub fn new(issuer: &str, authority: Option<&str>) -> Result<Self, OidcError> {
        let unusable = |error: &dyn std::error::Error| OidcError::Authority(daemon::chain(error));
        let is_plain = issuer.starts_with("http:");
        let tls = match authority {
            Some(authority) => daemon::tls::client(authority),
            None if is_plain => daemon::tls::client_of_nobody(),
            None => daemon::tls::client_of_all(),
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.map_err(|error| unusable(&error))?)
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| unusable(&error))?;
        let flight = tokio::sync::Mutex::new(());
        Ok(Self { issuer: issuer.to_owned(), http, cache: Mutex::default(), flight })
    }

    /// The keys among which that of a token is, if it is the issuer's. The issuer is asked if the key is not known
    /// or the keys are old; if it is away, the last keys are good on.
    pub async fn for_token(&self, key_id: Option<&str>, now: Time) -> Arc<Vec<PublicKey>> {
        let is_usable = {
            let cache = self.cache();
            cache.has(key_id) && (cache.is_fresh(now) || !cache.may_be_tried(now))
        };
        if !is_usable {
            // One asks, the others wait for the answer; if what they need is then there, none asks again.
            let _flight = self.flight.lock().await;
            let is_due = {
                let cache = self.cache();
                cache.may_be_tried(now) && !(cache.has(key_id) && cache.is_fresh(now))
            };
            if is_due {
                self.refresh(now).await;
            }
        }
        self.cache().keys.clone()
    }

    async fn refresh(&self, now: Time) {
        self.cache().tried = Some(now);
        match self.fetch().await {
            Ok(keys) => {
                info!(issuer = %self.issuer, keys = keys.len(), "fetched the issuer's keys");
                let mut cache = self.cache();
                cache.keys = Arc::new(keys);
                cache.fetched = Some(now);
            }
            Err(error) => warn!(
                issuer = %self.issuer, error = %daemon::chain(&error),
                "can't fetch the issuer's keys; the last ones are good on"
            ),
        }
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let configuration: Configuration = self.get(&url).await?;
        let wrong = |what: String| FetchError::Answer(url.clone(), what);
        if configuration.issuer != self.issuer {
            return Err(wrong(format!("it is about the issuer {:?}", configuration.issuer)));
        }
        if !Url::parse(&configuration.jwks_uri).is_ok_and(|url| is_safe(&url)) {
            return Err(wrong(format!("its jwks_uri {:?} is no https address", configuration.jwks_uri)));
        }
        let keys: serde_json::Value = self.get(&configuration.jwks_uri).await?;
        PublicKey::read_set(keys.to_string().as_bytes())
            .map_err(|error| FetchError::Answer(configuration.jwks_uri.clone(), error.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, FetchError> {
        let unreachable =
            |error: reqwest::Error| FetchError::Unreachable(url.to_owned(), error.without_url());
        let response = self.http.get(url).send().await.map_err(unreachable)?;
        let mut response = response.error_for_status().map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(FetchError::Answer(url.to_owned(), format!("it is longer than {LARGEST} bytes")));
            }
        }
        serde_json::from_slice(&body).map_err(|error| FetchError::Answer(url.to_owned(), error.to_string()))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
