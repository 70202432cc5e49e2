//! Which hub a site belongs to, as whom, and how it got there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{Client, JoinRequest, JoinResponse, client};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daemon::{Backoff, Shutdown};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use types::{Digest, SmallMap};

use crate::Error;
use crate::identity::{self, encrypted};

/// What a site knows of its hub, in `membership.json` of its data folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The site's name.
    pub site: String,
    /// The hub's address.
    pub url: String,
    /// The hub's identity. A hub with another one is not obeyed, whatever its address.
    pub hub: String,
    /// The site that the hub is at; the same as `site` where hub and agent are one.
    pub parent: String,
    /// The certificate, in PEM, that the hub is known by.
    pub authority: String,
    /// The bearer token towards the hub, as sites had it before there were certificates; empty with a certificate.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret: String,
    /// The hash of the join token that was used last: it is not tried again at each start.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub joined_with: String,
}

impl Membership {
    /// The membership in a site's data folder; none if it never joined.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read(data: &Path) -> Result<Option<Self>, Error> {
        let path = file(data);
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::disk(&path, error.into()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::disk(&path, error)),
        }
    }

    /// Spares the disk what it has already.
    pub(crate) fn keep_if_changed(&self, data: &Path) -> Result<(), Error> {
        if Self::read(data)?.as_ref() == Some(self) { Ok(()) } else { self.keep(data) }
    }

    pub(crate) fn keep(&self, data: &Path) -> Result<(), Error> {
        let path = file(data);
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::disk(&path, error.into()))?;
        daemon::write_private(&path, text.as_bytes()).map_err(|error| Error::disk(&path, error))
    }
}

/// What is needed to become a site of a hub, or to find it again.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Where the membership is kept, and what the site proves itself with.
    pub data: PathBuf,
    /// The hub's address; empty uses the one that was joined.
    pub hub: String,
    /// A join token, needed the first time.
    pub join_token: Option<String>,
    /// The tier to join as.
    pub tier: String,
    /// The labels to join with.
    pub labels: SmallMap,
}

/// A join token as people carry it from the hub to the machine that joins: the hub's single-use secret, the
/// certificate to know the hub by, and the name that the machine gets.
pub struct JoinToken {
    /// What the hub made.
    pub secret: String,
    /// The certificate of the hub's authority, in PEM.
    pub authority: String,
    /// The site.
    pub site: String,
}

impl JoinToken {
    /// As one word, without blanks.
    pub fn encode(&self) -> String {
        format!("{}.{}.{}", self.secret, URL_SAFE_NO_PAD.encode(&self.authority), self.site)
    }

    /// The token in a word; none if it is no token.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let (secret, authority, site) = (parts.next()?, parts.next()?, parts.next()?);
        let authority = String::from_utf8(URL_SAFE_NO_PAD.decode(authority).ok()?).ok()?;
        let is_whole = parts.next().is_none() && types::names::is_dns_label(site);
        is_whole.then(|| Self { secret: secret.to_owned(), authority, site: site.to_owned() })
    }

    fn digest(&self) -> String {
        Digest::of(self.secret.as_bytes()).hex()
    }
}

fn file(data: &Path) -> PathBuf {
    data.join("membership.json")
}

/// The membership on disk, or a new one by the join token. Waits for the hub if it can't be reached, and for a person
/// where one has to approve.
///
/// # Errors
/// If there is neither membership nor token, the hub refuses the token, or it is for a site of another name.
pub async fn join(joining: &Joining, shutdown: &Shutdown) -> Result<Membership, Error> {
    let Some(mut known) = Membership::read(&joining.data)? else {
        return join_anew(joining, shutdown).await;
    };
    if !joining.hub.is_empty() && joining.hub != known.url && encrypted(&joining.hub) != known.url {
        info!(from = known.url, to = joining.hub, "the hub has another address now");
        known.url.clone_from(&joining.hub);
        known.keep(&joining.data)?;
    }
    let Some(token) = joining.join_token.as_deref().and_then(JoinToken::parse) else { return Ok(known) };
    if token.site != known.site {
        return Err(Error::OtherName { known: known.site, wanted: token.site });
    }
    if token.digest() == known.joined_with {
        return Ok(known);
    }
    join_again(joining, known, &token).await
}

/// Joins once more as the same site, as after its certificates were revoked. A site that is a member already never
/// waits for that: it goes on as it was.
async fn join_again(joining: &Joining, known: Membership, token: &JoinToken) -> Result<Membership, Error> {
    let key = identity::pending_key(&joining.data)?;
    match ask(joining, &known.url, token, &key).await {
        Ok(joined) if joined.waits_for.is_empty() => {
            info!(site = known.site, "joined again");
            become_member(joining, token, &key, known.url, joined)
        }
        Ok(joined) => {
            let command = format!("avocet certificate approve {}", joined.waits_for);
            warn!(command, "to join again waits for approval; approve, and start the agent again");
            Ok(known)
        }
        Err(Error::Hub(error @ client::Error::Refused { .. })) => {
            info!(%error, "the join token is of no use any more; going on as before");
            let known = Membership { joined_with: token.digest(), ..known };
            known.keep(&joining.data)?;
            Ok(known)
        }
        Err(error) => {
            warn!(error = %daemon::chain(&error), "can't use the join token now; going on as before");
            Ok(known)
        }
    }
}

async fn join_anew(joining: &Joining, shutdown: &Shutdown) -> Result<Membership, Error> {
    let Some(token) = &joining.join_token else { return Err(Error::NotJoined) };
    let token = JoinToken::parse(token).ok_or(Error::JoinToken)?;
    let url = encrypted(&joining.hub);
    let key = identity::pending_key(&joining.data)?;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut told = false;
    loop {
        match ask(joining, &url, &token, &key).await {
            Ok(joined) if joined.waits_for.is_empty() => {
                let membership = become_member(joining, &token, &key, url, joined)?;
                info!(site = membership.site, hub = membership.url, "joined");
                return Ok(membership);
            }
            Ok(joined) if !std::mem::replace(&mut told, true) => {
                let command = format!("avocet certificate approve {}", joined.waits_for);
                warn!(command, "waiting until a person approves at the hub");
            }
            Ok(_) => {}
            Err(Error::Hub(error @ client::Error::Refused { .. })) if error.code() != Some(429) => {
                return Err(Error::JoinRefused(error));
            }
            Err(Error::Hub(error)) => warn!(error = %daemon::chain(&error), "can't join yet"),
            Err(error) => return Err(error),
        }
        if !shutdown.sleep(backoff.next_wait()).await {
            return Err(Error::Interrupted);
        }
    }
}

async fn ask(joining: &Joining, url: &str, token: &JoinToken, key: &str) -> Result<JoinResponse, Error> {
    let client = Client::new(url, "", Some(&token.authority))?.with_patience(identity::PATIENCE);
    let request = JoinRequest {
        token: token.secret.clone(),
        request: identity::request(&token.site, key)?,
        tier: joining.tier.clone(),
        labels: joining.labels.clone(),
        ..JoinRequest::default()
    };
    Ok(client.json(client.request(Method::POST, "/avocet/v1/join?authorities=true").json(&request)).await?)
}

/// Keeps what the hub answered. The certificate comes first: a crash in between joins once more with the same key.
fn become_member(
    joining: &Joining,
    token: &JoinToken,
    key: &str,
    url: String,
    joined: JoinResponse,
) -> Result<Membership, Error> {
    identity::keep(&joining.data, key, &joined.certificate)?;
    let membership = Membership {
        site: joined.site,
        url: encrypted(&url),
        hub: joined.hub,
        parent: joined.parent,
        authority: if joined.authorities.is_empty() { token.authority.clone() } else { joined.authorities },
        secret: String::new(),
        joined_with: token.digest(),
    };
    membership.keep(&joining.data)?;
    identity::forget_pending(&joining.data);
    Ok(membership)
}
