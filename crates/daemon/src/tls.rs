//! TLS with an authority of one's own: a hub signs the certificate it shows, and whoever joins it or administers
//! it is given the authority's certificate by hand (in the join token, in the kubeconfig), so nobody in between
//! can pose as the hub.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// An authority: a key that signs, and its certificate.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// Certificates are good from a day ago, so that a clock that is late still takes them.
const EARLIER: i64 = 24 * 3600;

impl Authority {
    /// The authority kept in a folder (`ca.crt`, `ca.key`), or a new one.
    ///
    /// # Errors
    /// If its files can't be read or written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let (certificate_file, key_file) = (folder.join("ca.crt"), folder.join("ca.key"));
        let (certificate, key) = match std::fs::read_to_string(&certificate_file) {
            Ok(certificate) => {
                let key = KeyPair::from_pem(&std::fs::read_to_string(&key_file)?).map_err(failed)?;
                (certificate, key)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(failed)?;
                let certificate = authority_params().self_signed(&key).map_err(failed)?.pem();
                crate::write_private(&key_file, key.serialize_pem().as_bytes())?;
                crate::write_durably(&certificate_file, certificate.as_bytes())?;
                (certificate, key)
            }
            Err(error) => return Err(error),
        };
        // The same parameters give the same issuer name, which is all that signing takes from them.
        Ok(Self { certificate, issuer: Issuer::new(authority_params(), key) })
    }

    /// The authority's certificate, in PEM: what others need to know the hub by.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What a server needs to be known by these names and addresses. The certificate is made anew at every start.
    ///
    /// # Errors
    /// If a name is not one, or the key can't be made.
    pub fn server(&self, names: Vec<String>) -> io::Result<Arc<ServerConfig>> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "Avocet hub");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, 398);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .map_err(failed)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Avocet hub authority");
    set_validity(&mut params, 3650);
    params
}

fn set_validity(params: &mut CertificateParams, days: i64) {
    let now = jiff::Timestamp::now().as_second();
    let at = |second: i64| {
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(second).unwrap_or(0))
    };
    params.not_before = at(now - EARLIER).into();
    params.not_after = at(now + days * 24 * 3600).into();
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a client needs that trusts this authority (a certificate in PEM) and nobody else.
///
/// # Errors
/// If the text is no certificate.
pub fn client(authority: &str) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.map_err(failed)?).map_err(failed)?;
    }
    trusting(roots)
}

/// What a client needs that trusts nobody: for plain connections on this machine.
///
/// # Errors
/// Never on a machine where TLS works at all.
pub fn client_of_nobody() -> io::Result<ClientConfig> {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> io::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
