//! What the site proves to its hub with who it is: a key that never leaves the machine, and a certificate that the hub
//! renews while there is time, by the hub's own clock.
//!
//! Whoever has the key gets the next certificate, also where the last one ended while the hub was away for weeks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{CertificateRequest, CertificateResponse, Client, client};
use daemon::tls;
use reqwest::Method;
use tracing::{info, warn};

use crate::{Error, Membership};

/// For how long the hub may say nothing. It sends something to watchers every half a minute; who waits for deliveries has
/// a longer patience of its own ([`crate::inbox::ask`]).
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The group of all sites, as certificates have it.
const SITES: &str = "avocet:sites";

/// The key and the certificate, in one file so that they always belong together.
fn credential_file(data: &Path) -> PathBuf {
    data.join("credential.pem")
}

/// The key that the hub was asked to take, until it is known that it did.
fn pending_file(data: &Path) -> PathBuf {
    data.join("joining-key.pem")
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::disk(path, error)),
    }
}

/// A key that is on the disk before the hub hears of it: if the answer is lost, the same one is sent again.
pub(crate) fn pending_key(data: &Path) -> Result<String, Error> {
    let path = pending_file(data);
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    let key = tls::new_key().map_err(|error| Error::disk(&path, error))?;
    daemon::write_private(&path, key.as_bytes()).map_err(|error| Error::disk(&path, error))?;
    Ok(key)
}

/// A request for a certificate of a site.
pub(crate) fn request(site: &str, key: &str) -> Result<String, Error> {
    tls::request(key, &format!("site:{site}"), SITES).map_err(Error::Key)
}

/// Keeps a key with its certificate; from the next start on this is what the site shows.
pub(crate) fn keep(data: &Path, key: &str, certificate: &str) -> Result<(), Error> {
    keep_credential(data, &credential(key, certificate))
}

fn credential(key: &str, certificate: &str) -> String {
    format!("{}\n{certificate}", key.trim_end())
}

fn keep_credential(data: &Path, credential: &str) -> Result<(), Error> {
    let path = credential_file(data);
    daemon::write_private(&path, credential.as_bytes()).map_err(|error| Error::disk(&path, error))
}

/// The key that was to be taken has been, or is not wanted any more.
pub(crate) fn forget_pending(data: &Path) {
    let _ = std::fs::remove_file(pending_file(data));
}

/// What the site is to its hub now: ahead of what its disk says while the disk takes nothing.
struct Standing {
    membership: Membership,
    /// The key with its certificate; none with the secret of older versions.
    credential: Option<String>,
    is_kept: bool,
}

/// The site's identity towards its hub, and the client that shows it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Identity {
    data: PathBuf,
    standing: Arc<Mutex<Standing>>,
    client: Client,
    /// Whether the hub turned out to know no certificates; asked again after the next start.
    hub_is_old: Arc<AtomicBool>,
    /// Random, and another one each time that the agent starts.
    pub(crate) instance: Arc<str>,
}

impl Identity {
    /// What is on the disk: a certificate, or the secret of older versions.
    pub(crate) fn open(data: &Path, membership: &Membership) -> Result<Self, Error> {
        let Membership { url, authority, secret, .. } = membership;
        let credential = read(&credential_file(data))?;
        let client = match &credential {
            Some(credential) => Client::with_certificate(url, authority, credential)?,
            None => Client::new(url, secret, Some(authority))?,
        };
        let standing = Standing { membership: membership.clone(), credential, is_kept: true };
        let instance = daemon::random_hex(8).map_err(|error| Error::disk(data, error))?;
        Ok(Self {
            data: data.to_owned(),
            standing: Arc::new(Mutex::new(standing)),
            client: client.on_machine(&instance).with_patience(PATIENCE),
            hub_is_old: Arc::default(),
            instance: instance.into(),
        })
    }

    /// Shows the newest certificate, always.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn membership(&self) -> Membership {
        self.standing().membership.clone()
    }

    /// The instance that the agent was when it last reached the hub; empty if it never did.
    pub(crate) fn previous(&self) -> String {
        std::fs::read_to_string(self.data.join("instance")).unwrap_or_default()
    }

    /// Notes that this instance reached the hub.
    pub(crate) fn reached(&self) -> Result<(), Error> {
        let path = self.data.join("instance");
        daemon::write_private(&path, self.instance.as_bytes()).map_err(|error| Error::disk(&path, error))
    }

    /// Whether the site shows a bearer secret, as sites did before there were certificates, and could have one.
    pub(crate) fn can_upgrade(&self) -> bool {
        !self.membership().secret.is_empty() && !self.hub_is_old.load(Ordering::Relaxed)
    }

    /// Whether the certificate has ended by this machine's clock, which may be wrong.
    pub(crate) fn may_have_ended(&self) -> bool {
        let Some(credential) = self.standing().credential.clone() else { return false };
        !tls::ClientCertificate::of_pem(&credential)
            .is_some_and(|certificate| certificate.is_good(daemon::now()))
    }

    /// Gets the next certificate for the key that the site has.
    pub(crate) async fn renew(&self) -> Result<(), Error> {
        let credential = self.standing().credential.clone();
        // Where the answer to an upgrade was lost, the hub has the key already.
        let Some(key) =
            credential.map_or_else(|| read(&pending_file(&self.data)), |known| Ok(Some(known)))?
        else {
            return Err(Error::NoKey);
        };
        let key = tls::key_of(&key).map_err(Error::Key)?;
        let Membership { site, url, authority, .. } = self.membership();
        // The old certificate may have ended, and would not be let in.
        let client = Client::new(&encrypted(&url), "", Some(&authority))?.as_patient_as(&self.client);
        let asked = CertificateRequest { request: request(&site, &key)?, site };
        let answer: CertificateResponse = client
            .json(client.request(Method::POST, "/avocet/v1/renew?authorities=true").json(&asked))
            .await?;
        self.show(&key, &answer)?;
        info!("the hub renewed the site's certificate");
        Ok(())
    }

    /// Gets a certificate in place of the secret.
    pub(crate) async fn upgrade(&self) -> Result<(), Error> {
        let key = pending_key(&self.data)?;
        let Membership { site, .. } = self.membership();
        let path = format!("/avocet/v1/sites/{site}/certificate?authorities=true");
        let asked = CertificateRequest { request: request(&site, &key)?, site };
        let asked = self.client.request(Method::POST, &path).json(&asked);
        let answer: CertificateResponse = match self.client.json(asked).await {
            // Hubs of older versions know no certificates.
            Err(client::Error::Refused { code: 403 | 404, .. }) => {
                self.hub_is_old.store(true, Ordering::Relaxed);
                return Ok(());
            }
            answer => answer?,
        };
        self.show(&key, &answer)?;
        info!("the site has a certificate now, in place of its secret");
        Ok(())
    }

    /// The same, which gives a hub up that says nothing for so long.
    #[cfg(test)]
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { client: self.client.with_patience(patience), ..self }
    }

    /// Shows a certificate from the next request on, and keeps it as soon as the disk takes it. Where the agent ends before
    /// that, the next start has the key still, which gets another one.
    ///
    /// Whom the hub tells to trust from now on is trusted and kept with it: a hub's authority may be replaced.
    fn show(&self, key: &str, answer: &CertificateResponse) -> Result<(), Error> {
        {
            let mut standing = self.standing();
            let credential = credential(key, &answer.certificate);
            let Membership { url, authority, secret, .. } = &standing.membership;
            let url = if secret.is_empty() { url.clone() } else { encrypted(url) };
            let told = Some(&answer.authorities).filter(|told| !told.is_empty());
            let authority = told.unwrap_or(authority).clone();
            self.client.become_like(&Client::with_certificate(&url, &authority, &credential)?);
            standing.membership.url = url;
            standing.membership.authority = authority;
            standing.membership.secret.clear();
            standing.credential = Some(credential);
            standing.is_kept = false;
        }
        self.keep_shown();
        Ok(())
    }

    /// Keeps what is shown, if the disk did not take it before.
    pub(crate) fn keep_shown(&self) {
        let mut standing = self.standing();
        let Some(credential) = standing.credential.as_ref().filter(|_| !standing.is_kept) else { return };
        // The membership without its secret comes last: with the secret alone on the disk the key would be asked for anew.
        let kept = keep_credential(&self.data, credential)
            .and_then(|()| standing.membership.keep_if_changed(&self.data));
        match kept {
            Ok(()) => {
                forget_pending(&self.data);
                standing.is_kept = true;
            }
            Err(error) => {
                let error = daemon::chain(&error);
                warn!(
                    error,
                    "the site's new certificate is shown but can't be kept yet; free some of the disk"
                );
            }
        }
    }
}

/// The same hub over TLS: on loopback one port speaks both, and certificates are shown over TLS alone.
pub(crate) fn encrypted(url: &str) -> String {
    match url.strip_prefix("http://") {
        Some(rest) => {
            warn!(url, "certificates are shown over TLS alone; asking the hub there");
            format!("https://{rest}")
        }
        None => url.to_owned(),
    }
}
