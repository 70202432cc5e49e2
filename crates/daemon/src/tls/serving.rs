//! The certificate that a server shows: replaced while the server runs, when its files change or its end is near.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};
use types::{Digest, Time};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authorities, Authority, HTTP_1, HTTP_2, MULTIPLEXED, clients, failed, provider};
use crate::Shutdown;

/// How often it is looked whether there is something new.
const POLL: Duration = Duration::from_secs(5);
/// How long before its end a certificate of the hub's own making is renewed, in seconds.
const RENEWED_BEFORE: i64 = 30 * 24 * 3600;

/// Where a server's certificate comes from.
pub enum Source {
    /// Given files in PEM: the certificate with its chain, and its key.
    Files {
        /// The certificate, then those between it and its authority.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// The hub's own authorities.
    Authority {
        /// Of which the current one signs.
        authorities: Arc<Authorities>,
        /// The names and addresses of the server.
        names: Vec<String>,
    },
}

/// A server's certificate, always the newest one that is usable.
pub struct Served {
    source: Source,
    shown: RwLock<Arc<CertifiedKey>>,
    /// What the files hashed to that were last looked at, usable or not.
    seen: Mutex<Option<Digest>>,
    /// The authority that signed what is shown, where it is one of the hub's own.
    signed_by: Mutex<String>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("Served")
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }
}

impl Served {
    /// Reads or makes the first certificate.
    ///
    /// # Errors
    /// If the files can't be read, don't fit each other, or a name can't be put into a certificate.
    pub fn open(source: Source, now: Time) -> io::Result<Arc<Self>> {
        let mut signed_by = String::new();
        let (first, seen) = match &source {
            Source::Files { .. } => {
                let files = source.read()?;
                (files.parse()?, Some(files.digest))
            }
            Source::Authority { authorities, names } => {
                let authority = authorities.stage().current.clone();
                signed_by = authority.id();
                (issue(&authority, names, now)?, None)
            }
        };
        let (shown, seen) = (RwLock::new(Arc::new(first)), Mutex::new(seen));
        Ok(Arc::new(Self { source, shown, seen, signed_by: Mutex::new(signed_by) }))
    }

    /// Shows what is new, if something is; answers whether.
    ///
    /// # Errors
    /// If what is new can't be used: then what was shown is shown on. The same trouble is told once.
    pub fn refresh(&self, now: Time) -> io::Result<bool> {
        let new = match &self.source {
            Source::Files { .. } => {
                let files = self.source.read();
                // Files that can't be read are as good as empty ones: told once, until something else is there.
                let digest = files.as_ref().map_or_else(|_| Digest::of(b""), |files| files.digest);
                let before = self.seen.lock().unwrap_or_else(PoisonError::into_inner).replace(digest);
                if before == Some(digest) {
                    return Ok(false);
                }
                files?.parse()?
            }
            Source::Authority { authorities, names } => {
                let authority = authorities.stage().current.clone();
                let mut signed_by = self.signed_by.lock().unwrap_or_else(PoisonError::into_inner);
                let ends = end(&self.shown());
                if now.0.as_second() < ends - RENEWED_BEFORE && *signed_by == authority.id() {
                    return Ok(false);
                }
                let issued = issue(&authority, names, now)?;
                *signed_by = authority.id();
                issued
            }
        };
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(true)
    }

    /// Shows what is new, whenever something is, until the shutdown.
    pub async fn keep_fresh(&self, shutdown: Shutdown) {
        let mut changed = match &self.source {
            Source::Authority { authorities, .. } => Some(authorities.subscribe()),
            Source::Files { .. } => None,
        };
        while !shutdown.is_due() {
            let changes = async {
                match &mut changed {
                    // The sender is the source's own, so this never fails.
                    Some(changed) => drop(changed.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                goes_on = shutdown.sleep(POLL) => if !goes_on { return },
                () = changes => {}
            }
            match self.refresh(crate::now()) {
                Ok(false) => {}
                Ok(true) => info!("the server's certificate was replaced"),
                Err(error) => warn!(
                    error = %crate::chain(&error),
                    "the new certificate of the server can't be used; the one before stays"
                ),
            }
        }
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A certificate and its key, as the files have them.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    digest: Digest,
}

impl Source {
    fn read(&self) -> io::Result<Files> {
        let Self::Files { certificate, key } = self else {
            return Err(io::Error::other("the certificate is not kept in files"));
        };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                io::Error::new(error.kind(), format!("can't read {}: {error}", path.display()))
            })
        };
        let (certificate, key) = (read(certificate)?, read(key)?);
        let both = format!("{} {}", Digest::of(&certificate), Digest::of(&key));
        Ok(Files { certificate, key, digest: Digest::of(both.as_bytes()) })
    }
}

impl Files {
    fn parse(&self) -> io::Result<CertifiedKey> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.map_err(failed)?;
        if chain.is_empty() {
            return Err(io::Error::other("the certificate's file has no `CERTIFICATE` block of PEM"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| io::Error::other("the key's file has no private key in PEM"))?;
        // This refuses a key that is not the certificate's.
        CertifiedKey::from_der(chain, key, &provider()).map_err(failed)
    }
}

fn issue(authority: &Authority, names: &[String], now: Time) -> io::Result<CertifiedKey> {
    let (certificate, key) = authority.issue(names, now)?;
    CertifiedKey::from_der(vec![certificate], key, &provider()).map_err(failed)
}

/// Until when a certificate is good, in seconds since 1970.
fn end(shown: &CertifiedKey) -> i64 {
    let parsed = shown.cert.first().and_then(|certificate| X509Certificate::from_der(certificate).ok());
    parsed.map_or(0, |(_, certificate)| certificate.validity().not_after.timestamp())
}

/// What a server needs that shows this certificate, and asks clients for theirs: they may have none, but one that
/// they show must be signed by one of these authorities (certificates in PEM).
///
/// # Errors
/// If an authority is no certificate.
pub fn server(served: Arc<Served>, clients: &str) -> io::Result<Arc<ServerConfig>> {
    verified_by(served, clients::verifier(clients)?)
}

/// The same for a server whose own authorities may change while it runs: clients are signed by one that is trusted at that
/// time, or by one of those given besides (certificates in PEM).
///
/// # Errors
/// If an authority is no certificate.
pub fn server_of(
    served: Arc<Served>,
    authorities: Arc<Authorities>,
    given: &str,
) -> io::Result<Arc<ServerConfig>> {
    verified_by(served, clients::Clients::trusting(authorities, given)?)
}

fn verified_by(served: Arc<Served>, verifier: Arc<dyn ClientCertVerifier>) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(served);
    config.alpn_protocols = vec![MULTIPLEXED.to_vec(), HTTP_2.to_vec(), HTTP_1.to_vec()];
    Ok(Arc::new(config))
}

/// The same for a server that asks no client for a certificate, and speaks these protocols.
///
/// # Errors
/// Never on a machine where TLS works at all.
pub fn server_for_all(served: Arc<Served>, protocols: &[&[u8]]) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::roots;
    use std::path::Path;

    fn authority() -> Arc<Authorities> {
        Authorities::open(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn trusted(authorities: &Authorities) -> String {
        authorities.stage().trusted()
    }

    fn later(now: Time, days: u64) -> Time {
        Time(now.0.checked_add(Duration::from_secs(days * 24 * 3600)).unwrap())
    }

    fn shown(served: &Served) -> Vec<u8> {
        served.shown().cert[0].to_vec()
    }

    #[test]
    fn a_certificate_of_the_hubs_own_is_renewed_before_it_ends() {
        let now = crate::now();
        let source = Source::Authority { authorities: authority(), names: vec!["localhost".to_owned()] };
        let served = Served::open(source, now).unwrap();
        let first = shown(&served);
        assert!(!served.refresh(later(now, 367)).unwrap());
        assert_eq!(shown(&served), first);
        assert!(served.refresh(later(now, 369)).unwrap());
        assert_ne!(shown(&served), first);
        assert!(!served.refresh(later(now, 369)).unwrap());
    }

    #[test]
    fn what_is_shown_is_of_the_old_authority_until_that_is_retired() {
        let (folder, now) = (tempfile::tempdir().unwrap(), crate::now());
        let authorities = Authorities::open(folder.path()).unwrap();
        let names = vec!["localhost".to_owned()];
        let served =
            Served::open(Source::Authority { authorities: authorities.clone(), names }, now).unwrap();
        let first = shown(&served);
        authorities.rotate().unwrap();
        assert!(!served.refresh(now).unwrap());
        assert_eq!(shown(&served), first);
        authorities.retire().unwrap();
        assert!(served.refresh(now).unwrap());
        assert_ne!(shown(&served), first);
        assert!(!served.refresh(now).unwrap());
    }

    #[test]
    fn promise_1_a_clock_that_is_wrong_by_an_hour_knows_the_hub_all_the_same() {
        use rustls::client::WebPkiServerVerifier;
        use rustls::client::danger::ServerCertVerifier;
        use rustls::pki_types::{ServerName, UnixTime};
        let (authority, now) = (authority(), crate::now());
        let source =
            Source::Authority { authorities: authority.clone(), names: vec!["localhost".to_owned()] };
        let served = Served::open(source, now).unwrap();
        let roots = Arc::new(roots(&trusted(&authority)).unwrap());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().unwrap();
        let (certificate, name) =
            (CertificateDer::from(shown(&served)), ServerName::try_from("localhost").unwrap());
        let is_known = |seconds: i64| {
            let clock = u64::try_from(now.0.as_second() + seconds).unwrap();
            let clock = UnixTime::since_unix_epoch(Duration::from_secs(clock));
            verifier.verify_server_cert(&certificate, &[], &name, &[], clock).is_ok()
        };
        assert!([-3600, -7200, 0, 3600, 30 * 24 * 3600].into_iter().all(is_known));
        assert!(!is_known(-2 * 24 * 3600));
        assert!(!is_known(400 * 24 * 3600));
    }

    #[test]
    fn promise_1_a_clock_that_begins_in_1970_knows_the_hub_and_nobody_else() {
        use rustls::client::danger::ServerCertVerifier;
        use rustls::pki_types::{ServerName, UnixTime};
        const DAY: i64 = 24 * 3600;
        let (authority, now) = (authority(), crate::now());
        let source =
            Source::Authority { authorities: authority.clone(), names: vec!["localhost".to_owned()] };
        let certificate = CertificateDer::from(shown(&Served::open(source, now).unwrap()));
        let known = |by: &str, name: &'static str, clock: i64| {
            let verifier = crate::tls::late::Late::trusting(roots(by).unwrap()).unwrap();
            let name = ServerName::try_from(name).unwrap();
            let clock = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(clock).unwrap()));
            verifier.verify_server_cert(&certificate, &[], &name, &[], clock).is_ok()
        };
        let (ours, now) = (trusted(&authority), now.0.as_second());
        let ours = ours.as_str();
        assert!([0, now - 2 * DAY, now, now + 30 * DAY].iter().all(|clock| known(ours, "localhost", *clock)));
        assert!(!known(ours, "localhost", now + 400 * DAY), "it has ended");
        assert!(!known(ours, "elsewhere", 0) && !known(ours, "elsewhere", now));
        let other = trusted(&self::authority());
        assert!(!known(&other, "localhost", 0) && !known(&other, "localhost", now));
    }

    fn write_pair(folder: &Path) -> (Vec<u8>, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["hub.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        (certificate.der().to_vec(), key.serialize_pem().into_bytes())
    }

    #[test]
    fn changed_files_are_shown_and_a_bad_pair_keeps_the_one_before() {
        let (folder, now) = (tempfile::tempdir().unwrap(), crate::now());
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let source = Source::Files { certificate: certificate.clone(), key: key.clone() };
        assert!(
            Served::open(Source::Files { certificate: certificate.clone(), key: key.clone() }, now).is_err()
        );
        let (first, first_key) = write_pair(folder.path());
        let served = Served::open(source, now).unwrap();
        assert_eq!(shown(&served), first);
        assert!(!served.refresh(now).unwrap());
        let (second, second_key) = write_pair(folder.path());
        std::fs::write(&key, first_key).unwrap();
        assert!(served.refresh(now).is_err(), "the key of another certificate");
        assert!(!served.refresh(now).unwrap(), "told once");
        assert_eq!(shown(&served), first);
        std::fs::write(&key, second_key).unwrap();
        assert!(served.refresh(now).unwrap());
        assert_eq!(shown(&served), second);
        std::fs::remove_file(&certificate).unwrap();
        assert!(served.refresh(now).is_err());
        assert!(!served.refresh(now).unwrap(), "told once");
        assert_eq!(shown(&served), second);
    }
}
