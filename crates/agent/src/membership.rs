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

use crate::{Config, Error};

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
    /// The bearer token towards the hub.
    pub secret: String,
}

/// A join token as people carry it from the hub to the machine that joins: the hub's single-use secret, and the
/// certificate to know the hub by.
pub struct JoinToken {
    /// What the hub made.
    pub secret: String,
    /// The certificate of the hub's authority, in PEM.
    pub authority: String,
}

impl JoinToken {
    /// As one word, without blanks.
    pub fn encode(&self) -> String {
        format!("{}.{}", self.secret, URL_SAFE_NO_PAD.encode(&self.authority))
    }

    fn parse(text: &str) -> Option<Self> {
        let (secret, authority) = text.trim().split_once('.')?;
        let authority = String::from_utf8(URL_SAFE_NO_PAD.decode(authority).ok()?).ok()?;
        Some(Self { secret: secret.to_owned(), authority })
    }
}

fn file(data: &Path) -> PathBuf {
    data.join("membership.json")
}

fn pending_file(data: &Path) -> PathBuf {
    data.join("joining-secret")
}

/// The membership on disk, or a new one by the join token. Waits for the hub if it can't be reached.
///
/// # Errors
/// If there is neither membership nor token, or the hub refuses the token.
pub async fn join(config: &Config, shutdown: &Shutdown) -> Result<Membership, Error> {
    match std::fs::read(file(&config.data)) {
        Ok(bytes) => {
            let mut membership: Membership = serde_json::from_slice(&bytes)
                .map_err(|error| Error::disk(&file(&config.data), error.into()))?;
            if !config.hub.is_empty() && config.hub != membership.url {
                info!(from = membership.url, to = config.hub, "the hub has another address now");
                membership.url.clone_from(&config.hub);
                keep(config, &membership)?;
            }
            Ok(membership)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => join_anew(config, shutdown).await,
        Err(error) => Err(Error::disk(&file(&config.data), error)),
    }
}

fn keep(config: &Config, membership: &Membership) -> Result<(), Error> {
    let path = file(&config.data);
    let text = serde_json::to_string_pretty(membership).map_err(|error| Error::disk(&path, error.into()))?;
    daemon::write_private(&path, text.as_bytes()).map_err(|error| Error::disk(&path, error))
}

async fn join_anew(config: &Config, shutdown: &Shutdown) -> Result<Membership, Error> {
    let Some(token) = &config.join_token else { return Err(Error::NotJoined) };
    let token = JoinToken::parse(token).ok_or(Error::JoinToken)?;
    let client = Client::new(&config.hub, "", Some(&token.authority))?;
    let request = JoinRequest {
        token: token.secret,
        secret: own_secret(&config.data)?,
        tier: config.tier.clone(),
        labels: config.labels.clone(),
    };
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let joined: JoinResponse = loop {
        match client.json(client.request(Method::POST, "/avocet/v1/join").json(&request)).await {
            Ok(joined) => break joined,
            Err(error @ client::Error::Refused { .. }) => return Err(Error::JoinRefused(error)),
            Err(error) => {
                let wait = backoff.next_wait();
                warn!(error = %daemon::chain(&error), ?wait, "can't join yet");
                if !shutdown.sleep(wait).await {
                    return Err(Error::Interrupted);
                }
            }
        }
    };
    let membership = Membership {
        site: joined.site,
        url: config.hub.clone(),
        hub: joined.hub,
        parent: joined.parent,
        authority: token.authority,
        secret: request.secret,
    };
    keep(config, &membership)?;
    let _ = std::fs::remove_file(pending_file(&config.data));
    info!(site = membership.site, hub = membership.url, "joined");
    Ok(membership)
}

/// The secret is kept before it is sent: if the answer is lost, the same one is sent again and the hub knows it.
fn own_secret(data: &Path) -> Result<String, Error> {
    let path = pending_file(data);
    match std::fs::read_to_string(&path) {
        Ok(secret) => Ok(secret),
        Err(_) => {
            let secret = daemon::random_hex(32).map_err(|error| Error::disk(&path, error))?;
            daemon::write_private(&path, secret.as_bytes()).map_err(|error| Error::disk(&path, error))?;
            Ok(secret)
        }
    }
}
